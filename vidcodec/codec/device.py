"""Which device networks run on."""

from __future__ import annotations

import torch

from vidcodec.errors import ModelError


def pick_device(name: str) -> torch.device:
    """'auto', 'cpu' or 'cuda'; raises ModelError when there is no such device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("no CUDA device here; use the device cpu")
    return torch.device(name)
