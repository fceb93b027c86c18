"""Clips made on the spot with PyAV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vidcodec.video import ColourTags, Frame, VideoFormat

MakeClip = Callable[..., Path]


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """make_clip(name, ...) writes frames of one grey each (frame i: code value 16 + i) and returns the path."""

    def make(
        name: str,
        frames: int = 30,
        *,
        size: tuple[int, int] = (32, 16),
        pixels: str = "yuv420p",
        codec: str = "ffv1",
        rate: int = 30,
        pts: Sequence[int] | None = None,
        time_base: Fraction | None = None,
        options: dict[str, str] | None = None,
        rotation: int = 0,
    ) -> Path:
        path = tmp_path / name
        unit = time_base or Fraction(1, rate)
        with av.open(f"file:{path}", "w") as container:
            stream = container.add_stream(codec, rate=rate, options=options or {})
            stream.width, stream.height = size
            stream.pix_fmt = pixels
            stream.time_base = stream.codec_context.time_base = unit
            if rotation:
                stream.set_display_rotation(-rotation)
            for index in range(frames):
                picture = av.VideoFrame(*size, pixels)
                for plane in picture.planes:
                    np.frombuffer(plane, np.uint8)[:] = 16 + index
                picture.pts = pts[index] if pts else index
                picture.time_base = unit
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        return path

    return make


@pytest.fixture
def random_frames() -> Callable[..., list[Frame]]:
    """random_frames(format, [pts, ...]): frames of noise."""

    def make(format: VideoFormat, pts: Sequence[int]) -> list[Frame]:
        noise = np.random.default_rng(7)
        values, chroma = 1 << format.bit_depth, (2, format.chroma_height, format.chroma_width)
        return [
            Frame(
                y=noise.integers(0, values, (format.height, format.width)).astype(format.dtype),
                uv=noise.integers(0, values, chroma).astype(format.dtype),
                pts=time,
            )
            for time in pts
        ]

    return make


@pytest.fixture
def wide_tags() -> ColourTags:
    """BT.2020 with PQ, full range."""
    return ColourTags(matrix=9, primaries=9, transfer=16, full_range=True, chroma_location=1)
