"""Messages inside H.264, HEVC and VVC access units, as user_data_unregistered SEI.

One prefix SEI NAL unit with payload type 5 stands before the first coded slice (ITU-T
H.264, 7.3.2.3 and D.1.7; H.265, 7.3.5; H.266, 7.3.6 and H.274, 8.1): players skip it, remuxing keeps it. Packets hold
NAL units either behind start codes (Annex B: encoders, transport streams) or behind their
lengths (MP4, Matroska); `Framing` tells which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vidcodec.postfilter.message import MAX_BYTES, UUID

CODECS = ("h264", "hevc", "vvc")
_SEI_HEADER = {"h264": b"\x06", "hevc": b"\x4e\x01", "vvc": b"\x00\xb9"}
_SEI = {"h264": 6, "hevc": 39, "vvc": 23}  # types of NAL units
_SLICES = {"h264": range(1, 6), "hevc": range(32), "vvc": range(12)}
_USER_DATA_UNREGISTERED = 5
_PREVENTED = re.compile(rb"\x00\x00(?=[\x00-\x03])")


@dataclass(frozen=True)
class Framing:
    """codec: one of `CODECS`. length: bytes of the length before each NAL unit; 0: start codes."""

    codec: str
    length: int

    @classmethod
    def of(cls, codec: str, extradata: bytes | None) -> Framing:
        """From the codec's private data in the container: avcC, hvcC and vvcC mean lengths."""
        data = extradata or b""
        if codec == "vvc":
            return cls(codec, (data[0] >> 1 & 3) + 1 if data and data[0] >> 3 == 31 else 0)
        at = {"h264": 4, "hevc": 21}[codec]
        if len(data) <= at or data[0] != 1:
            return cls(codec, 0)
        return cls(codec, (data[at] & 3) + 1)

    def units(self, packet: bytes) -> Iterator[tuple[int, int, int]]:
        """(start of the framing, start, end) of the NAL units of a packet; ends where it is damaged."""
        if not self.length:
            codes = [(m.start(), m.end()) for m in re.finditer(rb"\x00{2,}\x01", packet)]
            for i, (before, start) in enumerate(codes):
                yield before, start, codes[i + 1][0] if i + 1 < len(codes) else len(packet)
            return
        at = 0
        while at + self.length < len(packet):
            start = at + self.length
            end = start + int.from_bytes(packet[at:start], "big")
            if end > len(packet):
                return
            yield at, start, end
            at = end

    def framed(self, unit: bytes) -> bytes:
        return (len(unit).to_bytes(self.length, "big") if self.length else b"\x00\x00\x00\x01") + unit

    def type_of(self, packet: bytes, start: int) -> int:
        """The type of the NAL unit that begins at `start`."""
        if self.codec == "vvc":  # in the second byte; 31 is nobody's
            return packet[start + 1] >> 3 if start + 1 < len(packet) else 31
        return packet[start] & 31 if self.codec == "h264" else packet[start] >> 1 & 63

    def is_slice(self, packet: bytes, start: int) -> bool:
        """Whether the NAL unit that begins at `start` is a coded slice."""
        return self.type_of(packet, start) in _SLICES[self.codec]

    def is_sei(self, packet: bytes, start: int) -> bool:
        return self.type_of(packet, start) == _SEI[self.codec]


def sei_unit(codec: str, data: bytes) -> bytes:
    """A NAL unit with our UUID and `data`."""
    payload = UUID + data
    full, rest = divmod(len(payload), 255)
    body = bytes([_USER_DATA_UNREGISTERED]) + b"\xff" * full + bytes([rest]) + payload + b"\x80"
    return _SEI_HEADER[codec] + _PREVENTED.sub(b"\x00\x00\x03", body)


def insert(packet: bytes, framing: Framing, data: bytes) -> bytes:
    """The access unit with one more message, before its first slice."""
    unit = framing.framed(sei_unit(framing.codec, data))
    for before, start, end in framing.units(packet):
        if start < end and framing.is_slice(packet, start):
            return packet[:before] + unit + packet[before:]
    return packet + unit


def messages(packet: bytes, framing: Framing) -> list[bytes]:
    """The data of our messages in an access unit."""
    return [data for *_, data in _ours(packet, framing)]


def without_messages(packet: bytes, framing: Framing) -> bytes:
    """The access unit without our messages."""
    for before, end, _ in reversed(list(_ours(packet, framing))):
        packet = packet[:before] + packet[end:]
    return packet


def _ours(packet: bytes, framing: Framing) -> Iterator[tuple[int, int, bytes]]:
    """(start of the framing, end, data) of the NAL units that hold a message of ours."""
    for before, start, end in framing.units(packet):
        if start == end:
            continue
        if framing.is_slice(packet, start):
            return  # messages stand before the slices, and slices are long
        if framing.is_sei(packet, start) and end - start <= MAX_BYTES + 4096:
            body = packet[start + len(_SEI_HEADER[framing.codec]) : end].replace(b"\x00\x00\x03", b"\x00\x00")
            for kind, payload in _sei_payloads(body):
                if kind == _USER_DATA_UNREGISTERED and payload[:16] == UUID:
                    yield before, end, payload[16:]
                    break


def _sei_payloads(body: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, data) of the messages in an SEI NAL unit; ends where it is damaged."""
    at = 0
    while at + 2 < len(body):
        numbers = []
        for _ in range(2):  # type and size, in steps of 255
            value = 0
            while at < len(body) and body[at] == 255:
                value, at = value + 255, at + 1
            if at >= len(body):
                return
            numbers.append(value + body[at])
            at += 1
        kind, size = numbers
        if at + size > len(body):
            return
        yield kind, body[at : at + size]
        at += size
