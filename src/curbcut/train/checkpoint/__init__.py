"""Checkpoints: complete and verified, or absent; written by all ranks, read on any layout."""

from curbcut.train.checkpoint.loading import Laid, Stored, newest, verify
from curbcut.train.checkpoint.manifest import complete
from curbcut.train.checkpoint.progress import Progress
from curbcut.train.checkpoint.saving import Saver, Writing
from curbcut.train.identity import identity

__all__ = ["Laid", "Progress", "Saver", "Stored", "Writing", "complete", "identity", "newest",
           "verify"]
