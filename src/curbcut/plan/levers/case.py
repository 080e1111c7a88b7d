"""What a lever acts on: a run, and what literature alone can say of it, kept apart with intervals.

A lever is a small function from one case to another. What the operations can tell, it sets in the
run itself (a precision, a machine, a place). What only literature can tell is a `Factor` on a
stated resource: tokens to the same loss, experiments, watts of the matmuls. Both are priced by the
same physics and accounts: fewer tokens are fewer steps, and those fewer seconds.

Factors on one resource are not multiplied blindly. The first acts as it was published. Each later
one was measured against a baseline without the first, and may be the same gain again: it acts with
half of its logarithm, and its interval reaches from nothing to all of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from curbcut.accounts.development import multiplier
from curbcut.accounts.sheet import Sheet
from curbcut.facts import levers as facts
from curbcut.physics import memory, time
from curbcut.plan import rules
from curbcut.plan.calibration import Correction
from curbcut.plan.forecast import sheet_of
from curbcut.plan.forecast import step_seconds as forecast_step
from curbcut.plan.levers.result import Group, Unit
from curbcut.spec import checks
from curbcut.spec.estimate import Estimate
from curbcut.spec.nouns import Machine, ModelShape, Recipe, Run

Resource = Literal["tokens", "search", "step", "matmul watts"]


@dataclass(frozen=True)
class Factor:
    """How many times less of a resource, with its interval."""

    lever: str
    resource: Resource
    value: float
    low: float
    high: float
    known_to_law: float = 1.0
    """What of a factor on tokens the law of the loss sees for itself (an optimiser, experts); the
    rest it is told by `train.token_worth`."""

    @property
    def key(self) -> str:
        """Which it is, where factors are moved one at a time."""
        return f"{self.lever}.{self.resource}"

    def on_top(self) -> Factor:
        """The same after another factor on its resource: half of it, as a logarithm."""
        half = max(1.0, self.value) ** 0.5
        return replace(self, value=half, low=min(1.0, self.low), high=max(self.high, half))


@dataclass(frozen=True)
class Refusal:
    """Why a lever does not apply, or changes nothing."""

    why: str
    fits: bool = True
    """False where it would apply, but does not fit into memory or a limit."""


@dataclass(frozen=True)
class Taught:
    """What measured runs taught, as a plan knows it; without any, nothing."""

    machine: Machine | None = None
    """Whose runs they were."""
    learned: Correction = field(default_factory=Correction)
    """Of that machine, at the precision that the run has before any lever."""
    project: Estimate | None = None
    """All runs of a project over the finished ones."""

    def of(self, machine: Machine) -> Correction:
        """What is known of a machine: nothing of another one."""
        mine = self.machine
        same = mine is not None and (mine.name, mine.accelerators) == (
            machine.name, machine.accelerators)
        return self.learned if same else Correction()


@dataclass(frozen=True)
class Case:
    """A run with the factors of the levers taken so far."""

    run: Run
    """As the levers set it, at its own tokens: the factors come on top when it is priced."""
    factors: tuple[Factor, ...] = ()
    changed: tuple[str, ...] = ()
    """What the last lever set."""
    taken: frozenset[str] = field(default_factory=frozenset)
    taught: Taught = field(default_factory=Taught)

    def with_run(self, run: Run) -> Case:
        """The case with another run."""
        return replace(self, run=run, changed=differences(self.run, run))

    def with_recipe(self, **values: Any) -> Case:
        """The case with fields of its recipe set."""
        return self.with_run(replace(self.run, recipe=replace(self.run.recipe, **values)))

    def with_place(self, **values: Any) -> Case:
        """The case with fields of its place set."""
        return self.with_run(replace(self.run, place=replace(self.run.place, **values)))

    def with_factor(self, factor: Factor) -> Case:
        """The case with one more factor, damped where its resource has one already."""
        alone = factor.value
        if alone >= 1.0 and any(one.resource == factor.resource and one.value > 1.0
                                for one in self.factors):
            factor = factor.on_top()
        said = f"{factor.resource}: {_times(factor.value)}"
        if factor.value != alone:
            said += f" after others of them ({_times(alone)} alone)"
        return replace(self, factors=(*self.factors, factor), changed=(*self.changed, said))

    def product(self, resource: Resource, moved: Mapping[str, float]) -> float:
        """All factors on one resource together; `moved` are values by key in place of theirs."""
        found = 1.0
        for one in self.factors:
            if one.resource == resource:
                found *= moved.get(one.key, one.value)
        return found

    def realised(self, moved: Mapping[str, float] | None = None) -> Run:
        """The run with its factors in it: fewer tokens that teach more, and so on."""
        moved, run = moved or {}, self.run
        worth = self.product("tokens", moved)
        told = worth / math.prod(one.known_to_law for one in self.factors)
        if worth != 1.0 or told != 1.0:
            tokens = max(run.recipe.step_tokens, round(run.train.tokens / worth))
            run = replace(run, train=replace(run.train, tokens=tokens,
                                             token_worth=run.train.token_worth * told))
        search = self.product("search", moved)
        if search != 1.0:
            whole = multiplier(run.train.development, self.taught.project).value
            apart = (whole or 1.0) - 1.0
            run = replace(run, train=replace(run.train, development=1.0 + apart / search))
        watts = self.product("matmul watts", moved)
        return run if watts == 1.0 else replace(run, machine=_cooler(run, watts))

    def sheet(self, moved: Mapping[str, float] | None = None) -> Sheet:
        """The case priced."""
        run = self.realised(moved)
        step = self.product("step", moved or {})
        rates = None
        if step != 1.0:
            seconds = forecast_step(run, self.taught.of(run.machine)).value
            if seconds is not None:
                rates = {run.recipe.micro_batch: run.recipe.step_tokens / (seconds / step)}
        project = self._project(moved or {})
        if project is not None and not self.run.train.development:
            run = replace(run, train=replace(run.train, development=0.0))
        return sheet_of(run, (), rates, project=project, learned=self.taught.of(run.machine),
                        ways=False)

    def _project(self, moved: Mapping[str, float]) -> Estimate | None:
        """All runs over the final one with as much less search: as uncertain as without."""
        search = self.product("search", moved)
        if search == 1.0 or self.run.train.development:
            return self.taught.project
        whole = multiplier(0.0, self.taught.project)
        value, low, high = (None if one is None else 1.0 + (one - 1.0) / search
                            for one in (whole.value, whole.low, whole.high))
        return Estimate(value, low, high, whole.basis, whole.source)

    @property
    def memory_factor(self) -> float:
        """Learned of the run's memory, as in a plan."""
        return self.taught.learned.memory_factor

    def fits(self, run: Run | None = None) -> bool:
        """Whether the fullest rank's memory is enough."""
        run = run or self.run
        held = self.memory_factor * memory.training(run.model, run.recipe,
                                                    run.machine.kind)["peak"]
        return float(held) <= memory.available(run.machine)


