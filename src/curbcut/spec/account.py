"""`Account`: what a run takes and gives. Forecast and measurement are the same type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from curbcut.spec.estimate import Estimate

UNIT_OF: Mapping[str, str] = {
    "seconds": "seconds", "tokens": "count", "flops": "flops", "tokens_per_second": "tokens/s",
    "mfu": "fraction", "hfu": "fraction", "goodput": "fraction", "memory_bytes": "bytes",
    "watts": "watts", "kwh": "kwh", "kwh_modelled": "kwh", "joules_per_token": "joules",
    "usd": "usd", "usd_ways": "usd", "kgco2e": "kgco2e", "litres": "litres", "loss": "",
}
"""Dimension (for `units.show`) of each section of an account."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """Figures by section and kind. A kind that is absent was not looked at; a kind whose
    estimate has no value was looked for and could not be known.

    Kinds in use (a measurement uses the kinds of the forecast that it answers):
    seconds: total, and of training steps, data, evaluation, checkpoint, compile, other; of serving
        prefill, decode, idle, and the means ttft and tpot, which are no parts of the total
    tokens: trained; prompt, answer; of these cached, drafted, accepted    flops: model, hardware
    tokens_per_second: steps; prefill, decode; answers (asked for), most (that is served)
    mfu / hfu / goodput: run
    memory_bytes: parameters, gradients, optimiser, activations, logits, cache, overhead, peak;
        server (serving)
    watts: device, host; of serving under load server
    kwh: device, node, facility, project  (a sensor's, or a forecast's; null without a sensor)
    kwh_modelled: device, node, facility   (modelled watts x time; never called measured)
    joules_per_token: training, answer; most (at the most that is served), all at the facility;
        device (an answer's, from a sensor)
    usd: rent, energy, ownership, staff, total; development (experiments and failed runs on top of
        the total), project (both)
    usd_ways: what the same run costs who pays in another way: on_demand, reserved_1y, reserved_3y,
        spot, own, academic, epoch_amortised, epoch_acquisition, epoch_cloud, with_staff
    kgco2e: operational, market, embodied, total (location-based operational + embodied), project
    litres: water
    loss: nats_per_token, bits_per_byte
    """

    seconds: Mapping[str, Estimate] = field(default_factory=dict)
    tokens: Mapping[str, Estimate] = field(default_factory=dict)
    flops: Mapping[str, Estimate] = field(default_factory=dict)
    tokens_per_second: Mapping[str, Estimate] = field(default_factory=dict)
    mfu: Mapping[str, Estimate] = field(default_factory=dict)
    hfu: Mapping[str, Estimate] = field(default_factory=dict)
    goodput: Mapping[str, Estimate] = field(default_factory=dict)
    memory_bytes: Mapping[str, Estimate] = field(default_factory=dict)
    watts: Mapping[str, Estimate] = field(default_factory=dict)
    kwh: Mapping[str, Estimate] = field(default_factory=dict)
    kwh_modelled: Mapping[str, Estimate] = field(default_factory=dict)
    joules_per_token: Mapping[str, Estimate] = field(default_factory=dict)
    usd: Mapping[str, Estimate] = field(default_factory=dict)
    usd_ways: Mapping[str, Estimate] = field(default_factory=dict)
    kgco2e: Mapping[str, Estimate] = field(default_factory=dict)
    litres: Mapping[str, Estimate] = field(default_factory=dict)
    loss: Mapping[str, Estimate] = field(default_factory=dict)

    def lines(self) -> Iterator[tuple[str, str, Estimate]]:
        """Each figure as (section, kind, estimate), in the order of this class."""
        for section in UNIT_OF:
            for kind, estimate in getattr(self, section).items():
                yield section, kind, estimate

    def get(self, section: str, kind: str) -> Estimate | None:
        """One figure, or None when this account did not look at it."""
        found: Estimate | None = getattr(self, section).get(kind)
        return found

    def against(self, measured: Account) -> list[Comparison]:
        """Each line that either side has, promised beside measured."""
        keys = [(s, k) for s, k, _ in self.lines()]
        keys += [(s, k) for s, k, _ in measured.lines() if (s, k) not in set(keys)]
        order = {section: i for i, section in enumerate(UNIT_OF)}
        keys.sort(key=lambda key: order[key[0]])
        return [Comparison(s, k, self.get(s, k), measured.get(s, k)) for s, k in keys]


@dataclass(frozen=True)
class Comparison:
    """One line of promised against measured."""

    section: str
    kind: str
    promised: Estimate | None
    measured: Estimate | None

    @property
    def ratio(self) -> float | None:
        """Measured over promised; None where either is unknown or the promise was zero."""
        promised = self.promised.value if self.promised else None
        measured = self.measured.value if self.measured else None
        if promised is None or measured is None or promised == 0:
            return None
        return measured / promised

    @property
    def inside(self) -> bool | None:
        """Whether the measurement fell inside the promised interval; None if either is unknown."""
        if self.ratio is None:
            return None
        assert self.promised is not None and self.measured is not None
        assert self.measured.value is not None
        return self.promised.contains(self.measured.value)
