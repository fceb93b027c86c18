"""Lossless codecs to compare with: PNG, WebP, JPEG XL, FFV1 and x265, each at the settings that give small files.

What they code is `Pictures`: R'G'B' stills, or 4:2:0 frames. PNG, WebP and JPEG XL's programs take no 4:2:0, so the
three planes of a frame are three grey pictures in three files, added up. FFV1 takes R'G'B' through its own reversible
transform; x265 codes G, B and R as the planes of 4:4:4, without a transform. Rates are bytes of whole files; every
file is decoded again and compared sample by sample.
"""

from __future__ import annotations

import hashlib
import re
import resource
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import av
import av.error
import numpy as np

from vidcodec.errors import CodecUnavailableError, InputError, UnsupportedInputError
from vidcodec.evaluation.codec import padded
from vidcodec.evaluation.picture_rivals import pillow
from vidcodec.video import Frame

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]
RGB, YUV420 = "rgb", "4:2:0"
GLOBAL_HEADER = 1 << 22  # FFmpeg's flag: parameter sets once, before the packets


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of one size, in order.

    kind: RGB or YUV420. depth: bits of a sample, 8 or 10. planes: by picture; R, G, B of (H, W) each, or Y of (H, W)
    and U, V of (ceil(H/2), ceil(W/2)); uint8, or uint16 for 10 bits.
    """

    kind: str
    depth: int
    planes: list[Planes]

    @classmethod
    def of_rgb(cls, rgb: np.ndarray) -> Pictures:
        """One still of (H, W, 3), uint8."""
        return cls(RGB, 8, [_three(np.moveaxis(rgb, 2, 0))])

    @classmethod
    def of_frames(cls, frames: Iterable[Frame], depth: int) -> Pictures:
        """Frames of 8 or 10 bits."""
        return cls(YUV420, depth, [_three((frame.y, *frame.uv)) for frame in frames])

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.planes[0][0].shape
        return height, width

    @property
    def pixels(self) -> int:
        """Luma samples of all pictures."""
        height, width = self.shape
        return height * width * len(self.planes)

    @property
    def digest(self) -> str:
        """32 hex digits that name kind, depth, size and samples."""
        h = hashlib.sha256(f"{self.kind} {self.depth} {self.shape}".encode())
        for plane in (plane for planes in self.planes for plane in planes):
            h.update(np.ascontiguousarray(plane).data)
        return h.hexdigest()[:32]


@dataclass(frozen=True)
class Coded:
    """What coding gave. bytes: of all files. Seconds are of processor time, child processes included."""

    bytes: int
    encode_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class LosslessRival(ABC):
    """A lossless codec with its settings."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What results call it."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that the files depend on besides the pictures. Raises CodecUnavailableError as `check`."""

    @abstractmethod
    def check(self) -> None:
        """Raise CodecUnavailableError, with what to install, when it cannot run here."""

    @abstractmethod
    def encode(self, pictures: Pictures, folder: Path) -> list[Path]:
        """Code into files in `folder`. Raises UnsupportedInputError for what it cannot take."""

    @abstractmethod
    def decode(self, files: list[Path], like: Pictures) -> list[Planes]:
        """The pictures in `files`; like: their kind, depth and size, not their samples."""

    def code(self, pictures: Pictures, folder: Path) -> Coded:
        """Encode into an empty `folder`, decode, compare.

        Raises CodecUnavailableError where other samples come back, and as `check` and `encode`; InputError for no
        picture.
        """
        if not pictures.planes:
            raise InputError(f"{self.label}: there is no picture to code")
        self.check()
        start = cpu_seconds()
        files = self.encode(pictures, folder)
        middle = cpu_seconds()
        decoded = self.decode(files, pictures)
        end = cpu_seconds()
        if not same(decoded, pictures.planes):
            raise CodecUnavailableError(f"{self.label} gave other samples back: it is not lossless as installed here")
        return Coded(sum(file.stat().st_size for file in files), middle - start, end - middle)


def cpu_seconds() -> float:
    """Processor time that this process and its ended children have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def same(a: list[Planes], b: list[Planes]) -> bool:
    """Whether all samples of all pictures are equal."""
    planes = [[plane for picture in pictures for plane in picture] for pictures in (a, b)]
    return len(a) == len(b) and all(p.dtype == q.dtype and np.array_equal(p, q) for p, q in zip(*planes, strict=True))


