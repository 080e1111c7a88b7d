"""This machine as a `Machine`: what was detected, what was probed, and the facts about its GPU."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from curbcut.errors import UnknownName
from curbcut.facts import accelerators
from curbcut.facts.accelerators import Accelerator
from curbcut.facts.constants import constant
from curbcut.meter import detect, gpus, probe
from curbcut.meter.detect import Detected
from curbcut.meter.gpus import Gpu
from curbcut.meter.probe import Probe
from curbcut.spec import Machine

_NOISE = {"nvidia", "tesla", "geforce", "amd", "instinct", "gpu", "graphics", "server",
          "workstation", "edition"}
_FORMS = {"pcie", "nvl"}
_MEMORY_TOLERANCE = 0.1
"""Drivers report up to a tenth less than the vendor's figure (ECC, GiB against GB)."""


def machine(detected: Detected | None = None, kept: Probe | None = None,
            environment: Mapping[str, str] | None = None, ranks: int = 1) -> Machine:
    """This machine, from `detected` and a kept probe (both looked up when not given); with `ranks`,
    how fast so many on its CPU pass bytes to each other, where that was timed.

    Without a probe `measured_flops` is empty; `source` says what is missing. Imports no torch.
    """
    if detected is None:
        detected = detect.machine()
    if kept is None:
        kept = probe.load(detected)
    found = _gpus(detected, kept, os.environ if environment is None else environment)
    notes: list[str] = []
    if found and kept is not None and kept.library == "torch" and kept.device == "cpu":
        notes.append(f"{found[0].name} is here, but this build of torch cannot use it")
        found = ()
    if found:
        return _gpu_machine(detected, kept, found)
    between = kept.links.get(str(ranks), {}) if kept is not None and ranks > 1 else {}
    return replace(_cpu_machine(detected, kept, notes),
                   link_bytes_per_second=int(between.get("bytes_per_second", 0)))


