"""The forecast corrected by what the run has measured of itself so far, and what would mend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curbcut import units
from curbcut.spec import Estimate, Run
from curbcut.train import charges, ending
from curbcut.train.session import Session

MOST_LEVERS = 3
LEAST_SAVING = 0.02
"""Levers that save a smaller share mend nothing."""


@dataclass(frozen=True)
class Outlook:
    """How a run will end if it goes on as it does."""

    step: int
    seconds: float
    """Wall clock of all of it."""
    promised_seconds: Estimate
    usd: float | None
    promised_usd: float | None

    @property
    def over(self) -> float:
        """Share over the promise; negative for a run that ends sooner."""
        assert self.promised_seconds.value
        return self.seconds / self.promised_seconds.value - 1

    @property
    def inside(self) -> bool:
        """Whether the promise holds: its interval has it."""
        return self.promised_seconds.contains(self.seconds)

    def plain(self) -> Mapping[str, Any]:
        """For the record."""
        return {"step": self.step, "seconds": self.seconds, "usd": self.usd, "over": self.over,
                "promised_seconds": self.promised_seconds.value,
                "promised_usd": self.promised_usd, "inside": self.inside}


def outlook(session: Session, step_seconds: float) -> Outlook | None:
    """Where `session` is going at `step_seconds` a step, its data included; None without a promise.
    """
    promised = session.forecast.get("seconds", "total")
    if promised is None or not promised.value:
        return None
    run, left = session.run, session.run.steps - session.step
    looks = _still(session.step, run.steps - 1, run.recipe.evaluate_every_steps)
    saves = _still(session.step, run.steps - 1, run.recipe.checkpoint_every_steps) + 1
    to_go = (left * step_seconds + looks * ending.glance(session, step_seconds)
             + ending.last_evaluation(session, step_seconds) + saves * ending.save(session))
    usd, price = charges.usd(session), charges.a_second(session)["money"]
    cost = None if usd is None or price is None else usd + to_go * price
    return Outlook(session.step, charges.charged_seconds(session) + to_go, promised, cost,
                   charges.promised(session.forecast, "usd", "total"))


def _still(done: int, last: int, every: int) -> int:
    """Multiples of `every` after `done`, up to `last`."""
    return max(0, last // every - done // every)


def mends(run: Run) -> list[str]:
    """The recipe's own levers that save most time at equal loss, each alone: "compile (-12%)".

    What the plan thinks of them, priced again: some tenths of a second of work.
    """
    from curbcut.plan.levers import catalogue, price
    from curbcut.plan.levers.waterfall import waterfall

    levers = [one for one in catalogue.TRAINING if one.kind == "run"]
    found = [(one.alone_share.value, one.name)
             for one in waterfall(run, levers, price.unit("hours")).results
             if one.status in ("taken", "left") and one.alone_share is not None
             and one.alone_share.value is not None and one.alone_share.value >= LEAST_SAVING
             and one.changed and all(field.startswith("recipe.") for field in one.changed)]
    return [f"{name} (-{share:.0%})" for share, name in sorted(found, reverse=True)[:MOST_LEVERS]]


def said(found: Outlook, levers: list[str]) -> str:
    """One sentence for a person."""
    way = "over" if found.over > 0 else "under"
    assert found.promised_seconds.value is not None
    parts = [f"{units.show(found.seconds, 'seconds')} instead of "
             f"{units.show(found.promised_seconds.value, 'seconds')}"]
    if found.usd is not None and found.promised_usd:
        more = found.usd - found.promised_usd
        parts.append(f"{'+' if more >= 0 else '-'}{units.show(abs(more), 'usd')}")
    much = f"{1 + found.over:.1f} times" if found.over > 1 else f"{abs(found.over):.0%}"
    text = f"will end {much} {'the plan' if found.over > 1 else way} ({', '.join(parts)})"
    if found.over <= 0:
        return text
    if not levers:
        return f"{text}; no lever of the recipe is known to mend it"
    mend = "this lever mends it" if len(levers) == 1 else "these levers mend it"
    return f"{text}; {mend} in another run: {', '.join(levers)}"
