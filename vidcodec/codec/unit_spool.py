"""Coded frames on disk: a candidate of a long video in a constant amount of memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import overload

from vidcodec.bitstream import FrameUnit
from vidcodec.files import Closing
from vidcodec.video.spool import Scratch


class UnitSpool(Closing, Sequence[FrameUnit]):
    """A list of frame units in a `Scratch` file, in their order; their sizes stay in memory.

    Raises OutputError when the file cannot be made or the disk is full.
    """

    def __init__(self) -> None:
        self._ends = array("q", [0])
        self._sizes = array("q")
        self._key: FrameUnit | None = None
        self._file = Scratch("coded frames")

    def append(self, unit: FrameUnit) -> None:
        """Add `unit` at the end. Raises OutputError when the disk is full."""
        self._ends.append(self._file.write(unit.to_bytes(), self._ends[-1]))
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
        data = bytearray(self._ends[i + 1] - self._ends[i])
        self._file.read(data, self._ends[i])
        return FrameUnit.from_bytes(bytes(data))

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()
