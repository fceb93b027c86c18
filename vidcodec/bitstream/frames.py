"""FRAM and UPDT: what is paid for. Layouts of the payloads, `v` = varint, `s` = zig-zag varint:

    FRAM   flags u8          bit 0 predicted, bit 1 carries settings of its own; the others are of a newer version
           index v           0, 1, 2 ... in the order of the file
           pts s
           checksum u32      crc32 of the decoded symbols
           [level v | quantizer u8 | update v]      settings: of a key frame always
           [reference v]     of a predicted frame: how many frames before it its reference is, 1 at least
           coded symbols to the end
    UPDT   number v | parent v | first_frame v | coded update to the end

A chain runs from a key frame to the frame before the next one: the unit of coding, of random access and of damage. A
predicted frame refers to a frame of its own chain; without settings of its own it has those of the chain's key frame.

Updates are numbered 1, 2 ... in the order of the file; each changes the base weights (parent 0) or what an earlier
update made of them (parent: its number). A frame's settings say which update is in force, 0 for the base weights as
they are; it is the same one in a whole chain. An update stands before the frames that use it, none of which is before
`first_frame`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vidcodec.bitstream.fields import FieldReader, signed_varint, varint
from vidcodec.errors import CorruptBitstreamError, UnsupportedVersionError

MAX_FRAMES = 1 << 24
MAX_UPDATES = 1 << 24
MAX_LEVEL = 0xFFFF
PREFIX_LIMIT = 64  # bytes: nothing in front of what is coded takes more, in either unit

_PREDICTED = 1
_OWN_SETTINGS = 2


class Settings(NamedTuple):
    """How a frame is coded, beside its reference."""

    level: int  # rate level in 1/256, 0 .. 65535
    quantizer: int  # one byte, the quantisers' own code
    update: int  # number of the update in force, 0: the base weights as they are


@dataclass(frozen=True)
class FramePrefix:
    """What stands in front of the coded symbols of a frame."""

    index: int
    pts: int
    checksum: int
    settings: Settings | None  # None: those of the chain's key frame
    reference: int  # distance back in frames, 0: a key frame

    @classmethod
    def read(cls, fields: FieldReader) -> FramePrefix:
        """Takes the prefix off the front of a payload of FRAM.

        CorruptBitstreamError where it does not hold, UnsupportedVersionError for flags of a newer version.
        """
        flags = fields.unsigned(1)
        if flags & ~(_PREDICTED | _OWN_SETTINGS):
            raise UnsupportedVersionError(
                f"a frame has flags {flags:#04x}, which this vidcodec does not know: update vidcodec"
            )
        if not flags:
            raise CorruptBitstreamError("a key frame without settings")
        index, pts, checksum = fields.varint(), fields.signed_varint(), fields.unsigned(4)
        settings = None
        if flags & _OWN_SETTINGS:
            settings = Settings(fields.varint(), fields.unsigned(1), fields.varint())
        reference = fields.varint() if flags & _PREDICTED else 0
        if flags & _PREDICTED and not reference:
            raise CorruptBitstreamError("a predicted frame that refers to itself")
        try:
            _check_frame(index, pts, checksum, settings, reference)
        except ValueError as error:
            raise CorruptBitstreamError(str(error)) from error
        return cls(index, pts, checksum, settings, reference)


@dataclass(frozen=True)
class FrameUnit:
    """One frame. ValueError where a number is out of its bounds."""

    index: int  # 0 <= index < 2^24
    pts: int  # in units of Header.time_base, signed 64 bits
    payload: bytes  # coded symbols
    checksum: int  # crc32 of the decoded symbols
    level: int  # rate level in 1/256, 0 .. 65535
    quantizer: int  # one byte, the quantisers' own code
    update: int  # number of the update in force, 0: the base weights as they are
    reference: int = 0  # distance back in frames, at most `index`; 0: a key frame

    def __post_init__(self) -> None:
        _check_frame(self.index, self.pts, self.checksum, self.settings, self.reference)

    @property
    def is_key(self) -> bool:
        """Whether a chain begins here."""
        return not self.reference

    @property
    def settings(self) -> Settings:
        """How the frame is coded, beside its reference."""
        return Settings(self.level, self.quantizer, self.update)

    def to_bytes(self, inherited: Settings | None = None) -> bytes:
        """The payload of FRAM.

        inherited: settings of the chain's key frame, which a predicted frame need not repeat; without them it carries
        its own, and the payload can be read on its own.
        """
        own = self.is_key or self.settings != inherited
        return b"".join(
            (
                bytes((_PREDICTED * (not self.is_key) | _OWN_SETTINGS * own,)),
                varint(self.index) + signed_varint(self.pts) + self.checksum.to_bytes(4, "little"),
                varint(self.level) + bytes((self.quantizer,)) + varint(self.update) if own else b"",
                b"" if self.is_key else varint(self.reference),
                self.payload,
            )
        )

    @classmethod
    def from_bytes(cls, payload: bytes, inherited: Settings | None = None) -> FrameUnit:
        """Reads a payload of FRAM; inherited: settings of the chain's key frame, for a predicted frame without its own.

        CorruptBitstreamError where it does not hold, UnsupportedVersionError for flags of a newer version.
        """
        fields = FieldReader(payload, "frame")
        p = FramePrefix.read(fields)
        if (settings := p.settings or inherited) is None:
            raise CorruptBitstreamError(f"frame {p.index}: its settings are those of a key frame that is not at hand")
        return cls(p.index, p.pts, fields.rest(), p.checksum, *settings, p.reference)


class UpdatePrefix(NamedTuple):
    """What stands in front of a coded update."""

    number: int
    parent: int  # number of the update that this one changes further, 0: the base weights
    first_frame: int

    @classmethod
    def read(cls, fields: FieldReader) -> UpdatePrefix:
        """Takes the prefix off the front of a payload of UPDT; CorruptBitstreamError where it does not hold."""
        number, parent, first_frame = (fields.varint() for _ in range(3))
        try:
            _check_update(number, parent, first_frame)
        except ValueError as error:
            raise CorruptBitstreamError(str(error)) from error
        return cls(number, parent, first_frame)


@dataclass(frozen=True)
class UpdateUnit:
    """One model update; what the payload means is the model's business. ValueError for numbers out of bounds."""

    number: int  # 1 <= number < 2^24
    parent: int  # number of the update that this one changes further, 0: the base weights
    first_frame: int  # no frame before this one uses it; 0 <= first_frame < 2^24
    payload: bytes

    def __post_init__(self) -> None:
        _check_update(self.number, self.parent, self.first_frame)

    def to_bytes(self) -> bytes:
        """The payload of UPDT."""
        return varint(self.number) + varint(self.parent) + varint(self.first_frame) + self.payload

    @classmethod
    def from_bytes(cls, payload: bytes) -> UpdateUnit:
        """Reads a payload of UPDT; CorruptBitstreamError where it does not hold."""
        fields = FieldReader(payload, "update")
        number, parent, first_frame = UpdatePrefix.read(fields)
        return cls(number, parent, first_frame, fields.rest())


