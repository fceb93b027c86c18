"""What travels beside a video: which filter, switched on for what, and the coded update.

    version u8 | profile u8 | digest of the base filter, 4 bytes | where it is on, u16
    QP of I, P, B pictures in quarters, 3 x u8 | start in milliseconds, varint
    model update (`vidcodec.updates.coder`) | crc32 of all before, 4 bytes

Numbers are little-endian. An update applies to the base filter, never to another update,
and holds from its start (in H.264 and HEVC: from the picture that carries it) to the next.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from vidcodec.bitstream.fields import FieldReader, varint
from vidcodec.errors import CorruptBitstreamError, UnsupportedVersionError
from vidcodec.postfilter.checkpoint import DIGEST_BYTES
from vidcodec.postfilter.network import PROFILES

VERSION = 1
# Names our messages among the user data of a stream (random, version 4).
UUID = bytes.fromhex("3b8f6d1ec0a74c519e5ad26f70c14b83")
MAX_BYTES = 1 << 20  # a filter of 78 thousand weights needs far less
QP_STEPS = 4


@dataclass(frozen=True)
class FilterMessage:
    """One message.

    profile: of the base filter. digest: its first bytes.
    enabled: bit 3 t + p says whether plane p (Y, U, V) is filtered in pictures of type t (I, P, B).
    qp: what the filter is told of I, P, B pictures, 0 .. 63 in quarters. start: milliseconds
    from the first picture. update: bytes of `encode_update`, empty for the base filter.
    """

    profile: str
    digest: bytes
    enabled: int
    qp: tuple[float, float, float]
    start: int = 0
    update: bytes = b""

    def to_bytes(self) -> bytes:
        """The message without its UUID."""
        profiles = list(PROFILES)
        head = bytes([VERSION, profiles.index(self.profile)]) + self.digest[:DIGEST_BYTES]
        qps = bytes(round(q * QP_STEPS) for q in self.qp)
        body = head + self.enabled.to_bytes(2, "little") + qps + varint(self.start) + self.update
        return body + zlib.crc32(body).to_bytes(4, "little")

    @classmethod
    def from_bytes(cls, data: bytes) -> FilterMessage:
        """Parse; raises CorruptBitstreamError for damage, UnsupportedVersionError for a newer version."""
        if not 5 <= len(data) <= MAX_BYTES or zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
            raise CorruptBitstreamError("filter message: its checksum does not hold")
        fields = FieldReader(data[:-4], "filter message")
        if (version := fields.unsigned(1)) != VERSION:
            raise UnsupportedVersionError(f"filter message of version {version}: use a newer vidcodec")
        profile = fields.unsigned(1)
        if profile >= len(PROFILES):
            raise UnsupportedVersionError(f"filter message for profile {profile}: use a newer vidcodec")
        digest, enabled, qps = fields.take(DIGEST_BYTES), fields.unsigned(2), fields.take(3)
        qp = (qps[0] / QP_STEPS, qps[1] / QP_STEPS, qps[2] / QP_STEPS)
        return cls(list(PROFILES)[profile], digest, enabled, qp, fields.varint(), fields.rest())
