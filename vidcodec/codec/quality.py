"""Measures of quality, from mean squared errors in code values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def psnr(mse: float, bit_depth: int) -> float:
    """Decibels; 100 for a perfect match."""
    peak = float((1 << bit_depth) - 1)
    return 100.0 if mse <= 0 else min(100.0, 10 * math.log10(peak * peak / mse))


def quality_figures(errors: Sequence[np.ndarray], bit_depth: int) -> dict[str, float]:
    """PSNR of Y, U, V and YUV (6:1:1): mean squared errors averaged over frames, then the logarithm.

    errors: one array (3,) per frame, mean squared errors of Y, U, V.
    """
    y, u, v = (psnr(float(m), bit_depth) for m in np.mean(errors, axis=0))
    return {"psnr_y": y, "psnr_u": u, "psnr_v": v, "psnr_yuv": (6 * y + u + v) / 8}
