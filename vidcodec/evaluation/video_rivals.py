"""Conventional video codecs: x264, x265, SVT-AV1 and VP9 from PyAV's own FFmpeg, VVenC from a program.

Each has two modes. `intra`: every picture a key frame. `inter`: one key frame, then the encoder's own default
structure with B frames and lookahead, at its slow preset: what a user who wants small files would take. Always a
constant quantiser (VP9 inter: its constant-quality mode), tuned for PSNR, on one thread, so that the bytes depend on
nothing but the settings. Files are Matroska; the parameter sets lie in its header, so `rate_bytes` counts the packets
alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import av
import av.error
import numpy as np

from vidcodec.errors import CodecUnavailableError, UnsupportedInputError
from vidcodec.evaluation.codec import Codec, Encoded, Source, padded, read_frames, shown
from vidcodec.video import Frame, VideoFormat, open_writer

INTRA, INTER = "intra", "inter"
MODES = (INTRA, INTER)
ONE_KEY_FRAME = 1 << 20  # frames between two key frames: more than any clip has


@dataclass(frozen=True)
class VideoRival(Codec):
    """A video codec with the two modes. preset: the encoder's own word."""

    mode: str = INTER
    preset: str = ""

    rate_name, alone = "qp", "mode"

    def decode(self, files: list[Path], format: VideoFormat) -> Iterator[Frame]:
        return (shown(frame, format) for frame in read_frames(files))


class PyavRival(VideoRival):
    """An encoder inside PyAV's FFmpeg."""

    encoder: ClassVar[str]  # FFmpeg's name

    @abstractmethod
    def parameters(self, qp: int) -> dict[str, str]:
        """FFmpeg's options of the encoder at a quantiser."""

    def settings(self) -> dict[str, Any]:
        libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
        return {
            "encoder": self.encoder,
            "pyav": av.__version__,
            "libavcodec": libavcodec,
            **self.options(),
            "parameters at 0": self.parameters(0),
        }

    def check(self) -> None:
        if self.encoder not in av.codecs_available:
            raise CodecUnavailableError(
                f"{self.label}: this PyAV has no {self.encoder}: take the one of pip install av"
            )

    def encode(self, source: Source, rate_point: float, folder: Path) -> Encoded:
        path = folder / "coded.mkv"
        sizes: dict[int, int] = {}  # by frame
        try:
            with av.open(f"file:{path}", "w", format="matroska") as container:
                options = self.parameters(int(rate_point))
                stream: Any = container.add_stream(self.encoder, rate=source.rate, options=options)
                context = stream.codec_context
                context.thread_count = 1
                context.gop_size = 1 if self.mode == INTRA else ONE_KEY_FRAME
                context.pix_fmt = "yuv420p"
                context.width, context.height = source.format.chroma_width * 2, source.format.chroma_height * 2

                def write(picture: av.VideoFrame | None) -> None:
                    for packet in stream.encode(picture):
                        sizes[round(packet.pts * packet.time_base * source.rate)] = packet.size
                        container.mux(packet)

                for number, frame in enumerate(source.frames()):
                    write(to_picture(padded(frame, 2), number))
                write(None)
        except (av.error.FFmpegError, ValueError) as error:
            raise UnsupportedInputError(
                f"{self.label} cannot code {source.format.width}x{source.format.height} at {self.rate_name} "
                f"{rate_point:g}, preset {self.preset}: {getattr(error, 'strerror', error)}"
            ) from error
        return Encoded([path], sum(sizes.values()), [8 * sizes[i] for i in sorted(sizes)])


def to_picture(frame: Frame, number: int) -> av.VideoFrame:
    """An 8-bit frame for FFmpeg's encoders, its `pts` the number."""
    height, width = frame.y.shape
    picture = av.VideoFrame(width, height, "yuv420p")
    for plane, samples in zip(picture.planes, (frame.y, *frame.uv), strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)  # type: ignore[call-overload]
        rows[:, : plane.width] = samples
    picture.pts = number
    return picture


@dataclass(frozen=True)
class X264(PyavRival):
    """H.264 by x264 at a constant quantiser."""

    preset: str = "veryslow"

    family, encoder = "x264", "libx264"
    lowest, highest, usual = 0, 51, (22, 37)

    def parameters(self, qp: int) -> dict[str, str]:
        return {"preset": self.preset, "tune": "psnr", "qp": str(qp), "x264-params": "log-level=none"}

    def from_qp(self, qp: float) -> float | None:
        return qp


@dataclass(frozen=True)
class X265(PyavRival):
    """H.265 by x265 at a constant quantiser, without the SEI that names its settings (2.3 kB a key frame)."""

    preset: str = "veryslow"

    family, encoder = "x265", "libx265"
    lowest, highest, usual = 0, 51, (22, 37)

    def parameters(self, qp: int) -> dict[str, str]:
        more = f"qp={qp}:info=0:log-level=none:pools=1:frame-threads=1" + (":keyint=1" if self.mode == INTRA else "")
        return {"preset": self.preset, "tune": "psnr", "x265-params": more}

    def from_qp(self, qp: float) -> float | None:
        return qp


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
class Vvenc(VideoRival):
    """H.266 by VVenC, perceptual adaptation off, decoded by PyAV's FFmpeg.

    The encoder is `vvencapp` (github.com/fraunhoferhhi/vvenc) on the PATH, else an `ffmpeg` that has libvvenc: the one
    on the PATH or that of the package imageio-ffmpeg. The file is a raw byte stream; parameter sets count.
    """

    preset: str = "medium"

    family = "vvenc"
    lowest, highest, usual = 0, 63, (22, 37)
    app: ClassVar[str] = "vvencapp"

    def from_qp(self, qp: float) -> float | None:
        return qp

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
        return shutil.which(self.app) or next(filter(_has_vvenc, _ffmpegs()), None)

    @cached_property
    def _version(self) -> str:
        option = "--version" if Path(str(self._program)).name == self.app else "-version"
        done = subprocess.run([str(self._program), option], capture_output=True, text=True, check=False)
        return (done.stdout or done.stderr).strip().partition("\n")[0].partition(" Copyright")[0]


def _ffmpegs() -> Iterator[str]:
    """Programs to look for VVenC in."""
    if found := shutil.which("ffmpeg"):
        yield found
    with suppress(ImportError, RuntimeError):  # not installed; installed without its program
        yield import_module("imageio_ffmpeg").get_ffmpeg_exe()


def _has_vvenc(ffmpeg: str) -> bool:
    done = subprocess.run([ffmpeg, "-hide_banner", "-encoders"], capture_output=True, text=True, check=False)
    return " libvvenc " in done.stdout
