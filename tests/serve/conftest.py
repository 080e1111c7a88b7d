"""A random model with a byte-level tokenizer, and a server on it."""

import pytest

from curbcut.model import weights
from curbcut.model.decoder import Decoder
from curbcut.serve.server import serving
from curbcut.spec import ModelShape
from pretend import byte_tokenizer

SHAPE = ModelShape(layers=2, width=32, heads=4, kv_heads=2, head_size=8, ffn=48, vocab=264,
                   context_tokens=128, qk_norm=True)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """runs/tiny/model with weights of std 0.3: random, but sure of itself."""
    import torch
    torch.set_num_threads(1)
    base = tmp_path_factory.mktemp("runs") / "tiny"
    base.mkdir()
    path = base / "tokenizer.json"
    byte_tokenizer().save(str(path))
    model = Decoder(SHAPE)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(15)
    weights.save(model, SHAPE, base / "model", path)
    return base / "model"


@pytest.fixture(scope="session")
def session(folder):
    """A running server without keys."""
    with serving(folder, max_batch=4) as session:
        yield session
