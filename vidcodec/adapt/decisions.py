"""How an encoder decides the symbols of latents: quantiser, trade-off, and what an error in each channel costs.

L = R + lambda * 255^2 * D, in bits of a picture, makes an error e of a latent worth  w e^2  bits, with

    w = lambda * 255^2 * d^2(N D) / d y^2 / 2        N: pixels

For an orthonormal transform with a gain that is the gain's inverse square, times a plane's weight; a network's
synthesis is neither, so w is measured: the Gauss-Newton diagonal of its squared error, by random signs (one backward
pass gives all channels, Hutchinson's estimator), averaged over positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidcodec.adapt.objective import signs
from vidcodec.models.msp import PLANE_WEIGHTS, Msp
from vidcodec.quantize.quantizer import Quantised, Quantizer, quantise

ROUNDING = Quantizer()


@dataclass(frozen=True, eq=False)
class Decisions:
    """A quantiser and what decides among its symbols; a decoder needs the quantiser alone.

    trade_off: None for plain rounding; else bits count so many times, 1 being what L says. Less is right: a symbol
        set to zero also makes later passes, which look at it, know less.
    weight: bits per squared step by channel of y, float64 (C,); 1 without.
    """

    quantizer: Quantizer = ROUNDING
    trade_off: float | None = None
    weight: np.ndarray | None = None

    def quantise(self, residual: np.ndarray, index: np.ndarray, channels: slice) -> Quantised:
        """Symbols and values of one cell (1, c, h, w), whose channels of y these are."""
        weight = None
        if self.weight is not None and self.trade_off is not None:
            weight = np.broadcast_to(self.weight[channels, None, None], residual.shape)
        return quantise(self.quantizer, residual, index, self.trade_off, weight=weight)


PLAIN = Decisions()


def error_weights(
    model: Msp,
    pictures: Sequence[Tensor],
    level: Tensor,
    plane_weights: tuple[float, float, float] = PLANE_WEIGHTS,
    *,
    seed: int = 0,
) -> np.ndarray:
    """Bits that a squared step of error in each channel of y is worth, float64 (C,).

    pictures: planes (1, 6, H/2, W/2) each, to measure at; level: (1,).
    """
    generator = torch.Generator().manual_seed(seed)
    wy, wu, wv = plane_weights
    # N D: D averages luma over N samples, chroma over N / 4.
    weight = torch.tensor([wy] * 4 + [4 * wu, 4 * wv], device=level.device)[None, :, None, None]
    total, sites = torch.zeros(model.config.latent, dtype=torch.float64, device=level.device), 0
    for planes in pictures:
        with torch.no_grad():
            y = model.analyse(planes.to(level.device), level)
        y.requires_grad_(True)
        out = model.synthesise(y, level)
        (gradient,) = torch.autograd.grad((out * weight.sqrt() * signs(out, generator)).sum(), y)
        total += gradient.double().square().sum((0, 2, 3))
        sites += y.shape[-1] * y.shape[-2]
    return (float(model.rate_lambda(level)) * 255.0**2 * total / sites).cpu().numpy()