Price = Callable[[Case], float]
"""The whole of a case in the unit; infinite where it is not known, or takes too long."""


@dataclass(frozen=True)
class Aim:
    """What levers that choose among several (a place, a chip) choose by."""

    unit: Unit
    price: Price
    most_slower: float = math.inf
    """How many times longer than at the start a case may take."""

    def best(self, cases: list[Case]) -> Case | None:
        """The cheapest of some cases, the first of equals; None of none that is priced."""
        priced = [(self.price(one), i) for i, one in enumerate(cases)]
        known = [one for one in priced if one[0] != float("inf")]
        return cases[min(known)[1]] if known else None


Apply = Callable[[Case, Aim], Case | Refusal]


@dataclass(frozen=True)
class Lever:
    """One method as a change of a case."""

    name: str
    """Its method in `spec.methods.CATALOGUE`."""
    group: Group
    apply: Apply
    excludes: str = ""
    """Of levers with the same word here, one is taken at most."""
    kind: Literal["run", "instead", "what-if"] = "run"
    """Whether it makes the same run cheaper, answers another question, or stands on an open
    assumption."""
    without: Callable[[Case], Case] | None = None
    """The same run without it, for one that has it already."""


def published(lever: str, resource: Resource = "tokens") -> Factor:
    """The factor of the facts that prices a lever."""
    row = facts.pricing(lever)
    assert row.factor is not None and row.low is not None and row.high is not None
    return Factor(lever, resource, row.factor, row.low, row.high)


def _cooler(run: Run, factor: float) -> Machine:
    """The machine with accelerators whose matmuls take `factor` times less power, as far as a step
    is matmuls.
    """
    found = time.step_parts(run.model, run.recipe, run.machine)
    if found is None or found.total <= 0:
        return run.machine
    share = min(1.0, float(found.matmul / found.total))
    left = 1.0 - share + share / factor
    watts = {name: value * left for name, value in run.machine.watts.items()}
    return replace(run.machine, watts=watts)


_SKIPPED = {"name", "source", "preset"}


def differences(before: Run, after: Run) -> tuple[str, ...]:
    """Fields that differ, like "recipe.precision: bf16 -> fp8"; of a machine, its name alone."""
    found = []
    for table in ("model", "machine", "recipe", "train", "serve", "place"):
        old, new = getattr(before, table), getattr(after, table)
        if old == new:
            continue
        if table == "machine":
            found.append(f"machine: {old.name} -> {new.name}" if old.name != new.name
                         else "machine")
            continue
        for one in dataclasses.fields(old):
            left, right = getattr(old, one.name), getattr(new, one.name)
            if left != right and one.name not in _SKIPPED:
                found.append(f"{table}.{one.name}: {_said(left)} -> {_said(right)}")
    return tuple(found)


def _times(factor: float) -> str:
    """ "1.37 x fewer" of what a factor lessens, the other way round below 1."""
    return f"{factor:.3g} x less" if factor >= 1 else f"{1 / factor:.3g} x more"


def _said(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def valid(shape: ModelShape, recipe: Recipe, machine: Machine) -> bool:
    """Whether a recipe breaks no rule."""
    from curbcut.errors import InputError

    try:
        checks.recipe(shape, recipe, machine)
    except InputError:
        return False
    return True


def step_seconds(run: Run) -> float:
    """Seconds of one step; infinite where no rate is known."""
    found = time.step_seconds(run.model, run.recipe, run.machine).value
    return float("inf") if found is None else found


def ruled_steps(run: Run) -> int:
    """Steps between checkpoints that the plan's rule gives a run."""
    saving = rules.stall_seconds(run.model, run.recipe)
    return rules.checkpoint_steps(run.steps, step_seconds(run), saving, run.machine.accelerators)


def as_ruled(before: Run, after: Run) -> Run:
    """`after` with checkpoints by the plan's rule where `before` has them so: another step time or
    another share a rank moves them, as it would in a plan.
    """
    if before.recipe.checkpoint_every_steps != ruled_steps(before):
        return after
    return replace(after, recipe=replace(after.recipe, checkpoint_every_steps=ruled_steps(after)))


def daly_steps(run: Run) -> int:
    """Steps between checkpoints by the faults of so many accelerators."""
    from curbcut.physics import goodput

    saving = rules.stall_seconds(run.model, run.recipe)
    apart = goodput.daly(saving, goodput.interruption_seconds(run.machine.accelerators))
    return max(1, min(run.steps, round(float(apart) / step_seconds(run))))
