"""Writers with an encoder of FFmpeg's: lossless FFV1 in Matroska, and H.264 in MP4 to hand on."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import numpy as np

from vidcodec.errors import OutputError
from vidcodec.video.frame import Frame, VideoFormat
from vidcodec.video.matroska import MatroskaMuxer, Sound
from vidcodec.video.output import FrameWriter, close_quietly

_LOCATIONS = ("unspecified", "left", "center", "topleft", "top", "bottomleft", "bottom")
_RANGE_LIMITED, _RANGE_FULL = 1, 2  # AVColorRange


class MkvWriter(FrameWriter):
    """FFV1 level 3 in Matroska: every sample comes back as it was.

    Time stamps come back exactly where the format's time base is a whole number of nanoseconds, else to the nearest
    microsecond. Matroska's timeline starts at zero: negative time stamps are moved up, with a note. Carries the
    colour tags, the sample aspect and the rotation.
    """

    def __init__(self, path: Path, format: VideoFormat) -> None:
        super().__init__(path, format)
        self._ticks: deque[int] = deque()  # of the frames inside the encoder
        self._offset: int | None = None
        self._last = -1
        self._previous = 0  # ticks between the last two frames
        encoder = av.CodecContext.create("ffv1", "w")
        encoder.options = {"level": "3", "slicecrc": "1"}
        _describe(encoder, format, format.width, format.height)
        encoder.gop_size = 1
        with self._reporting():
            encoder.open()
            self._file: BinaryIO = open(self._partial, "xb")  # noqa: SIM115
            self._muxer = MatroskaMuxer(self._file, format, "V_FFV1", encoder.extradata or b"")
        self._encoder = encoder
        self._sound: Sound | None = None
        self._heard = 0  # ticks

    def add_sound(self, sound: Path) -> None:
        with self._reporting():
            self._sound = Sound(sound)
            self._muxer.add_tracks(self._sound.entries)

    def _write(self, frame: Frame) -> None:
        ticks = self._muxer.ticks(frame.pts)
        if self._offset is None:
            self._offset = max(0, -ticks)
            if self._offset:
                self.notes.append("negative time stamps moved up: Matroska starts at zero")
        ticks = max(ticks + self._offset, self._last + 1)
        self._previous, self._last = ticks - self._last, ticks
        self._ticks.append(ticks)
        self._hear(ticks)
        self._mux(self._encoder.encode(_picture(frame, self.format, self.format.width, self.format.height)))

    def _hear(self, ticks: int | None) -> None:
        """Write sound and subtitles that begin before a time in ticks; None: the rest."""
        if self._sound is None:
            return
        offset, muxer = self._offset or 0, self._muxer
        for block in self._sound.until(None if ticks is None else muxer.seconds(ticks - offset)):
            if (at := muxer.ticks_of(block.seconds) + offset) >= 0:
                muxer.write_block(block, at)
                self._heard = at + muxer.ticks_of(block.duration)

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            self._muxer.write(bytes(packet), self._ticks.popleft())

    def _finish(self) -> None:
        self._mux(self._encoder.encode(None))
        self._hear(None)
        rate = self.format.frame_rate
        last_frame = self._muxer.ticks(round(1 / (rate * self.format.time_base))) if rate else self._previous
        if self._sound:
            self._sound.close()
        self._muxer.finish(max(self._heard, self._last + max(1, last_frame)))
        self._file.close()

    def _abandon(self) -> None:
        if sound := getattr(self, "_sound", None):
            sound.close()
        if hasattr(self, "_file"):
            close_quietly(self._file)


class Mp4Writer(FrameWriter):
    """H.264 (x264, CRF 12) in MP4, 8 bit or High 10: a copy to hand on that plays anywhere, not a lossless one.

    4:2:0 H.264 has even sizes only: an odd one gets its last column or line twice, with a note.
    """

    def __init__(self, path: Path, format: VideoFormat) -> None:
        super().__init__(path, format)
        if format.rgb:
            raise OutputError(f"{path}: MP4 is written of YUV video only: write .mkv, or a directory for PNG")
        self.notes.append("MP4 is a lossy copy to hand on (x264, CRF 12): write .mkv or .y4m to keep every sample")
        self._width, self._height = (side + side % 2 for side in (format.width, format.height))
        if (self._width, self._height) != (format.width, format.height):
            self.notes.append(
                f"{format.width}x{format.height} padded to {self._width}x{self._height}: H.264 has even sizes only"
            )
        options = {"crf": "12", "preset": "medium", "x264-params": "log-level=none"}
        options["chroma_sample_location"] = _LOCATIONS[format.colour.chroma_location]
        with self._reporting():
            self._container = av.open(
                f"file:{self._partial}", mode="w", format="mp4", options={"movflags": "+faststart"}
            )
            try:
                self._stream = self._container.add_stream("libx264", rate=format.frame_rate or 25, options=options)
            except (ValueError, av.error.FFmpegError) as error:
                self.discard()
                raise OutputError(f"{path} cannot be written: FFmpeg has no x264 here; write .mkv or .y4m") from error
            _describe(self._stream.codec_context, format, self._width, self._height)
            self._stream.time_base = format.time_base
            if format.rotation:
                self._rotate(format.rotation)

    def _rotate(self, degrees: int) -> None:
        if hasattr(self._stream, "set_display_rotation"):
            self._stream.set_display_rotation(-degrees)  # FFmpeg counts anticlockwise
        else:
            self.notes.append(f"this PyAV cannot note in MP4 that the picture is to be turned by {degrees} degrees")

    def _write(self, frame: Frame) -> None:
        picture = _picture(frame, self.format, self._width, self._height)
        self._container.mux(self._stream.encode(picture))

    def _finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def _abandon(self) -> None:
        try:
            self._container.close()
        except (av.error.FFmpegError, OSError):
            return


def pixel_format(format: VideoFormat) -> str:
    """FFmpeg's name of what holds the frames of a format as they are."""
    if format.rgb:
        return "bgr0" if format.bit_depth == 8 else "gbrp10le"
    return "yuv420p" if format.bit_depth == 8 else "yuv420p10le"


