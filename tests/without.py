"""What tests may use and a computer may lack. CURBCUT_TESTS_WITHOUT=postgresql,chromium,node,wandb
hides what is there, to see that tests are skipped with a word then.
"""

from __future__ import annotations

import os


def hidden(name: str) -> bool:
    """Whether a test shall find that this is not installed."""
    return name in os.environ.get("CURBCUT_TESTS_WITHOUT", "").split(",")
