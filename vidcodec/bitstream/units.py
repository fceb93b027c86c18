"""Units: the frame around every payload, and finding them again in a damaged file.

    magic 89 'V' 'D' 'C' 0D 0A 1A 0A, then units:
    type 4 ASCII letters | flags u8 | length of payload u32 LE | payload | crc32 of all before it u32 LE

Flags: bit 0 = critical, a reader that does not know the type must not go on; bits 1-7 are zero, and a known unit that
has one of them set is of a newer version.

    HEAD  [UPDT...  FRAM]...  [SIDE...]  INDX  DONE

HEAD comes first (`header`), then frames in order, each update before the frames that use it (`frames`). What sums up
the file stands at its end (`index`), so a file is written as frames come. Units of other types may stand anywhere.
SIDE units, which are not critical, hold what goes beside the pictures: pieces of a Matroska file with the audio and
subtitles of the source, as they are. Payload: number v (0, 1 ...) | piece to the end.
"""

from __future__ import annotations

import bisect
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from vidcodec.errors import CorruptBitstreamError, TruncatedBitstreamError

MAGIC = b"\x89VDC\r\n\x1a\n"
HEAD, UPDT, FRAM, SIDE, INDX, DONE = b"HEAD", b"UPDT", b"FRAM", b"SIDE", b"INDX", b"DONE"
KNOWN_KINDS = (HEAD, UPDT, FRAM, SIDE, INDX, DONE)

CRITICAL = 1
MAX_UNIT = 1 << 30
PREFIX_SIZE = 9
UNIT_OVERHEAD = PREFIX_SIZE + 4

_CHUNK = 1 << 20
_KNOWN = re.compile(b"|".join(KNOWN_KINDS))
_CHECK_BUDGET = 32  # times the file's size: what checking and searching may read before the rest is given up


@dataclass(frozen=True)
class Unit:
    """An intact unit: its checksum holds. Offsets and lengths in bytes."""

    kind: bytes
    flags: int
    offset: int
    length: int  # of the payload

    @property
    def end(self) -> int:
        """Offset of the first byte behind the unit."""
        return self.offset + UNIT_OVERHEAD + self.length


@dataclass(frozen=True)
class Damage:
    """A stretch of bytes in which there is no intact unit."""

    offset: int
    end: int
    kind: bytes  # what the unit that should begin here looks like; b"" if like nothing known
    reason: str
    at_end: bool = False  # a unit whose length goes beyond the file, and nothing intact after it


def pack_unit(kind: bytes, payload: bytes, *, critical: bool = True) -> bytes:
    """The bytes of one unit. ValueError: `kind` is not 4 capital letters, or the payload is over 2^30 bytes."""
    if not _is_kind(kind):
        raise ValueError(f"a unit's type is 4 ASCII capitals, not {kind!r}")
    if len(payload) > MAX_UNIT:
        raise ValueError(f"a unit holds at most {MAX_UNIT} bytes, not {len(payload)}")
    body = b"".join((kind, bytes((CRITICAL if critical else 0,)), len(payload).to_bytes(4, "little"), payload))
    return body + zlib.crc32(body).to_bytes(4, "little")


class UnitFile:
    """Units in a seekable binary file. Memory: one payload, never more than the file holds."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        self._budget = _CHECK_BUDGET * self.size + _CHUNK

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`, fewer only at the end of the file."""
        self._file.seek(offset)
        count = min(count, max(self.size - offset, 0))
        data = self._file.read(count)
        while len(data) < count and (more := self._file.read(count - len(data))):
            data += more
        return data

    def check(self, offset: int) -> Unit | Damage:
        """The intact unit that begins at `offset`, or what is wrong with it; reads in pieces, keeps nothing."""
        prefix = self.read_at(offset, PREFIX_SIZE)
        kind = prefix[:4]
        if len(kind) == 4 and not _is_kind(kind):
            return Damage(offset, offset, b"", "no unit begins here")
        if len(prefix) < PREFIX_SIZE:
            return Damage(offset, self.size, kind if kind in KNOWN_KINDS else b"", "the file ends", at_end=True)
        unit = Unit(kind, prefix[4], offset, int.from_bytes(prefix[5:], "little"))
        known = kind if kind in KNOWN_KINDS else b""
        if unit.length > MAX_UNIT:
            return Damage(offset, offset, known, f"its length of {unit.length} bytes is beyond any unit's")
        if unit.end > self.size:
            return Damage(offset, self.size, known, "its length goes beyond the file", at_end=True)
        self._budget -= UNIT_OVERHEAD + unit.length
        if self._budget < 0:
            return Damage(offset, self.size, known, "too much damage to search on")
        crc = zlib.crc32(prefix)
        at, stop = offset + PREFIX_SIZE, unit.end - 4
        while at < stop:
            piece = self.read_at(at, min(_CHUNK, stop - at))
            if not piece:
                return Damage(offset, self.size, known, "the file became shorter while it was read", at_end=True)
            crc = zlib.crc32(piece, crc)
            at += len(piece)
        if self.read_at(stop, 4) != crc.to_bytes(4, "little"):
            return Damage(offset, unit.end, known, "checksum of the unit does not match")
        return unit

    def start_of(self, unit: Unit, count: int) -> bytes:
        """The first `count` bytes of the payload of a unit that was just found intact, or all where there are fewer."""
        data = self.read_at(unit.offset + PREFIX_SIZE, min(count, unit.length))
        if len(data) != min(count, unit.length):
            raise TruncatedBitstreamError("the file became shorter while it was read")
        return data

    def payload(self, unit: Unit) -> bytes:
        """The payload of an intact unit; an error if the file has changed since."""
        data = self.read_at(unit.offset, UNIT_OVERHEAD + unit.length)
        if len(data) != UNIT_OVERHEAD + unit.length:
            raise TruncatedBitstreamError("the file became shorter while it was read")
        if zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
            raise CorruptBitstreamError("the file changed while it was read")
        return data[PREFIX_SIZE:-4]

    def walk(self, start: int, anchors: Sequence[int] = ()) -> Iterator[Unit | Damage]:
        """Units from `start` up to DONE or the end of the file, with a Damage for each stretch between them.

        `anchors`: rising offsets where units should begin, as an index tells; they are tried first after a damage,
        then the damaged unit's own length, then every place that looks like a known unit.
        """
        offset = start
        while offset < self.size:
            found = self.check(offset)
            if isinstance(found, Unit):
                yield found
                if found.kind == DONE:
                    return
                offset = found.end
                continue
            resume = self._next_unit(found, anchors)
            if resume is None:
                yield replace(found, end=self.size)
                return
            yield replace(found, end=resume, at_end=False)
            offset = resume

    def _next_unit(self, damage: Damage, anchors: Sequence[int]) -> int | None:
        """Offset of the next intact unit behind a damage."""
        place = bisect.bisect_right(anchors, damage.offset)
        for candidate in (*anchors[place : place + 1], damage.end):
            if damage.offset < candidate < self.size and isinstance(self.check(candidate), Unit):
                return candidate
        at = damage.offset + 1
        while at < self.size and self._budget >= 0:
            window = self.read_at(at, _CHUNK)
            for match in _KNOWN.finditer(window):
                if isinstance(self.check(at + match.start()), Unit):
                    return at + match.start()
            at += max(len(window) - 3, 1)  # a type may lie across the border of two windows
        return None


def _is_kind(kind: bytes) -> bool:
    return len(kind) == 4 and kind.isalpha() and kind.isupper()
