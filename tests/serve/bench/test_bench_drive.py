import pytest

from curbcut.errors import InputError, UnknownName
from curbcut.serve.bench.drive import Bench, drive
from curbcut.serve.bench.lengths import Asking, Lengths
from curbcut.serve.bench.load import Closed, Open
from curbcut.serve.bench.result import Objective
from curbcut.serve.engine.address import Address
from curbcut.spec.estimate import measured


def driven(fake, *loads, pool=range(50), trace=(), model="", meter=None, **more):
    asking = Asking(3, Lengths(10), Lengths(4), pool=pool, trace=trace)
    bench = Bench(asking=asking, loads=loads, **({"requests": 6, "warmup": 1} | more))
    return drive(Address.of(fake.url), bench, model=model, meter=meter)


def test_a_closed_loop_asks_what_the_seed_says(fake):
    found = driven(fake, Closed(2), Closed(3), objective=Objective(ttft=60))
    assert found.model == "fake" and not found.notes
    assert [one.load for one in found.results] == ["2 users", "3 users"]
    for one, users in zip(found.results, (2, 3), strict=True):
        assert (one.requests, one.prompt_tokens, one.answer_tokens) == (6, 60, 24)
        assert one.good == 6 and 0 < one.in_flight <= users and one.counted == "usage"
        assert 0 < one.ttft.mean < one.end_to_end.mean <= one.seconds
    asked = [tuple(body["prompt"]) for _, body in fake.asked]
    assert len(asked) == 1 + 2 * (1 + 6) == len(set(asked))
    again = len(fake.asked)
    driven(fake, Closed(1), Closed(1))
    assert sorted(map(str, asked)) == sorted(str(tuple(body["prompt"]))
                                             for _, body in fake.asked[again:])


def test_an_open_loop_asks_whatever_happens(fake):
    fake.pause = 0.02  # an answer takes longer than the next one needs to come
    found = driven(fake, Open(200), warmup=0).results[0]
    assert found.requests == 6 and found.in_flight > 2
    found = driven(fake, Open(50), requests=0, seconds=0.3).results[0]
    assert 1 <= found.requests <= 40


def test_seconds_end_a_closed_loop(fake):
    found = driven(fake, Closed(1, 3), requests=0, seconds=0.2).results[0]
    assert found.requests >= 1 and 0.2 <= found.seconds < 60


def test_a_trace_says_when(fake):
    found = driven(fake, Open(1000), trace=((3, 2, 0.0), (5, 1, 0.1)), requests=2, warmup=0)
    assert found.results[0].seconds >= 0.1
    assert [len(body["prompt"]) for _, body in fake.asked[1:]] == [3, 5]


def test_fields_that_a_server_does_not_know_are_left_out_and_that_is_said(fake):
    fake.refuses = ("ignore_eos", "stream_options")
    found = driven(fake, Closed(1))
    assert len(found.notes) == 2 and found.results[0].counted == "chunks"
    assert "ignore_eos" not in fake.asked[-1][1]


def test_prompts_of_text_are_as_long_as_the_first_one_shows(fake):
    found = driven(fake, Closed(1), pool=())
    assert "2.00 tokens a word" in found.notes[0]
    assert found.results[0].prompt_tokens == 60
    chats = driven(fake, Closed(1), pool=(), api="chat")
    assert chats.results[0].requests == 6
    assert fake.asked[-1][0] == "/v1/chat/completions" and fake.asked[-1][1]["messages"]


def test_answers_that_fail_are_counted_and_told(fake):
    fake.fails, fake.status = 3, 429
    found = driven(fake, Closed(1), warmup=0).results[0]
    assert found.requests == 3 and found.errors == {"429: no []": 3}


def test_the_model_is_the_only_one_or_named(fake):
    fake.models = ["a", "b"]
    with pytest.raises(InputError, match="serves 2 models"):
        driven(fake, Closed(1))
    assert driven(fake, Closed(1), model="b").model == "b"
    with pytest.raises(UnknownName):
        driven(fake, Closed(1), model="c")


def test_adapters_of_the_only_model_are_no_other_ones(fake):
    fake.models = ["a", {"id": "a:law", "parent": "a"}]
    assert driven(fake, Closed(1)).model == "a"


def test_a_server_that_is_none_is_said(fake):
    fake.refuses = ("prompt",)
    with pytest.raises(InputError, match="/v1/completions answers 400"):
        driven(fake, Closed(1))
    fake.url = "http://127.0.0.1:9"
    with pytest.raises(InputError, match="does not answer"):
        driven(fake, Closed(1))


def test_joules_are_metered_around_each_load(fake):
    calls = []

    def meter():
        calls.append("begin")
        return lambda busy: calls.append("end") or measured(48.0 + 0 * busy, "a sensor")
    found = driven(fake, Closed(1), Closed(2), meter=meter)
    assert calls == ["begin", "end"] * 2
    assert found.results[0].joules_per_token.value == 2
