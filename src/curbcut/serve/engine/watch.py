"""No orphans: a process group that ends when the process that started it is gone."""

from __future__ import annotations

import subprocess
import sys

GRACE_SECONDS = 15.0
"""Between asking a group to end and ending it."""
_WATCH = """
import os, signal, sys, time
sys.stdin.read()
for number, seconds in ((signal.SIGTERM, float(sys.argv[2])), (signal.SIGKILL, 0)):
    try:
        os.killpg(int(sys.argv[1]), number)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            os.killpg(int(sys.argv[1]), 0)
            time.sleep(0.1)
    except ProcessLookupError:
        break
"""


def watched(group: int, grace_seconds: float = GRACE_SECONDS) -> subprocess.Popen[bytes]:
    """A process that ends the process group `group` when this one is gone, however it went: it
    reads from a pipe that nobody writes to. Kill it where the group has ended well.

    (A parent's death can be heard as a signal, but by one process only, and on Linux already when
    the thread is gone that started it.)
    """
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", _WATCH, str(group),
                             str(grace_seconds)], stdin=subprocess.PIPE, start_new_session=True)
