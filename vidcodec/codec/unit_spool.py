"""Coded frames on disk: a candidate of a long video in a constant amount of memory."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import overload

from vidcodec.bitstream import FrameUnit
from vidcodec.errors import OutputError


class UnitSpool(Sequence[FrameUnit]):
    """A list of frame units in an unlinked temporary file, in their order; their sizes stay in memory.

    Raises OutputError when the file cannot be made or the disk is full.
    """

    def __init__(self) -> None:
        self._ends = array("q", [0])
        self._sizes = array("q")
        self._key: FrameUnit | None = None
        try:
            self._file = tempfile.TemporaryFile(prefix="vidcodec-", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise _failure(error) from error

    def append(self, unit: FrameUnit) -> None:
        """Add `unit` at the end. Raises OutputError when the disk is full."""
        data, offset = memoryview(unit.to_bytes()), self._ends[-1]
        while data:
            try:
                written = os.pwrite(self._file.fileno(), data, offset)
            except OSError as error:
                raise _failure(error) from error
            data, offset = data[written:], offset + written
        self._ends.append(offset)
        if unit.is_key:
            self._key = replace(unit, payload=b"")
        self._sizes.append(len(unit.to_bytes(self._key.settings if self._key else None)))

    @property
    def sizes(self) -> list[int]:
        """Bytes of every unit's payload in the file; a predicted frame need not repeat its key frame's settings."""
        return self._sizes.tolist()

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> FrameUnit: ...
    @overload
    def __getitem__(self, index: slice) -> list[FrameUnit]: ...
    def __getitem__(self, index: int | slice) -> FrameUnit | list[FrameUnit]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        data = os.pread(self._file.fileno(), self._ends[i + 1] - self._ends[i], self._ends[i])
        if len(data) < self._ends[i + 1] - self._ends[i]:
            raise OutputError("the temporary file of coded frames lost its end: try again")
        return FrameUnit.from_bytes(data)

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def __enter__(self) -> UnitSpool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _failure(error: OSError) -> OutputError:
    return OutputError(
        f"coded frames cannot be kept in {tempfile.gettempdir()} ({error.strerror}): "
        "free some space there, or set TMPDIR to a larger disk"
    )
