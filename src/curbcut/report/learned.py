"""By how much measured runs moved the named constants of a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curbcut.spec import Run

if TYPE_CHECKING:
    from rich.console import Console

    from curbcut.plan.calibration import Correction

SHOWN = 4


def lines(run: Run, learned: Correction) -> list[str]:
    """Whose constants they are, and those that moved most: factor and 90% interval."""
    lesson = learned.of_time or learned.of_memory
    moved = list(learned.constants().items())[:SHOWN]
    if lesson is None or not moved:
        return []
    count, recipe = len(lesson.runs), run.recipe
    software = f"{recipe.stack} {recipe.stack_version}".rstrip()
    head = (f"{count} measured run{'s' if count > 1 else ''} of {software} on "
            f"{run.machine.accelerator} taught the next plan:")
    return [head, *(f"  {name:<20} x {one.value:.2f} ({one.low:.2f} to {one.high:.2f})"
                    for name, one in moved)]


def print_learned(run: Run, learned: Correction, console: Console) -> None:
    """Prints the lines."""
    for line in lines(run, learned):
        console.print(f"  {line}", style="dim", highlight=False)
