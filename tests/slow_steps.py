"""An engine whose steps take as long as a test says, at least."""

from __future__ import annotations

import time


def slow_steps(monkeypatch, seconds):
    """Each step of any engine of ours takes `seconds` more."""
    from curbcut.serve.engine.runner import TorchRunner
    run = TorchRunner.run

    def slowly(self, *pieces):
        time.sleep(seconds)
        return run(self, *pieces)

    monkeypatch.setattr(TorchRunner, "run", slowly)
