"""Crops of a video's frames for the lossless codec's finetuning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vidcodec.families.lossless.pictures import to_planes
from vidcodec.families.lossless.planes import PlaneBatch
from vidcodec.video import Frame, VideoFormat

# Of one finetuning step, and of what adaptation is measured on.
STEP_PIXELS, CHECK_PIXELS = 1 << 17, 1 << 21
CACHE_PIXELS = 80_000_000

Array = np.ndarray


class LosslessCrops:
    """Crops of a video's frames for finetuning, at places where the coarse scales fall as in the whole picture."""

    def __init__(
        self,
        frames: Sequence[Frame],
        video: VideoFormat,
        scales: int,
        device: torch.device,
        *,
        pixels: int | None = None,
        size: int = 256,
        check_pixels: int = CHECK_PIXELS,
    ) -> None:
        """frames: any sequence of Frames (a spool, a list). Small sets are kept as planes in memory.

        pixels: of the whole video, where these frames are a sample of it.
        """
        self.frames, self.video, self.device, self.grid = frames, video, device, 1 << scales
        own = video.width * video.height * len(frames)
        self.pixels, self.all_checked = pixels or own, own <= check_pixels
        self.crop = (min(size, video.height), min(size, video.width))
        self.batch = max(1, STEP_PIXELS // (self.crop[0] * self.crop[1]))
        self._small, self.check_pixels = own <= CACHE_PIXELS, check_pixels
        self._cache: dict[int, tuple[Array, Array]] = {}
        self._checks: list[PlaneBatch] | None = None

    def planes(self, i: int) -> tuple[Array, Array]:
        """Of frame i."""
        if i in self._cache:
            return self._cache[i]
        y, chroma = to_planes(self.frames[i], self.video)
        if self.video.rgb:  # differences of 10 bits have 11
            y, chroma = y.astype(np.int16), chroma.astype(np.int16)
        if self._small:
            self._cache[i] = y, chroma
        return y, chroma

    def crops(self, rng: np.random.Generator, count: int) -> PlaneBatch:
        """`count` random crops."""
        picked = rng.choice(len(self.frames), count, replace=count > len(self.frames))
        return self._batch([self._random_crop(rng, int(i)) for i in picked])

    def checks(self) -> list[PlaneBatch]:
        """Fixed pictures for measuring: all frames when they are few, else crops."""
        if self._checks is None:
            if self.all_checked:
                self._checks = [self._batch([self.planes(i)]) for i in range(len(self.frames))]
            else:
                rng, count = np.random.default_rng(12345), max(1, self.check_pixels // (self.crop[0] * self.crop[1]))
                self._checks = [self.crops(rng, 1) for _ in range(count)]
        return self._checks

    def _random_crop(self, rng: np.random.Generator, i: int) -> tuple[Array, Array]:
        y, uv = self.planes(i)
        (h, w), step = self.crop, 1 if self.video.rgb else 2
        room = [(a - b) // self.grid for a, b in zip(y.shape, (h, w), strict=True)]
        top, left = (self.grid * int(rng.integers(0, n + 1)) for n in room)
        chroma = (slice(top // step, -(-(top + h) // step)), slice(left // step, -(-(left + w) // step)))
        return y[top : top + h, left : left + w], uv[(slice(None), *chroma)]

    def _batch(self, pictures: list[tuple[Array, Array]]) -> PlaneBatch:
        return PlaneBatch.of(pictures, self.video.bit_depth, rgb=self.video.rgb).to(self.device)
