"""Weights in fewer bits: a byte each by output ("int8"), the same with rows in bytes too
("int8-dynamic"), four bits in groups of 32 ("int4").

All kernels are torch's own. They read bytes where a plain matmul reads two or four of them, and
that is what a step of few rows takes its time for; where rows are many, weights are turned back
into bf16 for the call. Results are in the dtype of the rows that came, sums and products in bf16
("int8", "int4") or exact in integers ("int8-dynamic"), whatever the dtype of the rows. Billions of
parameters a second (2432 x 896, 20 in turn; 2 threads of a Zen 5 CPU without AMX, torch 2.13.0):

    rows    bf16 packed    int8    int8-dynamic    int4
    1       14 to 18       27      20 to 24        44 to 50
    8       14 to 17       14      18 to 20        15
    16      13             8       14 to 16        8
    64      5.4            4       7               2.2
    256     1.7            1.4     2.4             0.9
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from curbcut.errors import InputError

GROUP = 32
"""Inputs that share a scale and a zero in "int4"; what all kernels want inputs to be a multiple of.
"int8pack" reads beyond a row's end where they are not."""
BLOCK = 64
"""Outputs that "int4" packs together."""
FEW_INT8, FEW_INT4 = 24, 96
"""Rows up to which the kernels for few rows are the faster ones (Zen 5 without AMX)."""
AT_ONCE = 4
"""Rows that the four-bit kernel takes at a time: eight of them take three times as long as four."""
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Shares of a group's range that are tried for its four bits; the one of least error is kept: a
few large weights cut off can be worth finer steps for all others."""


def by_output(weight: Tensor, levels: int = 127) -> tuple[Tensor, Tensor]:
    """weight [outputs, inputs] -> integers of -levels..levels, int8, and scales [outputs] in fp32:
    weight = integers * scale, each within half a scale.
    """
    weight = weight.detach().float()
    scale = (weight.abs().amax(1) / levels).clamp_(min=torch.finfo(torch.float32).tiny)
    return (weight / scale[:, None]).round_().clamp_(-levels, levels).to(torch.int8), scale


def by_group(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """weight [outputs, inputs], inputs a multiple of `GROUP` -> codes 0..15 as int32, like it, and
    scales and zeros [outputs, groups] in bf16: weight = (code - 8) * scale + zero.
    """
    groups = weight.detach().float().view(len(weight), -1, GROUP)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    middle, half = (high + low) / 2, (high - low) / 2
    tiny = torch.finfo(torch.bfloat16).tiny
    best: list[Tensor] = []
    for shrink in SHRINKS:
        scale = (half * (shrink / 7.5)).clamp(min=tiny).bfloat16().float()
        zero = (middle + scale / 2).bfloat16().float()
        codes = ((groups - zero) / scale + 8).round_().clamp_(0, 15)
        error = ((codes - 8) * scale + zero - groups).square_().sum(-1, keepdim=True)
        if not best:
            best = [error, codes, scale, zero]
        else:
            better = error < best[0]
            best = [torch.where(better, new, old)
                    for new, old in zip((error, codes, scale, zero), best, strict=True)]
    _, codes, scale, zero = best
    return codes.flatten(1).int(), scale[..., 0].bfloat16(), zero[..., 0].bfloat16()


class Int8:
    """A weight [outputs, inputs] in a byte each, one scale an output; rows stay in bf16.

    Error of a product beside that of bf16: at most half a scale times the sum of |x|.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._outputs, inputs = weight.shape
        self._padding = -inputs % GROUP
        self._weight, scale = by_output(F.pad(weight, (0, self._padding)))
        self._scale, self._bias = scale.bfloat16(), bias
        self._few = FEW_INT8 if has("_weight_int8pack_mm", weight.device.type) else 0
        self.bytes_ = _bytes(self._weight, self._scale, bias)

    def __call__(self, x: Tensor) -> Tensor:
        """x [n, inputs] -> [n, outputs] in x's dtype."""
        if not len(x):
            return x.new_empty(0, self._outputs)
        rows = _narrow(x, self._padding)
        if len(rows) <= self._few:
            out = torch._weight_int8pack_mm(rows, self._weight, self._scale)
        else:
            out = F.linear(rows, self._weight.bfloat16()).mul_(self._scale)
        return _finished(out, self._bias, x.dtype)


