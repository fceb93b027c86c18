"""The table of scales that indices name: 64 steps, geometric.

An index k stands for the standard deviation `MIN_SCALE * STEP**k`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

LEVELS = 64
MAX_INDEX = LEVELS - 1
MIN_SCALE = 0.11
MAX_SCALE = 128.0
LOG_STEP = math.log(MAX_SCALE / MIN_SCALE) / MAX_INDEX

T = TypeVar("T", float, "torch.Tensor")


def index_to_scale(index: T) -> T:
    """Standard deviation of a (real-valued) scale index."""
    log_scale = math.log(MIN_SCALE) + LOG_STEP * index
    return math.exp(log_scale) if isinstance(log_scale, float) else log_scale.exp()


def scale_to_index(scale: torch.Tensor) -> torch.Tensor:
    """Real-valued scale index of a standard deviation; below zero under the smallest."""
    return (scale.clamp_min(1e-6).log() - math.log(MIN_SCALE)) / LOG_STEP
