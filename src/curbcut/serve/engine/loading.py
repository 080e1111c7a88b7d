"""From a folder to what computes: our own network where it has the shape, else transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curbcut.errors import InputError, MissingExtra
from curbcut.model.config import shape_of
from curbcut.model.parts import CONFIG

if TYPE_CHECKING:
    import torch

    from curbcut.serve.engine.runner import Runner


def load_runner(folder: Path, *, sequences: int = 8, cache_tokens: int | None = None,
                kind: str = "same", cache: str = "same",
                dtype: torch.dtype | None = None,
                device: str | torch.device = "cpu", context_tokens: int | None = None) -> Runner:
    """What computes the model of a Hugging Face folder, with a cache of `cache_tokens` positions
    (None: `sequences` whole contexts), weights in `dtype` (None: as stored) kept as `kind`
    (`matrices.KINDS`), keys and values as `cache` (`byte_cache.KINDS`), and contexts of at most
    `context_tokens`.

    Raises InputError where neither our network nor transformers takes the model, MissingExtra
    where transformers would be needed, DamagedFile for files that are unsound.
    """
    from curbcut.model import weights

    config = weights.read_json(folder / CONFIG)
    try:
        shape = shape_of(config, where=str(folder / CONFIG))
    except InputError as refused:
        return _other_family(folder, refused, sequences, cache_tokens, kind, cache, dtype, device,
                             context_tokens)
    from curbcut.serve.engine.runner import TorchRunner
    from curbcut.serve.engine.threads import without_workers

    longest = min(context_tokens or shape.context_tokens, shape.context_tokens)
    with without_workers():
        model, _ = weights.load(folder, dtype=dtype, device=device)
        return TorchRunner(model.requires_grad_(False), cache_tokens or sequences * longest,
                           kind=kind, cache=cache, context_tokens=longest)


def _other_family(folder: Path, refused: InputError, sequences: int, cache_tokens: int | None,
                  kind: str, cache: str, dtype: torch.dtype | None,
                  device: str | torch.device, context_tokens: int | None) -> Runner:
    from curbcut.model.weights import read_json
    from curbcut.serve.engine import transformers_runner as other

    if kind != "same" or cache != "same":
        what = f"weights as {kind}" if kind != "same" else f"a cache as {cache}"
        raise InputError(f"{what}: only with shapes that Curbcut's own engine runs: "
                         f"{refused.what}", where=str(folder), mend="leave both as they are")
    longest = other.context_of(read_json(folder / CONFIG))
    longest = min(context_tokens or longest, longest)
    try:
        return other.load(folder, cache_tokens or sequences * longest, dtype=dtype, device=device,
                          context_tokens=longest)
    except MissingExtra as missing:
        raise InputError(f"{refused.what}; other families run through transformers, which is not "
                         "installed", where=str(folder), mend=missing.mend) from None
    except InputError as error:
        raise InputError(f"neither Curbcut's engine takes this model ({refused.what}), nor the "
                         f"other one: {error.what}", where=str(folder), mend=error.mend) from None
