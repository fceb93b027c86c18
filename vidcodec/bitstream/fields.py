"""The integers every payload is made of: fixed little-endian ones, LEB128 varints, and zig-zag varints.

A varint carries 7 bits per byte, lowest first, the top bit set on all bytes but the last; at most 10 bytes, and only
the shortest form of a number is accepted, so that one value has one encoding.
"""

from __future__ import annotations

from vidcodec.errors import CorruptBitstreamError

_VARINT_LIMIT = 1 << 64


def varint(value: int) -> bytes:
    """0 <= value < 2^64 in 1 to 10 bytes; ValueError outside of that."""
    if not 0 <= value < _VARINT_LIMIT:
        raise ValueError(f"{value} does not fit an unsigned 64-bit varint")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed_varint(value: int) -> bytes:
    """A signed 64-bit number, zig-zag (0, -1, 1, -2 ... become 0, 1, 2, 3 ...), then as a varint."""
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{value} does not fit a signed 64-bit varint")
    return varint((value << 1) ^ (value >> 63))


class FieldReader:
    """Takes fields off the front of `data`; whatever does not hold is a CorruptBitstreamError that names `what`."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._at = 0
        self._what = what

    @property
    def left(self) -> int:
        """Bytes not taken yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > self.left:
            raise CorruptBitstreamError(f"{self._what}: a field of {count} bytes where only {self.left} are left")
        self._at += count
        return self._data[self._at - count : self._at]

    def unsigned(self, size: int) -> int:
        """A little-endian unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        """The next varint, below 2^64."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise CorruptBitstreamError(f"{self._what}: a number longer than 64 bits")
        if value >= _VARINT_LIMIT or (byte == 0 and shift):
            raise CorruptBitstreamError(f"{self._what}: a number that is not in its shortest form")
        return value

    def signed_varint(self) -> int:
        """The next zig-zag varint, a signed 64-bit number."""
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(self.left)

    def end(self) -> None:
        """Nothing may be left."""
        if self.left:
            raise CorruptBitstreamError(f"{self._what}: {self.left} bytes too many")