class Int8Dynamic:
    """A weight in a byte each, one scale an output, and each row in a byte each by its own scale.

    Integers are added up exactly, so that a row's result is the same in any company. Bytes of rows
    are unsigned (128 stands for 0), which is what the CPU's dot products of bytes take; what the
    128 adds is the same for all rows and taken off with the bias.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        _require_dot_products(weight.device)
        self._outputs, self._cuda = weight.shape[0], weight.device.type == "cuda"
        codes, self._scale = by_output(weight)
        self._offset = codes.sum(1, dtype=torch.int64).float() * self._scale * -128
        self._zeros = torch.zeros(self._outputs, dtype=torch.int64, device=weight.device)
        self._bias = bias
        self._weight = (_padded(codes, 8, 16) if self._cuda
                        else torch.ops.onednn.qlinear_prepack(codes, None))
        self.bytes_ = _bytes(codes, self._scale, self._offset, self._zeros, bias)

    def __call__(self, x: Tensor) -> Tensor:
        """x [n, inputs] -> [n, outputs] in x's dtype."""
        if not len(x):
            return x.new_empty(0, self._outputs)
        read = x.float()
        step = read.abs().amax(1, keepdim=True).mul_(1 / 127)
        step.clamp_(min=torch.finfo(torch.float32).tiny)
        if self._cuda:
            out = self._on_cuda(read.div(step).round_().to(torch.int8))
        else:
            codes = read.div(step).add_(128.5).to(torch.uint8)
            out = torch.ops.onednn.qlinear_pointwise(
                codes, 1.0, 0, self._weight, self._scale, self._zeros, self._offset, 1.0, 0,
                torch.float32, "none", [], "")
        return _finished(out.mul_(step), self._bias, x.dtype)

    def _on_cuda(self, codes: Tensor) -> Tensor:
        """Signed bytes [n, inputs] -> [n, outputs]; the kernel wants more than 16 rows."""
        rows = max(32, -(-len(codes) // 8) * 8)
        codes = F.pad(codes, (0, self._weight.shape[1] - codes.shape[1], 0, rows - len(codes)))
        out = torch._int_mm(codes, self._weight.t())[: , : self._outputs].float()
        return out.mul_(self._scale)


class Int4:
    """A weight in four bits each, a scale and a zero for each `GROUP` inputs; rows stay in bf16.

    Five bits a weight in all. Ragged sizes are filled up with zeros.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        _require("_weight_int4pack_mm" if weight.is_cuda else "_weight_int4pack_mm_for_cpu",
                 weight.device.type, "int4", "int8")
        self._outputs, inputs = weight.shape
        whole = _padded(weight.detach(), BLOCK, 128 if weight.is_cuda else GROUP)
        self._padding = whole.shape[1] - inputs
        codes, scale, zero = by_group(whole)
        self._scales = torch.stack((scale.t(), zero.t()), -1).contiguous()
        self._cuda, self._bias = weight.is_cuda, bias
        if self._cuda:
            pairs = (codes[:, ::2] << 4 | codes[:, 1::2]).to(torch.uint8)
            self._weight = torch._convert_weight_to_int4pack(pairs, 8)
        else:
            self._weight = torch._convert_weight_to_int4pack_for_cpu(codes, 1)
        self.bytes_ = _bytes(self._weight, self._scales, bias)

    def __call__(self, x: Tensor) -> Tensor:
        """x [n, inputs] -> [n, outputs] in x's dtype."""
        if not len(x):
            return x.new_empty(0, self._outputs)
        rows = _narrow(x, self._padding)
        if self._cuda:
            out = torch._weight_int4pack_mm(rows, self._weight, GROUP, self._scales)
        elif len(rows) <= FEW_INT4 or not blocked():
            parts = [torch._weight_int4pack_mm_for_cpu(part, self._weight, GROUP, self._scales)
                     for part in torch.split(rows, AT_ONCE)]
            out = parts[0] if len(parts) == 1 else torch.cat(parts)
        else:
            out = torch.mm(rows, self._unpacked())
        return _finished(out[:, : self._outputs], self._bias, x.dtype)

    def _unpacked(self) -> Tensor:
        """The weight in bf16, [inputs, outputs], both filled up."""
        scale, zero = (part.contiguous()[:, None] for part in self._scales.unbind(-1))
        codes = unblocked(self._weight).bfloat16().view(len(scale), GROUP, -1)
        return codes.sub_(8).mul_(scale).add_(zero).flatten(0, 1)


def unblocked(packed: Tensor) -> Tensor:
    """Codes 0..15, uint8 [inputs, outputs], of torch's four-bit layout for CPUs with AVX-512: of
    64 outputs, 32 stand in the low halves of an input's bytes and 32 in the high ones.
    """
    inputs = packed.shape[1] * 2
    halves = packed.view(-1, inputs, BLOCK // 2).transpose(0, 1)
    found = packed.new_empty(inputs, halves.shape[1], BLOCK)
    torch.bitwise_and(halves, 15, out=found[..., : BLOCK // 2])
    torch.bitwise_right_shift(halves, 4, out=found[..., BLOCK // 2:])
    return found.flatten(1)


@functools.cache
def blocked() -> bool:
    """Whether this CPU's four-bit layout is the one that `unblocked` knows: tried, not assumed."""
    chance = torch.Generator().manual_seed(0)
    codes = torch.randint(16, (2 * BLOCK, GROUP), generator=chance, dtype=torch.int32)
    packed = torch._convert_weight_to_int4pack_for_cpu(codes, 1)
    return torch.equal(unblocked(packed).t().int(), codes)


def has(operation: str, device: str) -> bool:
    """Whether this torch has a kernel of `aten::operation` for a type of device."""
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(device, "")
    name = f"aten::{operation}"
    return bool(key and hasattr(torch, operation)
                and torch._C._dispatch_has_kernel_for_dispatch_key(name, key))


def _require(operation: str, device: str, kind: str, nearest: str) -> None:
    if not has(operation, device):
        raise InputError(f"torch {torch.__version__} has no {operation} for {device}, which "
                         f"{kind} weights need", where="weight_precision",
                         mend=f'take "{nearest}", or "same"')


def _require_dot_products(device: torch.device) -> None:
    if device.type == "cuda":
        return _require("_int_mm", "cuda", "int8-dynamic", "int8")
    lacking = ("torch was built without oneDNN's operations"
               if not hasattr(torch.ops.onednn, "qlinear_pointwise") else
               "the CPU has no dot products of bytes (VNNI, AMX)"
               if not torch.cpu._is_vnni_supported() else "")
    if device.type != "cpu" or lacking:
        raise InputError(f"int8-dynamic weights cannot be used: {lacking or device.type}",
                         where="weight_precision", mend='take "int8", or "same"')


def _narrow(x: Tensor, padding: int) -> Tensor:
    rows = x.bfloat16()
    return F.pad(rows, (0, padding)) if padding else rows.contiguous()


def _padded(weight: Tensor, outputs: int, inputs: int) -> Tensor:
    """Filled up with zeros to multiples."""
    return F.pad(weight, (0, -weight.shape[1] % inputs, 0, -weight.shape[0] % outputs))


def _finished(out: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    out = out.to(dtype)
    return out if bias is None else out + bias


def _bytes(*parts: Tensor | None) -> int:
    return sum(part.nbytes for part in parts if part is not None)
