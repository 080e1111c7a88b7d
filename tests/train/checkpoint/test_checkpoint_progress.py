"""What a checkpoint holds besides tensors."""

from __future__ import annotations

import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from curbcut.train.checkpoint import progress

numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(st.integers(0), st.lists(numbers, max_size=4), st.dictionaries(st.text(), numbers),
       st.none() | numbers)
def test_progress_survives_json(step, losses, seconds, joules):
    before = progress.Progress(step, step, tuple(losses), 1, seconds, joules, 2)
    assert progress.from_plain(json.loads(json.dumps(asdict(before)))) == before
