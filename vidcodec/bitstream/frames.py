"""FRAM and UPDT: what is paid for. Layouts of the payloads, `v` = varint, `s` = zig-zag varint:

    FRAM   index v | pts s | checksum u32 | length of z v | z | y to the end
    UPDT   first_frame v | update to the end

Frame indices run 0, 1, 2 ... in the order of the file. An update replaces the one before it from `first_frame` on;
updates come in rising order of `first_frame`, each before the frames it applies to. Neither unit needs another one to
be parsed. Bits 1-7 of a unit's flags are room for references between frames.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidcodec.bitstream.fields import FieldReader, signed_varint, varint
from vidcodec.bitstream.header import MAX_FRAMES
from vidcodec.errors import CorruptBitstreamError


@dataclass(frozen=True)
class FrameUnit:
    """One frame. ValueError where a number is out of its bounds."""

    index: int  # 0 <= index < 2^24
    pts: int  # in units of Header.time_base, signed 64 bits
    z: bytes  # entropy-coded hyper-latents
    y: bytes  # entropy-coded latents
    checksum: int  # crc32 of the decoded symbols

    def __post_init__(self) -> None:
        if not 0 <= self.index < MAX_FRAMES:
            raise ValueError(f"frame index {self.index} is outside of 0 to {MAX_FRAMES - 1}")
        if not -(1 << 63) <= self.pts < 1 << 63:
            raise ValueError(f"frame {self.index}: pts {self.pts} does not fit 64 bits")
        if not 0 <= self.checksum <= 0xFFFFFFFF:
            raise ValueError(f"frame {self.index}: checksum {self.checksum} does not fit 32 bits")

    def to_bytes(self) -> bytes:
        """The payload of FRAM."""
        prefix = varint(self.index) + signed_varint(self.pts) + self.checksum.to_bytes(4, "little")
        return b"".join((prefix, varint(len(self.z)), self.z, self.y))

    @classmethod
    def from_bytes(cls, payload: bytes) -> FrameUnit:
        """Reads a payload of FRAM; CorruptBitstreamError where it does not hold."""
        fields = FieldReader(payload, "frame")
        index, pts, checksum = fields.varint(), fields.signed_varint(), fields.unsigned(4)
        z = fields.take(fields.varint())
        try:
            return cls(index, pts, z, fields.rest(), checksum)
        except ValueError as error:
            raise CorruptBitstreamError(str(error)) from error


@dataclass(frozen=True)
class UpdateUnit:
    """One model update; what the payload means is the model's business."""

    first_frame: int  # 0 <= first_frame < 2^24
    payload: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.first_frame < MAX_FRAMES:
            raise ValueError(f"first frame {self.first_frame} is outside of 0 to {MAX_FRAMES - 1}")

    def to_bytes(self) -> bytes:
        """The payload of UPDT."""
        return varint(self.first_frame) + self.payload

    @classmethod
    def from_bytes(cls, payload: bytes) -> UpdateUnit:
        """Reads a payload of UPDT; CorruptBitstreamError where it does not hold."""
        fields = FieldReader(payload, "update")
        first_frame = fields.varint()
        try:
            return cls(first_frame, fields.rest())
        except ValueError as error:
            raise CorruptBitstreamError(str(error)) from error