# ---------------------------------------------------------------------------- one file a picture


class PictureCodec(LosslessRival):
    """Codes R'G'B' pictures and grey ones into files of their own; a 4:2:0 frame is three grey pictures."""

    suffix: ClassVar[str]

    @abstractmethod
    def write(self, samples: np.ndarray, depth: int, path: Path) -> None:
        """Code samples of (H, W) or (H, W, 3)."""

    @abstractmethod
    def read(self, path: Path, depth: int, channels: int) -> np.ndarray:
        """Samples of (H, W) for one channel, of (H, W, 3) for three."""

    def encode(self, pictures: Pictures, folder: Path) -> list[Path]:
        if pictures.kind == RGB:
            singles: list[np.ndarray] = [np.stack(planes, 2) for planes in pictures.planes]
        else:
            singles = [plane for planes in pictures.planes for plane in planes]
        files = [folder / f"picture-{number:06d}{self.suffix}" for number in range(len(singles))]
        for samples, path in zip(singles, files, strict=True):
            self.write(samples, pictures.depth, path)
        return files

    def decode(self, files: list[Path], like: Pictures) -> list[Planes]:
        singles = [self.read(path, like.depth, 3 if like.kind == RGB else 1) for path in files]
        if like.kind == RGB:
            return [_three(np.moveaxis(samples, 2, 0)) for samples in singles]
        return [_three(singles[i : i + 3]) for i in range(0, len(singles), 3)]


@dataclass(frozen=True)
class Png(PictureCodec):
    """PNG by Pillow: zlib's highest level, the smallest of three choices of its strategy. 10 bits lie in 16."""

    label, suffix = "PNG", ".png"

    SAVES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"optimize": True},
        {"compress_level": 9, "compress_type": 0},
        {"compress_level": 9, "compress_type": 1},
    )

    def settings(self) -> dict[str, Any]:
        zlib = import_module("PIL.features").version("zlib") if _pillow() else None
        return {"pillow": _pillow().__version__, "zlib": zlib, "smallest of": list(self.SAVES)}

    def check(self) -> None:
        _pillow()

    def write(self, samples: np.ndarray, depth: int, path: Path) -> None:
        tries = [path.with_suffix(f".{number}") for number in range(len(self.SAVES))]
        for file, options in zip(tries, self.SAVES, strict=True):
            _pillow().fromarray(samples).save(file, "PNG", **options)
        _keep_smallest(tries, path)

    def read(self, path: Path, depth: int, channels: int) -> np.ndarray:
        return _read_with_pillow(path)


@dataclass(frozen=True)
class WebpLossless(PictureCodec):
    """Lossless WebP by Pillow's libwebp, most effort. It knows R'G'B' of 8 bits alone: grey is three equal planes."""

    label, suffix = "WebP", ".webp"

    OPTIONS: ClassVar[dict[str, Any]] = {"lossless": True, "quality": 100, "method": 6, "exact": True}

    def settings(self) -> dict[str, Any]:
        self.check()
        return {
            "pillow": _pillow().__version__,
            "libwebp": import_module("PIL.features").version("webp"),
            **self.OPTIONS,
        }

    def check(self) -> None:
        _pillow()
        if not import_module("PIL.features").check("webp"):
            raise CodecUnavailableError("WebP: this Pillow has no libwebp: take the one of pip install pillow")

    def write(self, samples: np.ndarray, depth: int, path: Path) -> None:
        if depth != 8:
            raise UnsupportedInputError(f"WebP has 8 bits a sample, not {depth}")
        if max(samples.shape) > 16383:
            raise UnsupportedInputError(f"WebP has at most 16383 samples a side, not {max(samples.shape)}")
        _pillow().fromarray(samples).save(path, "WEBP", **self.OPTIONS)

    def read(self, path: Path, depth: int, channels: int) -> np.ndarray:
        samples = _read_with_pillow(path)
        if channels == 1 and not (samples == samples[..., :1]).all():
            raise CodecUnavailableError("WebP gave a grey picture colours: it is not lossless as installed here")
        return samples[..., 0] if channels == 1 else samples


