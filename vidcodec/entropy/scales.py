"""The table of scales that indices name: 64 steps, geometric.

An index k stands for the standard deviation `MIN_SCALE * STEP**k`.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch

LEVELS = 64
MAX_INDEX = LEVELS - 1
MIN_SCALE = 0.11
MAX_SCALE = 128.0
LOG_STEP = math.log(MAX_SCALE / MIN_SCALE) / MAX_INDEX

T = TypeVar("T", float, torch.Tensor)


def index_to_scale(index: T) -> T:
    """Standard deviation of a (real-valued) scale index."""
    if isinstance(index, torch.Tensor):
        return torch.exp(math.log(MIN_SCALE) + LOG_STEP * index)
    return math.exp(math.log(MIN_SCALE) + LOG_STEP * index)


def scale_to_index(scale: torch.Tensor) -> torch.Tensor:
    """Real-valued scale index of a standard deviation; below zero under the smallest."""
    return (torch.log(scale.clamp_min(1e-6)) - math.log(MIN_SCALE)) / LOG_STEP
