"""Another layout for a run that stands: planned, checked, and taken from the next launch on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from curbcut.data.corpus import Corpus
from curbcut.launch.local import newest_step
from curbcut.plan.calibration import Pair
from curbcut.plan.forecast import forecast as price
from curbcut.plan.machines import HERE, is_here, ranks_here
from curbcut.plan.resolve import resolve
from curbcut.spec import Account, Draft, Estimate, Machine, Resolved
from curbcut.train import folder as run_folders
from curbcut.train import layouts, lock, refusals


@dataclass(frozen=True)
class Proposal:
    """A standing run under another layout, before anything was changed."""

    resolved: Resolved
    forecast: Account
    """Of the whole run under this layout alone."""
    changed: Mapping[str, tuple[Any, Any]]
    """What was asked to differ: (there, said) by dotted key."""


def propose(folder: Path, draft: Draft, changed: Mapping[str, tuple[Any, Any]], corpus: Corpus, *,
            machine: Callable[[int], Machine], pairs: Sequence[Pair],
            project: Estimate | None = None) -> Proposal:
    """The run in `folder` with the layout that `draft` asks for, the rest of it planned anew.

    `machine` probes this computer as so many ranks; it is asked only where the machine changes.
    Raises InputError where the plan or the trainer refuses it, or other weights would come of it.
    """
    standing, _ = run_folders.read_plan(folder)
    full, here = layouts.redrafted(folder, draft, changed), standing.run.machine
    name = full.get("machine.name", HERE)
    if is_here(name) and any(key.startswith("machine.") for key in changed):
        here = machine(ranks_here(name))
    found = resolve(full, here=here, corpus=corpus, pairs=pairs)
    # A limit and a price were agreed on for the run, not for its layout.
    run = replace(found.run, limits=standing.run.limits)
    layouts.refuse_another_run(standing.run, run, folder)
    refusals.check(run.model, run.recipe, run.machine)
    return Proposal(Resolved(run, found.origins),
                    price(run, pairs, corpus=corpus, project=project), changed)


def take(folder: Path, proposal: Proposal, asked: Draft) -> tuple[Resolved, Account, int]:
    """Gives the run in `folder` that layout, from its newest checkpoint on: the run, what is now
    promised for all of it, and that step. Raises RunBusy while another process trains it.
    """
    with lock.held(folder):
        step = newest_step(folder)
        promised = layouts.take(folder, proposal.resolved, proposal.forecast, asked, step,
                                proposal.changed)
    return proposal.resolved, promised, step


def said(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """The changes in one line for a person."""
    return ", ".join(f"{key.removeprefix('recipe.')} {old} -> {new}"
                     for key, (old, new) in sorted(changed.items()))
