"""Writing frames: raw Y4M, lossless MKV, MP4 to hand on, or a directory of PNG files."""

from __future__ import annotations

import os
from pathlib import Path

from vidcodec.errors import OutputError
from vidcodec.video.encoders import MkvWriter, Mp4Writer
from vidcodec.video.frame import VideoFormat
from vidcodec.video.output import FrameWriter
from vidcodec.video.plain_writers import PngWriter, Y4mWriter

__all__ = ["FrameWriter", "open_writer"]

_BY_SUFFIX: dict[str, type[Y4mWriter] | type[MkvWriter] | type[Mp4Writer]] = {
    ".y4m": Y4mWriter,
    ".mkv": MkvWriter,
    ".mp4": Mp4Writer,
}


def open_writer(path: str | os.PathLike[str], format: VideoFormat, *, overwrite: bool = False) -> FrameWriter:
    """A writer for `path`, chosen by its suffix: .y4m, .mkv (lossless), .mp4 (lossy), or a directory of PNG files.

    A directory is one that exists, or a name without a suffix. An existing file is replaced once the new one is
    complete; `overwrite` lets PNG files go into a directory that is not empty (see `PngWriter`).

    Raises OutputError for another suffix, a missing parent directory, or a directory that is not empty.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise OutputError(f"{target.parent} is not a directory: create it first")
    if target.is_dir() or not target.suffix:
        return PngWriter(target, format, overwrite=overwrite)
    writer = _BY_SUFFIX.get(target.suffix.lower())
    if writer is None:
        raise OutputError(f"{target}: cannot write {target.suffix}: use .y4m, .mkv, .mp4, or a directory for PNG")
    return writer(target, format)
