"""Conventional video codecs: x264, x265, SVT-AV1 and VP9 from PyAV's own FFmpeg, VVenC from a program.

Each has two modes. `intra`: every picture a key frame. `inter`: one key frame, then the encoder's own default structure
with B frames and lookahead, at its slow preset: what a user who wants small files would take. Always a constant
quantiser (VP9 inter: its constant-quality mode), tuned for PSNR, on one thread, so that the bytes depend on nothing but
the settings. x265 has a third mode without loss, and FFV1 is always so. Files are Matroska; the parameter sets lie in
its header, so `rate_bytes` counts the packets alone; where nothing is lost the parameter sets as well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import av
import av.error

from vidcodec.errors import CodecUnavailableError, UnsupportedInputError
from vidcodec.evaluation.codec import Codec, Encoded, Source, padded, read_frames, shown
from vidcodec.video import Frame, VideoFormat, open_writer
from vidcodec.video.encoders import picture_of, pixel_format
from vidcodec.video.vvenc import ffmpeg_with_vvenc

INTRA, INTER = "intra", "inter"
LOSSLESS = "lossless"
FULL_RANGE = 2  # AVColorRange
CODE = ("evaluation/video_rivals.py", "evaluation/codec.py", "video/encoders.py")
ONE_KEY_FRAME = 1 << 20  # frames between two key frames: more than any clip has


def check_encoder(encoder: str, label: str) -> None:
    """Raise CodecUnavailableError where PyAV's FFmpeg lacks an encoder; label: of the codec that needs it."""
    if encoder not in av.codecs_available:
        raise CodecUnavailableError(f"{label}: this PyAV has no {encoder}: take the one of pip install av")


def ffmpeg_versions() -> dict[str, str]:
    """What the bytes of FFmpeg's encoders depend on, for settings."""
    return {"pyav": av.__version__, "libavcodec": ".".join(map(str, av.library_versions["libavcodec"]))}