def _check_frame(index: int, pts: int, checksum: int, settings: Settings | None, reference: int) -> None:
    if not 0 <= index < MAX_FRAMES:
        raise ValueError(f"frame index {index} is outside of 0 to {MAX_FRAMES - 1}")
    if not -(1 << 63) <= pts < 1 << 63:
        raise ValueError(f"frame {index}: pts {pts} does not fit 64 bits")
    if not 0 <= checksum <= 0xFFFFFFFF:
        raise ValueError(f"frame {index}: checksum {checksum} does not fit 32 bits")
    if not 0 <= reference <= index:
        raise ValueError(f"frame {index} cannot refer to a frame {reference} frames before it")
    if settings is None:
        return
    if not 0 <= settings.level <= MAX_LEVEL:
        raise ValueError(f"frame {index}: level {settings.level} is outside of 0 to {MAX_LEVEL}")
    if not 0 <= settings.quantizer <= 0xFF:
        raise ValueError(f"frame {index}: quantizer {settings.quantizer} is outside of 0 to 255")
    if not 0 <= settings.update < MAX_UPDATES:
        raise ValueError(f"frame {index}: update {settings.update} is outside of 0 to {MAX_UPDATES - 1}")


def _check_update(number: int, parent: int, first_frame: int) -> None:
    if not 1 <= number < MAX_UPDATES:
        raise ValueError(f"update number {number} is outside of 1 to {MAX_UPDATES - 1}")
    if not 0 <= parent < number:
        raise ValueError(f"update {number} cannot have update {parent} as its parent: only an earlier one")
    if not 0 <= first_frame < MAX_FRAMES:
        raise ValueError(f"update {number}: first frame {first_frame} is outside of 0 to {MAX_FRAMES - 1}")
