"""Tiny clips of moving gradients, and a source for codecs."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vidcodec.evaluation.codec import Source
from vidcodec.video import Frame, VideoFormat, open_writer

MakeFrames = Callable[..., list[Frame]]


def moving_gradients(count: int = 3, size: tuple[int, int] = (96, 80), seed: int = 0) -> list[Frame]:
    """Frames of width x height = `size` with waves that drift, and a little noise."""
    width, height = size
    noise = np.random.default_rng(seed)
    frames = []
    for index in range(count):
        planes = []
        for k, (h, w) in enumerate([(height, width), *[((height + 1) // 2, (width + 1) // 2)] * 2]):
            slope = np.add.outer(np.arange(h), 2 * np.arange(w)) / 80
            wave = 125 + 70 * np.sin(4 * slope + index / 3 + k + seed) + noise.normal(0, 2, (h, w))
            planes.append(np.clip(np.rint(wave), 16, 235).astype(np.uint8))
        frames.append(Frame(planes[0], np.stack(planes[1:]), index))
    return frames


def write_clip(path: Path, frames: list[Frame], rate: int = 2) -> Path:
    """Lossless, `rate` frames a second."""
    height, width = frames[0].y.shape
    format = VideoFormat(width, height, time_base=Fraction(1, rate), frame_rate=Fraction(rate))
    with open_writer(path, format) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.fixture(scope="session")
def make_frames() -> MakeFrames:
    """make_frames(count, size, seed)."""
    return moving_gradients


@pytest.fixture(scope="session")
def gradients_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 frames of 96x80, 2 a second."""
    return write_clip(tmp_path_factory.mktemp("gradients") / "clip.mkv", moving_gradients())


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """make_clip(name, count, size, seed): a lossless clip of 2 frames a second."""

    def make(name: str = "clip.mkv", count: int = 3, size: tuple[int, int] = (96, 80), seed: int = 0) -> Path:
        return write_clip(tmp_path / name, moving_gradients(count, size, seed))

    return make


@pytest.fixture
def make_source(make_clip: Callable[..., Path]) -> Callable[..., Source]:
    """make_source(count, size): a clip as codecs get it."""

    def make(count: int = 3, size: tuple[int, int] = (96, 80)) -> Source:
        return Source.open(make_clip("source.mkv", count, size), count)

    return make
