"""A run that stands goes on under another layout: what may differ, and what was before.

`runs/NAME/run.toml` and `plan.json` are those of the layout that the run goes on with. The earlier
ones are kept as `layouts/1`, `layouts/2` and so on; each `plan.json` says from which step its own
held. Only what leaves the weights alone may differ (`identity.LAYOUT` and the machine).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curbcut.errors import InputError
from curbcut.files import write_whole
from curbcut.ledger import codec as ledger_codec
from curbcut.ledger.inbox import FOLDER, Writer
from curbcut.spec import Account, Estimate, Resolved, Run, load
from curbcut.spec import codec as spec_codec
from curbcut.spec.draft import Draft, flatten
from curbcut.train import folder as run_folders
from curbcut.train.identity import LAYOUT, identity

KEPT = "layouts"
RANKS = frozenset((
    "dp_replicate", "dp_shard", "shard", "tp", "sequence_parallel", "pp", "pipeline",
    "virtual_stages", "cp", "context", "ep", "micro_batch", "recompute", "offload"))
"""Fields of the layout that only make sense together: where one of them or the machine is said
anew, the plan chooses those of which nothing is said."""
_ADDS_UP = ("seconds", "flops", "kwh", "kwh_modelled", "joules_per_token", "usd", "usd_ways",
            "kgco2e", "litres")


@dataclass(frozen=True)
class Layout:
    """One of the layouts that a run has had."""

    run: Run
    from_step: int
    """Steps done when it began."""
    forecast: Account
    """Of the whole run, were it trained under this layout alone."""


def changes(standing: Run, draft: Draft, folder: Path) -> dict[str, tuple[Any, Any]]:
    """What `draft` says of the layout other than it stands in `folder`: (there, said) by key.

    Raises InputError, naming the first, where anything else of the run is to differ.
    """
    values = flatten(spec_codec.plain(standing)) | run_folders.asked(folder)
    found = {key: (values[key], spec_codec.plain(said)) for key, said in draft.values.items()
             if key in values and values[key] != spec_codec.plain(said)}
    for key, (there, said) in found.items():
        if not _of_layout(key):
            raise InputError(
                f"a run named {standing.name!r} exists with {key} = {there!r}, not {said!r}",
                where=str(folder), mend="give another --name, or continue it with "
                f"`curbcut train {standing.name}`; only its layout may change")
    return found


def _of_layout(key: str) -> bool:
    table, _, name = key.partition(".")
    return table == "machine" or (table == "recipe" and name in LAYOUT)


def redrafted(folder: Path, draft: Draft, changed: Mapping[str, Any]) -> Draft:
    """`draft` with all else that stands in `folder`; what must be planned anew is left open.

    Limits are left open too: they were held when the run was planned, and hold while it trains.
    """
    standing, origins = load(folder / "run.toml"), _origins(folder)
    tables = {key.partition(".")[0] for key in changed}
    open_keys = {f"recipe.{name}" for name in RANKS} if "machine" in tables or any(
        key.partition(".")[2] in RANKS for key in changed) else set()
    kept = {key: value for key, value in standing.values.items()
            if key not in open_keys and not key.startswith("limits.")
            and not ("machine" in tables and key.startswith("machine."))}
    plain = Draft({key: value for key, value in draft.values.items()
                   if not key.startswith("limits.")}, draft.origins)
    said = {key: value for key, value in kept.items() if not _of_layout(key)}
    # Tokens were rounded to whole steps when the run was planned: those hold, whatever is said.
    plain = plain.with_values(said, "the run that stands", override=True)
    full = plain.with_values(kept, "the run that stands")
    return Draft(full.values, {key: origins.get(key, one) if one == "the run that stands" else one
                               for key, one in full.origins.items()})


def refuse_another_run(standing: Run, wanted: Run, folder: Path) -> None:
    """Raises InputError where `wanted` would have other weights than the run in `folder`."""
    if identity(standing) != identity(wanted):
        raise InputError("under that layout the run would be another: "
                         f"{run_folders.first_difference(standing, wanted)}", where=str(folder),
                         mend="give another --name, or another layout")


def take(folder: Path, resolved: Resolved, forecast: Account, asked: Draft, step: int,
         changed: Mapping[str, tuple[Any, Any]]) -> Account:
    """Makes `resolved` the layout of the run in `folder`, from `step` on; returns what is promised
    now: of the steps done what their layouts' forecasts said, of those to come what `forecast`
    (of the whole run under the new layout alone) says. The folder must be held.
    """
    parts = [*history(folder), Layout(resolved.run, step, forecast)]
    promised = promise(parts)
    said = {key: value for key, value in run_folders.asked(folder).items() if not _of_layout(key)}
    try:
        _keep(folder)
        run_folders.write_plan(folder, resolved, promised, said | spec_codec.plain(
            dict(asked.values)), from_step=step, whole=ledger_codec.plain(forecast))
    except OSError as error:
        raise InputError(f"cannot write here ({error.strerror})", where=str(folder),
                         mend="free some space or mend the rights; nothing was changed") from None
    with Writer(folder / FOLDER, resolved.run.name, "layout") as writer:
        writer.write("layout", {"number": len(parts), "step": step, "changes": {
            key: {"from": old, "to": new} for key, (old, new) in changed.items()}})
    return promised


def history(folder: Path) -> list[Layout]:
    """All layouts that the run in `folder` has had, oldest first; the last is that it has."""
    return [_read(one) for one in (*_kept(folder), folder)]


def _read(folder: Path) -> Layout:
    resolved, forecast = run_folders.read_plan(folder)
    plan = json.loads((folder / "plan.json").read_text())
    if "whole" in plan:
        forecast = ledger_codec.from_plain(plan["whole"], str(folder / "plan.json"))
    return Layout(resolved.run, int(plan.get("from_step", 0)), forecast)


def _origins(folder: Path) -> Mapping[str, str]:
    return run_folders.read_plan(folder)[0].origins


def _kept(folder: Path) -> list[Path]:
    found = [one for one in (folder / KEPT).glob("*") if one.name.isdigit()]
    return sorted(found, key=lambda one: int(one.name))


def _keep(folder: Path) -> None:
    """Copies the standing layout to `layouts/N`, whole or not at all; once, however often a change
    was begun and not finished.
    """
    kept, standing = _kept(folder), (folder / "run.toml").read_text()
    if kept and (kept[-1] / "run.toml").read_text() == standing:
        return
    number = 1 + (int(kept[-1].name) if kept else 0)
    aside = folder / KEPT / f".{number}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name in ("plan.json", "run.toml"):
        write_whole(aside / name, (folder / name).read_text())
    aside.rename(folder / KEPT / str(number))


def promise(parts: Sequence[Layout]) -> Account:
    """The forecast of a run whose steps are divided among `parts`: what adds up is added by share
    of steps, rates over all steps likewise; what is a state (memory, power) is the last one's.
    """
    steps = parts[-1].run.steps
    ends = [min(one.from_step, steps) for one in parts[1:]] + [steps]
    shares = [max(0, end - one.from_step) / steps for one, end in zip(parts, ends, strict=True)]
    last = parts[-1].forecast
    added = {section: {kind: _added([one.forecast.get(section, kind) for one in parts], shares)
                       for kind in getattr(last, section)} for section in _ADDS_UP}
    sections = {section: dict(getattr(last, section)) for section in last.__dataclass_fields__}
    return Account(**(sections | added))


def _added(found: Sequence[Estimate | None], shares: Sequence[float]) -> Estimate:
    """Sum of the estimates by share; the last one's where an earlier layout did not look at it."""
    used = [(one, share) for one, share in zip(found, shares, strict=True) if share]
    last = found[-1]
    assert last is not None
    if len(used) < 2 or any(one is None for one, _ in used):
        return used[0][0] if len(used) == 1 and used[0][0] is not None else last
    parts = [one.scaled(share) for one, share in used if one is not None]
    total = parts[0]
    for one in parts[1:]:
        total = total.plus(one)
    return total
