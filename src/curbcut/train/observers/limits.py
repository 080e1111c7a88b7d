"""Ends a run before it overshoots money, energy, carbon or time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from curbcut.facts.currency import usd_per
from curbcut.train import charges, ending
from curbcut.train.session import Session, Silent, StepReport

RECENT_STEPS = 50


class LimitKeeper(Silent):
    """Asks to stop while what is left still pays for one more step and for ending in order.

    `reserve(session, step_seconds)` says how many seconds the end will take. The step that may
    still come is taken to be as long as the longest recent one, with a margin.
    """

    def __init__(self, reserve: Callable[[Session, float], float] = ending.reserve_seconds) -> None:
        self.reserve = reserve
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)

    def after_step(self, session: Session, report: StepReport) -> None:
        """Compares each limit with what was used plus what the next step and the end will take."""
        limits = session.run.limits
        if (limits.seconds is None and limits.money is None and limits.kwh is None
                and limits.kgco2e is None):
            return
        session.watch.lap()
        self._recent.append(report.seconds)
        longest = max(self._recent)
        needed = ending.MARGIN * longest + self.reserve(session, longest)
        price = charges.a_second(session)
        for name, limit, used in self._limits(session):
            if used is not None and used + needed * (price[name] or 0.0) >= limit:
                session.ask_to_stop(f"the limit of {name} is reached")

    def _limits(self, session: Session) -> list[tuple[str, float, float | None]]:
        limits = session.run.limits
        found: list[tuple[str, float, float | None]] = []
        if limits.seconds is not None:
            found.append(("time", limits.seconds, charges.charged_seconds(session)))
        if limits.money is not None:
            usd = limits.money.amount * usd_per(limits.money.currency).value
            found.append(("money", usd, charges.usd(session)))
        if limits.kwh is not None:
            found.append(("energy", limits.kwh, charges.kwh(session)))
        if limits.kgco2e is not None:
            found.append(("carbon", limits.kgco2e, charges.kgco2e(session)))
        return found