class FfmpegCodec(Codec):
    """An encoder inside PyAV's FFmpeg, on one thread. Files are Matroska."""

    encoder: ClassVar[str]  # FFmpeg's name

    def check(self) -> None:
        check_encoder(self.encoder, self.label)

    def settings(self) -> dict[str, Any]:
        return {"encoder": self.encoder, **ffmpeg_versions(), **self.options()}

    def decode(self, files: list[Path], format: VideoFormat) -> Iterator[Frame]:
        return (shown(frame, format) for frame in read_frames(files, exact=self.lossless))

    def mux(self, source: Source, path: Path, options: dict[str, str], *, intra: bool, pixels: str, at: str) -> Encoded:
        """Code into a file. at: what the settings are, for the error. Raises UnsupportedInputError."""
        sizes: dict[int, int] = {}  # by frame
        even = 1 if source.format.rgb or self.encoder == "ffv1" else 2  # a multiple of the sides
        width, height = (-(-side // even) * even for side in (source.format.width, source.format.height))
        try:
            with av.open(f"file:{path}", "w", format="matroska") as container:
                stream: Any = container.add_stream(self.encoder, rate=source.rate, options=options)
                context = stream.codec_context
                context.thread_count = 1
                context.gop_size = 1 if intra else ONE_KEY_FRAME
                context.width, context.height, context.pix_fmt = width, height, pixels
                if source.format.rgb:
                    context.colorspace, context.color_range = source.format.colour.matrix, FULL_RANGE

                def write(picture: av.VideoFrame | None) -> None:
                    for packet in stream.encode(picture):
                        sizes[round(packet.pts * packet.time_base * source.rate)] = packet.size
                        container.mux(packet)

                for number, frame in enumerate(source.frames()):
                    picture = picture_of(frame, pixels, width, height)
                    picture.pts = number
                    write(picture)
                write(None)
                headers = len(context.extradata or b"")
        except (av.error.FFmpegError, ValueError) as error:
            raise UnsupportedInputError(
                f"{self.label} cannot code {source.format.width}x{source.format.height}{at}: "
                f"{getattr(error, 'strerror', error)}"
            ) from error
        return Encoded([path], sum(sizes.values()) + headers * self.lossless, [8 * sizes[i] for i in sorted(sizes)])


@dataclass(frozen=True)
class VideoRival(Codec):
    """A video codec with its modes. preset: the encoder's own word."""

    mode: str = INTER
    preset: str = ""

    rate_name, alone, choices, code = "qp", "mode", {"mode": (INTRA, INTER)}, CODE

    def from_qp(self, qp: float) -> float | None:
        return qp


class PyavRival(FfmpegCodec, VideoRival):
    """One of FFmpeg's."""

    @abstractmethod
    def parameters(self, qp: int) -> dict[str, str]:
        """FFmpeg's options of the encoder at a quantiser."""

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "parameters at 0": self.parameters(0)}

    def encode(self, source: Source, rate_point: float, folder: Path) -> Encoded:
        options, at = self.parameters(int(rate_point)), f" at {self.rate_name} {rate_point:g}, preset {self.preset}"
        pixels = "gbrp" if source.format.rgb and source.format.bit_depth == 8 else pixel_format(source.format)
        return self.mux(source, folder / "coded.mkv", options, intra=self.mode != INTER, pixels=pixels, at=at)


@dataclass(frozen=True)
class X264(PyavRival):
    """H.264 by x264 at a constant quantiser."""

    preset: str = "veryslow"

    family, encoder = "x264", "libx264"
    lowest, highest, usual = 0, 51, (22, 37)

    def parameters(self, qp: int) -> dict[str, str]:
        return {"preset": self.preset, "tune": "psnr", "qp": str(qp), "x264-params": "log-level=none"}


@dataclass(frozen=True)
class X265(PyavRival):
    """H.265 by x265 at a constant quantiser, without the SEI that names its settings (2.3 kB a key frame).

    lossless: every picture a key frame; R'G'B' as 4:4:4 without a transform of colour.
    """

    preset: str = "veryslow"

    family, encoder = "x265", "libx265"
    lowest, highest, usual = 0, 51, (22, 37)
    choices = {"mode": (INTRA, INTER, LOSSLESS)}

    @property
    def lossless(self) -> bool:
        return self.mode == LOSSLESS

    def parameters(self, qp: int) -> dict[str, str]:
        more = "info=0:log-level=none:pools=1:frame-threads=1" + (":keyint=1" if self.mode != INTER else "")
        if self.lossless:
            return {"preset": self.preset, "x265-params": f"lossless=1:{more}"}
        return {"preset": self.preset, "tune": "psnr", "x265-params": f"qp={qp}:{more}"}


class Av1Scale(PyavRival):
    """The quantiser scale of AV1 and VP9, 0 .. 63."""

    lowest, highest, usual = 0, 63, (20, 50)

    def from_qp(self, qp: float) -> float | None:
        """Twice as fine a step in the number, and 24 below: quantisers 17, 22, ... 42 become 10, 20, ... 60."""
        return 2 * qp - 24


@dataclass(frozen=True)
class SvtAv1(Av1Scale):
    """AV1 by SVT-AV1 at a constant rate factor; preset: 0 (slowest) .. 13."""

    preset: str = "3"

    family, encoder = "svtav1", "libsvtav1"
    lowest = 1

    def parameters(self, qp: int) -> dict[str, str]:
        more = "lp=1" + (":keyint=1" if self.mode == INTRA else "")
        return {"preset": self.preset, "crf": str(qp), "svtav1-params": more}

    def prepare(self) -> None:
        os.environ.setdefault("SVT_LOG", "1")  # errors only


@dataclass(frozen=True)
class Vp9(Av1Scale):
    """VP9 by libvpx; preset: its cpu-used, 0 (slowest) .. 5. intra: one fixed quantiser."""

    preset: str = "0"

    family, encoder = "vp9", "libvpx-vp9"

    def parameters(self, qp: int) -> dict[str, str]:
        common = {"deadline": "good", "cpu-used": self.preset, "aq-mode": "0", "tune": "psnr", "b": "0", "crf": str(qp)}
        if self.mode == INTRA:
            return {**common, "qmin": str(qp), "qmax": str(qp), "lag-in-frames": "0"}
        return {**common, "lag-in-frames": "25", "auto-alt-ref": "6"}


@dataclass(frozen=True)
class Ffv1(FfmpegCodec):
    """FFV1 version 3: range coder with its own state table, as few slices as FFmpeg allows, no checksums.

    The smaller of the files with the small and the large context model.
    """

    family, encoder, rate_name, code = "ffv1", "ffv1", "", CODE
    lowest, highest, usual = 0, 0, (0, 0)
    CIF: ClassVar[tuple[int, int]] = (352, 288)  # up to here FFmpeg allows a single slice

    @property
    def lossless(self) -> bool:
        return True

    def settings(self) -> dict[str, Any]:
        smallest = [self.parameters(VideoFormat(1920, 1080), context) for context in (0, 1)]
        return {**super().settings(), "smallest of": smallest}

    def parameters(self, format: VideoFormat, context: int) -> dict[str, str]:
        """FFmpeg's options."""
        slices = "1" if format.width <= self.CIF[0] and format.height <= self.CIF[1] else "4"
        return {"level": "3", "coder": "range_tab", "context": str(context), "slices": slices, "slicecrc": "0"}

    def encode(self, source: Source, rate_point: float, folder: Path) -> Encoded:
        f, tries = source.format, []
        for context in (0, 1):
            path = folder / f"context-{context}.mkv"
            tries.append(self.mux(source, path, self.parameters(f, context), intra=True, pixels=pixel_format(f), at=""))
        best, other = sorted(tries, key=lambda e: e.rate_bytes)
        other.files[0].unlink()
        return best


@dataclass(frozen=True)
class Vvenc(VideoRival):
    """H.266 by VVenC, perceptual adaptation off, decoded by PyAV's FFmpeg.

    The encoder is `vvencapp` (github.com/fraunhoferhhi/vvenc) on the PATH, else an `ffmpeg` that has libvvenc: the one
    on the PATH or that of the package imageio-ffmpeg. The file is a raw byte stream; parameter sets count.
    """

    preset: str = "medium"

    family = "vvenc"
    lowest, highest, usual = 0, 63, (22, 37)
    app: ClassVar[str] = "vvencapp"

    def settings(self) -> dict[str, Any]:
        self.check()
        return {"command": self.command(Path("in.y4m"), Path("out.266"), 0), "version": self._version}

    def check(self) -> None:
        if self._program is None:
            raise CodecUnavailableError(
                f"{self.label}: there is no {self.app} on the PATH, nor an ffmpeg with libvvenc: pip install "
                "imageio-ffmpeg, build github.com/fraunhoferhhi/vvenc, or give points measured elsewhere with "
                "points:FILE#NAME"
            )
        if "vvc" not in av.codecs_available:
            raise CodecUnavailableError(f"{self.label}: this PyAV cannot decode H.266: it needs FFmpeg 7.1 or later")

    def decode(self, files: list[Path], format: VideoFormat) -> Iterator[Frame]:
        return (shown(frame, format) for frame in read_frames(files))

    def command(self, y4m: Path, out: Path, qp: int) -> list[str]:
        """How the encoder is called: without directories, as settings have it."""
        period = "1" if self.mode == INTRA else str(ONE_KEY_FRAME)
        if self._program is None or Path(self._program).name == self.app:
            words = [self.app, "-i", str(y4m), "-o", str(out), "--preset", self.preset, "--qp", str(qp), "--qpa", "0"]
            return [*words, "--intraperiod", period, "--threads", "1", "--verbosity", "1"]
        words = ["ffmpeg", "-y", "-nostdin", "-loglevel", "error", "-i", str(y4m), "-fps_mode", "passthrough"]
        words += ["-c:v", "libvvenc", "-preset", self.preset, "-qp", str(qp), "-qpa", "0", "-threads", "1"]
        return [*words, "-vvenc-params", f"IntraPeriod={period}:Threads=1", "-f", "vvc", str(out)]

    def encode(self, source: Source, rate_point: float, folder: Path) -> Encoded:
        self.check()
        y4m, path = folder / "source.y4m", folder / "coded.266"
        format = VideoFormat(source.format.chroma_width * 2, source.format.chroma_height * 2, frame_rate=source.rate)
        with open_writer(y4m, format) as writer:
            for frame in source.frames():
                writer.write(padded(frame, 2))
        command = [str(self._program), *self.command(y4m, path, int(rate_point))[1:]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        y4m.unlink()
        if done.returncode or not path.is_file():
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise UnsupportedInputError(f"{self.label} failed with exit code {done.returncode}: {' '.join(last)}")
        return Encoded([path], path.stat().st_size)

    @cached_property
    def _program(self) -> str | None:
        return shutil.which(self.app) or ffmpeg_with_vvenc()

    @cached_property
    def _version(self) -> str:
        option = "--version" if Path(str(self._program)).name == self.app else "-version"
        done = subprocess.run([str(self._program), option], capture_output=True, text=True, check=False)
        return (done.stdout or done.stderr).strip().partition("\n")[0].partition(" Copyright")[0]
