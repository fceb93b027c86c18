"""INDX and DONE: what closes a file, and what lets a damaged one be read. Payloads, `v` = varint:

    INDX   length of HEAD's payload v | copy of HEAD's payload | number of entries v | entries
           entry, one per unit between HEAD and INDX, in the order of the file:
               payload length * 4 + kind v
                   kind 0 = FRAM, predicted; 2 = FRAM, a key frame (frames count up from 0); 1 = UPDT (updates count
                   up from 1); 3 = any other unit
               UPDT only: first_frame v
    DONE   frame count u32 | crc32 of all symbol checksums (u32 LE each, in order) u32 | size of the INDX unit u32

DONE is of fixed size, so the index is found from the end of the file. All counts stand here: what a file holds is known
when it has been written.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from vidcodec.bitstream.fields import FieldReader, varint
from vidcodec.bitstream.frames import MAX_FRAMES
from vidcodec.bitstream.units import FRAM, MAGIC, UNIT_OVERHEAD, UPDT
from vidcodec.errors import CorruptBitstreamError

_PREDICTED, _UPDATE, _KEY, _OTHER = range(4)


@dataclass(frozen=True)
class IndexEntry:
    """One unit of the file, as the index knows it."""

    kind: bytes  # FRAM, UPDT, or b"" for any other
    length: int  # of the payload
    number: int = 0  # FRAM: frame index; UPDT: the update's number
    key: bool = False  # FRAM: whether it is a key frame
    first_frame: int = 0  # UPDT

    def to_bytes(self) -> bytes:
        """As it stands in INDX."""
        kind = (_KEY if self.key else _PREDICTED) if self.kind == FRAM else _UPDATE if self.kind == UPDT else _OTHER
        return varint(self.length << 2 | kind) + (varint(self.first_frame) if kind == _UPDATE else b"")


@dataclass(frozen=True)
class Index:
    """The contents of INDX."""

    head: bytes  # payload of HEAD
    entries: tuple[IndexEntry, ...]

    def to_bytes(self) -> bytes:
        """The payload of INDX."""
        return pack_index(self.head, len(self.entries), b"".join(entry.to_bytes() for entry in self.entries))

    @classmethod
    def from_bytes(cls, payload: bytes) -> Index:
        """Reads a payload of INDX; CorruptBitstreamError where it does not hold."""
        fields = FieldReader(payload, "index")
        head = fields.take(fields.varint())
        count = fields.varint()
        if count > fields.left:  # an entry takes at least a byte
            raise CorruptBitstreamError(f"index: {count} entries in {fields.left} bytes")
        entries = []
        frames = updates = 0
        for _ in range(count):
            length, kind = divmod(fields.varint(), 4)
            if kind == _OTHER:
                entries.append(IndexEntry(b"", length))
            elif kind == _UPDATE:
                updates += 1
                entries.append(IndexEntry(UPDT, length, updates, first_frame=fields.varint()))
            else:
                entries.append(IndexEntry(FRAM, length, frames, key=kind == _KEY))
                frames += 1
        fields.end()
        return cls(head, tuple(entries))

    def by_offset(self) -> dict[int, IndexEntry]:
        """File offset of each unit -> its entry, in rising order."""
        offset = self._first_offset
        table = {}
        for entry in self.entries:
            table[offset] = entry
            offset += UNIT_OVERHEAD + entry.length
        return table

    @cached_property
    def frame_count(self) -> int:
        """Frames of the file as it was written."""
        return sum(entry.kind == FRAM for entry in self.entries)

    @property
    def offset(self) -> int:
        """Where the INDX unit itself begins, in a file with nothing inserted or cut out."""
        return self._first_offset + sum(UNIT_OVERHEAD + entry.length for entry in self.entries)

    @property
    def _first_offset(self) -> int:
        return len(MAGIC) + UNIT_OVERHEAD + len(self.head)


@dataclass(frozen=True)
class Done:
    """The contents of DONE."""

    SIZE = 12  # bytes of payload

    frame_count: int
    checksum: int  # of all the frames' symbol checksums
    index_size: int  # of the whole INDX unit, which ends where DONE begins

    def to_bytes(self) -> bytes:
        """The payload of DONE."""
        return b"".join(value.to_bytes(4, "little") for value in (self.frame_count, self.checksum, self.index_size))

    @classmethod
    def from_bytes(cls, payload: bytes) -> Done:
        """Reads a payload of DONE; CorruptBitstreamError where it does not hold."""
        fields = FieldReader(payload, "end marker")
        done = cls(fields.unsigned(4), fields.unsigned(4), fields.unsigned(4))
        fields.end()
        if done.frame_count > MAX_FRAMES:
            raise CorruptBitstreamError(f"end marker: {done.frame_count} frames are more than {MAX_FRAMES}")
        return done


def pack_index(head: bytes, count: int, entries: bytes) -> bytes:
    """The payload of INDX; entries: those of all `count` units, one after the other."""
    return b"".join((varint(len(head)), head, varint(count), entries))


def head_of(payload: bytes) -> bytes:
    """The copy of HEAD's payload in a payload of INDX, of any version; CorruptBitstreamError where there is none."""
    fields = FieldReader(payload, "index")
    return fields.take(fields.varint())


def symbols_checksum(checksums: Iterable[int], crc: int = 0) -> int:
    """crc32 of the frames' symbol checksums, each as u32 LE, in order of the frames; crc: of those before."""
    for checksum in checksums:
        crc = zlib.crc32(checksum.to_bytes(4, "little"), crc)
    return crc
