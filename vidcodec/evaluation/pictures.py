"""Frames of finished points, decoded again from the files that an evaluation keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vidcodec.errors import InputError
from vidcodec.evaluation.clips import source_of
from vidcodec.evaluation.codec import Codec, exactly
from vidcodec.evaluation.results import ClipInfo, Point, Results
from vidcodec.evaluation.rivals import parse_codec
from vidcodec.video import Frame, VideoFormat


def clip_format(folder: Path, clip: ClipInfo) -> VideoFormat:
    """Size and colour of a clip's frames, 8 bits. folder: of the results. Raises InputError when its file is gone."""
    return source_of(clip, folder).format


def source_frames(folder: Path, clip: ClipInfo) -> Iterator[Frame]:
    """The frames that every codec got, in order. Raises InputError when their file is gone."""
    return source_of(clip, folder).frames()


def decoded_frames(folder: Path, results: Results, point: Point) -> Iterator[Frame]:
    """The frames of a point, in order, at 8 bits and the clip's size.

    Raises InputError for a point without files, VidcodecError when they cannot be decoded here.
    """
    files = [folder / file for file in point.files]
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        what = f"{missing[0]} is gone" if missing else "it was measured elsewhere"
        raise InputError(f"{point.clip}, {point.codec} has no coded file: {what}")
    clip = results.clip(point.clip)
    codec = parse_codec(results.codec(point.codec).spec).codec
    assert isinstance(codec, Codec)
    return exactly(clip.frames, codec.decode(files, clip_format(folder, clip)), point.codec)
