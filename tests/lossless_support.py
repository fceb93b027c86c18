"""A small lossless network with random weights, and planes to code with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vidcodec.checkpoint import snap_to_grid
from vidcodec.families.lossless.checkpoint import save_lossless
from vidcodec.families.lossless.network import Lossless, LosslessConfig

TINY = LosslessConfig(luma=(10, 8), chroma=(8,), mixtures=2, scales=3, tiers=2)


def tiny_lossless(seed: int = 0) -> Lossless:
    """Random weights on their grids; outputs spread widely enough for mixtures of every kind."""
    torch.manual_seed(seed)
    model = Lossless(TINY)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.startswith(model.last_layer):
                p.add_(0.1 * torch.randn_like(p))
    snap_to_grid(model)
    return model.eval().requires_grad_(False)


def tiny_lossless_weights(folder: Path) -> Path:
    """The checkpoint of `tiny_lossless()`."""
    path = folder / "lossless.safetensors"
    save_lossless(tiny_lossless(), path)
    return path


def smooth_planes(height: int, width: int, bits: int, *, rgb: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Waves and a little noise: luma (H, W) and chroma (2, ., .) in their ranges, int32."""
    noise, top = np.random.default_rng(seed), (1 << bits) - 1
    h, w = (height, width) if rgb else (-(-height // 2), -(-width // 2))

    def plane(h: int, w: int, top: int, k: int) -> np.ndarray:
        slope = np.add.outer(np.arange(h), 2 * np.arange(w)) / 20
        wave = 0.5 + 0.3 * np.sin(slope + k) + noise.normal(0, 0.01, slope.shape)
        return np.clip(np.rint(top * wave), 0, top).astype(np.int32)

    chroma = 2 * top if rgb else top
    return plane(height, width, top, 0), np.stack([plane(h, w, chroma, 1), plane(h, w, chroma, 2)])
