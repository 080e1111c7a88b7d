"""Published energy of training, read from two kinds of tables into one form.

People publish energy in four ways: measured power or energy, accelerator-hours times the rated
power (an upper bound for the accelerators that leaves out the rest), the idle part alone, or tonnes
of carbon only. Which it is decides what it can be held against.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from curbcut.plan.validation import machines
from curbcut.plan.validation.cells import LARGEST, CannotExpress, Cells
from curbcut.plan.validation.score import Unexpressed
from curbcut.spec.nouns import Machine

Way = Literal["measured", "rated", "idle"]
Boundary = Literal["device", "node", "all equipment"]
ENERGY_COLUMNS = ("energy", "energy_unit", "quantity", "hardware")
RUN_COLUMNS = ("model", "gpu", "energy_mwh_reported", "power_w_per_gpu_reported")
RUNS = "published runs"
_KWH = {"wh": 1e-3, "kwh": 1.0, "mwh": 1e3, "gwh": 1e6, "twh": 1e9, "j": 1 / 3.6e6,
        "kj": 1e3 / 3.6e6, "mj": 1e6 / 3.6e6, "gj": 1e9 / 3.6e6, "tj": 1e12 / 3.6e6}
_SCALE = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}
_FIGURE = r"(\d[\d,_]*\.?\d*(?:e[+-]?\d+)?)\s*"
_TOTAL = re.compile(
    _FIGURE + r"(k|m|b|million|thousand)?\s*[a-z][\w-]*?(?:\s(?:gpu|tpu|chip)s?)?[- ]*"
    r"(?:h|hrs?|hours?)\b", re.I)
"""Hours of all accelerators: something stands between the figure and its hours ("GPU-h")."""
_SPAN = re.compile(_FIGURE + r"(days?|d|hours?|hrs?|h|weeks?|months?)\b", re.I)
_COUNT = re.compile(r"(?:(?<![\w.,-])|(?<=\bx))(\d[\d,]*)(k?)(?=\s*(?:x\b|x?\s*[a-z]|$))", re.I)
_BARE = re.compile(_FIGURE + r"(k|m|b|million|thousand)?$", re.I)
"""A figure and no more, which is accelerator-hours where the method multiplies such."""
_BY_HOURS = re.compile(r"[a-z]-?\s?(?:h|hrs?|hours?)\b\s*x|\bhours?\s*x|x\s*tdp|\btdp\b", re.I)
_SPAN_HOURS = {"h": 1.0, "d": 24.0, "w": 168.0, "m": 730.5}
_WATTS = re.compile(_FIGURE + r"(k?)w(?:atts?)?\b(?!\s*h)", re.I)
_NODE = re.compile(r"\b(system|server|node|host|cluster|wall|full[- ]stack)\b", re.I)
_DEVICE = re.compile(r"gpu power|gpu[- ]only|nvml|nvidia-smi|accelerator power", re.I)
_ALL = re.compile(r"all (?:other )?equipment|x ?1\.74", re.I)
_WHOLE_LIFE = re.compile(r"embodied|life[- ]?cycle|\blca\b|manufactur", re.I)
_RATED = re.compile(r"\btdp\b|rated|thermal design|peak power", re.I)
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s?([mbt])\b(?!\s*x)", re.I)
_TOKENS = re.compile(_FIGURE + r"([mbt])(?:illion|rillion)?\s*tokens", re.I)
SAME_WATTS = 0.02
"""A stated power so near to the rated one is the rated one."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What somebody published of one run's energy."""

    id: str
    source: str
    kwh: float
    hours: float | None
    """Accelerator-hours; None where they were not published."""
    watts: float | None
    """Stated power an accelerator, of its boundary."""
    pue: float | None
    """Stated power usage effectiveness; None where none is."""
    machine: Machine
    """One accelerator."""
    way: Way
    boundary: Boundary
    from_memory: bool
    """Whether the table says that the figure was not read."""
    cells: Cells
    """The row, with what was assumed."""


Found = tuple[list[Published], list[Unexpressed]]


def of_energy(lines: Sequence[Mapping[str, str]]) -> Found:
    """Training rows of a table of energies, and those that cannot be read."""
    hours: dict[str, tuple[float, str]] = {}
    for line in lines:
        _note_hours(Cells(line), hours)
    return _read(lines, "name", lambda cells: cells.text("source") or "unnamed source",
                 lambda cells, name, source: _energy_row(cells, name, source, hours))


