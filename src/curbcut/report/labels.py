"""What a person calls the figures of an account, and how they are grouped."""

from __future__ import annotations

from collections.abc import Mapping

GROUPS: Mapping[str, tuple[str, ...]] = {
    "time": ("seconds", "tokens", "tokens_per_second", "flops"),
    "memory": ("memory_bytes",),
    "use": ("mfu", "hfu", "goodput"),
    "money": ("usd",),
    "ways to pay": ("usd_ways",),
    "energy": ("watts", "kwh", "kwh_modelled", "joules_per_token"),
    "carbon": ("kgco2e",),
    "water": ("litres",),
    "loss": ("loss",),
}
"""Sections of an account, as a person groups them."""

_LABELS = {
    ("tokens", "trained"): "tokens", ("tokens_per_second", "steps"): "speed",
    ("tokens_per_second", "answers"): "asked to serve",
    ("tokens_per_second", "most"): "most to serve", ("memory_bytes", "server"): "to serve",
    ("mfu", "run"): "MFU", ("hfu", "run"): "HFU", ("goodput", "run"): "goodput",
    ("goodput", "ettr"): "ETTR",
    ("loss", "nats_per_token"): "nats a token", ("loss", "bits_per_byte"): "bits a byte",
    ("joules_per_token", "training"): "a token trained",
    ("joules_per_token", "answer"): "a token answered",
    ("joules_per_token", "most"): "answered, at most",
    ("joules_per_token", "device"): "a token answered, by sensors",
    ("usd", "development"): "experiments and failures", ("usd", "project"): "whole project",
    ("kwh", "project"): "whole project", ("kgco2e", "project"): "whole project",
    ("kgco2e", "market"): "market-based", ("litres", "water"): "consumed",
    ("usd_ways", "on_demand"): "rent on demand", ("usd_ways", "reserved_1y"): "rent reserved 1 y",
    ("usd_ways", "reserved_3y"): "rent reserved 3 y", ("usd_ways", "spot"): "rent spot",
    ("usd_ways", "own"): "own: loss of value, energy, room",
    ("usd_ways", "academic"): "granted: energy only",
    ("usd_ways", "epoch_amortised"): "Epoch: hardware written off + energy",
    ("usd_ways", "epoch_acquisition"): "Epoch: all hardware bought",
    ("usd_ways", "epoch_cloud"): "Epoch: rent of the cloud",
    ("usd_ways", "with_staff"): "with staff and experiments",
}
_SPEAKS_ALONE = frozenset({"ownership", "staff", "rent", "embodied", "gradients", "optimiser",
                           "activations", "logits"})
"""Kinds whose name is clear without the group's."""


def label(section: str, kind: str) -> str:
    """What a person calls one figure of an account."""
    known = _LABELS.get((section, kind))
    if known:
        return known
    kind = kind.replace("_", " ")
    return {"flops": f"{kind} FLOPs", "watts": f"{kind} power",
            "kwh_modelled": f"{kind} (model)"}.get(section, kind)


def called(section: str, kind: str) -> str:
    """A figure's name where it stands alone: its label, with its group where that says more."""
    said = label(section, kind)
    group = next(group for group, sections in GROUPS.items() if section in sections)
    clear = group in ("use", "loss", "ways to pay") or section in (
        "tokens", "tokens_per_second", "flops", "watts")
    return said if clear or kind in _SPEAKS_ALONE else f"{group} {said}"
