from __future__ import annotations

import pytest

from curbcut.physics import flops


def test_blocks_are_those_of_the_model():
    attention = pytest.importorskip("curbcut.model.attention")
    assert flops.ATTENTION_BLOCK == attention.QUERY_BLOCK
    for s in (64, 128, 512, 1000):
        counted = sum((end - start) * end for start, end in attention.blocks(s)) / s
        from curbcut.facts.presets import shape
        from curbcut.spec import ModelShape
        model = ModelShape(**shape("curb-4m"))
        assert flops.context(model, s, "blocks") == pytest.approx(counted, rel=0.1)


def test_blocks_lie_between_causal_and_square():
    from curbcut.facts.presets import shape
    from curbcut.spec import ModelShape

    model = ModelShape(**shape("curb-4m"))
    for s in (1, 17, 128, 129, 4096):
        causal, blocks, square = (flops.context(model, s, kind)
                                  for kind in ("causal", "blocks", "square"))
        assert causal <= blocks <= square