def _describe(encoder: av.VideoCodecContext, format: VideoFormat, width: int, height: int) -> None:
    """Tell an encoder what it will get."""
    encoder.width, encoder.height = width, height
    encoder.pix_fmt = pixel_format(format)
    encoder.time_base = format.time_base
    encoder.framerate = format.frame_rate or Fraction(25)
    encoder.sample_aspect_ratio = format.sample_aspect
    encoder.colorspace = format.colour.matrix
    encoder.color_primaries = format.colour.primaries
    encoder.color_trc = format.colour.transfer
    encoder.color_range = _RANGE_FULL if format.colour.full_range else _RANGE_LIMITED


def picture_of(frame: Frame, pixels: str, width: int, height: int) -> av.VideoFrame:
    """FFmpeg's picture of a frame's planes, without a time; grown to `width` x `height` by repeating its edge."""
    picture = av.VideoFrame(width, height, pixels)
    planes = [frame.y, *frame.uv]
    if pixels == "bgr0":
        planes = [np.stack([frame.uv[0], frame.y, frame.uv[1], np.zeros_like(frame.y)], -1).reshape(height, -1)]
    for plane, samples in zip(picture.planes, planes, strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1).view(samples.dtype)  # type: ignore[call-overload]
        tall, wide = plane.height - samples.shape[0], max(0, plane.width - samples.shape[1])
        rows[:, : samples.shape[1] + wide] = np.pad(samples, ((0, tall), (0, wide)), mode="edge")
    return picture


def _picture(frame: Frame, format: VideoFormat, width: int, height: int) -> av.VideoFrame:
    """With its time and what its numbers mean."""
    picture = picture_of(frame, pixel_format(format), width, height)
    picture.pts = frame.pts
    picture.time_base = format.time_base
    picture.colorspace = format.colour.matrix
    picture.color_range = _RANGE_FULL if format.colour.full_range else _RANGE_LIMITED
    return picture
