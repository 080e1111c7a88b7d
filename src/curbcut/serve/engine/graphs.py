"""Steps in which each answer goes one token further, recorded once for each size and replayed.

A GPU is done with such a step of a small model before a CPU has asked for its hundreds of
operations one by one; a recorded step is asked for at once. What is recorded has fixed sizes, so a
step is filled up to the next power of two: with its last row once more (which computes and keeps
what that row does anyway), and with pages behind a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from curbcut.serve.engine.cache import PagedCache, Span, StepView
from curbcut.serve.engine.network import Network

Replay = Callable[[], Tensor]
"""Does a recorded piece of work again, on what its inputs hold by then."""
MOST_ROWS = 256
"""Steps of more rows keep a GPU busy as they are."""


@dataclass(frozen=True)
class _Recorded:
    tokens: Tensor
    view: StepView
    replay: Replay


class DecodeGraphs:
    """All recorded steps of one network and cache. One thread owns it."""

    def __init__(self, network: Network, cache: PagedCache, group: int,
                 record: Callable[[Callable[[], Tensor]], Replay] | None = None) -> None:
        """`group` queries share a key head; `record` is CUDA's own by default."""
        self._network, self._cache, self._group = network, cache, group
        self._record = record or CudaRecorder()
        self._kept: dict[tuple[int, int], _Recorded] = {}

    def logits(self, tokens: Sequence[int], spans: Sequence[Span]) -> Tensor:
        """Scores [n, vocab] of n rows, each one token of a sequence of its own."""
        rows = _next_power(len(tokens))
        more = rows - len(tokens)
        pages = max(start // self._cache.page_tokens + 1 for _, start, _ in spans)
        key = rows, _next_power(pages)
        view = StepView(self._cache, [*spans, *[spans[-1]] * more], self._group, pages=key[1])
        filled = torch.tensor([*tokens, *[tokens[-1]] * more], device=self._network.device)
        step = self._kept.get(key)
        if step is None:
            step = self._kept[key] = _Recorded(
                filled, view, self._record(lambda: self._work(filled, view)))
        else:
            step.tokens.copy_(filled)
            step.view.become(view)
        return step.replay()[: len(tokens)].clone()

    def _work(self, tokens: Tensor, view: StepView) -> Tensor:
        return self._network.logits(self._network.hidden(tokens, view))


class CudaRecorder:
    """Records as CUDA graphs, which share one pool of memory: they never run at once."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Tensor]) -> Replay:
        """What does `work` again; its inputs stay where they are."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries make their workspaces before the recording
            work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            out = work()

        def replay() -> Tensor:
            graph.replay()
            return out
        return replay


def _next_power(count: int) -> int:
    return 1 << (count - 1).bit_length()
