"""Clips of moving gradients and noise, and a picture codec over the tiny network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

MakeClip = Callable[..., Path]


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory: pytest.TempPathFactory) -> MakeClip:
    """make_clip(frames=, size=, bits=): a lossless clip of 2 frames a second."""

    def make(frames: int = 3, size: tuple[int, int] = (48, 32), bits: int = 8) -> Path:
        path = tmp_path_factory.mktemp("clip") / "clip.mkv"
        noise = np.random.default_rng(frames)
        top = (1 << bits) - 1
        pixels = "yuv420p" if bits == 8 else "yuv420p10le"
        with av.open(f"file:{path}", "w") as container:
            stream = container.add_stream("ffv1", rate=2)
            stream.width, stream.height = size
            stream.pix_fmt = pixels
            for index in range(frames):
                picture = av.VideoFrame(*size, pixels)
                for k, plane in enumerate(picture.planes):
                    rows = np.frombuffer(plane, np.uint8 if bits == 8 else np.uint16)
                    rows = rows.reshape(plane.height, -1)[:, : plane.width]
                    slope = np.add.outer(np.arange(plane.height), 2 * np.arange(plane.width)) / 150
                    wave = 0.5 + 0.4 * np.sin(7 * slope + index / 2 + k) + noise.normal(0, 0.02, slope.shape)
                    rows[:] = np.clip(np.rint(top * wave), 0, top)
                picture.pts = index
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        return path

    return make