def of_runs(lines: Sequence[Mapping[str, str]]) -> Found:
    """Rows of a table of published runs that say energy or power, and the others."""
    return _read(lines, "model", lambda cells: RUNS,
                 lambda cells, name, source: _run_row(cells, name))


def _read(lines: Sequence[Mapping[str, str]], named: str, source_of: Callable[[Cells], str],
          read: Callable[[Cells, str, str], Published]) -> Found:
    found: list[Published] = []
    left: list[Unexpressed] = []
    for line in lines:
        cells = Cells(line)
        name, source = cells.text(named) or "?", source_of(cells)
        try:
            found.append(read(cells, name, source))
        except CannotExpress as error:
            left.append(Unexpressed(name, source, str(error)))
    return found, left


def _run_of(cells: Cells) -> str:
    """The run that a row is a part of: its name before a bracket."""
    return cells.text("name").partition("(")[0].strip().casefold()


def _is_idle(cells: Cells) -> bool:
    words = (cells.text(name) for name in ("name", "basis", "method"))
    return "idle" in " ".join(words).casefold()


def _note_hours(cells: Cells, hours_of: dict[str, tuple[float, str]]) -> None:
    """Keeps a run's accelerator-hours and hardware for its row of idle energy."""
    try:
        hours = None if _is_idle(cells) else _hours(cells)
    except CannotExpress:
        return
    if hours is not None:
        hours_of.setdefault(_run_of(cells), (hours, cells.text("hardware")))


def _energy_row(cells: Cells, name: str, source: str,
                hours_of: dict[str, tuple[float, str]]) -> Published:
    said = f"{cells.text('basis')} {cells.text('method')}".casefold()
    idle = _is_idle(cells)
    kwh, hours, hardware = _kwh(cells), _hours(cells), cells.text("hardware")
    run = _run_of(cells)
    if hours is None and idle:
        if run not in hours_of:
            raise CannotExpress("idle energy without the hours of its machine")
        hours, hardware = hours_of[run]
        cells.assume(f"{hours:,.0f} accelerator-hours of the same run's other row")
    machine = machines.accelerator(cells, _accelerator_name(hardware))
    note, pue = cells.text("note"), cells.positive("pue")
    watts = _stated_watts(said) or _stated_watts(note)
    implied = kwh / hours * 1000 / (pue or 1.0) if hours else None
    return Published(id=name, source=source, kwh=kwh, hours=hours, watts=watts, pue=pue,
                     machine=machine, way="idle" if idle else _way(said, watts, machine),
                     boundary=_boundary(f"{said} {note} {hardware}", watts or implied, machine),
                     from_memory="memory" in f"{cells.text('status')} {source}".casefold(),
                     cells=_with_work(cells, machine))


def _with_work(cells: Cells, machine: Machine) -> Cells:
    """The row with columns of a published run: parameters from a name like "OLMo 1B" and tokens
    from a quantity like "3T tokens", where both are there.
    """
    size = _SIZE.search(cells.text("name"))
    tokens = _TOKENS.search(f"{cells.text('quantity')} {cells.text('note')}")
    if not size or not tokens:
        return cells
    scale = {"m": 1e6, "b": 1e9, "t": 1e12}
    parameters = f"{float(size[1]) * scale[size[2].casefold()]:g}"
    columns = {"params_total": parameters, "params_active": parameters,
               "tokens": f"{_number(tokens[1]) * scale[tokens[2].casefold()]:g}",
               "gpu": machine.accelerator}
    return Cells({**cells.cells, **columns}, cells.assumed)


def _kwh(cells: Cells) -> float:
    """Energy in kWh; from carbon over its grid's intensity where only that is published."""
    written = cells.text("energy_unit")
    unit = written.casefold().replace(" ", "")
    value = cells.positive("energy")
    if value is None:
        tonnes, grams = cells.positive("tco2e"), cells.positive("g_per_kwh")
        words = " ".join(cells.text(name) for name in ("name", "basis", "method"))
        if _WHOLE_LIFE.search(words):
            raise CannotExpress("no energy published, and its carbon is more than that of energy")
        if tonnes and grams:
            cells.assume("energy from tCO2e over g/kWh")
            return tonnes * 1e6 / grams
        raise CannotExpress("no energy published" + (", only tCO2e" if tonnes else ""))
    if "/" in unit or " per " in f" {written} ":
        raise CannotExpress(f"energy in {written}: of how much work is not said")
    if unit not in _KWH:
        raise CannotExpress(f"energy in {written or 'no unit'}, which is no unit we know")
    return value * _KWH[unit]


