"""`curbcut chat`: ask a model in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from curbcut.cli.served import add_engine_options, engine_words, find, opened
from curbcut.errors import EXIT_OK, CurbcutError, InputError

if TYPE_CHECKING:
    from curbcut.serve.engine.interface import Sampling
    from curbcut.serve.talk import Talk, Told, Turn

EXIT_INTERRUPTED = 130
HELP = "/reset begins anew, /quit leaves; Ctrl-C stops an answer"
CONTINUES = "goes on with what you write, and remembers nothing of it"


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb and its options."""
    parser = subparsers.add_parser(
        "chat", help="ask a model in the terminal",
        description="Asks a run's model, a folder's, or a server's. Without a prompt, and on a "
                    "terminal, it is a conversation; else one answer.")
    parser.add_argument("model", metavar="RUN|FOLDER|URL", help="who answers")
    parser.add_argument("prompt", nargs="?", help="one question; from stdin where that is no "
                        "terminal")
    parser.add_argument("--system", help="what the model is told first")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 is greedy (0.7)")
    parser.add_argument("--top-p", type=float, default=1.0, help="nucleus (1)")
    parser.add_argument("--max-tokens", type=int, default=256, help="of an answer (256)")
    parser.add_argument("--seed", type=int, help="same seed, same answers")
    parser.add_argument("--plain", action="store_true",
                        help="go on with the text, without the model's chat template")
    parser.add_argument("--as", dest="asked_name", metavar="NAME",
                        help="model to ask for at a URL that has several")
    parser.add_argument("--key", default="", help="API key of a URL")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER",
                        help="folder of all runs (default: runs)")
    add_engine_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Talks; returns the exit code."""
    sampling = _sampling(args)
    prompt = args.prompt if args.prompt is not None or sys.stdin.isatty() else sys.stdin.read()
    with _talk(args) as talk:
        if prompt is not None:
            return _once(talk, args.system, prompt, sampling)
        return _converse(talk, args.system, sampling)


def _sampling(args: argparse.Namespace) -> Sampling:
    from curbcut.serve.engine.interface import Sampling

    for name, value, low, high in (("--temperature", args.temperature, 0.0, 2.0),
                                   ("--top-p", args.top_p, 1e-6, 1.0),
                                   ("--max-tokens", args.max_tokens, 1, 10_000_000)):
        if not low <= value <= high:
            raise InputError(f"{value:g} is not between {low:g} and {high:g}", where=name,
                             mend=f"nearest: {low if value < low else high:g}")
    return Sampling(max_tokens=args.max_tokens, temperature=args.temperature, top_p=args.top_p,
                    seed=args.seed)


@contextlib.contextmanager
def _talk(args: argparse.Namespace) -> Iterator[Talk]:
    """Who answers, until the block ends."""
    from curbcut.serve.talk import Talk

    if "://" not in args.model:
        folder, name = find(args.model, args.runs)
        with opened(args, folder) as engine:
            yield Talk(engine, name, args.plain)
        return
    from curbcut.serve.engine.remote import RemoteEngine

    if words := engine_words(args):
        raise InputError(f"{words[0]} is for a model that is opened here", where=args.model,
                         mend="leave it out, or give it to the server")
    with contextlib.closing(RemoteEngine(args.model, args.asked_name or "", key=args.key)) as there:
        yield Talk(there, there.model, args.plain)


def _once(talk: Talk, system: str | None, prompt: str, sampling: Sampling) -> int:
    """One answer on stdout, how it went on stderr."""
    if not talk.turns:
        _remark(_continues(talk))
    stopped = _answer(talk, [*_first(system, talk), {"role": "user", "content": prompt}],
                      sampling)[1]
    print()
    _remark(line(talk.told, stopped))
    return EXIT_INTERRUPTED if stopped else EXIT_OK


def _converse(talk: Talk, system: str | None, sampling: Sampling) -> int:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (lines can be edited, and come back with the arrow)
    _remark(f"{talk.model if talk.turns else _continues(talk)}; {HELP}")
    turns = _first(system, talk)
    while (said := _read()) is not None:
        if said in ("/help", "/?"):
            _remark(HELP)
        elif said == "/reset":
            turns = _first(system, talk)
            _remark("forgotten")
        elif said in ("/quit", "/exit"):
            break
        elif said.strip():
            asked: list[Turn] = [*turns, {"role": "user", "content": said}]
            try:
                text, stopped = _answer(talk, asked, sampling)
            except CurbcutError as error:
                _remark(str(error))
                continue
            print()
            _remark(line(talk.told, stopped))
            if talk.turns:
                turns = [*asked, {"role": "assistant", "content": text}]
    return EXIT_OK


def _continues(talk: Talk) -> str:
    """Why nobody is spoken to here."""
    return f"{talk.model} {'' if talk.plain else 'has no chat template: it '}{CONTINUES}"


def _first(system: str | None, talk: Talk) -> list[Turn]:
    """What a conversation begins with. Raises InputError for a system text that nobody reads."""
    if system is None:
        return []
    if not talk.turns:
        raise InputError("goes on with one text, and reads no system text", where=talk.model,
                         mend="put it into the prompt, or leave --system out")
    return [{"role": "system", "content": system}]


def _read() -> str | None:
    """A line that somebody wrote; None at the end."""
    while True:
        try:
            return input("> ")
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print()
            _remark("/quit leaves")


def _answer(talk: Talk, turns: Sequence[Turn], sampling: Sampling) -> tuple[str, bool]:
    """Prints an answer as it comes; its text, and whether somebody stopped it."""
    text, out = "", sys.stdout
    pieces = talk.say(turns, sampling)
    try:
        for piece in pieces:
            text += piece
            out.write(_printable(piece, out))
            out.flush()
    except KeyboardInterrupt:
        return text, True
    finally:
        pieces.close()
    return text, False


def _printable(text: str, out: TextIO) -> str:
    """`text` without what would command a terminal (escapes), and with what it can show."""
    if out.isatty():
        text = "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd"
                       for letter in text)
    encoding = out.encoding or "utf-8"
    return text.encode(encoding, errors="replace").decode(encoding)


def line(told: Told, stopped: bool = False) -> str:
    """How an answer went, in one line."""
    from curbcut import units

    said = [f"{told.tokens} {'tokens' if told.counted else 'pieces'}"]
    if told.tokens_per_second is not None:
        said.append(f"{units.sig(told.tokens_per_second)} {'tok' if told.counted else 'pieces'}/s")
    if told.first_seconds is not None:
        said.append(f"first after {units.show(told.first_seconds, 'seconds')}")
    if stopped:
        said.append("stopped")
    elif told.finish == "length":
        said.append("cut at --max-tokens or the model's context")
    return ", ".join(said)


def _remark(text: str) -> None:
    """A dim line beside the conversation."""
    colour = sys.stderr.isatty()
    print(f"\x1b[2m{text}\x1b[0m" if colour else text, file=sys.stderr, flush=True)