@dataclass(frozen=True)
class JpegXl(PictureCodec):
    """Lossless JPEG XL by libjxl's programs `cjxl` and `djxl`, on one thread, as a bare code stream. effort: 1 .. 9.

    The programs take 10 bits as 16-bit samples over the whole range, to be stored as 10: what they do with Netpbm's
    own 10 bits is not lossless in libjxl 0.7.
    """

    effort: int = 7

    suffix = ".jxl"
    install: ClassVar[str] = "install libjxl-tools (Debian, Ubuntu) or build github.com/libjxl/libjxl"

    @property
    def label(self) -> str:
        return f"JPEG XL e{self.effort}"

    def settings(self) -> dict[str, Any]:
        self.check()
        version = subprocess.run(["cjxl", "--version"], capture_output=True, text=True, check=False).stdout
        return {"version": version.partition("\n")[0].partition("[")[0].strip(), "command": self.command("in", "out")}

    def check(self) -> None:
        for program in ("cjxl", "djxl"):
            if shutil.which(program) is None:
                raise CodecUnavailableError(f"{self.label}: there is no {program} on the PATH: {self.install}")

    def command(self, source: Path | str, target: Path | str, depth: int = 8) -> list[str]:
        """How `cjxl` is called."""
        stored = [] if depth == 8 else [f"--override_bitdepth={depth}"]
        return [
            "cjxl",
            str(source),
            str(target),
            "--distance=0",
            f"--effort={self.effort}",
            "--num_threads=0",
            "--container=0",
            "--quiet",
            *stored,
        ]

    def write(self, samples: np.ndarray, depth: int, path: Path) -> None:
        raw = path.with_suffix(".ppm" if samples.ndim == 3 else ".pgm")
        _write_netpbm(samples if depth == 8 else _stretched(samples, depth), raw)
        self._run(self.command(raw, path, depth), path)
        raw.unlink()

    def read(self, path: Path, depth: int, channels: int) -> np.ndarray:
        raw = path.with_suffix(".decoded.ppm" if channels == 3 else ".decoded.pgm")
        self._run(["djxl", str(path), str(raw), "--num_threads=1", f"--bits_per_sample={8 if depth == 8 else 16}"], raw)
        samples = _read_netpbm(raw)
        raw.unlink()
        return samples if depth == 8 else _narrowed(samples, depth)

    def _run(self, command: list[str], target: Path) -> None:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode or not target.is_file():
            last = " ".join((done.stderr or done.stdout).strip().splitlines()[-1:])
            raise UnsupportedInputError(f"{self.label}: {command[0]} failed with exit code {done.returncode}: {last}")


# ------------------------------------------------------------------------------ one file for all


