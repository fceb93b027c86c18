"""Picture codecs, one file a frame: JPEG and WebP.

Both store 4:2:0 planes, and take and give a frame's own samples here, without a conversion of colour: JPEG would have
them in full range and WebP in limited range with BT.601, but what is stored is what the source had. Rates are whole
files.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import av
import av.error
import numpy as np

from vidcodec.errors import CodecUnavailableError, UnsupportedInputError
from vidcodec.evaluation.codec import Codec, Encoded, Source, read_frames, shown
from vidcodec.evaluation.video_rivals import to_picture
from vidcodec.video import Frame, VideoFormat


class PictureRival(Codec):
    """Codes every frame into a file of its own."""

    suffix: ClassVar[str]
    rate_name = "quality"

    @abstractmethod
    def write(self, frame: Frame, quality: int, path: Path) -> None:
        """Code one frame."""

    def encode(self, source: Source, rate_point: float, folder: Path) -> Encoded:
        files = []
        for number, frame in enumerate(source.frames()):
            files.append(folder / f"frame-{number:06d}{self.suffix}")
            self.write(frame, int(rate_point), files[-1])
        sizes = [file.stat().st_size for file in files]
        return Encoded(files, sum(sizes), [8 * size for size in sizes])

    def decode(self, files: list[Path], format: VideoFormat) -> Iterator[Frame]:
        return (shown(frame, format) for frame in read_frames(files))


@dataclass(frozen=True)
class Jpeg(PictureRival):
    """JPEG by Pillow's libjpeg-turbo: progressive, Huffman tables of its own.

    libjpeg takes full-size chroma and halves it by averages of 2x2, so every chroma sample is given four times.
    """

    family, suffix = "jpeg", ".jpg"
    lowest, highest, usual = 1, 95, (20, 90)

    def settings(self) -> dict[str, Any]:
        version = pillow("jpeg").__version__
        features = import_module("PIL.features")
        libjpeg = features.version("libjpeg_turbo") or features.version("jpg")
        return {"pillow": version, "libjpeg": libjpeg, "progressive": True, "optimize": True}

    def check(self) -> None:
        pillow("jpeg")

    def prepare(self) -> None:
        pillow("jpeg")

    def write(self, frame: Frame, quality: int, path: Path) -> None:
        height, width = frame.y.shape
        cb, cr = (plane.repeat(2, 0).repeat(2, 1)[:height, :width] for plane in frame.uv)
        picture = pillow("jpeg").fromarray(np.stack([frame.y, cb, cr], 2), "YCbCr")
        picture.save(path, "JPEG", quality=quality, subsampling="4:2:0", optimize=True, progressive=True)


@dataclass(frozen=True)
class Webp(PictureRival):
    """Lossy WebP by libwebp inside PyAV's FFmpeg, slowest method."""

    family, suffix = "webp", ".webp"
    lowest, highest, usual = 0, 100, (10, 85)

    def settings(self) -> dict[str, Any]:
        libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
        return {"pyav": av.__version__, "libavcodec": libavcodec, "parameters at 0": self.parameters(0)}

    def check(self) -> None:
        if "libwebp" not in av.codecs_available:
            raise CodecUnavailableError(f"{self.label}: this PyAV has no libwebp: take the one of pip install av")

    @staticmethod
    def parameters(quality: int) -> dict[str, str]:
        """FFmpeg's options at a quality."""
        return {"quality": str(quality), "compression_level": "6", "lossless": "0"}

    def write(self, frame: Frame, quality: int, path: Path) -> None:
        try:
            encoder = av.CodecContext.create("libwebp", "w")
            encoder.height, encoder.width = frame.y.shape
            encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
            encoder.options = self.parameters(quality)
            packets = [*encoder.encode(to_picture(frame, 0)), *encoder.encode(None)]
        except (av.error.FFmpegError, ValueError) as error:
            size = f"{frame.y.shape[1]}x{frame.y.shape[0]}"
            raise UnsupportedInputError(f"{self.label} cannot code {size} at quality {quality}: {error}") from error
        path.write_bytes(b"".join(bytes(packet) for packet in packets))


@cache
def pillow(user: str) -> Any:
    """PIL.Image; raises CodecUnavailableError, on behalf of the codec `user`, where there is none."""
    try:
        return import_module("PIL.Image")
    except ImportError as error:
        raise CodecUnavailableError(f"{user} needs Pillow: pip install pillow, or vidcodec[evaluate]") from error
