"""Reading a .vdc file: every frame that can be decoded rightly, and a clear account of the rest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vidcodec.bitstream.fields import FieldReader
from vidcodec.bitstream.frames import FrameUnit, UpdateUnit
from vidcodec.bitstream.header import Header
from vidcodec.bitstream.survey import FoundFrame, survey
from vidcodec.bitstream.units import UnitFile
from vidcodec.errors import CorruptBitstreamError, InputError
from vidcodec.files import Closing


class BitstreamReader(Closing):
    """A .vdc file, checked from end to end when it is opened; frames are then read one at a time, in any order.

    What is given can be decoded: a frame comes only where all that it refers to is intact, back to the key frame of its
    chain, and the update in force with all its parents.

    A file object must be binary and seekable; it is read from its offset 0 and not closed. Errors on opening:

        InputError               no such file, a directory, not readable, not seekable
        NotABitstreamError       not a .vdc file; the message tells what it seems to be
        UnsupportedVersionError  of another version of the format, or with a critical unit this version does not know
        TruncatedBitstreamError, CorruptBitstreamError   no header left; with `strict`, any problem at all
    """

    header: Header
    frame_count: int  # of the file as it was written; where `counted` is False, at least so many
    counted: bool  # whether the end of the file says how many frames there are
    update_numbers: list[int]  # of the intact updates, rising
    missing_updates: list[int]  # numbers of updates that were lost, as far as anything tells of them
    chain_starts: list[int]  # key frames, rising; lost ones too where the index tells
    problems: list[str]  # one line each, in the order of the file; empty for a file as it was written
    complete: bool  # every frame and every update is there, and nothing else ever was
    sizes: dict[
        str, int
    ]  # bytes: head, update, frames (coded symbols), sound, index, overhead, damaged: the file's in all

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
        self._found = found
        self.header = found.header
        self.frame_count, self.counted = found.frame_count, found.counted
        self.update_numbers = list(found.updates)
        self.missing_updates = found.missing_updates
        self.chain_starts = found.chain_starts
        self.problems = found.problems
        self.sizes = found.sizes
        self.complete = found.counted and len(found.chains) == found.frame_count and not found.missing_updates

    def close(self) -> None:
        """Closes the file, where it was opened here."""
        if self._own:
            self._file.close()

    def __len__(self) -> int:
        """Number of frames that can be decoded."""
        return len(self._found.chains)

    @property
    def frame_indices(self) -> list[int]:
        """Indices of the frames that can be decoded, rising: intact, with all that they refer to."""
        return list(self._found.chains)

    def why_lost(self, index: int) -> str | None:
        """What is wrong with a frame ("frame 7 needs frame 5, which is damaged"), None where it can be decoded.

        IndexError: there never was one.
        """
        self._check_index(index)
        return self._found.why_lost(index)

    def frame(self, index: int) -> FrameUnit:
        """One frame. IndexError: there never was one. CorruptBitstreamError: it is lost; the message says why."""
        found, key = self._frame(index), self._frame(self.chain_start(index))
        with self._input_errors():
            return FrameUnit.from_bytes(self._units.payload(found.unit), key.settings)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[FrameUnit]:
        """The frames of start <= index < stop that can be decoded, rising; lost ones are left out."""
        for index in self._found.chains:
            if start <= index and (stop is None or index < stop):
                yield self.frame(index)

    def chain_start(self, index: int) -> int:
        """The key frame that decoding frame `index` begins with. Raises as `frame`."""
        self._frame(index)
        return self._found.chains[index]

    def reference_path(self, index: int) -> list[int]:
        """The frames to decode for frame `index`, from the key frame to itself, and no others. Raises as `frame`."""
        path = [index]
        while reference := self._frame(path[-1]).reference:
            path.append(path[-1] - reference)
        return path[::-1]

    def update(self, number: int) -> UpdateUnit:
        """One update. IndexError: there never was one. CorruptBitstreamError: it is lost."""
        if number not in self._found.updates:
            if number in self._found.missing_updates:
                raise CorruptBitstreamError(f"update {number} is lost")
            raise IndexError(f"update {number} of {len(self._found.updates)}")
        with self._input_errors():
            return UpdateUnit.from_bytes(self._units.payload(self._found.updates[number].unit))

    def update_chain(self, number: int) -> list[bytes]:
        """Payloads to apply to the base weights, in this order, where update `number` is in force; none for 0.

        Raises as `update`, also where one of its parents is lost.
        """
        if lost := self._found.lost_updates.get(number):
            raise CorruptBitstreamError(f"update {number} needs update {lost}, which is lost")
        payloads = []
        while number:
            update = self.update(number)
            payloads.append(update.payload)
            number = update.parent
        return payloads[::-1]

    def side(self) -> Iterator[bytes]:
        """The pieces of what goes beside the pictures that are intact, in order; none in most files."""
        for unit in self._found.side:
            with self._input_errors():
                fields = FieldReader(self._units.payload(unit), "sound")
            fields.varint()
            yield fields.rest()

    def _frame(self, index: int) -> FoundFrame:
        """Where a frame lies. Raises as `frame`."""
        if why := self.why_lost(index):
            raise CorruptBitstreamError(why)
        return self._found.frames[index]

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.frame_count:
            raise IndexError(f"frame {index} of {self.frame_count}")

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
