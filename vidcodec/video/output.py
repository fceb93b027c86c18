"""What all writers share.

Everything is written under a temporary name beside the target and takes the target's name once it is complete and
on the disk; after an error nothing is left behind.
"""

from __future__ import annotations

import errno
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import av.error

from vidcodec.errors import OutputError
from vidcodec.files import partial_of, publish
from vidcodec.video.frame import Frame, VideoFormat


class FrameWriter(ABC):
    """Takes frames of one format; use it in a `with` statement.

    notes: what the target cannot carry or what was changed for it, one line each.

    `write` and leaving the block raise OutputError (disk full, no frame written); ValueError for a foreign frame.
    """

    def __init__(self, path: Path, format: VideoFormat) -> None:
        self.path = path
        self.format = format
        self.notes: list[str] = []
        self.frames_written = 0
        self._partial = partial_of(path)

    def write(self, frame: Frame) -> None:
        """Add one frame; `pts` must rise."""
        self.format.check(frame)
        with self._reporting():
            self._write(frame)
        self.frames_written += 1

    def add_sound(self, sound: Path) -> None:
        """Before the first frame: put audio and subtitles of a Matroska file beside them, or note that it cannot be."""
        self.notes.append("audio and subtitles left out: write .mkv to keep them")

    def close(self) -> None:
        """Complete the output and give it its name."""
        try:
            if not self.frames_written:
                raise OutputError(f"{self.path} was not written: there is no frame to put in it")
            with self._reporting():
                self._finish()
                self._publish()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Give up and remove what was written so far."""
        self._abandon()
        if self._partial.is_dir():
            shutil.rmtree(self._partial, ignore_errors=True)
        else:
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _reporting(self) -> Reporting:
        return Reporting(self.path)

    @abstractmethod
    def _write(self, frame: Frame) -> None:
        """Write one frame of the right format."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what comes after the last frame and close the partial output."""

    @abstractmethod
    def _abandon(self) -> None:
        """Close the partial output, complete or not; never raises."""

    def _publish(self) -> None:
        """Bring the finished partial output to the disk and give it its name."""
        publish(self._partial, self.path)


class Reporting:
    """Turns the system's and FFmpeg's errors within the block into an OutputError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError | av.error.FFmpegError):
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            advice = "free some space or choose another disk" if full else "check the directory and its permissions"
            raise OutputError(f"{self._path} cannot be written ({error.strerror}): {advice}") from error


def close_quietly(file: BinaryIO) -> None:
    """Close a file that is given up: what its buffer holds may be lost."""
    try:
        file.close()
    except OSError:
        return