def _hours(cells: Cells) -> float | None:
    """Accelerator-hours of `quantity` ("1.46e+06 GPU-h", "384 x 117 days"), with the count of
    `hardware` where it gives a time only; a bare "3.9M" where the method multiplies hours.
    """
    text = cells.text("quantity").replace("×", "x")
    total = _TOTAL.search(text)
    if total:
        scale = (total[2] or "")[:1].casefold().replace("t", "k")
        return _hours_or_none(_number(total[1]) * _SCALE[scale], text)
    bare = _BARE.fullmatch(text)
    if bare and _BY_HOURS.search(f"{cells.text('basis')} {cells.text('method')}"):
        cells.assume(f"quantity {text} read as accelerator-hours")
        scale = (bare[2] or "")[:1].casefold().replace("t", "k")
        return _hours_or_none(_number(bare[1]) * _SCALE[scale], text)
    span = _SPAN.search(text)
    if not span:
        return None
    rest = text[:span.start()] + " " + text[span.end():]
    counted = _COUNT.search(rest) or _COUNT.search(cells.text("hardware").replace("×", "x"))
    if not counted:
        return None
    count = _number(counted[1]) * _SCALE[counted[2].casefold()]
    return _hours_or_none(count * _number(span[1]) * _SPAN_HOURS[span[2][0].casefold()], text)


def _hours_or_none(hours: float, text: str) -> float | None:
    if hours > LARGEST:
        raise CannotExpress(f"quantity is {text!r}, beyond anything measured")
    return hours or None


def _number(text: str) -> float:
    return float(text.replace(",", "").replace("_", ""))


def _accelerator_name(hardware: str) -> str:
    """The accelerator's name without its count, its precision and words around it."""
    name = re.sub(r"^\s*\d[\d,]*\s*(?:x|×)?\s*(?=[A-Za-z])", "", hardware)
    name = re.sub(r"\(.*?\)", "", name)
    name = re.sub(r"\b(?:bfloat16|bf16|fp16|fp8|mxfp4|int8|server share|gpus?|chips?)\b", "", name,
                  flags=re.I).strip(" ,;")
    if not name:
        raise CannotExpress("no accelerator")
    return name


def _stated_watts(text: str) -> float | None:
    found = _WATTS.search(text)
    return _number(found[1]) * (1000 if found[2] else 1) if found else None


def _way(said: str, watts: float | None, machine: Machine) -> Way:
    """Measured, or hours times the rated power: where that is said, or what power is stated is
    the rated one.
    """
    if _RATED.search(said):
        return "rated"
    return "rated" if "measured" not in said and _is_rated(watts, machine) else "measured"


def _is_rated(watts: float | None, machine: Machine) -> bool:
    rated = machine.watts.get("max")
    return bool(watts and rated and abs(watts / rated - 1) <= SAME_WATTS)


def _boundary(words: str, watts: float | None, machine: Machine) -> Boundary:
    """What a published power covers: a figure above the rated power holds more than the
    accelerator.
    """
    if _ALL.search(words):
        return "all equipment"
    if _DEVICE.search(words):
        return "device"
    rated = machine.watts.get("max")
    if watts and rated and watts > rated * (1 + SAME_WATTS):
        return "node"
    return "node" if _NODE.search(words) else "device"


def _run_row(cells: Cells, name: str) -> Published:
    mwh, watts = cells.positive("energy_mwh_reported"), cells.positive("power_w_per_gpu_reported")
    if mwh is None and watts is None:
        raise CannotExpress("no energy and no power published")
    pue, hours = cells.positive("pue"), cells.positive("gpu_hours")
    if hours is None:
        wall, count = cells.positive("wall_hours"), cells.positive("n_gpus")
        hours = wall * count if wall and count else None
    machine = machines.accelerator(cells, cells.text("gpu"))
    if mwh is None:
        assert watts is not None
        cells.assume("energy from the published power")
        hours = hours or 1.0
        mwh = hours * watts * (pue or 1.0) / 1e6
    implied = watts or (mwh * 1e6 / hours / (pue or 1.0) if hours else None)
    return Published(id=name, source=RUNS, kwh=mwh * 1e3, hours=hours, watts=watts, pue=pue,
                     machine=machine, way="rated" if _is_rated(watts, machine) else "measured",
                     boundary=_boundary("", implied, machine), from_memory=_remembered(cells),
                     cells=cells)


def _remembered(cells: Cells) -> bool:
    """Whether the row's sources say that its energy was not read."""
    return any("memory" in clause and re.search(r"[mgk]wh|energy|\bwatts?\b|\d ?w\b", clause)
               for clause in cells.text("sources").casefold().split(";"))
