import io
import json
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from curbcut.cli import chat
from curbcut.cli.main import main
from curbcut.serve.engine.interface import Asked, Delta, Sampling, Stats
from curbcut.serve.engine.text import Vocabulary
from curbcut.serve.talk import Talk, Told


@dataclass
class Parrot:
    """An engine that says what it was asked, a token at a time."""

    context_tokens: int = 64
    vocab: int = 300
    vocabulary: Vocabulary | None = None
    asked: list[Asked] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    fails: bool = False

    def submit(self, asked, deliver):
        self.asked.append(asked)
        prompt = asked.prompt
        said = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        words = said.split()[:asked.sampling.max_tokens]
        for n, word in enumerate(words):
            deliver(Delta(f"{word} ", n + 1))
        deliver(Delta("", len(words), "failed" if self.fails else "stop",
                      extra={"reason": "it is tired"} if self.fails else {}))
        return len(self.asked)

    def cancel(self, ticket):
        self.cancelled.append(ticket)

    def stats(self):
        return Stats()


SAMPLING = Sampling(max_tokens=9)


def conversation(monkeypatch, capsys, engine, *lines, plain=False, system=None):
    """What a person sees who writes these lines: on stdout and on stderr."""
    given = iter(lines)

    def read(_prompt):
        line = next(given, None)
        if line is None:
            raise EOFError
        if isinstance(line, type):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)
    assert chat._converse(Talk(engine, "parrot", plain), system, SAMPLING) == 0
    return capsys.readouterr()


def test_a_conversation_remembers_until_it_is_reset(monkeypatch, capsys):
    engine = Parrot()
    seen = conversation(monkeypatch, capsys, engine, "one two", "", "three", "/reset", "four",
                        "/help", "/quit", "never", system="be brief")
    assert seen.out == "one two \nthree \nfour \n"
    assert [[(turn["role"], turn["content"]) for turn in asked.prompt] for asked in engine.asked
            ] == [[("system", "be brief"), ("user", "one two")],
                  [("system", "be brief"), ("user", "one two"), ("assistant", "one two "),
                   ("user", "three")], [("system", "be brief"), ("user", "four")]]
    assert "2 tokens" in seen.err and "first after" in seen.err and "/reset begins" in seen.err


def test_a_plain_text_is_gone_on_with_and_nothing_remembered(monkeypatch, capsys):
    engine = Parrot()
    seen = conversation(monkeypatch, capsys, engine, "one", "two", plain=True)
    assert [asked.prompt for asked in engine.asked] == ["one", "two"]
    assert "goes on with what you write" in seen.err


def test_an_interrupt_ends_the_answer_and_not_the_conversation(monkeypatch, capsys):
    engine = Parrot()
    out = sys.stdout

    class Interrupts(io.StringIO):
        encoding = "utf-8"

        def write(self, text):
            if text.startswith("stop"):
                raise KeyboardInterrupt
            return out.write(text)

        def flush(self):
            pass

    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", Interrupts())
        text, stopped = chat._answer(Talk(engine, "parrot"), [
            {"role": "user", "content": "well stop here"}], SAMPLING)
    assert stopped and text == "well stop " and engine.cancelled == [1]
    seen = conversation(monkeypatch, capsys, engine, KeyboardInterrupt, "again")
    assert "again" in seen.out and "/quit leaves" in seen.err


def test_an_engine_that_fails_says_why_and_can_be_asked_again(monkeypatch, capsys):
    seen = conversation(monkeypatch, capsys, Parrot(fails=True), "one", "two")
    assert seen.err.count("it is tired") == 2


def test_what_commands_a_terminal_is_not_printed(monkeypatch, capsys):
    class Terminal(io.StringIO):
        encoding = "ascii"

        def isatty(self):
            return True
    assert chat._printable("a\x1b[2Jb\n\tc", Terminal()) == "a?[2Jb\n\tc"
    assert chat._printable("a\x1b", io.StringIO()) == "a\x1b"


@pytest.mark.parametrize(("told", "said"), [
    (Told(11, 0.5, 1.5, "stop"), "11 tokens, 10.0 tok/s, first after 500 ms"),
    (Told(1, 0.5, 0.5, "length"), "1 tokens, first after 500 ms, cut at --max-tokens or the "
     "model's context"),
    (Told(4, 0.1, 0.4, "", False), "4 pieces, 10.00 pieces/s, first after 100 ms"),
    (Told(), "0 tokens")])
def test_how_an_answer_went(told, said):
    assert chat.line(told) == said


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from curbcut.model import weights
    from curbcut.model.decoder import Decoder
    from curbcut.spec import ModelShape
    tokenizers = pytest.importorskip("tokenizers")
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(
        vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    base = tmp_path_factory.mktemp("chat") / "small"
    base.mkdir()
    tokenizer.save(str(base / "tokenizer.json"))
    shape = ModelShape(layers=1, width=16, heads=2, kv_heads=1, head_size=8, ffn=32, vocab=256,
                       context_tokens=32)
    weights.save(Decoder(shape), shape, base / "model", base / "tokenizer.json")
    return base / "model"


def test_one_question_is_one_answer(model, capfd, monkeypatch):
    assert main(["chat", str(model), "abc", "--max-tokens", "4", "--seed", "1"]) == 0
    seen = capfd.readouterr()
    assert seen.out and "small has no chat template" in seen.err and "4 tokens" in seen.err
    monkeypatch.setattr("sys.stdin", io.StringIO("abc"))
    assert main(["chat", str(model), "--max-tokens", "4", "--seed", "1"]) == 0
    assert capfd.readouterr().out == seen.out


@pytest.mark.parametrize(("words", "said"), [
    (["x" * 40], "takes 32 tokens"), ([""], "needs a beginning"),
    (["a", "--temperature", "3"], "not between 0 and 2"),
    (["a", "--max-tokens", "0"], "nearest: 1"),
    (["a", "--system", "be brief"], "reads no system text")])
def test_what_cannot_be_asked_is_exit_code_2(model, capsys, words, said):
    assert main(["chat", str(model), *words]) == 2
    assert said in capsys.readouterr().err


def test_addresses_take_no_engine_options_and_must_answer(capsys):
    assert main(["chat", "http://127.0.0.1:9", "a", "--draft", "3"]) == 2
    assert "--draft is for a model that is opened here" in capsys.readouterr().err
    assert main(["chat", "http://127.0.0.1:9", "a"]) == 2


def test_a_template_makes_it_a_conversation(model, tmp_path):
    import shutil
    folder = shutil.copytree(model, tmp_path / "chatty")
    settings = folder / "tokenizer_config.json"
    known = json.loads(settings.read_text()) if settings.exists() else {}
    settings.write_text(json.dumps(known | {"chat_template":
                        "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}"}))
    program = [sys.executable, "-m", "curbcut.cli.main", "chat", str(folder), "hello",
               "--system", "s", "--max-tokens", "2"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "no chat template" not in done.stderr, done.stderr
