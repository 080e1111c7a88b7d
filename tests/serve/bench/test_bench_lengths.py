from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbcut.errors import InputError
from curbcut.serve.bench.lengths import WORDS, Asking, Lengths, lengths, read_trace


def asking(**more):
    return Asking(**({"seed": 1, "prompt": Lengths(40), "output": Lengths(8),
                      "pool": range(100)} | more))


@pytest.mark.parametrize(("text", "found", "mean"), [
    ("128", Lengths(128), 128), ("64..256", Lengths(64, 256), 160), ("7..7", Lengths(7), 7),
    (" 1,000 ", Lengths(1000), 1000), ("100~0.5", Lengths(100, 0, 0.5), 113.3)])
def test_how_lengths_are_written(text, found, mean):
    assert lengths(text, "--prompt") == found
    assert found.mean == pytest.approx(mean, rel=1e-3)
    assert lengths(str(found), "") == found


@pytest.mark.parametrize("text", ["", "0", "-3", "9..3", "a", "1~", "10~9", "99999999999",
                                  "1..2..3"])
def test_what_is_no_length(text):
    with pytest.raises(InputError) as caught:
        lengths(text, "--prompt")
    assert caught.value.where == "--prompt" and caught.value.mend


@given(st.integers(1, 500), st.integers(0, 500), st.floats(0, 2), st.integers())
def test_draws_lie_where_they_should(least, more, sigma, seed):
    source = Random(seed)
    assert least <= Lengths(least, least + more).draw(source) <= least + more
    assert Lengths(least, 0, sigma).draw(source) >= 1


def test_the_mean_of_a_lognormal_is_that_of_its_draws():
    source, one = Random(3), Lengths(100, 0, 0.8)
    drawn = [one.draw(source) for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(one.mean, rel=0.03)


@given(st.integers(0, 50), st.floats(0, 0.99), st.integers(1, 200))
def test_prompts_have_their_length_and_what_is_shared(number, shared, length):
    one = asking(prompt=Lengths(length), shared=shared)
    first, other = one.question(number), one.question(number + 1)
    common = round(shared * length)
    assert len(first.prompt) == length and first.output_tokens == 8
    assert first.prompt[:common] == other.prompt[:common]
    assert first == asking(prompt=Lengths(length), shared=shared).question(number)


def test_parts_of_a_bench_and_seeds_ask_for_different_things():
    one = asking()
    prompts = {one.question(0).prompt, one.question(0, "1").prompt, one.question(1).prompt,
               asking(seed=2).question(0).prompt}
    assert len(prompts) == 4


def test_prompts_of_text_have_as_many_words_as_tokens_need():
    text = asking(pool=(), words_a_token=0.5).question(0).prompt
    assert len(text.split()) == 20 and set(text.split()) <= set(WORDS)


def test_a_trace_says_lengths_and_times(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text('{"prompt_tokens": 5, "output_tokens": 2, "seconds": 0.5}\n\n'
                    '{"input_length": 9, "output_length": 3, "timestamp": 2500}\n'
                    '{"prompt_tokens": 7, "output_tokens": 1}\n')
    one = asking(trace=read_trace(path))
    found = [one.question(n) for n in range(4)]
    assert [len(q.prompt) for q in found] == [5, 9, 7, 5]
    assert [q.seconds for q in found] == [0.5, 2.5, None, None]
    assert one.mean_tokens == (7, 2)


@pytest.mark.parametrize("line", ["[]", "{", '{"prompt_tokens": 5}', '{"prompt_tokens": true, '
                                  '"output_tokens": 1}', '{"prompt_tokens": 0, "output_tokens": 1}',
                                  '{"prompt_tokens": 1, "output_tokens": 1, "seconds": -1}', "  "])
def test_a_trace_that_is_none_says_where(tmp_path, line):
    path = tmp_path / "trace.jsonl"
    path.write_text(line)
    with pytest.raises(InputError, match=r"trace\.jsonl"):
        read_trace(path)
    with pytest.raises(InputError):
        read_trace(tmp_path / "absent")
