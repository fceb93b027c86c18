"""Random crops of a video's sampled frames, for finetuning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vidcodec.families.planes import frame_to_planes, padded_size
from vidcodec.video import Frame

# Luma samples of one finetuning step. Frames of up to half as many go in whole, since what crops lose at their borders
# would teach the network about crops. Of larger ones a step takes `CROPS` crops of a side of `SIDE`: in a minute on one
# core, more steps of fewer crops brought more.
STEP_PIXELS = 300_000
SIDE, CROPS = 256, 2
CHECK_PIXELS = 800_000  # that measures see: a few steps' worth
CACHE_PIXELS = 40_000_000  # 240 MB of planes


class FrameCrops:
    """Crops of size x size luma samples, drawn evenly over frames and positions.

    frames: any sequence of Frames (a spool, a list). pixels: of the whole video, where these are a
    sample of it. size: by `STEP_PIXELS` and `SIDE` where None. Small sets are kept as planes in memory; larger ones are
    read again for every crop.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        bit_depth: int,
        multiple: int,
        device: torch.device,
        *,
        pixels: int | None = None,
        size: int | None = None,
        check_pixels: int = CHECK_PIXELS,
    ) -> None:
        self.frames, self.bit_depth, self.multiple, self.device = frames, bit_depth, multiple, device
        height, width = frames[0].y.shape
        self.pixels = pixels or height * width * len(frames)
        h, w = padded_size(height, width, multiple)
        whole = h * w <= STEP_PIXELS / 2
        size = size or (max(h, w) if whole else SIDE)
        self.crop = (min(size, h), min(size, w))
        self.batch = max(1, round(STEP_PIXELS / (h * w))) if whole else CROPS
        self._small = h * w * len(frames) <= CACHE_PIXELS
        self._cache: dict[int, Tensor] = {}
        self.check_pixels = check_pixels
        self._checks: list[Tensor] | None = None

    def planes(self, i: int) -> Tensor:
        """Frame i as padded planes (1, 6, H/2, W/2) on the CPU."""
        if i not in self._cache:
            x = frame_to_planes(self.frames[i], self.bit_depth, self.multiple)
            if not self._small:
                return x
            self._cache[i] = x
        return self._cache[i]

    def crops(self, rng: np.random.Generator, count: int) -> Tensor:
        """(count, 6, h/2, w/2), channels last."""
        out = []
        h, w = self.crop[0] // 2, self.crop[1] // 2
        for i in rng.choice(len(self.frames), count, replace=count > len(self.frames)):
            x = self.planes(int(i))
            top = int(rng.integers(0, x.shape[-2] - h + 1))
            left = int(rng.integers(0, x.shape[-1] - w + 1))
            out.append(x[..., top : top + h, left : left + w])
        return torch.cat(out).to(self.device, memory_format=torch.channels_last)

    def checks(self) -> list[Tensor]:
        """Fixed pictures for measuring: all frames when they are few, else as many crops."""
        if self._checks is None:
            x = self.planes(0)
            if x.shape[-1] * x.shape[-2] * 4 * len(self.frames) <= self.check_pixels:
                picked = [self.planes(i) for i in range(len(self.frames))]
            else:
                count = max(1, self.check_pixels // (self.crop[0] * self.crop[1]))
                picked = list(self.crops(np.random.default_rng(12345), count).split(1))
            self._checks = [p.to(self.device, memory_format=torch.channels_last) for p in picked]
        return self._checks
