"""How a step's work is shared among the requests in it, and how much the machine draws at it.

The weights are read, and kernels started, once for all who are in the step: each request bears an
equal part of that. What a request adds is its own: the matmuls of its new tokens, the scores of
its attention, the reading of its keys and values, its row of the head. (This is the Shapley value
of the step's modelled seconds: what each adds, averaged over all orders in which they could have
joined.) So a prompt pays for its FLOPs, and answers that go on together pay for a row each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from curbcut.accounts.energy import device_watts, idle_watts
from curbcut.physics import power, serving, serving_work
from curbcut.physics.operations import head_matmul
from curbcut.physics.power import PowerConstants
from curbcut.physics.serving import Server
from curbcut.physics.serving_passes import (
    attended,
    elements,
    kernel_count,
    matmul_rate,
    sequence_bytes,
)
from curbcut.physics.serving_work import Work
from curbcut.plan.serving import engine
from curbcut.serve.engine.interface import StepRecord
from curbcut.spec.nouns import Machine, ModelShape, Run

TOKENS_A_READING = 64.0
"""New tokens whose matmuls take as long as reading the weights, where no rates are known."""


@dataclass(frozen=True)
class Seconds:
    """What parts of a step take, in seconds at the rates that passes reach."""

    token: float
    """Of one new token: matmuls and elementwise work."""
    score: float
    """Of one new token's attention to one position."""
    position: float
    """Of reading keys and values of one position."""
    row: float
    """Of one answer that goes on: head, sampling, host work."""
    every: float
    """Of what every pass does, whoever is in it: reading the weights, starting kernels."""
    experts: float
    """Of reading all routed experts."""


@dataclass(frozen=True)
class StepWork:
    """One model on one machine: who takes how much of a step, and the watts meanwhile."""

    seconds: Seconds
    shape: ModelShape | None = None
    watts: Watts | None = None
    """None where nothing is known of the machine's power."""

    def shares(self, record: StepRecord, seen: Mapping[int, int]) -> dict[int, float]:
        """Each ticket's share of a step; together 1. `seen`: tokens of it that came before."""
        asked = _tokens(record)
        if not asked:
            return {}
        each = self._reading(sum(asked.values())) / len(asked)
        parts = {ticket: each + self._own(tokens, seen.get(ticket, 0))
                 + (self.seconds.row if ticket in record.decode else 0.0)
                 for ticket, tokens in asked.items()}
        whole = sum(parts.values())
        return {ticket: part / whole for ticket, part in parts.items()}

    def _reading(self, tokens: int) -> float:
        shape, one = self.shape, self.seconds
        if shape is None or not one.experts:
            return one.every
        missed = 1 - shape.experts_per_token / max(shape.experts, 1)
        return one.every + one.experts * (1 - missed ** tokens)

    def _own(self, tokens: int, before: int) -> float:
        keys = before + tokens / 2
        reach = float(attended(self.shape, keys)) if self.shape is not None else keys
        one = self.seconds
        return tokens * (one.token + one.score * reach) + one.position * reach


@dataclass(frozen=True)
class Watts:
    """Modelled draw of a machine's accelerators while a step runs."""

    typical: float
    """While something is computed; of what draws by its work, only where the work is unknown."""
    token: Work | None = None
    """Work of one new token, and `pass_` of a pass with none; None where the draw is constant."""
    pass_: Work | None = None
    server: Server | None = None
    constants: PowerConstants | None = None
    rated: float = 0.0
    others: float = 0.0
    """Idle draw of accelerators that are not of this model."""

    def during(self, record: StepRecord) -> float:
        """Watts of a step of the record's tokens."""
        if (self.token is None or self.pass_ is None or self.server is None
                or self.constants is None or record.seconds <= 0):
            return self.typical
        done = self.pass_.plus(self.token, sum(_tokens(record).values()))
        busy = power.of_work(done, self.server.chip, record.seconds)
        one = power.accelerator_watts(busy, self.rated, self.constants)
        return float(one * self.server.engine.ranks + self.others)


