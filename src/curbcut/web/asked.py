"""What the planner is asked, as a query of words, becomes the draft and the wish of `curbcut plan`;
and the command that asks the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from curbcut.accounts.development import ledger_ratio, multiplier
from curbcut.errors import InputError, UnknownName
from curbcut.ledger import FILE_NAME
from curbcut.plan.backwards.drafts import Wish
from curbcut.plan.contracts import ANY, contracts_of
from curbcut.plan.machines import is_here
from curbcut.spec.draft import Draft
from curbcut.spec.estimate import Estimate

LIMITS = {"money": "budget", "hours": "hours", "energy": "energy", "carbon": "carbon"}
"""What may be limited, and the option of `curbcut plan` for it."""
OPTIONS = {**LIMITS, "data": "data", "on": "on", "zone": "zone", "contract": "contract",
           "project": "project"}
"""All that may be asked."""
KEYS = {"money": ("limits", "money"), "hours": ("limits", "seconds"), "energy": ("limits", "kwh"),
        "carbon": ("limits", "kgco2e"), "data": ("train", "text_bytes")}
LONGEST = 400
"""Characters of one value."""


@dataclass(frozen=True)
class Asked:
    """One question, as it was put."""

    draft: Draft
    wish: Wish
    command: str
    """The line for a terminal that gives the same answer and writes the run."""

    @property
    def here(self) -> tuple[str, ...]:
        """Names of this machine among those that were named."""
        return tuple(name for name in self.wish.names if is_here(name))


def read(asked: Mapping[str, str], runs: Path) -> Asked:
    """Reads a query; "" is not said. Raises InputError and UnknownName as `curbcut plan` does."""
    for name in asked:
        if name not in OPTIONS:
            raise UnknownName("field", name[:LONGEST], OPTIONS, where="planner")
    said = {name: text.strip() for name, text in asked.items() if text.strip()}
    for name, text in said.items():
        if len(text) > LONGEST:
            raise InputError(f"{name} is too long", where=name,
                             mend=f"at most {LONGEST} characters")
    if not any(name in said for name in LIMITS):
        raise InputError("nothing says what may be spent", where="planner",
                         mend="limit money, time, energy or carbon")
    on = [name.strip() for name in said.get("on", ANY).split(",") if name.strip()] or [ANY]
    contracts = contracts_of(said.get("contract", ""), "contract")
    if len(on) == 1 and is_here(on[0]) and not {"money", "energy", "carbon", "data"} & {*said}:
        raise InputError("on this machine, time alone leaves nothing to buy", where="hours",
                         mend="limit energy too, or start it: curbcut go")
    return Asked(_draft(said, on, contracts),
                 Wish(names=on, any_zone=said.get("zone") == ANY,
                      contracts=contracts if len(contracts) > 1 else (),
                      multiplier=_multiplier(runs) if "project" in said else None,
                      experts=not any(is_here(name) for name in on)), _command(said))


def _draft(said: Mapping[str, str], on: list[str], contracts: list[str]) -> Draft:
    raw: dict[str, dict[str, object]] = {}
    for name, (table, key) in KEYS.items():
        if name in said:
            raw.setdefault(table, {})[key] = _hours(said[name]) if name == "hours" else said[name]
    if len(on) == 1 and on[0].casefold() != ANY:
        raw["machine"] = {"name": on[0]}
    if "zone" in said and said["zone"] != ANY:
        raw.setdefault("place", {})["zone"] = said["zone"]
    if len(contracts) == 1:
        raw.setdefault("place", {})["contract"] = contracts[0]
    return Draft().with_raw(raw, "command line", override=True)


def _hours(text: str) -> str:
    """A bare number means hours."""
    try:
        return f"{float(text):g} h"
    except ValueError:
        return text


def _multiplier(runs: Path) -> Estimate:
    return multiplier(0.0, ledger_ratio(runs / FILE_NAME))


def _command(said: Mapping[str, str]) -> str:
    parts = ["curbcut", "plan"]
    for name, option in OPTIONS.items():
        if name == "project":
            parts += ["--project"] if name in said else []
        elif name in said or name == "on":
            parts += [f"--{option}", said.get(name, ANY)]
    return " ".join(map(shlex.quote, [*parts, "--write", "run.toml"]))
