"""Writers that need no encoder of FFmpeg's: Y4M and a directory of PNG files."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from vidcodec.errors import OutputError
from vidcodec.files import synchronise
from vidcodec.video.colour import yuv_to_rgb
from vidcodec.video.frame import Frame, VideoFormat
from vidcodec.video.output import FrameWriter, close_quietly


class Y4mWriter(FrameWriter):
    """YUV4MPEG2: raw planes behind a one-line header. It has a frame rate but no time stamps.

    A format without a frame rate gets the average one, put in when the last frame is known.
    """

    _CHROMA = {1: "420mpeg2", 3: "420paldv"}  # by location; the others are written as 420jpeg

    def __init__(self, path: Path, format: VideoFormat) -> None:
        super().__init__(path, format)
        if format.rgb:
            raise OutputError(f"{path}: Y4M holds no RGB: write .mkv, or a directory for PNG")
        self._first = self._last = 0
        if format.frame_rate is None:
            self.notes.append("Y4M has no time stamps: the frames get their average rate")
        if format.rotation:
            self.notes.append(f"Y4M cannot say that the picture is to be turned by {format.rotation} degrees")
        with self._reporting():
            self._file: BinaryIO = open(self._partial, "xb")  # noqa: SIM115
            self._file.write(self._header(format.frame_rate or Fraction(25)))

    def _header(self, rate: Fraction) -> bytes:
        """The same length whatever the rate."""
        format = self.format
        rate = rate.limit_denominator(1_000_000)
        depth = self._CHROMA.get(format.colour.chroma_location, "420jpeg") if format.bit_depth == 8 else "420p10"
        depth += " XYSCSS=420P10" if format.bit_depth == 10 else ""
        aspect = format.sample_aspect
        return (
            f"YUV4MPEG2 W{format.width} H{format.height} F{rate.numerator:010d}:{rate.denominator:010d} Ip "
            f"A{aspect.numerator}:{aspect.denominator} C{depth} "
            f"XCOLORRANGE={'FULL' if format.colour.full_range else 'LIMITED'}\n"
        ).encode()

    def _write(self, frame: Frame) -> None:
        if not self.frames_written:
            self._first = frame.pts
        self._last = frame.pts
        self._file.write(b"FRAME\n")
        for plane in (frame.y, frame.uv):
            self._file.write(np.ascontiguousarray(plane, plane.dtype.newbyteorder("<")).data)

    def _finish(self) -> None:
        seconds = (self._last - self._first) * self.format.time_base
        if self.format.frame_rate is None and seconds > 0:
            self._file.seek(0)
            self._file.write(self._header((self.frames_written - 1) / seconds))
        self._file.close()

    def _abandon(self) -> None:
        close_quietly(self._file)


class PngWriter(FrameWriter):
    """A directory of `frame_000000_0.000000.png`: number and time in seconds; RGB of 8 bits, or 16 for 10-bit video.

    The pictures are not turned. overwrite: put them into a directory that has files already, in place of
    earlier `frame_*.png`; anything else in it stays.
    """

    def __init__(self, path: Path, format: VideoFormat, *, overwrite: bool = False) -> None:
        super().__init__(path, format)
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file: give a directory, or a name ending in .y4m, .mkv or .mp4")
        if path.is_dir() and any(path.iterdir()) and not overwrite:
            raise OutputError(f"{path} is not empty: give another directory, or allow overwriting")
        if format.rotation:
            self.notes.append(f"PNG files are not turned: the video is to be shown turned by {format.rotation} degrees")
        with self._reporting():
            self._partial.mkdir()

    def _write(self, frame: Frame) -> None:
        seconds = float(frame.pts * self.format.time_base)
        name = self._partial / f"frame_{self.frames_written:06d}_{seconds:.6f}.png"
        encoded, data = cv2.imencode(".png", yuv_to_rgb(frame, self.format)[..., ::-1])
        if not encoded:
            raise OutputError(f"{self.path}: a picture of {self.format.width}x{self.format.height} cannot be made PNG")
        with open(name, "xb") as file:
            file.write(data.data)
            file.flush()
            os.fsync(file.fileno())

    def _finish(self) -> None:
        synchronise(self._partial)

    def _abandon(self) -> None:
        return

    def _publish(self) -> None:
        if self.path.is_dir() and any(self.path.iterdir()):
            for earlier in self.path.glob("frame_*.png"):
                earlier.unlink()
            for picture in sorted(self._partial.iterdir()):
                os.replace(picture, self.path / picture.name)
            self._partial.rmdir()
        else:
            os.replace(self._partial, self.path)
        synchronise(self.path.parent)
