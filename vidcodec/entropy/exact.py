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

import math
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
        return (torch.matmul(self.weight, columns) + self.bias).reshape(b, len(self.weight), h, w)


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


# ------------------------------------------------------------------- wide signed layers
# For networks not made for this arithmetic (CompressAI's hyper-synthesis): weights take 16
# bits at an exponent chosen per layer, activations are signed and wide.
#
#     weights       round(w * 2^bits), |.| < 2^15, bits from the layer's largest weight
#     activations   value * 2^10, |.| < 2^23, so values up to 8191
#     accumulators  value * 2^(bits + 10); |acc| < 2^38 * fan-in + 2^51 < 2^53 for fan-in <= 2^14

WIDE_BITS = 10
WIDE_LIMIT = float(2**23 - 1)
WIDE_BIAS_LIMIT = float(2**51)
WIDE_MAX_FAN_IN = 2**14
MAX_WEIGHT_BITS = 24
SLOPE_BITS = 16


def weight_exponent(weight: Tensor) -> int:
    """The largest f <= 24 with |weight| * 2^f <= 2^15 for all of `weight`."""
    top = float(weight.detach().abs().max()) if weight.numel() else 0.0
    return min(MAX_WEIGHT_BITS, 15 - math.frexp(top)[1]) if top > 0 else MAX_WEIGHT_BITS


def to_wide(acc: Tensor, bits: int) -> Tensor:
    """Accumulator of a layer with weight exponent `bits` to signed activation: shift, round half up, clip."""
    return torch.floor(acc * 2.0**-bits + 0.5).clamp(-WIDE_LIMIT, WIDE_LIMIT)


def leaky(x: Tensor, slope: float) -> Tensor:
    """Leaky ReLU of integer activations; the slope is rounded to 16 bits, 0 is the plain ReLU."""
    factor = math.floor(slope * 2**SLOPE_BITS + 0.5)
    return torch.where(x < 0, torch.floor(x * factor * 2.0**-SLOPE_BITS + 0.5), x)


@dataclass(frozen=True, eq=False)
class WideConv:
    """A stride-1 'same' convolution on wide signed integers, or a 2x transposed one.

    A transposed convolution of kernel 5, stride 2 is a 3x3 convolution to the four phases of
    every output cell, interleaved at the end: `up` is then 2.
    """

    taps: Tensor  # (k * k, up * up * out, in) float64 holding integers
    bias: Tensor  # (out, 1, 1)
    bits: int  # weight exponent: accumulators are value * 2^(bits + WIDE_BITS)
    up: int = 1

    @classmethod
    def from_float(cls, weight: Tensor, bias: Tensor) -> WideConv:
        """weight (out, in, k, k) with odd k, bias (out,). Raises ValueError beyond a fan-in of 2^14."""
        return cls._quantised(weight, bias, 1)

    @classmethod
    def from_transposed(cls, weight: Tensor, bias: Tensor) -> WideConv:
        """ConvTranspose2d(kernel 5, stride 2, padding 2, output padding 1): weight (in, out, 5, 5), bias (out,).

        Output row 2m + a takes input row m + d through kernel row 2 + a - 2d, where there is one.
        """
        if weight.shape[-2:] != (5, 5):
            raise ValueError(f"the kernel must be 5x5, not {tuple(weight.shape[-2:])}")
        phases = weight.new_zeros(weight.shape[1], 2, 2, weight.shape[0], 3, 3)
        reach = [(a, d, 2 + a - 2 * d) for a in (0, 1) for d in (-1, 0, 1) if 2 + a - 2 * d < 5]
        for a, dy, ky in reach:
            for b, dx, kx in reach:
                phases[:, a, b, :, dy + 1, dx + 1] = weight.detach()[:, :, ky, kx].T
        return cls._quantised(phases.flatten(0, 2), bias, 2)

    @classmethod
    def _quantised(cls, weight: Tensor, bias: Tensor, up: int) -> WideConv:
        fan_in = weight[0].numel()
        if fan_in > WIDE_MAX_FAN_IN:
            raise ValueError(f"a fan-in of {fan_in} is beyond exact sums (at most {WIDE_MAX_FAN_IN})")
        bits = weight_exponent(weight)
        taps = to_grid(weight, bits, WEIGHT_LIMIT).flatten(2).permute(2, 0, 1).contiguous()
        return cls(taps, to_grid(bias, bits + WIDE_BITS, WIDE_BIAS_LIMIT)[:, None, None], bits, up)

    def __call__(self, x: Tensor) -> Tensor:
        """Activations (B, in, h, w) float64 to accumulators (B, out, up * h, up * w)."""
        b, _, h, w = x.shape
        size = math.isqrt(self.taps.shape[0])
        padded = F.pad(x, (size // 2,) * 4)
        acc = x.new_zeros(b, self.taps.shape[1], h * w)
        for k, tap in enumerate(self.taps):
            i, j = divmod(k, size)
            acc += torch.matmul(tap, padded[..., i : i + h, j : j + w].flatten(2))
        return F.pixel_shuffle(acc.reshape(b, -1, h, w), self.up) + self.bias
