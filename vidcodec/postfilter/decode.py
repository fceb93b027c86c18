"""A coded video to its filtered pictures, one at a time, with audio and subtitles passed through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import av.error

from vidcodec.errors import InputError, OutputError
from vidcodec.postfilter.apply import DEFAULT_QP, FilterSelector, picture_type
from vidcodec.postfilter.encode import Progress
from vidcodec.postfilter.media import CodedVideo, Output
from vidcodec.postfilter.planes import depth_of, put_planes, to_planes, unpack
from vidcodec.video import ColourTags, Frame, VideoFormat, open_writer
from vidcodec.video.output import Reporting
from vidcodec.video.passed import Passed

WRITERS = {".mkv": ("ffv1", {"level": "3", "slicecrc": "1"}), ".mp4": ("libx264", {"crf": "12", "preset": "medium"})}


@dataclass
class FilterDecodeResult:
    """What was written. messages: updates found in force; failed: those that could not be used."""

    output: str
    frames: int
    filtered: int
    messages: int
    failed: int
    notes: list[str]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class FilterDecodeOptions:
    """profile, qp: of the base filter for a video without an update. weights: a filter instead of the shipped ones."""

    profile: str = "base"
    weights: Path | None = None
    qp: float | None = None


class FilteredVideo:
    """The pictures of a coded file as the filter shows them.

    warnings: what was wrong, complete when `pictures` has ended.
    """

    def __init__(self, path: Path, options: FilterDecodeOptions) -> None:
        self.video = CodedVideo(path)
        self.warnings: list[str] = []
        self.frames = self.filtered = 0
        self.selector = FilterSelector(options.profile, options.weights, options.qp, self.warnings.append)

    def pictures(self) -> Iterator[av.VideoFrame]:
        """Every picture, filtered, with its own time stamp."""
        for picture, found in self.video.pictures():
            self.selector.take(found)
            planes = to_planes(picture)
            shown = self.selector.active.apply(planes, depth_of(picture), picture_type(picture))
            if shown is not planes:
                picture.make_writable()
                put_planes(shown, picture)
                self.filtered += 1
            self.frames += 1
            yield picture
        if self.video.damaged:
            self.warnings.append(f"damaged packets left out: {self.video.damaged}")


def filter_decode(
    source: Path, output: Path, options: FilterDecodeOptions | None = None, progress: Progress | None = None
) -> FilterDecodeResult:
    """Write the filtered video as .mkv (lossless FFV1), .mp4 (x264, CRF 12) or .y4m.

    Raises InputError, OutputError, ModelError; a damaged or foreign update is a warning.
    """
    o = options or FilterDecodeOptions()
    filtered = FilteredVideo(source, o)
    expected = len(filtered.video.packets().times)
    notes: list[str] = []

    def counted() -> Iterator[av.VideoFrame]:
        for picture in filtered.pictures():
            yield picture
            if progress:
                progress("filter", min(1.0, filtered.frames / max(expected, 1)), {"frames": filtered.frames})

    suffix = output.suffix.lower()
    if suffix == ".y4m":
        _write_y4m(filtered, counted(), output, notes)
    elif suffix in WRITERS:
        _write_container(filtered, counted(), output, notes)
    else:
        raise OutputError(f"{output}: cannot write {output.suffix or 'this'}: use .mkv, .mp4 or .y4m")
    if not filtered.selector.messages and not filtered.selector.failed:
        notes.append(
            f"the file carries no filter update: the base filter is applied, told of QP {o.qp or DEFAULT_QP:g}; "
            "give 'qp' for another one"
        )
    return FilterDecodeResult(
        str(output),
        filtered.frames,
        filtered.filtered,
        filtered.selector.messages,
        filtered.selector.failed,
        notes,
        filtered.warnings,
    )


def _begun(source: Path, pictures: Iterator[av.VideoFrame]) -> tuple[av.VideoFrame, Iterator[av.VideoFrame]]:
    """The first picture, and all of them. Raises InputError without any."""
    first = next(pictures, None)
    if first is None:
        raise InputError(f"{source}: no picture could be decoded: the file is damaged")
    return first, chain([first], pictures)


def _write_container(
    filtered: FilteredVideo, pictures: Iterator[av.VideoFrame], output: Path, notes: list[str]
) -> None:
    source = filtered.video.path
    codec, settings = WRITERS[output.suffix.lower()]
    with Output(output) as out:
        first, pictures = _begun(source, pictures)
        stream: Any = out.container.add_stream(codec, rate=filtered.video.rate or 25, options=dict(settings))
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = first.width, first.height, first.format.name
        context.time_base = stream.time_base = filtered.video.time_base
        context.colorspace, context.color_range = first.colorspace, first.color_range
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        if first.rotation and hasattr(stream, "set_display_rotation"):
            stream.set_display_rotation(first.rotation)
        passed = Passed(source, out.container, notes)
        try:
            for picture in pictures:
                passed.until((picture.pts or 0) * filtered.video.time_base)
                picture.pict_type = 0  # the encoder decides anew  # type: ignore[assignment]
                with Reporting(output):
                    out.container.mux(stream.encode(picture))
            with Reporting(output):
                out.container.mux(stream.encode(None))
            passed.until(None)
        finally:
            passed.close()


def _write_y4m(filtered: FilteredVideo, pictures: Iterator[av.VideoFrame], output: Path, notes: list[str]) -> None:
    first, pictures = _begun(filtered.video.path, pictures)
    rate = filtered.video.rate
    format = VideoFormat(
        first.width,
        first.height,
        depth_of(first),
        ColourTags(full_range=first.color_range == 2),
        time_base=filtered.video.time_base,
        frame_rate=Fraction(rate) if rate else None,
    )
    with open_writer(output, format) as writer:
        for picture in pictures:
            y, uv = unpack(to_planes(picture), picture.height, picture.width)
            writer.write(Frame(y, uv, picture.pts or 0))
        notes += writer.notes