def plain(machine: Machine | None = None) -> StepWork:
    """The work of a model of which nothing is known but its tokens."""
    typical = None if machine is None else device_watts(machine).value
    return StepWork(Seconds(1.0, 0.0, 0.0, 0.0, TOKENS_A_READING, 0.0),
                    watts=None if typical is None else Watts(typical))


def of_run(run: Run) -> StepWork:
    """The work of a run's model on its machine, as it is served."""
    found = serving.server(run.model, run.machine, run.recipe.precision, engine(run))
    watts = _watts(run, found)
    if found is None:
        return StepWork(plain().seconds, None, watts)
    shape, values, chip = run.model, found.constants, found.chip
    first, second = _pass(shape, found, 1, 0), _pass(shape, found, 2, 0)
    many, far = _pass(shape, found, 2**20, 0), _pass(shape, found, 1, shape.context_tokens)
    reach = float(attended(shape, shape.context_tokens))
    moved = float(elements(shape, found.engine, 1)) * values.elementwise_bytes
    streaming = chip.bytes_per_second * values.bandwidth_share
    share = float(matmul_rate(chip.dense_flops * values.matmul_share, chip, values)
                  / chip.dense_flops)
    all_weights = float(many.bytes_) - 2**20 * moved
    experts = _routed(shape, float(first.bytes_) - moved, all_weights)
    head = head_matmul(shape, 1, found.engine.tp).flops / (chip.attention_flops * share)
    started = values.step_seconds + kernel_count(shape) * values.kernel_seconds
    cached = float(sequence_bytes(shape, found.engine, shape.context_tokens)) / reach
    return StepWork(Seconds(
        token=float(second.peak_seconds - first.peak_seconds) / share + moved / streaming,
        score=float(far.peak_seconds - first.peak_seconds) / reach / values.attention_share,
        position=cached / (chip.bytes_per_second * values.cache_share),
        row=float(head) + values.row_seconds,
        every=(all_weights - experts) / streaming + float(started),
        experts=experts / streaming), shape, watts)


def idle(machine: Machine) -> float | None:
    """Modelled watts of all accelerators at rest; None where nothing is known."""
    return idle_watts(machine).value


def _pass(shape: ModelShape, found: Server, tokens: int, keys: int) -> Work:
    return serving_work.pass_work(shape, found.engine, found.chip,
                                  found.constants.elementwise_bytes, tokens=tokens, keys=keys,
                                  sequences=1, eager=True)


def _routed(shape: ModelShape, one_token: float, all_tokens: float) -> float:
    """Bytes of routed experts, from the weights that one token reads and that very many read."""
    if not shape.experts:
        return 0.0
    touched = shape.experts_per_token / shape.experts
    return (all_tokens - one_token) / (1 - touched) if touched < 1 else 0.0


def _watts(run: Run, found: Server | None) -> Watts | None:
    machine = run.machine
    typical = device_watts(machine).value
    if typical is None:
        return None
    rated = machine.watts.get("max")
    if machine.kind != "gpu" or not rated or found is None:
        return Watts(typical)
    first, second = _pass(run.model, found, 1, 0), _pass(run.model, found, 2, 0)
    token = Work(second.peak_seconds - first.peak_seconds, second.bytes_ - first.bytes_,
                 second.sent - first.sent)
    rest = max(0.0, machine.accelerators - float(found.engine.ranks)) / machine.accelerators
    return Watts(typical, token, first.plus(token, -1.0), found,
                 power.power_constants(machine.accelerator), rated,
                 rest * (idle_watts(machine).value or 0.0))


def _tokens(record: StepRecord) -> dict[int, int]:
    """New tokens by ticket; a step that computed only checks what it gave."""
    found = dict(record.prefill)
    for ticket, count in record.decode.items():
        found[ticket] = found.get(ticket, 0) + max(1, count)
    return found