class VideoCodec(LosslessRival):
    """An encoder inside PyAV's FFmpeg, on one thread, every picture a key frame."""

    encoder: ClassVar[str]  # FFmpeg's name

    def check(self) -> None:
        if self.encoder not in av.codecs_available:
            raise CodecUnavailableError(
                f"{self.label}: this PyAV has no {self.encoder}: take the one of pip install av"
            )

    def settings(self) -> dict[str, Any]:
        self.check()
        libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
        return {"encoder": self.encoder, "pyav": av.__version__, "libavcodec": libavcodec}

    def decode(self, files: list[Path], like: Pictures) -> list[Planes]:
        height, width = like.shape
        return [self.planes_of(picture, like, height, width) for picture in _decoded(files[0])]

    def planes_of(self, picture: av.VideoFrame, like: Pictures, height: int, width: int) -> Planes:
        """The samples of a decoded picture, cropped to `height` x `width`."""
        y, u, v = (_rows(plane, like.depth)[:, : plane.width] for plane in picture.planes[:3])
        if like.kind == RGB:
            return v[:height, :width].copy(), y[:height, :width].copy(), u[:height, :width].copy()  # from G, B, R
        half = slice((height + 1) // 2), slice((width + 1) // 2)
        return y[:height, :width].copy(), u[half].copy(), v[half].copy()

    def _refused(self, pictures: Pictures, error: Exception) -> UnsupportedInputError:
        height, width = pictures.shape
        reason = getattr(error, "strerror", None) or error
        return UnsupportedInputError(
            f"{self.label} cannot code {width}x{height} {pictures.kind} at {pictures.depth} bits: {reason}"
        )


@dataclass(frozen=True)
class Ffv1(VideoCodec):
    """FFV1 version 3: range coder with its own state table, as few slices as FFmpeg allows, no checksums.

    The smaller of the files with the small and the large context model; in NUT, FFmpeg's leanest container.
    """

    label, encoder = "FFV1", "ffv1"
    CIF: ClassVar[tuple[int, int]] = (288, 352)  # up to here FFmpeg allows a single slice

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "smallest of": [self.options((1080, 1920), context) for context in (0, 1)]}

    def options(self, shape: tuple[int, int], context: int) -> dict[str, str]:
        """FFmpeg's, for pictures of (height, width)."""
        single = shape[0] <= self.CIF[0] and shape[1] <= self.CIF[1]
        return {
            "level": "3",
            "coder": "range_tab",
            "context": str(context),
            "slices": "1" if single else "4",
            "slicecrc": "0",
        }

    def encode(self, pictures: Pictures, folder: Path) -> list[Path]:
        tries = [folder / f"context-{context}.nut" for context in (0, 1)]
        for context, path in enumerate(tries):
            self._write(pictures, context, path)
        return [_keep_smallest(tries, folder / "coded.nut")]

    def _write(self, pictures: Pictures, context: int, path: Path) -> None:
        pixels = "bgr0" if pictures.kind == RGB else _yuv(pictures)
        height, width = pictures.shape
        try:
            with av.open(f"file:{path}", "w", format="nut") as container:
                options = self.options(pictures.shape, context)
                stream: Any = container.add_stream(self.encoder, rate=25, options=options)
                stream.width, stream.height, stream.pix_fmt = width, height, pixels
                stream.codec_context.thread_count, stream.codec_context.gop_size = 1, 1
                for number, planes in enumerate(pictures.planes):
                    container.mux(
                        stream.encode(
                            _packed(planes, number)
                            if pixels == "bgr0"
                            else _planar(planes, pixels, pictures.depth, number)
                        )
                    )
                container.mux(stream.encode(None))
        except (av.error.FFmpegError, ValueError) as error:
            raise self._refused(pictures, error) from error

    def planes_of(self, picture: av.VideoFrame, like: Pictures, height: int, width: int) -> Planes:
        if like.kind != RGB:
            return super().planes_of(picture, like, height, width)
        four = _rows(picture.planes[0], 8)[:, : 4 * width].reshape(height, width, 4)
        return four[..., 2].copy(), four[..., 1].copy(), four[..., 0].copy()


@dataclass(frozen=True)
class X265Lossless(VideoCodec):
    """H.265 by x265, lossless, all-intra, as a raw byte stream that says its parameter sets once.

    Odd sizes of 4:2:0 get their last line or column twice.
    """

    preset: str = "veryslow"

    encoder = "libx265"

    @property
    def label(self) -> str:
        return "x265" if self.preset == "veryslow" else f"x265 {self.preset}"

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), **self.options()}

    def options(self) -> dict[str, str]:
        """FFmpeg's."""
        more = "lossless=1:keyint=1:info=0:log-level=none:pools=1:frame-threads=1"
        return {"preset": self.preset, "x265-params": more}

    def encode(self, pictures: Pictures, folder: Path) -> list[Path]:
        rgb, path = pictures.kind == RGB, folder / "coded.hevc"
        all_planes = [(g, b, r) for r, g, b in pictures.planes] if rgb else map(_even, pictures.planes)
        height, width = (side if rgb else side + side % 2 for side in pictures.shape)
        try:
            context: Any = av.CodecContext.create(self.encoder, "w")
            context.width, context.height, context.time_base = width, height, Fraction(1, 25)
            context.pix_fmt = "gbrp" if rgb else _yuv(pictures)
            context.thread_count, context.gop_size, context.options = 1, 1, self.options()
            context.flags |= GLOBAL_HEADER
            packets = []
            for number, planes in enumerate(all_planes):
                packets += context.encode(_planar(planes, context.pix_fmt, pictures.depth, number))
            packets += context.encode(None)
        except (av.error.FFmpegError, ValueError) as error:
            raise self._refused(pictures, error) from error
        path.write_bytes((context.extradata or b"") + b"".join(bytes(packet) for packet in packets))
        return [path]


