"""HEAD: everything a decoder must know before the first frame.

Payload, little-endian, `v` = varint:

    offset  0  version u8              always first, in every version to come
            1  arithmetic u8           version of the exact integer arithmetic
            2  bit_depth u8            8 or 10
            3  picture flags u8        bit 0 full range, bits 1-2 rotation / 90, bit 3 frame rate given
            4  matrix, primaries, transfer, chroma_location     4 x u8 (ITU-T H.273 codes)
            8  model digest 16 bytes, tables digest 8 bytes
           32  width v, height v
               sample_aspect v v, time_base v v, [frame_rate v v]   numerator, denominator, in lowest terms
               model: length u8, ASCII
               extra: the rest

Nothing here depends on how many frames follow, or on how each of them is coded: HEAD is written before the first one.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from vidcodec.bitstream.fields import FieldReader, varint
from vidcodec.errors import CorruptBitstreamError, UnsupportedVersionError

FORMAT_VERSION = 2
READ_BY = {1: "0.1.0"}  # the last vidcodec that reads each older version

MAX_SIDE = 16384
MAX_PIXELS = 1 << 27
MAX_TERM = (1 << 31) - 1
MAX_MODEL_NAME = 64
MAX_EXTRA = 4096
MODEL_DIGEST_SIZE = 16
TABLES_DIGEST_SIZE = 8

_FULL_RANGE = 1
_ROTATION_SHIFT = 1
_HAS_FRAME_RATE = 8
_KNOWN_PICTURE_FLAGS = 15


@dataclass(frozen=True, kw_only=True)
class Header:
    """The contents of HEAD. Every bound is checked on construction: ValueError names the field."""

    model: str  # 1 to 64 printable ASCII characters
    model_digest: bytes  # first 16 bytes of the sha256 of the base weights
    tables_digest: bytes  # first 8 bytes of a digest of every table that decoding uses
    arithmetic: int  # version of the exact integer arithmetic
    width: int  # luma pixels, as decoded, before rotation
    height: int
    bit_depth: int  # 8 or 10
    matrix: int  # H.273 codes
    primaries: int
    transfer: int
    full_range: bool
    chroma_location: int
    sample_aspect: Fraction  # 0 = not known
    rotation: int  # degrees: 0, 90, 180 or 270
    time_base: Fraction  # seconds per unit of pts
    frame_rate: Fraction | None  # sampled frames per second, where they are regular
    extra: bytes = b""  # the model's own, at most 4096 bytes

    def __post_init__(self) -> None:
        if not 1 <= len(self.model) <= MAX_MODEL_NAME or not (self.model.isascii() and self.model.isprintable()):
            raise ValueError(f"model must be 1 to {MAX_MODEL_NAME} printable ASCII characters")
        if len(self.model_digest) != MODEL_DIGEST_SIZE:
            raise ValueError(f"model_digest must be {MODEL_DIGEST_SIZE} bytes")
        if len(self.tables_digest) != TABLES_DIGEST_SIZE:
            raise ValueError(f"tables_digest must be {TABLES_DIGEST_SIZE} bytes")
        for name in ("arithmetic", "matrix", "primaries", "transfer", "chroma_location"):
            _check_range(name, getattr(self, name), 0, 0xFF)
        _check_range("width", self.width, 1, MAX_SIDE)
        _check_range("height", self.height, 1, MAX_SIDE)
        if self.width * self.height > MAX_PIXELS:
            raise ValueError(f"a picture of {self.width}x{self.height} has more than {MAX_PIXELS} pixels")
        if self.bit_depth not in (8, 10):
            raise ValueError(f"bit_depth must be 8 or 10, not {self.bit_depth}")
        if self.rotation not in (0, 90, 180, 270):
            raise ValueError(f"rotation must be 0, 90, 180 or 270, not {self.rotation}")
        _check_fraction("sample_aspect", self.sample_aspect, 0)
        _check_fraction("time_base", self.time_base, 1)
        if self.frame_rate is not None:
            _check_fraction("frame_rate", self.frame_rate, 1)
        if len(self.extra) > MAX_EXTRA:
            raise ValueError(f"extra must be at most {MAX_EXTRA} bytes")

    def to_bytes(self) -> bytes:
        """The payload of HEAD."""
        picture_flags = self.full_range * _FULL_RANGE | (self.rotation // 90) << _ROTATION_SHIFT
        if self.frame_rate is not None:
            picture_flags |= _HAS_FRAME_RATE
        return b"".join(
            (
                bytes((FORMAT_VERSION, self.arithmetic, self.bit_depth, picture_flags)),
                bytes((self.matrix, self.primaries, self.transfer, self.chroma_location)),
                self.model_digest + self.tables_digest,
                varint(self.width) + varint(self.height),
                _pack_fraction(self.sample_aspect),
                _pack_fraction(self.time_base),
                b"" if self.frame_rate is None else _pack_fraction(self.frame_rate),
                bytes((len(self.model),)) + self.model.encode("ascii"),
                self.extra,
            )
        )

    @classmethod
    def from_bytes(cls, payload: bytes) -> Header:
        """Reads a payload of HEAD.

        UnsupportedVersionError: of another version of the format. CorruptBitstreamError: a field or a bound does not
        hold.
        """
        fields = FieldReader(payload, "header")
        _check_version(fields.unsigned(1))
        arithmetic, bit_depth, picture_flags = fields.take(3)
        if picture_flags & ~_KNOWN_PICTURE_FLAGS:
            raise CorruptBitstreamError(f"header: unknown picture flags {picture_flags:#04x}")
        matrix, primaries, transfer, chroma_location = fields.take(4)
        model_digest, tables_digest = fields.take(MODEL_DIGEST_SIZE), fields.take(TABLES_DIGEST_SIZE)
        width, height = fields.varint(), fields.varint()
        sample_aspect, time_base = _read_fraction(fields), _read_fraction(fields)
        frame_rate = _read_fraction(fields) if picture_flags & _HAS_FRAME_RATE else None
        name = fields.take(fields.unsigned(1))
        try:
            return cls(
                model=name.decode("ascii"),
                model_digest=model_digest,
                tables_digest=tables_digest,
                arithmetic=arithmetic,
                width=width,
                height=height,
                bit_depth=bit_depth,
                matrix=matrix,
                primaries=primaries,
                transfer=transfer,
                full_range=bool(picture_flags & _FULL_RANGE),
                chroma_location=chroma_location,
                sample_aspect=sample_aspect,
                rotation=90 * (picture_flags >> _ROTATION_SHIFT & 3),
                time_base=time_base,
                frame_rate=frame_rate,
                extra=fields.rest(),
            )
        except ValueError as error:  # UnicodeDecodeError is one of them
            raise CorruptBitstreamError(f"header: {error}") from error


def _check_version(version: int) -> None:
    if version > FORMAT_VERSION:
        raise UnsupportedVersionError(
            f"the file is of format version {version}, this vidcodec reads up to {FORMAT_VERSION}: update vidcodec"
        )
    if version == 0:
        raise CorruptBitstreamError("header: there is no format version 0")
    if version in READ_BY:
        raise UnsupportedVersionError(
            f"the file is of format version {version}, which vidcodec {READ_BY[version]} reads; "
            f"this one reads version {FORMAT_VERSION}: decode it with vidcodec {READ_BY[version]}"
        )


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {value}")


def _check_fraction(name: str, value: Fraction, low: int) -> None:
    if not low <= value.numerator <= MAX_TERM or value.denominator > MAX_TERM:
        raise ValueError(f"{name} must be a fraction of terms from {low} to {MAX_TERM}, not {value}")


def _pack_fraction(value: Fraction) -> bytes:
    return varint(value.numerator) + varint(value.denominator)


def _read_fraction(fields: FieldReader) -> Fraction:
    numerator, denominator = fields.varint(), fields.varint()
    if denominator == 0:
        raise CorruptBitstreamError("header: a fraction with denominator 0")
    fraction = Fraction(numerator, denominator)
    if fraction.denominator != denominator:
        raise CorruptBitstreamError(f"header: the fraction {numerator}/{denominator} is not in lowest terms")
    return fraction
