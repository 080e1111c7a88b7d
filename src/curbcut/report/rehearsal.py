"""A forecast before and after something was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curbcut import units
from curbcut.report.labels import called
from curbcut.spec import UNIT_OF, Account, Estimate

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = (("seconds", "total"), ("tokens_per_second", "steps"), ("memory_bytes", "peak"),
         ("usd", "total"), ("kwh", "facility"), ("kgco2e", "total"))


def change(before: Account, after: Account) -> list[str]:
    """A line for each figure of interest that both know: value and interval, before -> after."""
    lines = []
    for section, kind in SHOWN:
        first, second = before.get(section, kind), after.get(section, kind)
        if first is None or second is None or not first.value or second.value is None:
            continue
        moved = second.value / first.value - 1
        lines.append(f"{called(section, kind):<16} {_said(first, section)} -> "
                     f"{_said(second, section)}  ({moved:+.0%})")
    return lines


def _said(one: Estimate, section: str) -> str:
    unit = UNIT_OF[section]
    assert one.value is not None and one.low is not None and one.high is not None
    return (f"{units.show(one.value, unit)} ({units.show(one.low, unit)} to "
            f"{units.show(one.high, unit)})")


def print_change(before: Account, after: Account, console: Console) -> None:
    """Prints the lines; money is in US dollars, as accounts keep it."""
    for line in change(before, after):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    learned = after.get("seconds", "steps")
    if learned is not None:
        console.print(f"  {learned.source}", style="dim", highlight=False)
