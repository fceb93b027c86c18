"""Reading a .vdc file: every intact frame, and a clear account of the rest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from vidcodec.bitstream.frames import FrameUnit, UpdateUnit
from vidcodec.bitstream.header import Header
from vidcodec.bitstream.survey import survey
from vidcodec.bitstream.units import UnitFile
from vidcodec.errors import CorruptBitstreamError, InputError


class BitstreamReader:
    """A .vdc file, checked from end to end when it is opened; frames are then read one at a time, in any order.

    A file object must be binary and seekable; it is read from its offset 0 and not closed. Errors on opening:

        InputError               no such file, a directory, not readable, not seekable
        NotABitstreamError       not a .vdc file; the message tells what it seems to be
        UnsupportedVersionError  of a newer format, or with a critical unit this version does not know
        TruncatedBitstreamError, CorruptBitstreamError   no header left; with `strict`, any problem at all
    """

    header: Header
    updates: list[UpdateUnit]  # the intact ones, by first_frame
    missing_updates: list[int]  # first frame of each update lost, or the earliest it can have
    problems: list[str]  # one line each, in the order of the file; empty for a file as it was written
    complete: bool  # every frame and every update is intact
    sizes: dict[str, int]  # bytes: head, update, frames (z and y), index, overhead, damaged; they sum to the file's
    stream_sizes: dict[str, int]  # bytes of z and of y in all intact frames

    def __init__(self, source: str | os.PathLike[str] | BinaryIO, *, strict: bool = False) -> None:
        self._own = isinstance(source, str | os.PathLike)
        self._name = str(Path(source)) if isinstance(source, str | os.PathLike) else "the input"
        with self._input_errors():
            self._file = _open(source)
        try:
            with self._input_errors():
                if not self._file.seekable():
                    raise InputError(f"{self._name} cannot be sought in: save it to a file first")
                self._units = UnitFile(self._file)
                found = survey(self._units, strict)
        except BaseException:
            self.close()
            raise
        self.header = found.header
        self.updates = found.updates
        self.missing_updates = found.missing_updates
        self.problems = found.problems
        self.sizes = found.sizes
        self.stream_sizes = found.stream_sizes
        self._frames = found.frames
        self.complete = (
            len(self._frames) == self.header.frame_count
            and len(self.updates) == self.header.update_count
            and not self.missing_updates
        )

    def __enter__(self) -> BitstreamReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file, where it was opened here."""
        if self._own:
            self._file.close()

    def __len__(self) -> int:
        """Number of intact frames."""
        return len(self._frames)

    @property
    def frame_indices(self) -> list[int]:
        """Indices of the intact frames, rising."""
        return list(self._frames)

    def frame(self, index: int) -> FrameUnit:
        """One frame. IndexError: there never was one. CorruptBitstreamError: it is damaged or missing."""
        if not 0 <= index < self.header.frame_count:
            raise IndexError(f"frame {index} of {self.header.frame_count}")
        if index not in self._frames:
            raise CorruptBitstreamError(f"frame {index} is damaged or missing")
        with self._input_errors():
            return FrameUnit.from_bytes(self._units.payload(self._frames[index]))

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[FrameUnit]:
        """The intact frames of start <= index < stop, rising; lost ones are left out."""
        for index in self._frames:
            if start <= index and (stop is None or index < stop):
                yield self.frame(index)

    def update_for(self, index: int) -> UpdateUnit | None:
        """The update that frame `index` is decoded with, None for the base model as it is.

        CorruptBitstreamError: it is, or may be, one that was lost, so the frame would be decoded wrongly.
        """
        if not 0 <= index < self.header.frame_count:
            raise IndexError(f"frame {index} of {self.header.frame_count}")
        update = max((u for u in self.updates if u.first_frame <= index), key=lambda u: u.first_frame, default=None)
        since = -1 if update is None else update.first_frame
        if any(since < lost <= index for lost in self.missing_updates):
            raise CorruptBitstreamError(f"the model update for frame {index} is damaged: it cannot be decoded rightly")
        return update

    @contextlib.contextmanager
    def _input_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise InputError(f"no such file: {self._name}") from error
        except IsADirectoryError as error:
            raise InputError(f"{self._name} is a directory: name the .vdc file in it") from error
        except OSError as error:
            raise InputError(f"cannot read {self._name}: {error.strerror or error}") from error


def _open(source: str | os.PathLike[str] | BinaryIO) -> BinaryIO:
    return Path(source).open("rb") if isinstance(source, str | os.PathLike) else source
