"""`Corpus`: a prepared text on disk, complete or absent, and named by its content.

    FOLDER/KEY/
        manifest.json              sources, counts, versions, size and sha256 of every file below
        train.bin validation.bin   tokens, little-endian uint16 or uint32
        train.offsets.npy ...      first token of each document, int64 [documents + 1]
        validation.text            the held-out documents end to end, UTF-8
        tokenizer.json tokenizer_config.json
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curbcut.data import findings
from curbcut.data.split import SPLITS
from curbcut.data.tokenizer import CONFIG_FILE, TOKENIZER_FILE, load, token_bytes
from curbcut.errors import DamagedFile, UnknownName
from curbcut.files import sha256_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FORMAT = 1
MANIFEST = "manifest.json"
VALIDATION_TEXT = "validation.text"
FILES = (
    *(f"{split}.bin" for split in SPLITS), *(f"{split}.offsets.npy" for split in SPLITS),
    VALIDATION_TEXT, TOKENIZER_FILE, CONFIG_FILE,
)
MEND = "remove its folder and prepare the text again"


@dataclass(frozen=True)
class Corpus:
    """A prepared text. Open it with `Corpus.open`; make one with `prepare`."""

    folder: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path, verify: bool = False) -> Corpus:
        """The corpus in `folder`: every file there with its size, and with `verify` its sha256.

        Raises DamagedFile, naming the file.
        """
        folder = Path(folder)
        corpus = cls(folder, _read_manifest(folder / MANIFEST))
        for name in FILES:
            _check(folder / name, corpus.manifest["files"].get(name), verify)
        return corpus

    def _count(self, split: str, what: str) -> int:
        return int(self.manifest["splits"][split][what])

    @property
    def train_tokens(self) -> int:
        """Tokens to train on, end-of-text tokens included."""
        return self._count("train", "tokens")

    @property
    def validation_tokens(self) -> int:
        """Tokens held out, end-of-text tokens included."""
        return self._count("validation", "tokens")

    @property
    def train_bytes(self) -> int:
        """UTF-8 bytes of the documents to train on."""
        return self._count("train", "bytes")

    @property
    def validation_bytes(self) -> int:
        """UTF-8 bytes of the documents held out."""
        return self._count("validation", "bytes")

    @property
    def train_documents(self) -> int:
        """Documents to train on."""
        return self._count("train", "documents")

    @property
    def validation_documents(self) -> int:
        """Documents held out."""
        return self._count("validation", "documents")

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text a token of the train split stands for, on average."""
        return self.train_bytes / self.train_tokens

    @property
    def vocab(self) -> int:
        """Tokens the tokenizer has: never more than was asked, fewer where the text is short."""
        return int(self.manifest["vocab"])

    @property
    def digest(self) -> str:
        """sha256 over the names and hashes of all files: two equal digests are one corpus."""
        return str(self.manifest["digest"])

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer.json; tokenizer_config.json lies beside it."""
        return self.folder / TOKENIZER_FILE

    def tokens(self, split: str = "train") -> npt.NDArray[Any]:
        """The tokens of a split, uint16 or uint32 [tokens], mapped from disk and read-only."""
        import numpy as np

        return np.memmap(self.folder / f"{_known(split)}.bin", self.manifest["dtype"], "r")

    def document_offsets(self, split: str = "train") -> npt.NDArray[np.int64]:
        """Where documents begin in `tokens(split)`: int64 [documents + 1]."""
        import numpy as np

        offsets: npt.NDArray[np.int64] = np.load(
            self.folder / f"{_known(split)}.offsets.npy", mmap_mode="r", allow_pickle=False)
        return offsets

    def validation_text(self) -> bytes:
        """The held-out documents end to end, UTF-8."""
        return (self.folder / VALIDATION_TEXT).read_bytes()

    def tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer`; special tokens in text are read as plain text."""
        return load(self.tokenizer_path)

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """Bytes of text each token stands for, int64 [vocab]; 0 for the end of text."""
        return token_bytes(self.tokenizer())

    def remarks(self) -> list[str]:
        """What was odd in the text, one line a kind, for people."""
        return findings.sentences(self.manifest["findings"])


def digest_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """sha256 over names and hashes of a manifest's files."""
    lines = "".join(f"{name} {files[name]['sha256']}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def _known(split: str) -> str:
    if split not in SPLITS:
        raise UnknownName("split", split, SPLITS)
    return split


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedFile(f"cannot be read ({error})", where=str(path), mend=MEND) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DamagedFile(f"is not a manifest of format {FORMAT}", where=str(path), mend=MEND)
    try:
        whole = digest_of(manifest["files"]) == manifest["digest"]
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise DamagedFile("does not match its own digest", where=str(path), mend=MEND)
    return manifest


def _check(path: Path, entry: Mapping[str, Any] | None, verify: bool) -> None:
    if entry is None or not path.is_file():
        raise DamagedFile("is missing", where=str(path), mend=MEND)
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise DamagedFile(f"has {size} bytes instead of {entry['bytes']}", where=str(path),
                          mend=MEND)
    if verify and sha256_of(path) != entry["sha256"]:
        raise DamagedFile("does not match its sha256", where=str(path), mend=MEND)
