"""Exact integer arithmetic for everything that chooses a distribution.

Integers are carried in float64, where sums stay below 2^53 and are therefore exact in
any order: the results cannot depend on threads, instruction sets, libraries or devices.
Convolutions run as unfold + matrix product, never as Winograd or FFT.

    weights       round(w * 2^12), 16 bits
    activations   value * 2^8, in [0, 2^15)
    accumulators  value * 2^20; |acc| < 2^15 * 2^15 * fan-in < 2^53 for fan-in < 2^23

After each layer an accumulator is rounded (half up) back to activations. The idea of
integer entropy networks: Balle, Johnston, Minnen 2019; the 16-bit operating point:
Koyuncu et al. 2023 (arXiv 2312.11209).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ARITHMETIC_VERSION = 1
WEIGHT_BITS = 12
ACTIVATION_BITS = 8
WEIGHT_LIMIT = float(2**15 - 1)
ACTIVATION_LIMIT = float(2**15 - 1)
ACCUMULATOR_LIMIT = float(2**40)


def to_grid(x: Tensor, bits: int, limit: float) -> Tensor:
    """round(x * 2^bits), bounded; float64. Multiplying by a power of two is exact."""
    return torch.floor(x.detach().double() * 2.0**bits + 0.5).clamp(-limit, limit)


def accumulate_bias(x: Tensor) -> Tensor:
    return to_grid(x, WEIGHT_BITS + ACTIVATION_BITS, ACCUMULATOR_LIMIT)


def to_activation(acc: Tensor) -> Tensor:
    """Accumulator to activation: shift, round half up, clip (the clipped ReLU)."""
    return torch.floor(acc * 2.0**-WEIGHT_BITS + 0.5).clamp(0.0, ACTIVATION_LIMIT)


def shift_to_int(acc: Tensor, bits: int) -> Tensor:
    """floor(acc / 2^bits + 1/2): exact, bits <= 20."""
    return torch.floor(acc * 2.0**-bits + 0.5)


@dataclass(frozen=True, eq=False)
class IntConv:
    """A stride-1 'same' convolution on integers."""

    weight: Tensor  # (out, in * k * k) float64 holding integers
    bias: Tensor  # (out, 1)
    size: int  # k, odd

    @classmethod
    def from_float(cls, weight: Tensor, bias: Tensor) -> IntConv:
        w = to_grid(weight, WEIGHT_BITS, WEIGHT_LIMIT)
        return cls(w.flatten(1).contiguous(), accumulate_bias(bias)[:, None], weight.shape[-1])

    def __call__(self, x: Tensor) -> Tensor:
        """Activations (B, in, h, w) float64 to accumulators (B, out, h, w)."""
        b, _, h, w = x.shape
        columns = x.flatten(2) if self.size == 1 else F.unfold(x, self.size, padding=self.size // 2)
        return (torch.matmul(self.weight, columns) + self.bias).reshape(b, -1, h, w)


@dataclass(frozen=True, eq=False)
class IntLevels:
    """Vectors per rate level, interpolated at a level given in 1/256 steps."""

    table: Tensor  # (K, width) float64 holding accumulators

    @classmethod
    def from_float(cls, table: Tensor) -> IntLevels:
        return cls(accumulate_bias(table))

    def at(self, level: int) -> Tensor:
        """Accumulators (1, width, 1, 1); level in 0 .. 256 * (K - 1)."""
        low = min(level // 256, self.table.shape[0] - 2)
        t = level - 256 * low
        mixed = torch.floor((self.table[low] * (256 - t) + self.table[low + 1] * t) * 2.0**-8 + 0.5)
        return mixed[None, :, None, None]
