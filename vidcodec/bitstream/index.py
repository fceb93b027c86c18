"""INDX and DONE: what closes a file, and what lets a damaged one be read. Payloads, `v` = varint:

    INDX   length of HEAD's payload v | copy of HEAD's payload | number of entries v | entries
           entry, one per unit between HEAD and INDX, in the order of the file:
               payload length * 4 + kind v, kind 0 = FRAM (frames count up from 0), 1 = UPDT, 3 = any other unit
               UPDT only: first_frame v
    DONE   frame count u32 | crc32 of all symbol checksums (u32 LE each, in order) u32 | size of the INDX unit u32

DONE is of fixed size, so the index is found from the end of the file.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from vidcodec.bitstream.fields import FieldReader, varint
from vidcodec.bitstream.units import FRAM, MAGIC, UNIT_OVERHEAD, UPDT
from vidcodec.errors import CorruptBitstreamError

_KINDS = {FRAM: 0, UPDT: 1}
_OTHER = 3


@dataclass(frozen=True)
class IndexEntry:
    """One unit of the file, as the index knows it."""

    kind: bytes  # FRAM, UPDT, or b"" for any other
    length: int  # of the payload
    number: int = 0  # FRAM: frame index; UPDT: first_frame


@dataclass(frozen=True)
class Index:
    """The contents of INDX."""

    head: bytes  # payload of HEAD
    entries: tuple[IndexEntry, ...]

    def to_bytes(self) -> bytes:
        """The payload of INDX."""
        parts = [varint(len(self.head)), self.head, varint(len(self.entries))]
        for entry in self.entries:
            parts.append(varint(entry.length << 2 | _KINDS.get(entry.kind, _OTHER)))
            if entry.kind == UPDT:
                parts.append(varint(entry.number))
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, payload: bytes) -> Index:
        """Reads a payload of INDX; CorruptBitstreamError where it does not hold."""
        fields = FieldReader(payload, "index")
        head = fields.take(fields.varint())
        count = fields.varint()
        if count > fields.left:  # an entry takes at least a byte
            raise CorruptBitstreamError(f"index: {count} entries in {fields.left} bytes")
        entries = []
        frame = 0
        for _ in range(count):
            length, kind = divmod(fields.varint(), 4)
            if kind == _KINDS[FRAM]:
                entries.append(IndexEntry(FRAM, length, frame))
                frame += 1
            elif kind == _KINDS[UPDT]:
                entries.append(IndexEntry(UPDT, length, fields.varint()))
            elif kind == _OTHER:
                entries.append(IndexEntry(b"", length))
            else:
                raise CorruptBitstreamError(f"index: unknown kind {kind}")
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
        return done


def symbols_checksum(checksums: Iterable[int]) -> int:
    """crc32 of the frames' symbol checksums, each as u32 LE, in order of the frames."""
    crc = 0
    for checksum in checksums:
        crc = zlib.crc32(checksum.to_bytes(4, "little"), crc)
    return crc
