"""Reading videos and stills: the frames a sampling asks for, as 4:2:0 planes, one at a time."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av

from vidcodec.errors import InputError, NoVideoError, UnsupportedInputError
from vidcodec.files import Closing
from vidcodec.video.colour import CENTRE, LEFT
from vidcodec.video.frame import ColourTags, Frame, VideoFormat
from vidcodec.video.pictures import PixelLayout, colour_tags, rotation_of, sample_aspect_of, to_frame
from vidcodec.video.sampling import Clock, Sampling, select
from vidcodec.video.source import MediaSource, check_size, is_cover_art

__all__ = ["Sampling", "VideoReader"]

_SHORTEST_GAP = Fraction(1, 5)  # seconds missing at the end before it is told
_SEEK_MARGINS = (0, 2, 10)  # seconds: how much earlier to seek when a seek lands too late
_Y4M_CHROMA = {b"C420jpeg": CENTRE, b"C420": CENTRE, b"C420mpeg2": LEFT, b"C420paldv": 3}

Timed = Iterator[tuple[av.VideoFrame, int]]


class VideoReader(Closing):
    """The frames of a local video file or still picture.

    path: anything FFmpeg opens; never taken for an address or a numbered sequence.
    sampling: which frames. threads: for decoding; 0 lets FFmpeg choose. exact: keep every sample: RGB stays RGB, and
    what would lose something raises UnsupportedInputError.

    format: what the frames share, known at once. notes: what was converted, repaired or left out, one line each;
    complete when `frames()` has ended.

    Raises, on opening: InputError for a missing or unreadable file, NoVideoError when there is no video or no frame
    in range, UnsupportedInputError for pictures that are too large.
    """

    def __init__(
        self, path: str | os.PathLike[str], sampling: Sampling | None = None, *, threads: int = 0, exact: bool = False
    ) -> None:
        self.path, self.exact = Path(path), exact
        self.sampling = sampling or Sampling()
        self.notes: list[str] = []
        self._threads = threads
        self._layouts: dict[str, PixelLayout] = {}
        self._source = MediaSource(self.path, threads)
        try:
            self._pending: Timed | None = self._first_selected()
            self.estimated_frames = self._estimate()
        except BaseException:
            self.close()
            raise

    def frames(self) -> Iterator[Frame]:
        """The frames, with rising `pts`; only one is in memory. A second call starts again.

        Raises UnsupportedInputError when the size or depth of the pictures changes midway.
        """
        if self._pending is None:
            self._source.close()
            self._source = MediaSource(self.path, self._threads)
            self._pending = self._first_selected()
        selected, self._pending = self._pending, None
        for picture, pts in selected:
            self._taken += 1
            yield self._frame(picture, pts)
        self._note_flaws()

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    # Opening

    def _first_selected(self) -> Timed:
        """Decode up to the first frame asked for, settle the format by it, and give it back with the rest."""
        base, origin = self._source.time_base, self._source.origin
        self._seen = self._taken = 0
        ranged = select(self._timed(self._from_start()), replace(self.sampling, fps=None), base, origin)
        selected = select(self._counted(ranged), Sampling(self.sampling.rate), base, origin)
        first = next(selected, None)
        if first is None:
            raise self._nothing_found()
        self.format = self._format_of(first[0])
        return itertools.chain([first], selected)

    def _timed(self, pictures: Iterator[av.VideoFrame]) -> Timed:
        rate = self._source.average_rate or Fraction(25)
        self._clock = Clock(self._source.time_base, round(1 / (rate * self._source.time_base)))
        for picture in pictures:
            yield picture, self._clock.stamp(picture)
        self._note_early_end()

    def _counted(self, timed: Timed) -> Timed:
        for self._seen, item in enumerate(timed, 1):
            yield item

    def _from_start(self) -> Iterator[av.VideoFrame]:
        """Pictures from a key frame at or before the start of the range on."""
        begin = self._source.origin + self.sampling.begin
        if self.sampling.begin:
            for margin in _SEEK_MARGINS:
                if margin >= self.sampling.begin or not self._source.seek(begin - margin):
                    break
                pictures = self._pictures()
                first = next(pictures, None)
                if first is not None and first.pts is not None and first.pts * self._source.time_base <= begin:
                    return itertools.chain([first], pictures)
            self._source.close()
            self._source = MediaSource(self.path, self._threads)
        return self._pictures()

    def _pictures(self) -> Iterator[av.VideoFrame]:
        if not self.sampling.keyframes:
            return self._source.pictures()
        self._source.only_keyframes()
        return (picture for picture in self._source.pictures() if picture.key_frame)

    def _nothing_found(self) -> InputError:
        if self._source.damaged:
            return InputError(f"{self.path}: no frame could be decoded: the file is damaged, get another copy")
        if self.sampling.begin or self.sampling.span is not None:
            seconds = self._source.seconds
            length = f": it lasts {float(seconds):.3f} s" if seconds else ""
            return NoVideoError(
                f"{self.path} has no frame in the range asked for{length}; change 'start' or 'duration'"
            )
        return NoVideoError(f"{self.path} has a video stream without a frame: give another file")

    def _format_of(self, picture: av.VideoFrame) -> VideoFormat:
        check_size(picture.width, picture.height, self.path)
        layout = self._layout(picture)
        if picture.interlaced_frame:
            self._note("interlaced: both fields are kept in one frame")
        if picture.rotation % 90:
            self._note(f"rotation of {-picture.rotation} degrees taken for the nearest quarter turn")
        others = sum(not is_cover_art(stream) for stream in self._source.container.streams.video) - 1
        if others:
            self._note(f"{others} more video stream{'s' * (others > 1)} left out")
        return VideoFormat(
            width=picture.width,
            height=picture.height,
            bit_depth=layout.depth,
            colour=self._colour_of(picture, layout),
            sample_aspect=sample_aspect_of(self._source.stream),
            rotation=rotation_of(picture),
            time_base=self._source.time_base,
            frame_rate=self._sampled_rate(),
            rgb=layout.kind == "gbr",
        )

    def _colour_of(self, picture: av.VideoFrame, layout: PixelLayout) -> ColourTags:
        tags = colour_tags(picture, layout, self._source.stream.codec_context.name)
        if "yuv4mpegpipe" not in self._source.container.format.name or layout.kind != "yuv":
            return tags
        with open(self.path, "rb") as file:
            header = file.readline(1024).split()
        location = next((_Y4M_CHROMA[tag] for tag in header if tag in _Y4M_CHROMA), tags.chroma_location)
        return ColourTags(tags.matrix, tags.primaries, tags.transfer, tags.full_range, location)

    def _sampled_rate(self) -> Fraction | None:
        """Frames per second of what is taken; None when it varies or is not known."""
        if self.sampling.keyframes:
            return None
        wanted, average, constant = self.sampling.rate, self._source.average_rate, self._source.constant_rate
        if wanted is None or (average is not None and average < wanted):
            return constant
        return wanted

    def _estimate(self) -> int | None:
        """How many frames to expect, for progress; None when there is no telling."""
        if self._source.is_still:
            return 1
        seconds, rate = self._source.seconds, self._source.average_rate
        if self.sampling.keyframes or seconds is None or rate is None:
            return None
        length = seconds - self.sampling.begin
        if self.sampling.span is not None:
            length = min(length, self.sampling.span)
        last_frame = length - Fraction(99, 100) / rate  # its time, with a little room for rounded lengths
        if self.sampling.rate is not None:
            rate = min(rate, self.sampling.rate)
        return max(1, math.floor(last_frame * rate) + 1)

    # Frames

    def _frame(self, picture: av.VideoFrame, pts: int) -> Frame:
        layout = self._layout(picture)
        before, now = self.format, (picture.width, picture.height, layout.depth)
        if now != (before.width, before.height, before.bit_depth):
            seconds = pts * before.time_base - self._source.origin - self.sampling.begin
            raise UnsupportedInputError(
                f"{self.path}: the pictures change from {before.width}x{before.height} at {before.bit_depth} bit to "
                f"{now[0]}x{now[1]} at {now[2]} bit; take the part before with 'duration' {float(seconds):.3f}"
            )
        if before.rgb != (layout.kind == "gbr"):
            raise UnsupportedInputError(f"{self.path}: the pictures change between RGB and YUV: convert it first")
        return to_frame(picture, layout, before, pts)

    def _layout(self, picture: av.VideoFrame) -> PixelLayout:
        name = picture.format.name
        if name not in self._layouts:
            layout = PixelLayout.of(picture.format)
            self._layouts[name] = layout.exact() if self.exact else layout
            for note in self._layouts[name].notes(picture.height):
                self._note(note)
        return self._layouts[name]

    def _note_flaws(self) -> None:
        for count, what in (
            (self._source.damaged, "damaged packets or frames left out"),
            (self._clock.repaired, "repeated or falling time stamps moved"),
            (self._clock.synthetic, "missing time stamps made up from the average frame rate"),
        ):
            if count:
                self._note(f"{what}: {count}")
        if self.exact and self._seen > self._taken:
            left = f"{self._seen - self._taken} of {self._seen} frames left out by the sampling"
            self._note(f"{left}: every one with 'fps' source")

    def _note_early_end(self) -> None:
        """Matroska cut short simply ends: tell by the length that the container announced."""
        source, last = self._source, self._clock.last
        alone = len(source.container.streams) == 1 or source.stream.duration
        if last is None or source.seconds is None or source.is_still or not alone or self.sampling.keyframes:
            return
        announced = source.origin + source.seconds
        missing = announced - last * source.time_base
        if missing > max(_SHORTEST_GAP, 3 * self._clock.step * source.time_base):
            ends = last * source.time_base - source.origin
            self._note(f"ends at {float(ends):.3f} s of {float(source.seconds):.3f} s: the file may be cut short")

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)
