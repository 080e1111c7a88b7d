"""llama.cpp where it is installed: on PATH, or in the folder that CURBCUT_LLAMA names."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def program() -> str:
    """The program that completes a prompt; skips the test where there is none."""
    folder = os.environ.get("CURBCUT_LLAMA")
    for name in ("llama-completion", "llama-cli"):
        found = shutil.which(name, path=folder)
        if found:
            return found
    pytest.skip("llama.cpp is not installed (llama-completion on PATH, or its folder in "
                "CURBCUT_LLAMA)")


def complete(file: Path, prompt: str, tokens: int) -> str:
    """Prompt and greedy answer of a GGUF file, in one thread.

    The program prints from another thread, which the end of the program now and then cuts off: then
    it is asked again.
    """
    said = ""
    for _ in range(4):
        done = subprocess.run([program(), "-m", str(file), "-p", prompt, "-n", str(tokens),
                               "--temp", "0", "-no-cnv", "-t", "1", "-c", "96", "--no-warmup",
                               "--simple-io"], capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-800:].decode(errors="replace")
        said = done.stdout.decode(errors="replace")
        if len(said.strip()) > len(prompt):
            break
    return said
