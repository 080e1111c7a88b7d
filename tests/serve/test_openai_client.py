"""The contract, held with OpenAI's own client."""

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest


@pytest.fixture
def client(session):
    with openai.OpenAI(base_url=f"{session.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_models(client):
    assert [m.id for m in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "curbcut"


def test_completion_counts_and_ends_by_length(client):
    answer = client.completions.create(model="tiny", prompt="abc", max_tokens=7, temperature=0)
    assert answer.object == "text_completion"
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 7)  # "ab", "c"
    assert answer.usage.total_tokens == 9


def test_completion_defaults_to_sixteen_tokens(client):
    answer = client.completions.create(model="tiny", prompt="abc", seed=1)
    assert answer.usage.completion_tokens <= 16


def test_tokens_as_prompt(client):
    text = client.completions.create(model="tiny", prompt="abc", max_tokens=9, temperature=0)
    tokens = client.completions.create(model="tiny", prompt=[256, ord("c") - 33], max_tokens=9,
                                       temperature=0)
    assert text.choices[0].text == tokens.choices[0].text
    assert text.usage == tokens.usage


def test_chat_whole_and_streamed_say_the_same(client):
    ask = {"model": "tiny", "messages": [{"role": "user", "content": "def f("}],
           "max_tokens": 30, "temperature": 0}
    whole = client.chat.completions.create(**ask)
    assert whole.object == "chat.completion"
    assert whole.choices[0].message.role == "assistant"
    chunks = list(client.chat.completions.create(**ask, stream=True,
                                                 stream_options={"include_usage": True}))
    assert {c.object for c in chunks} == {"chat.completion.chunk"}
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(c.usage is None for c in chunks[:-1])


def test_chat_default_length_is_what_the_context_leaves(client):
    answer = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "x" * 100}], seed=3)
    choice = answer.choices[0]
    assert choice.finish_reason == "stop" or answer.usage.total_tokens == 128


def test_sixteen_streams_at_once_equal_one_by_one(client, session):
    prompts = [f"prompt number {i}" * (1 + i % 3) for i in range(16)]

    def ask(prompt):
        chunks = list(client.completions.create(model="tiny", prompt=prompt, max_tokens=24,
                                                temperature=0, stream=True))
        assert all(c.object == "text_completion" for c in chunks)
        return "".join(c.choices[0].text for c in chunks), chunks[-1].choices[0].finish_reason

    before = session.stats()
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, prompts))
    after = session.stats()
    assert together == [ask(prompt) for prompt in prompts]
    steps = after.decode_steps - before.decode_steps
    assert steps < after.answer_tokens - before.answer_tokens  # they shared steps


def test_seed_repeats_and_other_seed_differs(client):
    def ask(seed):
        return client.completions.create(model="tiny", prompt="abc", max_tokens=24, seed=seed,
                                         temperature=1.5).choices[0].text

    assert ask(5) == ask(5)
    assert len({ask(seed) for seed in range(5)}) > 1


def test_stop_text_ends_the_answer_and_is_not_in_it(client):
    ask = {"model": "tiny", "prompt": "abc", "max_tokens": 40, "temperature": 0}
    full = client.completions.create(**ask).choices[0].text
    stop = full[5:8]
    cut = client.completions.create(**ask, stop=[stop, "never to be seen"])
    assert cut.choices[0].text == full[:full.find(stop)]
    assert cut.choices[0].finish_reason == "stop"
    streamed = client.completions.create(**ask, stop=stop, stream=True)
    assert "".join(c.choices[0].text for c in streamed) == cut.choices[0].text


def test_prompts_of_any_script(client):
    answer = client.completions.create(model="tiny", prompt="Ångström 東京 🜁 é", max_tokens=3)
    assert answer.usage.prompt_tokens == len("Ångström 東京 🜁 é".encode())


@pytest.mark.parametrize(("change", "field"), [
    ({"n": 129}, "n"), ({"logprobs": 6}, "logprobs"), ({"suffix": "x"}, "suffix"),
    ({"temperature": 3}, "temperature"), ({"top_p": -1}, "top_p"),
    ({"max_tokens": -1}, "max_tokens"), ({"best_of": 2, "n": 3}, "best_of"),
    ({"max_tokens": 999}, "prompt"), ({"stop": ["a"] * 5}, "stop"),
    ({"presence_penalty": 2.5}, "presence_penalty"), ({"prompt": ["a", 7]}, "prompt"),
    ({"logit_bias": {"264": 1}}, "logit_bias"), ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"prompt": ""}, "prompt"), ({"prompt": [9999]}, "prompt"), ({"seed": 2**70}, "seed"),
    ({"extra_body": {"top_k": -3}}, "top_k"), ({"extra_body": {"max_token": 3}}, "max_token"),
])
def test_a_refused_field_is_named(client, change, field):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**({"model": "tiny", "prompt": "abc", "max_tokens": 4} | change))
    assert caught.value.param == field
    assert caught.value.type == "invalid_request_error"


def test_neutral_values_are_accepted(client):
    client.completions.create(model="tiny", prompt="abc", max_tokens=1, n=1, best_of=1, echo=False,
                              logit_bias={}, presence_penalty=0.0, frequency_penalty=0, user="me")


def test_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="large", prompt="abc")
    assert caught.value.code == "model_not_found" and "tiny" in caught.value.message