def _gpus(detected: Detected, kept: Probe | None,
          environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Those detected, or those that torch saw when it was probed (it sees some nothing else does).

    The driver's files tell no memory size; the probe may know it.
    """
    if kept is None or not kept.gpus or gpus.hidden(environment):
        return detected.gpus
    memory = {gpu.name: gpu.memory_bytes for gpu in kept.gpus}
    if not detected.gpus and "gpus" in detected.reasons and kept.device != "cpu":
        return () if "hides" in detected.reasons["gpus"] else kept.gpus
    return tuple(gpu if gpu.memory_bytes else
                 Gpu(gpu.name, gpu.index, gpu.uuid, memory.get(gpu.name), gpu.found_by)
                 for gpu in detected.gpus)


def _cpu_machine(detected: Detected, kept: Probe | None, notes: list[str]) -> Machine:
    usable = kept if kept is not None and kept.device == "cpu" else None
    memory = detected.memory_bytes or 0
    for missing in ("cores", "memory_bytes", "cpu_model"):
        if getattr(detected, missing) is None:
            notes.append(f"{missing} unknown: {detected.reasons.get(missing, 'not told')}")
    return Machine(
        name="here", accelerator=detected.cpu_model or "unknown CPU", kind="cpu",
        memory_bytes=memory, memory_bytes_per_second=_bandwidth(usable), peak_flops={},
        measured_flops=dict(usable.flops) if usable else {}, host_memory_bytes=memory,
        disk_bytes=detected.disk_bytes or 0, cores=detected.cores or 0,
        watts=cpu_watts(detected), source=_source(usable, notes))


def _gpu_machine(detected: Detected, kept: Probe | None, found: Sequence[Gpu]) -> Machine:
    first = found[0]
    same = [gpu for gpu in found if gpu.name == first.name]
    notes = [f"{len(found) - len(same)} other GPUs are left out"] if len(same) < len(found) else []
    known = accelerator_of(first)
    if known is None:
        notes.append(f"the facts do not know {first.name}: peak rates and rated power unknown")
    usable = kept if kept is not None and kept.device == first.name else None
    bandwidth = _bandwidth(usable)
    if known is not None:
        bandwidth["peak"] = known.memory_bytes_per_second
    return Machine(
        name="here", accelerator=known.id if known else first.name, kind="gpu",
        accelerators_per_node=len(same),
        memory_bytes=first.memory_bytes or (known.memory_bytes if known else 0),
        memory_bytes_per_second=bandwidth, peak_flops=dict(known.peak_flops) if known else {},
        measured_flops=dict(usable.flops) if usable else {},
        link_bytes_per_second=int((known.link_bytes_per_second if known else None) or 0),
        host_memory_bytes=detected.memory_bytes or 0, disk_bytes=detected.disk_bytes or 0,
        cores=detected.cores or 0, watts=gpu_watts(known), source=_source(usable, notes))


def _bandwidth(kept: Probe | None) -> dict[str, float]:
    if kept is None or kept.bytes_per_second is None:
        return {}
    return {"measured": kept.bytes_per_second}


def _source(kept: Probe | None, notes: Sequence[str]) -> str:
    if kept is not None and kept.disturbed:
        notes = ["other work was running when it was probed: it can do more", *notes]
    told = (f"detected here; probed {kept.date[:10]} with {kept.library} {kept.version}" if kept
            else "detected here; not probed (`curbcut doctor` does it)")
    return "; ".join((told, *notes))


def cpu_watts(detected: Detected) -> dict[str, float]:
    """Modelled watts of the cores and memory that this process may use; {} if cores are unknown.

    Watts by virtual core at full load (idle for "idle") of the maker's servers, plus watts by GB:
    constants `vcpu_watts_*` and `memory_watts_per_gb`. "max" is the upper end of the interval.
    """
    if detected.cores is None:
        return {}
    maker = _maker(detected.cpu_model or "")
    full, idle = constant(f"vcpu_watts_max{maker}"), constant(f"vcpu_watts_min{maker}")
    by_gb, gigabytes = constant("memory_watts_per_gb"), (detected.memory_bytes or 0) / 1e9
    high = detected.cores * (full.high or full.value) + gigabytes * (by_gb.high or by_gb.value)
    return {
        "low": detected.cores * (full.low or full.value) + gigabytes * (by_gb.low or by_gb.value),
        "typical": detected.cores * full.value + gigabytes * by_gb.value, "high": high,
        "max": high, "idle": detected.cores * idle.value + gigabytes * by_gb.value}


def _maker(model: str) -> str:
    folded = model.casefold()
    if any(word in folded for word in ("amd", "epyc", "ryzen")):
        return "_amd"
    return "_intel" if any(word in folded for word in ("intel", "xeon")) else ""


def gpu_watts(known: Accelerator | None) -> dict[str, float]:
    """Watts of one GPU from its rated power and the shares of it seen in training; {} if unknown.

    Constants `power_fraction_training` and `power_fraction_idle`.
    """
    if known is None or known.tdp_watts is None:
        return {}
    share, idle, rated = (constant("power_fraction_training"), constant("power_fraction_idle"),
                          known.tdp_watts)
    return {"low": rated * (share.low or share.value), "typical": rated * share.value,
            "high": rated * (share.high or share.value), "max": rated,
            "idle": rated * idle.value}


def accelerator_of(gpu: Gpu) -> Accelerator | None:
    """The row of the facts that a driver's name ("NVIDIA H100 80GB HBM3") means, or None.

    A name that the facts know by itself is taken. Else every word of the name must be the row's
    ("RTX 4080 SUPER" is not an RTX 4080); of those left, the one with the fewest words more, and
    not a PCIe or NVL card unless the name says so. The memory must agree in any case.
    """
    try:
        row = accelerators.accelerator(gpu.name)
        if _agrees(gpu.memory_bytes, row.memory_bytes):
            return row
    except UnknownName:
        pass
    words = _words(gpu.name)
    best: tuple[float, Accelerator] | None = None
    for row in accelerators.accelerators():
        own = _words(row.id) | _words(row.name)
        if not words or not words <= own or not _agrees(gpu.memory_bytes, row.memory_bytes):
            continue
        surplus = len(own - words) + 10 * len((own - words) & _FORMS)
        if best is None or surplus < best[0]:
            best = (surplus, row)
    return best[1] if best else None


def _words(name: str) -> set[str]:
    folded = re.sub(r"(\d+)\s*gb\b", " ", name.casefold())
    words = re.findall(r"[a-z0-9]+", folded)
    return {re.sub(r"^sxm\d*$", "sxm", w) for w in words if w not in _NOISE
            and not re.fullmatch(r"hbm\d\w*", w)}


def _agrees(found: int | None, stated: float) -> bool:
    return found is None or abs(found - stated) <= _MEMORY_TOLERANCE * stated
