"""Codecs of single pictures: every frame, or plane of one, is a file of its own, and all bytes of those files count.

JPEG and lossy WebP store 4:2:0 planes, and take and give a frame's own samples here, without a conversion of colour:
JPEG would have them in full range and WebP in limited range with BT.601, but what is stored is what the source had.

PNG, lossless WebP and JPEG XL take R'G'B'. They have no 4:2:0: the three planes of such a frame are three grey
pictures, added up.
"""

from __future__ import annotations

import shutil
import subprocess
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
import cv2
import numpy as np

from vidcodec.errors import CodecUnavailableError, UnsupportedInputError
from vidcodec.evaluation.codec import Codec, Encoded, Source, read_frames, shown
from vidcodec.evaluation.video_rivals import CODE as VIDEO_CODE
from vidcodec.evaluation.video_rivals import LOSSLESS, FfmpegCodec
from vidcodec.video import Frame, VideoFormat
from vidcodec.video.encoders import picture_of

CODE = ("evaluation/picture_rivals.py", *VIDEO_CODE)


class PictureRival(Codec):
    """Codes every frame into a file of its own."""

    suffix: ClassVar[str]
    rate_name, code = "quality", CODE

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


class SampleRival(Codec):
    """Codes R'G'B' frames into a file each, and the planes of 4:2:0 into three, without loss."""

    suffix: ClassVar[str]
    rate_name, code = "quality", CODE
    lowest, highest, usual = 0, 0, (0, 0)

    @property
    def lossless(self) -> bool:
        return True

    @abstractmethod
    def write_samples(self, samples: np.ndarray, depth: int, path: Path) -> None:
        """Code samples of (H, W) or (H, W, 3)."""

    @abstractmethod
    def read_samples(self, path: Path, depth: int, channels: int) -> np.ndarray:
        """Samples of (H, W) for one channel, of (H, W, 3) for three."""

    def encode(self, source: Source, rate_point: float, folder: Path) -> Encoded:
        files, bits = [], []
        for number, frame in enumerate(source.frames()):
            planes = (frame.y, *frame.uv)  # of R'G'B': G, B, R
            pictures = [np.stack([planes[2], planes[0], planes[1]], 2)] if source.format.rgb else planes
            paths = [folder / f"frame-{number:06d}-{part}{self.suffix}" for part, _ in enumerate(pictures)]
            for samples, path in zip(pictures, paths, strict=True):
                self.write_samples(np.ascontiguousarray(samples), source.format.bit_depth, path)
            files += paths
            bits.append(8 * sum(path.stat().st_size for path in paths))
        return Encoded(files, sum(bits) // 8, bits)

    def decode(self, files: list[Path], format: VideoFormat) -> Iterator[Frame]:
        channels = 3 if format.rgb else 1
        pictures = (self.read_samples(path, format.bit_depth, channels) for path in files)
        for number, first in enumerate(pictures):
            if format.rgb:
                yield Frame(first[..., 1], np.stack([first[..., 2], first[..., 0]]), number)
            else:
                yield Frame(first, np.stack([next(pictures), next(pictures)]), number)


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
class Webp(PictureRival, SampleRival, FfmpegCodec):
    """WebP: lossy by libwebp inside PyAV's FFmpeg, slowest method; lossless by Pillow's, most effort.

    Lossless it knows R'G'B' of 8 bits alone: grey is three equal planes.
    """

    mode: str = "lossy"

    family, suffix, encoder, alone, choices = "webp", ".webp", "libwebp", "mode", {"mode": ("lossy", LOSSLESS)}
    lowest, highest, usual = 0, 100, (10, 85)
    MOST: ClassVar[dict[str, Any]] = {"lossless": True, "quality": 100, "method": 6, "exact": True}

    @property
    def lossless(self) -> bool:
        return self.mode == LOSSLESS

    def settings(self) -> dict[str, Any]:
        if not self.lossless:
            return {**FfmpegCodec.settings(self), "parameters at 0": self.parameters(0)}
        version = import_module("PIL.features").version("webp")
        return {"pillow": pillow("webp").__version__, "libwebp": version, **self.MOST}

    def check(self) -> None:
        if not self.lossless:
            FfmpegCodec.check(self)
        elif pillow("webp") and not import_module("PIL.features").check("webp"):
            raise CodecUnavailableError(f"{self.label}: this Pillow has no libwebp: take the one of pip install pillow")

    @staticmethod
    def parameters(quality: int) -> dict[str, str]:
        """FFmpeg's options at a quality."""
        return {"quality": str(quality), "compression_level": "6", "lossless": "0"}

    def encode(self, source: Source, rate_point: float, folder: Path) -> Encoded:
        return (SampleRival if self.lossless else PictureRival).encode(self, source, rate_point, folder)

    def decode(self, files: list[Path], format: VideoFormat) -> Iterator[Frame]:
        return (SampleRival if self.lossless else PictureRival).decode(self, files, format)

    def write(self, frame: Frame, quality: int, path: Path) -> None:
        try:
            encoder = av.CodecContext.create("libwebp", "w")
            encoder.height, encoder.width = frame.y.shape
            encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
            encoder.options = self.parameters(quality)
            picture = picture_of(frame, "yuv420p", encoder.width, encoder.height)
            picture.pts = 0
            packets = [*encoder.encode(picture), *encoder.encode(None)]
        except (av.error.FFmpegError, ValueError) as error:
            size = f"{frame.y.shape[1]}x{frame.y.shape[0]}"
            raise UnsupportedInputError(f"{self.label} cannot code {size} at quality {quality}: {error}") from error
        path.write_bytes(b"".join(bytes(packet) for packet in packets))

    def write_samples(self, samples: np.ndarray, depth: int, path: Path) -> None:
        if depth != 8 or max(samples.shape) > 16383:
            size = f"{samples.shape[1]}x{samples.shape[0]}"
            raise UnsupportedInputError(
                f"{self.label} has 8 bits a sample and at most 16383 samples a side, not {depth} bits of {size}"
            )
        pillow("webp").fromarray(samples).save(path, "WEBP", **self.MOST)

    def read_samples(self, path: Path, depth: int, channels: int) -> np.ndarray:
        samples = _read_with_pillow(path)
        if channels == 1 and not (samples == samples[..., :1]).all():
            raise CodecUnavailableError(f"{self.label} gave grey colours: it is not lossless as installed here")
        return samples[..., 0] if channels == 1 else samples


@dataclass(frozen=True)
class Png(SampleRival):
    """PNG by Pillow: zlib's highest level, the smallest of three choices of its strategy. 10 bits lie in 16."""

    family, suffix = "png", ".png"
    SAVES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"optimize": True},
        {"compress_level": 9, "compress_type": 0},
        {"compress_level": 9, "compress_type": 1},
    )

    def settings(self) -> dict[str, Any]:
        version = pillow("png").__version__
        return {"pillow": version, "zlib": import_module("PIL.features").version("zlib"), "smallest of": self.SAVES}

    def check(self) -> None:
        pillow("png")

    def write_samples(self, samples: np.ndarray, depth: int, path: Path) -> None:
        if depth == 10 and samples.ndim == 3:
            raise UnsupportedInputError(f"{self.label}: Pillow has no R'G'B' of more than 8 bits: leave it out")
        tries = [path.with_suffix(f".{number}") for number in range(len(self.SAVES))]
        for file, options in zip(tries, self.SAVES, strict=True):
            pillow("png").fromarray(samples).save(file, "PNG", **options)
        tries.sort(key=lambda file: file.stat().st_size)
        tries.pop(0).rename(path)
        for file in tries:
            file.unlink()

    def read_samples(self, path: Path, depth: int, channels: int) -> np.ndarray:
        return _read_with_pillow(path).astype(np.uint8 if depth == 8 else np.uint16)


