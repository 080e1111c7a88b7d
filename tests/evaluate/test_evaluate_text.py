from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from curbcut.errors import CurbcutError, InputError
from curbcut.evaluate import text
from curbcut.evaluate.bits import evaluate
from curbcut.evaluate.samples import of_held_out


class Uniform(nn.Module):
    """Knows nothing: all tokens are alike to it."""

    def __init__(self, vocab):
        super().__init__()
        self.vocab = vocab

    def forward(self, tokens):
        return torch.zeros(*tokens.shape, 1)

    def logits(self, hidden):
        return torch.zeros(*hidden.shape[:-1], self.vocab)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text("def one(value):\n    return value\n")
    (tmp_path / "b.py").write_text("x = [1, 2, 3]\n")
    return tmp_path


def test_a_folder_is_scored_on_all_its_bytes(corpus, folder):
    held = text.read(str(folder), corpus.folder)
    assert int(held.token_bytes()[held.tokens("validation")].sum()) == len(held.text)
    found = evaluate(Uniform(512), held, 16, stride=8)
    assert found.bytes_ == len(held.text)
    assert found.bits_per_byte == pytest.approx(len(held.ids) * math.log2(512) / len(held.text))


def test_a_folder_without_text_is_named(corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        text.read(str(tmp_path / "empty"), corpus.folder)


def test_a_model_without_a_tokenizer_is_named(folder, tmp_path):
    with pytest.raises(CurbcutError, match="tokenizer"):
        text.read(str(folder), tmp_path / "nowhere")


def test_samples_begin_with_held_out_documents(corpus):
    found = of_held_out(Uniform(corpus.vocab), corpus, count=2, tokens=5, sequence_tokens=16)
    held = corpus.validation_text().decode()
    assert len(found) == 2
    assert all(one.prompt in held for one in found)
    assert found == of_held_out(Uniform(corpus.vocab), corpus, count=2, tokens=5,
                                sequence_tokens=16)
