"""A weight laid out once for the CPU's own matmul, so that no call lays it out again.

oneDNN multiplies by a weight in blocks of its own; handed a plain one, it makes them each time it
is called (bf16), or another library is asked that has no kernels for the CPU at hand (fp32). Half
a weight's time goes there when rows are few. Billions of parameters a second (weight 2432 x 896 and
its like, larger than the caches together), 2 threads of a Zen 5 CPU without AMX, torch 2.13.0:

    rows      bf16 as it is    bf16 packed    fp32 as it is    fp32 packed
    1         11               28             4.7              15
    8         9.5              19             3.0              10
    16        8.7              15             2.3              7.8
    256       1.6              1.75           0.34             0.88

One layout serves all numbers of rows: packing for one number is no faster there.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Packed:
    """A weight [outputs, inputs] in oneDNN's layout, with or without a bias [outputs]."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.bytes_ = weight.nbytes + (bias.nbytes if bias is not None else 0)
        self._outputs = weight.shape[0]
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
        self._bias = bias

    def __call__(self, x: Tensor, then: str = "none") -> Tensor:
        """x [n, inputs] -> [n, outputs]; `then` is what oneDNN does to each ("swish" is silu)."""
        if not len(x):
            return x.new_empty(0, self._outputs)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, then, [], "")
        return out


class PackedPair:
    """Gate and up of a feed-forward as one matrix; apart, the gate is bent on its way to memory:
    4% less time of a feed-forward at 1 row, 7% at 512 (bf16, 512 x 1536).
    """

    def __init__(self, gate: Packed, up: Packed) -> None:
        self._gate, self._up = gate, up
        self.bytes_ = gate.bytes_ + up.bytes_

    def __call__(self, x: Tensor) -> Tensor:
        """x [n, inputs] -> gate and up, one after another, [n, 2 * inner]."""
        return torch.cat((self._gate(x), self._up(x)), -1)

    def gated(self, x: Tensor) -> Tensor:
        """x [n, inputs] -> silu(gate) * up, [n, inner]."""
        return self._gate(x, "swish").mul_(self._up(x))


def packable(weight: Tensor) -> bool:
    """Whether this CPU has oneDNN matmuls for the weight's dtype."""
    if weight.device.type != "cpu" or (
            not torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
