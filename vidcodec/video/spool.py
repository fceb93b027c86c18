"""Frames on disk: random access to hours of video in a constant amount of memory."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from vidcodec.errors import OutputError
from vidcodec.video.frame import Frame, VideoFormat


class FrameSpool:
    """A list of frames of one format, kept as raw planes in an unlinked temporary file.

    `directory`: where the file lies (default: the system's temporary directory). It has no name there and
    vanishes when the spool is closed or the process ends. Only the time stamps stay in memory.

    Raises OutputError when the file cannot be made or the disk is full.
    """

    def __init__(self, format: VideoFormat, directory: str | os.PathLike[str] | None = None) -> None:
        self.format = format
        self._directory = Path(directory) if directory is not None else Path(tempfile.gettempdir())
        self._pts = array("q")
        try:
            self._file = tempfile.TemporaryFile(dir=self._directory, prefix="vidcodec-", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._failure(error) from error

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
            left = np.ascontiguousarray(plane).data.cast("B")
            while left:
                try:
                    written = os.pwrite(self._file.fileno(), left, offset)
                except OSError as error:
                    raise self._failure(error) from error
                left, offset = left[written:], offset + written

    def __len__(self) -> int:
        return len(self._pts)

    def __getitem__(self, index: int) -> Frame:
        """Frame `index` (negative: from the end), as fresh arrays. Raises IndexError outside."""
        pts = self._pts[index]
        offset = range(len(self._pts))[index] * self.format.frame_bytes
        samples = np.empty(self.format.frame_bytes // self.format.dtype.itemsize, self.format.dtype)
        left = samples.data.cast("B")
        while left:
            read = os.preadv(self._file.fileno(), [left], offset)
            if read == 0:
                raise OutputError(f"the temporary file of frames in {self._directory} lost its end: try again")
            left, offset = left[read:], offset + read
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

    def __enter__(self) -> FrameSpool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"frames cannot be kept in {self._directory} ({error.strerror}): "
            "free some space there, or set TMPDIR to a larger disk"
        )
