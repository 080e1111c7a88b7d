"""A runner without a model, which notices whenever it is handed pages of another request.

Each slot of its cache holds a number that stands for all tokens up to there, and for salt and
adapter; the next token is a function of that number. So an answer is right, whatever the batch, if
and only if every page that was read held the values that belong there.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from curbcut.serve.engine.interface import Asked, Sampling

END = "<|endoftext|>"


def byte_tokenizer() -> Tokenizer:
    """One token a byte, a few merges, and an end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(alphabet)}
    merges = [("a", "b"), ("t", "h"), ("th", "e")]
    vocab |= {"".join(pair): 256 + i for i, pair in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    return tokenizer


def prefixes(root, tokens):
    """The number that stands for each prefix of `tokens`."""
    found, value = [], hash(root)
    for token in tokens:
        value = hash((value, token))
        found.append(value)
    return found


def answer(asked, count, vocab=97):
    """What a `Pretend` answers greedily, up to `count` tokens."""
    tokens = list(asked.prompt)
    for _ in range(count):
        tokens.append(prefixes((asked.salt, asked.adapter), tokens)[-1] % vocab)
    return tokens[len(asked.prompt):]


def asked(prompt, max_tokens=8, *, salt="", adapter="", priority=0, **how):
    """A greedy request."""
    how.setdefault("temperature", 0)
    return Asked(prompt=tuple(prompt), sampling=Sampling(max_tokens=max_tokens, **how), salt=salt,
                 adapter=adapter, priority=priority)


def check(pages):
    """Raises AssertionError where the books do not balance."""
    held = sum(count > 0 for count in pages._holders)
    assert min(pages._holders, default=0) >= 0, "a page was given back twice"
    assert held + len(pages._free) == pages.count, "pages are lost"
    assert all(pages._holders[page] == 0 for page in pages._free), "a free page is held"
    assert all(pages._keys[page] == key for key, page in pages._by_key.items()), "a stale key"
    known = sum(key is not None for key in pages._keys)
    assert known == len(pages._by_key), "a page is known twice"
    assert pages.remembered == sum(pages._keys[page] is not None for page in pages._free)
    reached = {pages._identity[page] for page in pages._by_key.values()}
    assert all(not isinstance(link, int) or link in reached for link, _ in pages._by_key), \
        "a page stands behind one that is forgotten"


class Pretend:
    """See above."""

    shares_pages, weights_bytes, cache_bytes = True, 0, 0

    def __init__(self, pages=12, page_tokens=4, context_tokens=64, vocab=97, checks=True):
        self.pages, self.page_tokens, self.vocab = pages, page_tokens, vocab
        self.context_tokens, self.checks = context_tokens, checks
        self.slots = [None] * (pages * page_tokens)
        self.steps = []
        self.forgotten = []

    def run(self, pieces):
        self.steps.append([(p.request.ticket, p.start, p.count, p.wanted) for p in pieces])
        size, rows = self.page_tokens, []
        assert len({piece.request for piece in pieces}) == len(pieces)
        for piece in pieces:
            request, end = piece.request, piece.start + piece.count
            assert piece.tokens and len(piece.tokens) == piece.count
            told = prefixes(request.root, request.tokens[: piece.start] + piece.tokens)
            for at in range(end):
                slot = request.pages[at // size] * size + at % size
                if at >= piece.start:
                    self.slots[slot] = told[at]
                elif self.checks:
                    assert self.slots[slot] == told[at], "a page of another prompt"
            rows += [told[at] % self.vocab for at in range(end - piece.wanted, end)]
        logits = torch.zeros(len(rows), self.vocab)
        if rows:
            logits[torch.arange(len(rows)), torch.tensor(rows)] = 10.0
        return logits

    def embed(self, prompt):
        return torch.tensor([float(sum(prompt)), 0.0])

    def forget(self, request):
        self.forgotten.append(request.ticket)
