"""How an encoder decides the symbols of latents: quantiser, trade-off, and what an error in each channel costs.

L = R + lambda * 255^2 * D, in bits of a picture, makes an error e of a latent worth  w e^2  bits, with

    w = lambda * 255^2 * d^2(N D) / d y^2 / 2        N: pixels

For an orthonormal transform with a gain that is the gain's inverse square, times a plane's weight; a network's
synthesis is neither, so w is measured: the Gauss-Newton diagonal of its squared error, by random signs (one backward
pass gives all channels, Hutchinson's estimator), averaged over positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidcodec.latents.quantizer import Quantised, Quantizer, quantise

ROUNDING = Quantizer()


@dataclass(frozen=True)
class Settings:
    """A quantiser and how many times its symbols' bits count; None for plain rounding. See `Decisions`."""

    quantizer: Quantizer = ROUNDING
    trade_off: float | None = None


PLAIN_SETTINGS = Settings()


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
