"""Synthetic latents of mixed deviations, and costs computed the plain way."""

from __future__ import annotations

import numpy as np

from vidcodec.entropy.scales import MAX_INDEX, index_to_scale
from vidcodec.latents.quantizer import Quantizer, symbol_bits

SCALES = np.array([index_to_scale(float(i)) for i in range(MAX_INDEX + 1)])
PLAIN = Quantizer()
SCALAR = Quantizer("scalar", 2, 0)
TRELLIS4 = Quantizer("trellis4", 2, 3)
TRELLIS8 = Quantizer("trellis8", 2, 3)
TRELLISES = [TRELLIS4, TRELLIS8]
QUANTIZERS = [PLAIN, SCALAR, Quantizer("scalar", 3, -4), *TRELLISES, Quantizer("trellis8", 1, 11)]
TRADE_OFF = 0.115


def latents(size: int, seed: int = 0, *, centre: float = 16, spread: float = 9) -> tuple[np.ndarray, np.ndarray]:
    """Normal residuals and their indices, a few of them 0."""
    rng = np.random.default_rng(seed)
    index = np.rint(rng.normal(centre, spread, size)).clip(0, MAX_INDEX).astype(np.uint8)
    return (rng.normal(size=size) * SCALES[index]).astype(np.float32), index


def cost_of(
    quantizer: Quantizer,
    residual: np.ndarray,
    index: np.ndarray,
    symbols: np.ndarray,
    values: np.ndarray,
    trade_off: float,
    weight: np.ndarray | float = 1.0,
    runs: np.ndarray | None = None,
) -> float:
    """What `quantise` minimises: over the samples that are coded."""
    error = weight * (residual.astype(np.float64) - values / 256) ** 2
    bits = symbol_bits(quantizer, symbols, index, runs)
    return float(((error + trade_off * bits) * (index > 0)).sum())
