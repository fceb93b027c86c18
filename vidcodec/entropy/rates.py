"""What symbols cost, as training and search see it: differentiable, and what the integer tables charge."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vidcodec.entropy.scales import MAX_INDEX, index_to_scale


def ste_round(x: Tensor) -> Tensor:
    """Round with a straight-through gradient."""
    return x + (torch.round(x) - x).detach()


class IntoTable(torch.autograd.Function):
    """Real-valued table indices, clamped; outside, a gradient passes if it leads back inside.

    One that leads on outside must not pass, however small: latents that are always zero would draw their indices below
    the table for ever, at an adaptive optimiser's full rate, and the weights they share with others with them.
    """

    @staticmethod
    def forward(ctx: Any, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        return index.clamp(0.0, float(MAX_INDEX))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (index,) = ctx.saved_tensors
        outward = ((index < 0) & (grad > 0)) | ((index > MAX_INDEX) & (grad < 0))
        return grad.masked_fill(outward, 0.0)


def symbol_bits(x: Tensor, index: Tensor) -> Tensor:
    """Bits of real-valued `x` under the zero-mean normal of a (real-valued) scale index.

    The rate the integer tables charge, as a differentiable function: their 16-bit floor is
    added to the probability, their escape is a slowly growing term.
    """
    inv = 1.0 / index_to_scale(IntoTable.apply(index))
    x = x.abs()
    c = -math.sqrt(0.5)
    p = 0.5 * (torch.erfc(c * (0.5 - x) * inv) - torch.erfc(c * (-0.5 - x) * inv))
    return torch.log2(1.0 + F.relu(x * inv - 5.0)) - torch.log2(p + 2.0**-16)


def rate_of_symbols(x: Tensor, q: Tensor, index: Tensor, rate: str) -> Tensor:
    """Bits of values x, rounded to q (straight through), under scale indices.

    'rounded': of the symbols themselves. 'noise': of x plus uniform noise, the usual
    differentiable stand-in, which charges a sure zero 0.1 bit it does not cost.
    'mixed': the value and the gradient towards the index of the symbols themselves, the
    gradient towards x of x itself: what the coder charges, yet smooth in x. (With the
    gradient of x plus noise, almost sure zeros far from the next symbol are pulled on
    so hard that the low rates drown everything else.)
    """
    if rate == "rounded":
        return symbol_bits(q, index)
    if rate == "noise":
        return symbol_bits(x + torch.rand_like(x) - 0.5, index)
    smooth = symbol_bits(x, index.detach())
    return symbol_bits(q.detach(), index) + smooth - smooth.detach()


# (latents of a cell, their means, their real-valued table indices, their channels) -> (decided residuals, bits (B,))
CellCoder = Callable[[Tensor, Tensor, Tensor, slice], tuple[Tensor, Tensor]]


def rounding(rate: str) -> CellCoder:
    """Residuals rounded (straight through), their rate charged as `rate` says."""

    def code(y: Tensor, mean: Tensor, index: Tensor, _: slice) -> tuple[Tensor, Tensor]:
        residual = y - mean
        q = ste_round(residual)
        return q, rate_of_symbols(residual, q, index, rate).sum((1, 2, 3))

    return code
