"""A run's folder: one name, one run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curbcut.errors import DamagedFile, InputError
from curbcut.evaluate.bits import BitsPerByte
from curbcut.files import write_whole
from curbcut.ledger import codec as ledger_codec
from curbcut.spec import Account, Resolved, Run, dumps, load
from curbcut.spec import codec as spec_codec
from curbcut.spec.draft import Draft

if TYPE_CHECKING:
    from curbcut.evaluate.samples import Sample

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Ending:
    """Why a training ended, and what it measured."""

    reason: str
    measured: Account
    resumable: bool = False
    """Whether it was stopped before its end, to go on later."""


def run_folder(runs: Path, name: str) -> Path:
    """`runs/NAME`; raises InputError for a name that is not one plain folder name, or no folder."""
    if runs.exists() and not runs.is_dir():
        raise InputError("is a file, not a folder of runs", where=str(runs),
                         mend="name a folder with --runs")
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name a run", where="name",
                         mend="use letters, digits, '.', '_' and '-', beginning with a letter")
    return runs / name


def digest(run: Run) -> str:
    """Hash of a run as it was settled, its layout included: model, recipe, job, machine, seed.

    The machine's probed rates, the place and the limits may change between attempts.
    """
    decides = replace(run, machine=replace(run.machine, measured_flops={}, peak_flops={}, watts={},
                                           memory_bytes_per_second={}, memory_bytes=0,
                                           disk_bytes=0, host_memory_bytes=0, source=""))
    plain = spec_codec.plain(decides)
    for table in ("limits", "place", "serve"):
        plain.pop(table)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def claim(folder: Path, resolved: Resolved, forecast: Account,
          asked: Draft | None = None) -> None:
    """Writes `run.toml` and `plan.json`; raises InputError when the name is another run's.

    `asked` is what the person said: the plan may round it (tokens to whole steps) or say it in
    other words ("8xH100"), and who says the same again asks for the same run.
    """
    path = folder / "run.toml"
    if path.exists():
        standing = load(path).complete().run
        if digest(standing) != digest(resolved.run):
            raise InputError(
                f"a run named {resolved.run.name!r} exists and differs: "
                f"{first_difference(standing, resolved.run)}", where=str(folder),
                mend=f"give another --name, or continue it with `curbcut train {standing.name}`")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        said = spec_codec.plain(dict(asked.values)) if asked else {}
        write_plan(folder, resolved, forecast, said)
    except OSError as error:
        raise InputError(f"cannot write here ({error.strerror})", where=str(folder),
                         mend="choose another --runs folder") from None


def write_plan(folder: Path, resolved: Resolved, forecast: Account, asked: Mapping[str, Any],
               **more: Any) -> None:
    """Writes `plan.json`, then `run.toml`, which is what makes the folder a run's; raises OSError.
    """
    plan = {"run": spec_codec.plain(resolved.run), "origins": dict(resolved.origins),
            "asked": dict(asked), "forecast": ledger_codec.plain(forecast), **more}
    write_whole(folder / "plan.json", json.dumps(plan, indent=1))
    write_whole(folder / "run.toml", dumps(resolved))


def asked(folder: Path) -> dict[str, Any]:
    """What was said when the run was claimed, by dotted key; empty where it was not kept."""
    try:
        plan = json.loads((folder / "plan.json").read_text())
        return dict(plan.get("asked", {}))
    except FileNotFoundError:
        return {}


def read_plan(folder: Path) -> tuple[Resolved, Account]:
    """The run of a folder and what was promised for it; raises DamagedFile if it is not whole."""
    mend = "restore it from a copy, or begin again under another --name; nothing was changed"
    try:
        resolved = load(folder / "run.toml").complete()
    except InputError as error:
        raise DamagedFile(f"is damaged ({error.what})", where=str(folder / "run.toml"),
                          mend=mend) from None
    try:
        plan = json.loads((folder / "plan.json").read_text())
        origins = dict(plan.get("origins", {}))
        forecast = ledger_codec.from_plain(plan["forecast"], str(folder / "plan.json"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DamagedFile("is missing or damaged", where=str(folder / "plan.json"),
                          mend=mend) from None
    return Resolved(resolved.run, origins), forecast


def ended(folder: Path) -> Ending | None:
    """How training in this folder ended, or None where it has not yet."""
    ending = last_ending(folder)
    return None if ending is None or ending.resumable else ending


def last_ending(folder: Path) -> Ending | None:
    """How the last process that trained here ended, for good or to go on; None for never."""
    try:
        raw = json.loads((folder / "account.json").read_text())
        account = ledger_codec.from_plain(raw["measured"], str(folder / "account.json"))
        return Ending(raw["stop"], account, bool(raw["resumable"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise DamagedFile("cannot be read", where=str(folder / "account.json"),
                          mend="delete it and train again: the last checkpoint is used") from None


def write_evaluation(folder: Path, result: BitsPerByte) -> None:
    """Writes `evaluation.json`: the final weights on all held-out text."""
    write_whole(folder / "evaluation.json", json.dumps(asdict(result)))


def read_evaluation(folder: Path) -> BitsPerByte | None:
    """What `write_evaluation` wrote; None where it is missing or damaged: it can be done again."""
    try:
        return BitsPerByte(**json.loads((folder / "evaluation.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_samples(folder: Path, samples: list[Sample]) -> None:
    """Writes `samples.json`: what the final weights wrote."""
    write_whole(folder / "samples.json", json.dumps([asdict(one) for one in samples], indent=1))


def read_samples(folder: Path) -> list[Sample] | None:
    """What `write_samples` wrote; None where it is missing or damaged: it can be done again."""
    from curbcut.evaluate.samples import Sample

    try:
        return [Sample(**one) for one in json.loads((folder / "samples.json").read_text())]
    except (OSError, ValueError, TypeError):
        return None


def write_ending(folder: Path, reason: str, resumable: bool, measured: Account) -> None:
    """Writes `account.json`."""
    write_whole(folder / "account.json", json.dumps(
        {"stop": reason, "resumable": resumable, "measured": ledger_codec.plain(measured)},
        indent=1))


def first_difference(standing: Run, wanted: Run) -> str:
    """The first field in which two runs differ, and how."""
    old, new = spec_codec.plain(standing), spec_codec.plain(wanted)
    for table, value in old.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                if new[table].get(key) != inner and table != "machine":
                    return f"{table}.{key} is {inner!r} there and {new[table].get(key)!r} here"
        elif new[table] != value:
            return f"{table} is {value!r} there and {new[table]!r} here"
    return "its machine"
