"""What a cap on an accelerator's power costs in time and saves in watts.

Power that follows the clock f falls as f^e while voltage falls with it, and as f alone once voltage
is at its floor; the rest of the draw stays. A step's work follows the clock in part only. Draw is
not even: for a share of the time it is higher than its mean, and a cap is felt there first. With P
the draw and s the part that stays, both as shares of the rated power, and L the cap:

    h = min(1, (L - s) / (P - s));   f = h^(1/e) down to f0, below it h / f0^(e - 1)
    seconds = 1 - c + c / f,         watts = s + (P - s) h

so energy falls, has its minimum near the floor of the voltage, and rises below it. Polymorphic (see
`numbers`). Constants stand in `facts/power_caps.csv`: by family, general, and without each family.
For a GPU that was left out of the fit, the median error of time is 2.6 to 3.6% and of energy 3.0 to
4.2% (at caps of half the rated power and more 2 to 4%, below it 11%, one row in ten above 38%).
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

from curbcut.facts import constants as known_constants
from curbcut.facts import physics, table
from curbcut.physics.numbers import Number, larger, smaller, where
from curbcut.spec.estimate import Estimate
from curbcut.spec.nouns import Machine, Recipe

FILE = "power_caps"
SLOWEST = 0.1
"""Share of its clock below which no accelerator is run: deeper caps are not kept."""


@dataclass(frozen=True)
class CapConstants:
    """How one family of accelerators bears a cap. All are numbers or columns."""

    stays: Number
    """Share of the rated power that is drawn at any clock."""
    exponent: Number
    """Of the clock, in the power that follows it, above the floor of the voltage."""
    floor: Number
    """Share of the clock below which voltage falls no further."""
    clocked: Number
    """Share of a step's time that goes as 1 over the clock."""
    peak: Number
    """Draw in the hot part of the time, over its mean; never above the rated power."""
    hot: Number
    """Share of the time that is hot."""
    over: Number
    """Mean power that is drawn at a cap which holds, over the cap."""


NAMES = tuple(field.name for field in dataclasses.fields(CapConstants))


@dataclass(frozen=True)
class Capped:
    """What a cap does to a step: both factors are 1 without one."""

    seconds: Number
    """Its time over that without the cap, 1 or more."""
    watts: Number
    """Its mean power over that without the cap, 1 or less."""

    @property
    def energy(self) -> Number:
        """Its energy over that without the cap."""
        return self.seconds * self.watts


def cap_constants(accelerator: str = "", without: str = "") -> CapConstants:
    """The constants of an accelerator's family, general ones for others; with `without` naming a
    family, those that were fitted with all its rows left out.
    """
    return _constants(accelerator.casefold(), without, table.overlay_folder())


@functools.lru_cache(maxsize=256)
def _constants(accelerator: str, without: str, overlay: Path) -> CapConstants:
    own = "" if without else _family(accelerator)
    return CapConstants(**{name: physics.constant(FILE, name, own, without).value
                           for name in NAMES})


def _family(accelerator: str) -> str:
    """The family that a name begins with ("v100-sxm2-32gb": "v100"); "" for none."""
    return next((one for one in families()
                 if accelerator == one or accelerator.startswith(f"{one}-")), "")


def families() -> tuple[str, ...]:
    """Families whose caps were measured."""
    return physics.families(FILE)


def slowdown_spread(accelerator: str = "") -> tuple[float, float, float]:
    """(5%, middle, 95%) of measured over predicted extra time, over networks: what a cap adds to
    the time may be so many times what is said. Wider for a family that was never measured.
    """
    one = physics.constant(FILE, "slowdown", _family(accelerator.casefold()))
    return one.low, one.value, one.high


def watts_spread() -> float:
    """Standard deviation of log(measured / predicted) of mean watts under a cap, of a family that
    the constants have not seen.
    """
    return physics.constant(FILE, "watts_spread").value


def capped(limit: Number, draw: Number, constants: CapConstants,
           slowdown: Number = 1.0) -> Capped:
    """What a cap of `limit` does to a step that draws `draw` without one, both as shares of the
    rated power. `slowdown` stretches what it adds to the time.

    A lower limit is never faster and never draws more.
    """
    draw = smaller(1.0, larger(draw, constants.stays))
    peak = larger(draw, smaller(1.0, draw * constants.peak))
    base = larger(constants.stays, (draw - constants.hot * peak) / (1 - constants.hot))
    share = where(peak > base, (draw - base) / larger(peak - base, 1e-9), 0.0)
    hot, hot_watts = _held(limit, peak, constants)
    cold, cold_watts = _held(limit, base, constants)
    seconds = share * hot + (1 - share) * cold
    joules = share * hot * hot_watts + (1 - share) * cold * cold_watts
    watts = smaller(1.0, joules / seconds / draw)
    return Capped(1 + slowdown * (seconds - 1), watts)


def _held(limit: Number, draw: Number, constants: CapConstants) -> tuple[Number, Number]:
    """(time factor, share of the rated power drawn) of work that draws evenly."""
    follows = larger(draw - constants.stays, 1e-9)
    power = constants.exponent
    least = constants.floor ** (power - 1) * SLOWEST
    allowed = larger(least, smaller(1.0, (limit * constants.over - constants.stays) / follows))
    above = allowed >= constants.floor ** power
    clock = where(above, allowed ** (1 / power), allowed / constants.floor ** (power - 1))
    seconds = 1 - constants.clocked + constants.clocked / clock
    return seconds, constants.stays + follows * allowed


def draw_share(machine: Machine) -> float:
    """Mean draw of training without a cap, of the rated power, where nobody knows what its
    operations keep busy: the machine's own typical power, else the general share.
    """
    typical, most = machine.watts.get("typical"), machine.watts.get("max")
    if typical and most:
        return min(1.0, typical / most)
    return known_constants.constant("power_fraction_training").value


def seconds_factor(recipe: Number, machine: Machine, draw: Number | None = None) -> Number:
    """Seconds of a step under the recipe's power limit over those without. `recipe` is one or
    columns; `draw` is the mean draw without a cap, of the rated power. CPUs are not capped.
    """
    if machine.kind == "cpu":
        return 1.0
    share = draw_share(machine) if draw is None else draw
    return capped(recipe.power_limit, share, cap_constants(machine.accelerator)).seconds


def stretched(step: Estimate, recipe: Recipe, machine: Machine,
              draw: float | None = None) -> Estimate:
    """A step's seconds with what the recipe's power limit adds, and how far that may be off:
    networks differ, and most accelerators were never measured under a cap. As it is without one.
    """
    factor = float(seconds_factor(recipe, machine, draw))
    if factor <= 1.0 or step.value is None:
        return step
    low, _, high = slowdown_spread(machine.accelerator)
    added = Estimate(factor, 1 + low * (factor - 1), 1 + high * (factor - 1), "modelled",
                     f"power limit {recipe.power_limit:.0%}")
    return step.times(added, f"{step.source}; under a power limit of {recipe.power_limit:.0%}")
