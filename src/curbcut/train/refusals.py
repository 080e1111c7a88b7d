"""What can be planned but not trained by this version, by name: the plan's own table, so that what
a plan chooses here is what training runs. Imports no torch.
"""

from __future__ import annotations

from curbcut.plan.running import TRAINED, check, reason

__all__ = ["TRAINED", "check", "reason"]
