"""The fastest recipe that memory surely holds, where certainty costs next to nothing."""

from __future__ import annotations

from dataclasses import replace

from curbcut.errors import InputError
from curbcut.plan import rules
from curbcut.plan.offers import Offer, Priced
from curbcut.plan.recipes import fastest


def fastest_surely(one: Offer, spread: float, threads: int | None = None) -> Priced:
    """The fastest recipe of an offer that fits at the upper end of its peak's interval too
    (`spread` either way); the fastest of all where that costs more time (`rules.UNSURE_MEMORY`) or
    nothing surely fits. Raises as `recipes.fastest`.
    """
    # The blocks are the space's own, which it keeps: what is priced of them holds for both looks.
    one = replace(one, pricer=replace(one.pricer, memo={}))
    best = fastest(one, threads)
    room = rules.sure_bytes(one.machine, spread)
    assert best.peak_bytes.value is not None and best.seconds.value is not None
    if best.peak_bytes.value <= room:
        return best
    pricer = one.pricer
    tight = replace(one, pricer=replace(
        pricer, memory_factor=pricer.memory_factor * pricer.room_bytes / room))
    try:
        sure = fastest(tight, threads)
    except InputError:
        return best
    assert sure.seconds.value is not None
    if sure.seconds.value > best.seconds.value * rules.UNSURE_MEMORY:
        return best
    return replace(sure, offer=one, peak_bytes=pricer.peak(sure.recipe))
