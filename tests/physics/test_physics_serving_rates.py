"""Matmuls by stored weights on a CPU against rates that were timed."""

from __future__ import annotations

import pytest

from curbcut.physics.operations import Matmul
from curbcut.physics.serving_constants import UNFITTED, serving_constants
from curbcut.physics.serving_passes import ChipRates, _one, matmul_rate

BANDWIDTH, WIDE = 44.4e9, 870e9
"""What the machine streamed, and bf16 matmuls of 256 rows reached there."""
BYTES = {"same": 2.0, "int8": 1.0, "int8-dynamic": 1.0, "int4": 0.625}
TIMED = {"same": {1: 16, 8: 15.5, 16: 13.5, 64: 5.4, 256: 1.7},
         "int8": {1: 27, 8: 14, 16: 8, 64: 4, 256: 1.4},
         "int8-dynamic": {1: 22, 8: 19, 16: 15, 64: 7, 256: 2.4},
         "int4": {1: 47, 8: 15, 16: 8, 64: 2.2, 256: 0.9}}
"""Billions of parameters a second, matrices of 2432 x 896."""


def rate(kind, rows):
    chip = ChipRates(dense_flops=WIDE, expert_flops=WIDE, attention_flops=WIDE,
                     bytes_per_second=BANDWIDTH, memory_bytes=1, link_bytes_per_second=1,
                     network_bytes_per_second=1)
    constants = serving_constants(accelerator="cpu-16bit", weights=kind)
    reached = matmul_rate(WIDE * constants.matmul_share, chip, constants)
    one = Matmul(name="up", rows=rows, inner=896, columns=2432, copies=1)
    return one.weights / _one(one, chip, constants, BYTES[kind], reached, 1.0) / 1e9


@pytest.mark.parametrize(("kind", "rows", "timed"), [
    (kind, rows, timed) for kind, row in TIMED.items() for rows, timed in row.items()])
def test_timed_rates_are_near(kind, rows, timed):
    assert timed / 1.3 < rate(kind, rows) < timed * 1.3


@pytest.mark.parametrize(("kind", "few"), [("int8", 24), ("int4", 96)])
def test_weights_are_widened_beforehand_from_about_as_many_rows_as_the_engine_does(kind, few):
    constants = serving_constants(accelerator="cpu-16bit", weights=kind)
    assert constants.direct_ratio < UNFITTED["direct_ratio"] <= 1
    # each row costs what widening it anew costs before, and that of a plain matmul after
    before, after = (1 / rate(kind, 1.05 * rows) - 1 / rate(kind, rows)
                     for rows in (few / 1.5, few * 1.5))
    assert before / (few / 1.5) > 2 * after / (few * 1.5)
