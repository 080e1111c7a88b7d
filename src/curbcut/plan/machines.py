"""A named fleet ("8xH100") as the fields of a `Machine`, from the facts."""

from __future__ import annotations

import dataclasses
from typing import Any

from curbcut.errors import InputError
from curbcut.facts import accelerators, constants
from curbcut.spec import codec
from curbcut.spec.nouns import Machine
from curbcut.units import parse_fleet

HERE = "here"
PER_NODE = 8
"""Accelerators that a rented node has where nobody says otherwise."""


def is_here(name: str) -> bool:
    """Whether a machine's name means the one that Curbcut runs on."""
    return parse_fleet(name)[1].casefold() == HERE


def ranks_here(name: str) -> int:
    """How many accelerators this machine is taken as: 2 for "2xhere"; 1 for "here", or another."""
    return parse_fleet(name)[0] if is_here(name) else 1


def from_here(here: Machine, name: str = HERE, nodes: int | None = None) -> dict[str, Any]:
    """Fields of the machine at hand; as "2xhere" its CPU is taken as two accelerators, which share
    its cores, memory, rates and watts, or two of its GPUs are. With `nodes`, that many equal ones.

    Raises InputError for a count that makes no whole nodes, or more GPUs than there are.
    """
    fields = {field.name: getattr(here, field.name) for field in dataclasses.fields(here)}
    count, nodes = parse_fleet(name, "machine.name")[0], nodes or 1
    if name.strip().casefold() == HERE and nodes == 1:
        return fields
    in_node = count // nodes
    if count % nodes:
        raise InputError(f"{count} accelerators are not {nodes} equal nodes",
                         where="machine.name", mend=f'set it to "{max(1, in_node) * nodes}xhere"')
    fields |= {"name": f"{count}x{HERE}", "accelerators_per_node": in_node, "nodes": nodes}
    if here.kind != "cpu":
        if in_node > here.accelerators_per_node:
            raise InputError(f"{in_node} accelerators a node are asked for and this machine has "
                             f"{here.accelerators_per_node}", where="machine.name",
                             mend=f'set it to "{here.accelerators_per_node * nodes}x{HERE}"')
        return fields
    shared = {key: {one: value / in_node for one, value in fields[key].items()}
              for key in ("memory_bytes_per_second", "peak_flops", "measured_flops", "watts")}
    note = f"taken as {in_node} accelerators that share its cores and memory"
    return fields | shared | {"memory_bytes": here.memory_bytes // in_node,
                              "source": "; ".join(filter(None, (here.source, note)))}


def from_facts(name: str, per_node: int | None = None, nodes: int | None = None) -> dict[str, Any]:
    """Fields of the fleet `name`; raises UnknownName for the accelerator, InputError for a count
    that makes no whole nodes.
    """
    count, wanted = parse_fleet(name, "machine.name")
    found = accelerators.accelerator(wanted)
    in_node = per_node or min(PER_NODE, -(-count // nodes) if nodes else count)
    if count > 1 and count % in_node:
        raise InputError(f"{count} accelerators are not whole nodes of {in_node}",
                         where="machine.name",
                         mend=f"ask for {count // in_node * in_node or in_node}x{found.id}, or set "
                              "machine.accelerators_per_node")
    return {
        "name": f"{count}x{found.id}", "accelerator": found.id,
        "kind": found.kind if found.kind in ("cpu", "gpu", "tpu") else "other",
        "accelerators_per_node": in_node, "nodes": nodes or max(1, count // in_node),
        "memory_bytes": found.memory_bytes,
        "memory_bytes_per_second": {"peak": found.memory_bytes_per_second},
        "peak_flops": dict(found.peak_flops),
        "link_bytes_per_second": int(found.link_bytes_per_second or 0),
        "watts": _watts(found), "source": f"{found.source} ({found.date})",
    }


def _watts(found: accelerators.Accelerator) -> dict[str, float]:
    if found.tdp_watts is None:
        return {}
    share = constants.constant(
        "tpu_power_ratio_training" if found.kind == "tpu" else "power_fraction_training")
    return {"max": found.tdp_watts, "low": share.low * found.tdp_watts,
            "typical": share.value * found.tdp_watts, "high": share.high * found.tdp_watts}


def build(fields: dict[str, Any]) -> Machine:
    """The machine of complete fields; raises InputError naming one that is missing."""
    machine: Machine = codec.build(Machine, fields, "machine")
    if not machine.memory_bytes:
        raise InputError("its memory is not known", where=f"machine {machine.name}",
                         mend="set machine.memory_bytes")
    return machine
