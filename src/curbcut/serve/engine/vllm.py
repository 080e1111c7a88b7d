"""vLLM as an `Engine`: a program beside this one, started, driven by its API, and surely ended.

vLLM is installed apart (`pip install vllm`; on a CPU its own build of it). It is `vllm` on PATH, or
what the environment variable CURBCUT_VLLM names: that program, or the Python that has vLLM (where
its package goes by another name than "vllm", the program does not work).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from curbcut.errors import CurbcutError, InputError
from curbcut.serve.engine.address import Address, Failed
from curbcut.serve.engine.dialects import DIALECTS
from curbcut.serve.engine.interface import Asked, Deliver, Stats
from curbcut.serve.engine.remote import RemoteEngine
from curbcut.serve.engine.text import Vocabulary
from curbcut.serve.engine.watch import GRACE_SECONDS, watched

START_SECONDS = 1800.0
"""Compiling and capturing graphs of a large model takes many minutes."""
_SHOWN_LINES = 15


@dataclass(frozen=True, kw_only=True)
class Options:
    """How vLLM runs a model; 0 and "" leave the choice to vLLM."""

    tensor_parallel: int = 1
    """GPUs over which each matrix is split."""
    data_parallel: int = 1
    """Whole copies of the model behind one address."""
    max_batch: int = 0
    """Requests that run at once."""
    context_tokens: int = 0
    """Longest prompt plus answer."""
    dtype: str = ""
    """Of weights and activations, as vLLM names it ("bfloat16")."""
    quantisation: str = ""
    """As vLLM names it ("fp8", "awq", ...)."""
    prefix_cache: bool = True
    """Whether prompts are remembered."""
    eager: bool = False
    """Whether nothing is compiled: starts sooner, answers more slowly."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """LoRA adapters by name."""
    kv_transfer: str = ""
    """vLLM's --kv-transfer-config (JSON): prefill apart from decoding is vLLM's own."""
    more: tuple[str, ...] = ()
    """Further arguments, as they are."""


def arguments(folder: Path, port: int, name: str, options: Options) -> list[str]:
    """What vLLM's server is called with, behind what it is called by."""
    said = [str(folder), "--host", "127.0.0.1", "--port", str(port), "--served-model-name", name,
            "--scheduling-policy", "priority"]
    for flag, value in (("--tensor-parallel-size", options.tensor_parallel),
                        ("--data-parallel-size", options.data_parallel)):
        said += [flag, str(value)] if value > 1 else []
    for flag, given in (("--max-num-seqs", options.max_batch), ("--dtype", options.dtype),
                        ("--max-model-len", options.context_tokens),
                        ("--quantization", options.quantisation),
                        ("--kv-transfer-config", options.kv_transfer)):
        said += [flag, str(given)] if given else []
    said.append(f"--{'' if options.prefix_cache else 'no-'}enable-prefix-caching")
    said += ["--enforce-eager"] if options.eager else []
    if options.adapters:
        said += ["--enable-lora", "--lora-modules",
                 *(f"{one}={path}" for one, path in options.adapters.items())]
    return [*said, *options.more]


def command() -> list[str]:
    """What to start, up to the model's folder. Raises InputError where vLLM is not installed."""
    named = os.environ.get("CURBCUT_VLLM", "")
    found = shutil.which(named or "vllm")
    beside = Path(sys.executable).with_name("vllm")
    if found is None and not named and beside.exists():
        found = str(beside)
    if found is None:
        raise InputError(f"{named or 'vllm'} is not installed here", where="vllm",
                         mend="pip install vllm into an environment of its own, and name its "
                         "executable in CURBCUT_VLLM")
    if Path(found).name.startswith("python"):
        return [found, "-m", "vllm.entrypoints.openai.api_server", "--model"]
    return [found, "serve"]


class VllmEngine:
    """An `Engine` on the model of a folder, whose tokens are made here (`vocabulary`).

    Raises InputError where vLLM is not installed, CurbcutError with its last words where it ends
    before it answers, or does not answer within `start_seconds`.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary | None = None,
                 options: Options | None = None, *, start_seconds: float = START_SECONDS) -> None:
        called, key = command(), secrets.token_urlsafe(32)
        self.name, port = "served", _free_port()
        self._log = tempfile.TemporaryFile(prefix="curbcut-vllm-")  # noqa: SIM115 (kept open)
        self._process = _start([*called, *arguments(folder.resolve(), port, self.name,
                                                    options or Options())], key, self._log)
        self._watch = watched(self._process.pid, GRACE_SECONDS)
        try:
            self._await(Address.of(f"http://127.0.0.1:{port}", key), start_seconds)
            self._remote = RemoteEngine(f"http://127.0.0.1:{port}", self.name, key=key,
                                        vocabulary=vocabulary,
                                        dialect=replace(DIALECTS["vllm"], ranks=True))
        except BaseException:
            self._end()
            raise
        self.context_tokens, self.vocab = self._remote.context_tokens, self._remote.vocab
        self.vocabulary = vocabulary
        self.adapters: Mapping[str, str] = self._remote.adapters

    @property
    def process(self) -> int:
        """Number of the program's process, and of its group."""
        return self._process.pid

    def submit(self, asked: Asked, deliver: Deliver) -> int:
        """See `Engine.submit`."""
        return self._remote.submit(asked, deliver)

    def cancel(self, ticket: int) -> None:
        """See `Engine.cancel`."""
        self._remote.cancel(ticket)

    def embed(self, prompts: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """See `Engine.embed`; vLLM has it for models that it runs for that alone."""
        return self._remote.embed(prompts)

    def stats(self) -> Stats:
        """What was seen from here."""
        return self._remote.stats()

    def drain(self) -> None:
        """See `Engine.drain`."""
        self._remote.drain()

    def close(self) -> None:
        """See `Engine.close`: ends vLLM and all that it started."""
        self._remote.close()
        self._end()

    def _await(self, address: Address, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            ended = self._process.poll()
            if ended is not None:
                raise CurbcutError(f"vLLM ended with code {ended} before it answered:\n"
                                   f"{self._last_words()}", where="vllm",
                                   mend="mend what its last lines say")
            try:
                if address.reaches("/health"):
                    return
            except Failed:
                pass
            if time.monotonic() > until:
                raise CurbcutError(f"vLLM did not answer within {seconds:g} seconds:\n"
                                   f"{self._last_words()}", where="vllm",
                                   mend="give it longer, or eager = true")
            time.sleep(0.2)

    def _last_words(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 16_384))
        lines = self._log.read().decode(errors="replace").splitlines()
        return "\n".join(f"  | {line[:300]}" for line in lines[-_SHOWN_LINES:])

    def _end(self) -> None:
        """Ends the whole group; asked first, and then not asked."""
        _signal_group(self._process.pid, signal.SIGTERM)
        until = time.monotonic() + GRACE_SECONDS
        while _group_lives(self._process) and time.monotonic() < until:
            time.sleep(0.05)
        _signal_group(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_SECONDS)
        self._watch.kill()
        self._watch.communicate()
        self._log.close()


def _start(called: Sequence[str], key: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A process group of its own; the key is not on its command line, and nothing is fetched."""
    environment = {**os.environ, "VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1",
                   "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return subprocess.Popen(called, stdin=subprocess.DEVNULL, stdout=log,
                            stderr=subprocess.STDOUT, env=environment, start_new_session=True)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _group_lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()      # takes its leader's last word, or the group would never be empty
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