# --------------------------------------------------------------------------------------- helpers


def _three(planes: Iterable[np.ndarray]) -> Planes:
    a, b, c = planes
    return a, b, c


def _keep_smallest(tries: list[Path], path: Path) -> Path:
    """Rename the smallest of files, remove the others."""
    tries.sort(key=lambda file: file.stat().st_size)
    for file in tries[1:]:
        file.unlink()
    return tries[0].rename(path)


def _pillow() -> Any:
    return pillow("PNG and WebP")


def _read_with_pillow(path: Path) -> np.ndarray:
    with _pillow().open(path) as picture:
        return np.asarray(picture)


def _write_netpbm(samples: np.ndarray, path: Path) -> None:
    """Binary grey or R'G'B' of 8 bits, or of 16 with the higher byte first."""
    kind, peak = "P6" if samples.ndim == 3 else "P5", np.iinfo(samples.dtype).max
    head = f"{kind}\n{samples.shape[1]} {samples.shape[0]}\n{peak}\n"
    path.write_bytes(head.encode() + samples.astype(samples.dtype.newbyteorder(">")).tobytes())


def _read_netpbm(path: Path) -> np.ndarray:
    """What `_write_netpbm` writes: (H, W) or (H, W, 3), uint8 or uint16."""
    content = path.read_bytes()
    head = re.match(rb"P([56])\s(\d+)\s(\d+)\s(\d+)\s", content)
    if head is None:
        raise UnsupportedInputError(f"{path.name} is no binary Netpbm picture: another version of the decoder?")
    kind, width, height, peak = (int(word) for word in head.groups())
    dtype = np.dtype(np.uint8 if peak < 256 else ">u2")
    samples = np.frombuffer(content, dtype, offset=head.end()).astype(dtype.newbyteorder("="))
    return samples.reshape((height, width) if kind == 5 else (height, width, 3))


def _stretched(samples: np.ndarray, depth: int) -> np.ndarray:
    """Samples of `depth` bits spread over 16."""
    peak = (1 << depth) - 1
    return ((samples.astype(np.uint32) * 65535 + peak // 2) // peak).astype(np.uint16)


def _narrowed(samples: np.ndarray, depth: int) -> np.ndarray:
    """The samples that `_stretched` had."""
    peak = (1 << depth) - 1
    return ((samples.astype(np.uint32) * peak + 32767) // 65535).astype(np.uint16)


def _yuv(pictures: Pictures) -> str:
    return "yuv420p" if pictures.depth == 8 else "yuv420p10le"


def _even(planes: Planes) -> Planes:
    frame = padded(Frame(planes[0], np.stack(planes[1:]), 0), 2)
    return frame.y, frame.uv[0], frame.uv[1]


def _rows(plane: Any, depth: int) -> np.ndarray:
    """The memory of FFmpeg's plane, padding included: (lines, samples a line)."""
    dtype = np.dtype(np.uint8 if depth == 8 else np.uint16)
    return np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)[: plane.height]


def _planar(planes: Planes, pixels: str, depth: int, number: int) -> av.VideoFrame:
    """FFmpeg's picture, its `pts` the number."""
    height, width = planes[0].shape
    picture = av.VideoFrame(width, height, pixels)
    for plane, samples in zip(picture.planes, planes, strict=True):
        _rows(plane, depth)[:, : plane.width] = samples
    picture.pts = number
    return picture


def _packed(planes: Planes, number: int) -> av.VideoFrame:
    """R'G'B' as B, G, R and an unused byte."""
    height, width = planes[0].shape
    picture = av.VideoFrame(width, height, "bgr0")
    rows = _rows(picture.planes[0], 8)
    rows[:, : 4 * width] = np.stack([*planes[::-1], np.zeros_like(planes[0])], 2).reshape(height, 4 * width)
    picture.pts = number
    return picture


def _decoded(path: Path) -> Iterator[av.VideoFrame]:
    with av.open(f"file:{path}") as container:
        container.streams.video[0].codec_context.thread_count = 1
        yield from container.decode(video=0)