@dataclass(frozen=True)
class JpegXl(SampleRival):
    """Lossless JPEG XL by libjxl's programs `cjxl` and `djxl`, on one thread, as a bare code stream. effort: 1 .. 9.

    The programs take 10 bits as 16-bit samples over the whole range, to be stored as 10: what they do with Netpbm's
    own 10 bits is not lossless in libjxl 0.7.
    """

    effort: int = 7

    family, suffix = "jxl", ".jxl"

    def settings(self) -> dict[str, Any]:
        self.check()
        version = subprocess.run(["cjxl", "--version"], capture_output=True, text=True, check=False).stdout
        return {"version": version.partition("\n")[0].partition("[")[0].strip(), "command": self.command("in", "out")}

    def check(self) -> None:
        for program in ("cjxl", "djxl"):
            if shutil.which(program) is None:
                raise CodecUnavailableError(
                    f"{self.label}: there is no {program} on the PATH: install libjxl-tools (Debian, Ubuntu) or build "
                    "github.com/libjxl/libjxl"
                )

    def command(self, source: Path | str, target: Path | str, depth: int = 8) -> list[str]:
        """How `cjxl` is called."""
        words = ["cjxl", str(source), str(target), "--distance=0", f"--effort={self.effort}", "--num_threads=0"]
        return [*words, "--container=0", "--quiet", *([] if depth == 8 else [f"--override_bitdepth={depth}"])]

    def write_samples(self, samples: np.ndarray, depth: int, path: Path) -> None:
        raw = path.with_suffix(".ppm" if samples.ndim == 3 else ".pgm")
        stretched = samples if depth == 8 else _rescaled(samples, (1 << depth) - 1, 65535)
        cv2.imwrite(str(raw), stretched[..., ::-1] if samples.ndim == 3 else stretched)
        self._run(self.command(raw, path, depth), path)
        raw.unlink()

    def read_samples(self, path: Path, depth: int, channels: int) -> np.ndarray:
        raw = path.with_suffix(".decoded.ppm" if channels == 3 else ".decoded.pgm")
        self._run(["djxl", str(path), str(raw), "--num_threads=1", f"--bits_per_sample={8 if depth == 8 else 16}"], raw)
        samples = cv2.imread(str(raw), cv2.IMREAD_UNCHANGED)
        if samples is None:
            raise UnsupportedInputError(
                f"{self.label}: {raw.name} is no Netpbm picture: another version of the decoder?"
            )
        samples = samples[..., ::-1] if channels == 3 else samples
        raw.unlink()
        return samples if depth == 8 else _rescaled(samples, 65535, (1 << depth) - 1)

    def _run(self, command: list[str], target: Path) -> None:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode or not target.is_file():
            last = " ".join((done.stderr or done.stdout).strip().splitlines()[-1:])
            raise UnsupportedInputError(f"{self.label}: {command[0]} failed with exit code {done.returncode}: {last}")


@cache
def pillow(user: str) -> Any:
    """PIL.Image; raises CodecUnavailableError, on behalf of the codec `user`, where there is none."""
    try:
        return import_module("PIL.Image")
    except ImportError as error:
        raise CodecUnavailableError(f"{user} needs Pillow: pip install pillow, or vidcodec[evaluate]") from error


def _read_with_pillow(path: Path) -> np.ndarray:
    with pillow("png, webp").open(path) as picture:
        return np.asarray(picture)


def _rescaled(samples: np.ndarray, peak: int, wanted: int) -> np.ndarray:
    """Samples of 0 .. peak spread over 0 .. wanted, and back."""
    return ((samples.astype(np.uint32) * wanted + peak // 2) // peak).astype(np.uint16)
