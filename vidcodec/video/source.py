"""One local media file: opened safely, its video stream decoded packet by packet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error

from vidcodec.errors import InputError, NoVideoError, UnsupportedInputError

LARGEST_SIDE = 16384
LARGEST_PICTURE = 1 << 27  # samples
_READ_ERRORS_BEFORE_GIVING_UP = 32

# Playlists open other files, devices are no files, and FFmpeg takes any .txt for a terminal recording.
_REFUSED_FORMATS = frozenset(
    {"adf", "applehttp", "bin", "concat", "dash", "hls", "idf", "imf", "lavfi", "rtsp", "sdp", "tty", "xbin"}
)
_OPEN_OPTIONS = {"protocol_whitelist": "file", "pattern_type": "none"}  # no network; %03d is a name, not a sequence


class MediaSource:
    """The video stream of a local file.

    threads: for decoding; 0 lets FFmpeg choose. `damaged` counts what could not be read or decoded so far.

    Raises InputError when there is no such file or it is not media, NoVideoError when it holds no video,
    UnsupportedInputError when the pictures are too large or no decoder is built in.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.path = path
        self.damaged = 0
        self.container = _open(path)
        try:
            self.stream = _video_stream(self.container, path)
            check_size(self.stream.codec_context.width, self.stream.codec_context.height, path)
        except BaseException:
            self.container.close()
            raise
        self.stream.thread_type = "AUTO"
        if threads:
            self.stream.codec_context.thread_count = threads

    @property
    def time_base(self) -> Fraction:
        """Seconds per unit of the pictures' time stamps."""
        return self.stream.time_base or Fraction(1, 90_000)

    @property
    def origin(self) -> Fraction:
        """Seconds at which the stream starts."""
        return (self.stream.start_time or 0) * self.time_base

    @property
    def average_rate(self) -> Fraction | None:
        """Frames per second on average, where the container or the codec says."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return Fraction(rate) if rate and rate > 0 else None

    @property
    def constant_rate(self) -> Fraction | None:
        """`average_rate` where the frames are evenly spaced as far as the container tells, else None."""
        average, base = self.stream.average_rate, self.stream.base_rate
        if not average or average <= 0:
            return None
        if base and abs(base / average - 1) > Fraction(1, 100):
            return None
        return Fraction(average)

    @property
    def is_still(self) -> bool:
        """Whether this is a single picture: PNG, JPEG and the like."""
        name = self.container.format.name
        return name.endswith("_pipe") or name == "image2"

    @property
    def seconds(self) -> Fraction | None:
        """Length of the video, where the container says."""
        if self.stream.duration:
            return self.stream.duration * self.time_base
        return Fraction(self.container.duration, av.time_base) if self.container.duration else None

    def only_keyframes(self) -> None:
        """Decode nothing but key frames from here on."""
        self.stream.codec_context.skip_frame = "NONKEY"

    def seek(self, seconds: Fraction) -> bool:
        """Go to the last key frame before a time on the stream's timeline; False when the container cannot."""
        try:
            self.container.seek(int(seconds / self.time_base), stream=self.stream, backward=True)
        except (av.error.FFmpegError, OSError, OverflowError):
            return False
        return True

    def pictures(self) -> Iterator[av.VideoFrame]:
        """The decoded pictures in order of presentation. What is damaged is counted and left out."""
        for _ in range(_READ_ERRORS_BEFORE_GIVING_UP):
            try:
                for packet in self.container.demux(self.stream):
                    if packet.is_corrupt and packet.size:
                        self.damaged += 1
                    else:
                        yield from self._decoded(packet)
                return
            except av.error.FFmpegError:
                self.damaged += 1
        yield from self._decoded(None)

    def _decoded(self, packet: av.Packet | None) -> Iterator[av.VideoFrame]:
        try:
            pictures = self.stream.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            self.damaged += 1
            return
        for picture in pictures:
            if picture.is_corrupt:
                self.damaged += 1
            else:
                yield picture

    def close(self) -> None:
        """Let go of the file."""
        self.container.close()


def check_size(width: int, height: int, path: Path) -> None:
    """Raise UnsupportedInputError when a picture is larger than the codec takes."""
    if max(width, height) > LARGEST_SIDE or width * height > LARGEST_PICTURE:
        raise UnsupportedInputError(
            f"{path}: pictures of {width}x{height} are too large: scale them to at most {LARGEST_SIDE} on a side "
            f"and {LARGEST_PICTURE >> 20} megasamples"
        )


def _open(path: Path) -> av.container.InputContainer:
    if path.is_dir():
        raise InputError(f"{path} is a directory: give one video file")
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file: give a video file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} may not be read: check its permissions")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: give a video file")
    try:
        container = av.open(f"file:{path}", mode="r", options=dict(_OPEN_OPTIONS), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} is not a video that FFmpeg can read ({reason}): is it complete?") from error
    if _REFUSED_FORMATS.intersection(container.format.name.split(",")):
        name = container.format.name
        container.close()
        raise InputError(f"{path} is not a video but {name}: give the video file itself")
    return container


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    streams = [stream for stream in container.streams.video if not is_cover_art(stream)]
    if not streams:
        only = "only cover art" if container.streams.video else "no video stream"
        raise NoVideoError(f"{path} holds {only}: give a file with video")
    stream = next((stream for stream in streams if stream.disposition & stream.disposition.default), streams[0])
    if stream.codec_context is None:
        raise UnsupportedInputError(f"{path}: FFmpeg has no decoder for its video: convert it to another codec first")
    return stream


def is_cover_art(stream: av.VideoStream) -> bool:
    """Whether a stream is one attached picture."""
    return bool(stream.disposition & type(stream.disposition).attached_pic)
