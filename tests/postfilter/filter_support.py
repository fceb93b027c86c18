"""What the tests of the post-filter share: short tunings, clips coded on the spot, and looking into files."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np

from vidcodec.postfilter.finetune import FilterFinetuneConfig
from vidcodec.postfilter.planes import to_planes

TUNING = FilterFinetuneConfig(steps=6, batch=2, crop=32)


def write_clip(
    path: Path,
    frames: int = 6,
    size: tuple[int, int] = (96, 64),
    pixels: str = "yuv420p",
    *,
    audio: bool = False,
    codec: str = "ffv1",
) -> Path:
    """A moving texture, losslessly coded at 25 pictures a second, with AAC noise when asked for."""
    rng = np.random.default_rng(7)
    texture = cv2.resize(rng.integers(20, 235, (16, 24)).astype(np.uint8), (size[0] + 64, size[1] + 64))
    with av.open(f"file:{path}", "w") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = *size, pixels
        sound = container.add_stream("aac", rate=48000, layout="stereo") if audio else None
        for index in range(frames):
            picture = av.VideoFrame(*size, pixels)
            for plane in picture.planes:
                rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
                view = texture[index : index + plane.height, 2 * index : 2 * index + plane.width]
                if pixels == "yuv420p":
                    rows[: plane.height, : plane.width] = view
                else:
                    rows.view("<u2")[: plane.height, : plane.width] = view.astype(np.uint16) * 4 + index % 4
            picture.pts = index
            container.mux(video.encode(picture))
            if sound is not None:
                noise = rng.integers(-9000, 9000, (1, 2 * 1920)).astype(np.int16)
                piece = av.AudioFrame.from_ndarray(noise, format="s16", layout="stereo")
                piece.rate, piece.pts = 48000, 1920 * index
                container.mux(sound.encode(piece))
        container.mux(video.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    return path


def picture_bytes(path: Path) -> list[bytes]:
    """Every decoded picture."""
    with av.open(f"file:{path}") as container:
        return [to_planes(frame).tobytes() for frame in container.decode(video=0)]


def packets(path: Path, kind: str) -> list[tuple[float, bytes]]:
    """(seconds, bytes) of the packets of the first stream of a kind."""
    with av.open(f"file:{path}") as container:
        stream = getattr(container.streams, kind)[0]
        return [(round(float(p.pts * p.time_base), 3), bytes(p)) for p in container.demux(stream) if p.size]


def times(path: Path) -> list[float]:
    with av.open(f"file:{path}") as container:
        return [round(float(frame.pts * frame.time_base), 3) for frame in container.decode(video=0)]
