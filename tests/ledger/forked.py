"""Work in processes of their own. They are forked, so what was imported is there already."""

from __future__ import annotations

import os


def start(work, *given):
    """Begins `work(*given)` in a process; its number. It exits with 0, or 1 where that raised."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work(*given)
            code = 0
        finally:
            os._exit(code)
    return child


def ended(children):
    """Waits for processes; how each ended, as `os.waitpid` says it."""
    return [os.waitpid(child, 0)[1] for child in children]


def forked(work, count):
    """Runs `work(number)` in so many processes; how each ended."""
    return ended([start(work, number) for number in range(count)])


def told(work, *given):
    """Begins `work(*given, tell)`, where what is written to the file descriptor `tell` is read
    from the file that this returns beside the process's number.
    """
    receiver, sender = os.pipe()

    def telling():
        os.close(receiver)
        work(*given, sender)

    child = start(telling)
    os.close(sender)
    return child, os.fdopen(receiver)
