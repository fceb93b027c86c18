"""Frames on disk: random access to hours of video in a constant amount of memory."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from vidcodec.errors import OutputError
from vidcodec.files import Closing
from vidcodec.video.frame import Frame, VideoFormat


class Scratch(Closing):
    """An unlinked temporary file: it has no name, and vanishes when it is closed or the process ends.

    what: lies in it, for messages. directory: where (default: the system's temporary directory).

    Raises OutputError when it cannot be made, the disk is full, or its end is lost.
    """

    def __init__(self, what: str, directory: str | os.PathLike[str] | None = None) -> None:
        self._what, self._directory = what, directory or tempfile.gettempdir()
        with self._reporting():
            self._file = tempfile.TemporaryFile(dir=self._directory, prefix="vidcodec-", buffering=0)  # noqa: SIM115

    def write(self, data: Any, offset: int) -> int:
        """Put the bytes of a buffer at an offset; returns where they end."""
        left = memoryview(data).cast("B")
        with self._reporting():
            while left:
                written = os.pwrite(self._file.fileno(), left, offset)
                left, offset = left[written:], offset + written
        return offset

    def read(self, into: Any, offset: int) -> None:
        """Fill a writable buffer with the bytes from an offset on."""
        left = memoryview(into).cast("B")
        while left:
            read = os.preadv(self._file.fileno(), [left], offset)
            if not read:
                raise OutputError(f"the temporary file of {self._what} in {self._directory} lost its end: try again")
            left, offset = left[read:], offset + read

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self._what} cannot be kept in {self._directory} ({error.strerror}): "
                "free some space there, or set TMPDIR to a larger disk"
            ) from error


class FrameSpool(Closing):
    """A list of frames of one format, kept as raw planes in a `Scratch` file; only the time stamps stay in memory.

    directory: of the file. Raises OutputError when the file cannot be made or the disk is full.
    """

    def __init__(self, format: VideoFormat, directory: str | os.PathLike[str] | None = None) -> None:
        self.format = format
        self._pts = array("q")
        self._file = Scratch("frames", directory)

    def append(self, frame: Frame) -> None:
        """Add `frame` at the end.

        Raises ValueError when it is not of the spool's format, OutputError when the disk is full.
        """
        self._write(len(self._pts), frame)
        self._pts.append(frame.pts)

    def __setitem__(self, index: int, frame: Frame) -> None:
        """Put `frame` in the place of another one. Raises as `append`, and IndexError outside."""
        self._write(range(len(self._pts))[index], frame)
        self._pts[index] = frame.pts

    def _write(self, place: int, frame: Frame) -> None:
        self.format.check(frame)
        offset = place * self.format.frame_bytes
        for plane in (frame.y, frame.uv):
            offset = self._file.write(np.ascontiguousarray(plane).data, offset)

    def __len__(self) -> int:
        return len(self._pts)

    def __getitem__(self, index: int) -> Frame:
        """Frame `index` (negative: from the end), as fresh arrays. Raises IndexError outside."""
        pts = self._pts[index]
        samples = np.empty(self.format.frame_bytes // self.format.dtype.itemsize, self.format.dtype)
        self._file.read(samples.data, range(len(self._pts))[index] * self.format.frame_bytes)
        luma = self.format.width * self.format.height
        return Frame(
            y=samples[:luma].reshape(self.format.height, self.format.width),
            uv=samples[luma:].reshape(2, self.format.chroma_height, self.format.chroma_width),
            pts=pts,
        )

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()
