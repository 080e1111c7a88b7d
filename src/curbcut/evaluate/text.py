"""A folder of text as held-out text: for any model that has its tokenizer beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from curbcut.data.documents import documents
from curbcut.data.findings import Findings
from curbcut.data.sources import inventory
from curbcut.data.tokenizer import END_OF_TEXT_ID, TOKENIZER_FILE, load, token_bytes
from curbcut.errors import InputError
from curbcut.spec import TrainJob


@dataclass(frozen=True)
class FolderText:
    """All text of a folder in one model's tokens."""

    ids: npt.NDArray[np.int64]
    bytes_a_token: npt.NDArray[np.int64]
    text: bytes

    def tokens(self, split: str) -> npt.NDArray[np.int64]:
        """All of it, whatever the split."""
        return self.ids

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """Bytes of text that each token stands for, int64 [vocab]."""
        return self.bytes_a_token


def read(folder: str, model: Path) -> FolderText:
    """The documents of `folder` (text, JSONL or Parquet) in the tokens of the model in `model`.

    Raises InputError for a folder without text, DamagedFile for a model without its tokenizer.
    """
    job, tokenizer = TrainJob(tokens=1, text=folder), load(model / TOKENIZER_FILE)
    ids: list[int] = []
    texts: list[bytes] = []
    for document in documents(inventory(job), job, Findings()):
        ids += [*tokenizer.encode(document.decode(), add_special_tokens=False).ids, END_OF_TEXT_ID]
        texts.append(document)
    if not ids:
        raise InputError("no document in it can be used", where=folder,
                         mend="name a folder of text")
    return FolderText(np.array(ids, np.int64), token_bytes(tokenizer), b"".join(texts))

