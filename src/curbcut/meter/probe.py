"""How fast this machine is: timed once in a few seconds, kept, and read back without torch.

Kept as one JSON file, by machine fingerprint, in $CURBCUT_HOME or ~/.cache/curbcut.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curbcut.errors import InputError
from curbcut.files import write_whole
from curbcut.meter import bench, detect
from curbcut.meter.bench import Rate
from curbcut.meter.clock import Clock, SystemClock
from curbcut.meter.detect import Detected
from curbcut.meter.fingerprint import fingerprint
from curbcut.meter.gpus import Gpu, through_torch

FORMAT = 1
BUDGET_SECONDS = 4.0
"""For all of it, the import of torch (a second or two) included."""
_BUSY_SHARE = 0.25
"""Of all cores, in use by others: above this the machine is busy."""
_LEAST_SECONDS = 1.5
"""For the timing, however long the import took."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was timed, with what, when and on which machine."""

    fingerprint: str
    date: str
    """Day and time in UTC, ISO 8601."""
    seconds: float
    """What the probe took, the library's import included."""
    library: str
    """"torch" or "numpy"."""
    version: str
    device: str
    """"cpu", or the GPU's name."""
    threads: int | None
    """CPU threads; None where the library does not tell."""
    flops: Mapping[str, float]
    """Achieved matmul FLOP/s by precision: the best size's median."""
    bytes_per_second: float | None
    """Achieved memory bandwidth: the better of copy and triad."""
    streams: Mapping[str, float] = field(default_factory=dict)
    """Bandwidth by kind of pass."""
    rates: tuple[Rate, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    """GPUs seen when it was probed: torch can see some that nothing else does."""
    disturbed: bool = False
    """Other work was running: the machine can do more than was timed."""
    notes: tuple[str, ...] = ()
    """What was not timed, and why."""
    links: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Between so many ranks on this machine's CPU: bytes_per_second and latency_seconds."""


@dataclass(frozen=True)
class Kept:
    """A kept probe, or why there is none that fits."""

    probe: Probe | None
    reason: str = ""


def run(detected: Detected | None = None, *, clock: Clock | None = None,
        budget_seconds: float = BUDGET_SECONDS, engine: Any = None) -> Probe:
    """Times matmul and memory with torch (on the GPU if it has one), else with numpy."""
    clock = clock or SystemClock()
    start = clock.seconds()
    detected = detected or detect.machine()
    disturbed = busy()
    notes: list[str] = []
    engine = engine or _engine(detected, notes)
    seen = detected.gpus
    if not seen and engine.library == "torch":
        seen = through_torch().gpus
    left = max(_LEAST_SECONDS, budget_seconds - (clock.seconds() - start))
    with engine.ready():
        benched = bench.run(engine, clock, left)
    return Probe(
        fingerprint=fingerprint(detected), date=clock.now().isoformat(timespec="seconds"),
        seconds=clock.seconds() - start, library=engine.library, version=engine.version,
        device=engine.device, threads=engine.threads, flops=_best(benched.rates),
        bytes_per_second=max(benched.bytes_per_second.values(), default=None),
        streams=benched.bytes_per_second, rates=benched.rates, gpus=seen,
        disturbed=disturbed or benched.disturbed, notes=(*notes, *benched.notes))


def _best(rates: Sequence[Rate]) -> dict[str, float]:
    """FLOP/s by precision: of the best size; of the first, tiny one only if there is no other."""
    best: dict[str, float] = {}
    for precision in dict.fromkeys(rate.precision for rate in rates):
        own = [rate for rate in rates if rate.precision == precision]
        real = [rate for rate in own if rate.size != bench.FIRST] or own
        best[precision] = max(rate.flops_per_second for rate in real)
    return best


def busy() -> bool:
    """Whether other work is running right now: what is timed is then less than the machine can do.

    Looks for a fifth of a second, while this process does nothing. The load average would not do:
    it still counts the installation that ended a moment ago.
    """
    import psutil

    try:
        return bool(psutil.cpu_percent(interval=0.2) > 100 * _BUSY_SHARE)
    except (OSError, RuntimeError):  # a container that hides /proc/stat
        return False


def _engine(detected: Detected, notes: list[str]) -> Any:
    from curbcut.meter import engines

    array_bytes = engines.array_bytes(detected.cache_bytes, detected.memory_bytes)
    try:
        return engines.TorchEngine(detected.cores, array_bytes)
    except (ImportError, OSError) as error:
        notes.append(f"torch cannot be imported ({error}): timed with numpy, which knows fp32 only "
                     "and copies with one thread, so a training run may be several times faster")
        return engines.NumpyEngine(array_bytes)


def file() -> Path:
    """Where probes are kept: $CURBCUT_HOME/probe.json, else ~/.cache/curbcut/probe.json."""
    home = os.environ.get("CURBCUT_HOME")
    return (Path(home) if home else Path.home() / ".cache" / "curbcut") / "probe.json"


def save(probe: Probe, path: Path | None = None) -> Path:
    """Keeps a probe beside those of other machines; the file is replaced whole, or not at all.

    Raises InputError where the folder cannot be written.
    """
    path = path or file()
    probes = _read(path)[0]
    probes[probe.fingerprint] = dataclasses.asdict(probe)
    content = json.dumps({"format": FORMAT, "probes": probes}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise InputError(f"the probe cannot be kept ({error.strerror})", where=str(path),
                         mend="set CURBCUT_HOME to a folder that can be written") from None
    return path


def load(detected: Detected | None = None, path: Path | None = None) -> Probe | None:
    """The probe kept for this machine, or None. Needs neither torch nor numpy."""
    return kept(detected or detect.machine(), path).probe


def kept(detected: Detected, path: Path | None = None) -> Kept:
    """The probe kept for `detected`, or in words why there is none. A damaged file is a reason,
    not an error: a probe can be made again."""
    path = path or file()
    probes, reason = _read(path)
    raw = probes.get(fingerprint(detected))
    if raw is None:
        return Kept(None, reason or "this machine has not been probed (`curbcut doctor` does it)")
    try:
        return Kept(_probe(raw))
    except (TypeError, KeyError, ValueError):
        return Kept(None, f"{path} holds a probe that cannot be read; it will be replaced")


def _read(path: Path) -> tuple[dict[str, Any], str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, f"{path} cannot be read ({error.strerror})"
    except ValueError:
        return {}, f"{path} is not JSON; it will be replaced"
    probes = content.get("probes") if isinstance(content, dict) else None
    if not isinstance(probes, dict) or content.get("format") != FORMAT:
        return {}, f"{path} has another format; it will be replaced"
    return probes, ""


def _probe(raw: Mapping[str, Any]) -> Probe:
    values = dict(raw)
    values["rates"] = tuple(Rate(**(r | {"size": tuple(r["size"])})) for r in raw["rates"])
    values["gpus"] = tuple(Gpu(**gpu) for gpu in raw["gpus"])
    values["notes"] = tuple(raw["notes"])
    values["flops"] = {str(k): float(v) for k, v in raw["flops"].items()}
    return Probe(**values)


def stale(probe: Probe, version: Callable[[str], str | None] | None = None) -> str:
    """Why `probe` no longer tells what this installation can do; empty while it does.

    `version(package)` gives an installed version or None.
    """
    if probe.disturbed:
        return "other work was running when it was timed"
    torch = (version or installed)("torch")
    if torch is None:
        return "" if probe.library == "numpy" else "torch is no longer installed"
    if probe.library == "numpy":
        return f"torch {torch} has been installed since"
    if torch != probe.version.split("+")[0] and torch != probe.version:
        return f"torch was {probe.version} and is {torch}"
    return ""


def installed(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def with_link(detected: Detected, probe: Probe, ranks: int, path: Path | None = None) -> Probe:
    """The probe with what so many ranks on the CPU pass to each other: timed once, then kept.

    As it is where torch is missing: what a plan does not know it takes from the facts.
    """
    if str(ranks) in probe.links or installed("torch") is None:
        return probe
    from curbcut.meter import link

    found = link.probe(ranks)
    one = {"bytes_per_second": found.bytes_per_second, "latency_seconds": found.latency_seconds}
    more = dataclasses.replace(probe, links={**probe.links, str(ranks): one})
    with contextlib.suppress(InputError):  # it can be timed again
        save(more, path)
    return more


def _faster(old: Probe | None, made: Probe) -> Probe:
    """The new probe; where both were disturbed, with the better of the two in each figure.

    Other work only ever makes the same library on the same device slower.
    """
    if old is None or not (old.disturbed and made.disturbed):
        return made
    if (old.library, old.version, old.device) != (made.library, made.version, made.device):
        return made
    best = {p: max((old, made), key=lambda probe: probe.flops.get(p, 0.0))
            for p in {**old.flops, **made.flops}}
    rates = tuple(r for p, probe in best.items() for r in probe.rates if r.precision == p)
    memory = max((old, made), key=lambda probe: probe.bytes_per_second or 0.0)
    return dataclasses.replace(
        made, flops={p: probe.flops[p] for p, probe in best.items()}, rates=rates,
        bytes_per_second=memory.bytes_per_second, streams=memory.streams)


def fresh(detected: Detected, *, again: bool = False, allowed: bool = True,
          probe: Callable[[Detected], Probe] = run, path: Path | None = None) -> Kept:
    """The kept probe while it still holds; else a new one, kept, unless probing is not `allowed`.

    `reason` says what was done; that a new probe could not be kept is told there, not raised.
    """
    old = kept(detected, path)
    why = old.reason if old.probe is None else stale(old.probe)
    if old.probe is not None and not again and not why:
        return Kept(old.probe, f"kept since {old.probe.date}")
    if not allowed:
        return Kept(old.probe, f"not probed now; {why or 'a kept probe is shown'}")
    made = _faster(old.probe, probe(detected))
    if old.probe is not None and not again:
        made = dataclasses.replace(made, links=old.probe.links)
    try:
        return Kept(made, f"probed now, kept in {save(made, path)}")
    except InputError as error:
        return Kept(made, f"probed now; {error.what} in {error.where}: {error.mend}")
