"""Frames of the lossless codec to bytes and back.

A payload is the first bytes of the SHA-256 of the samples, a byte that says how they are coded, and the samples: coded,
or packed where that is shorter. Its checksum is their CRC-32: what a decoder shows is what went in, or an error.
"""

from __future__ import annotations

import hashlib
import zlib

import numpy as np

from vidcodec.errors import CorruptBitstreamError
from vidcodec.families.family import CodedFrame
from vidcodec.families.lossless.exact import ExactLossless
from vidcodec.families.lossless.network import Lossless
from vidcodec.families.lossless.planes import rgb_to_ycocg, ycocg_to_rgb
from vidcodec.latents.symbols import SymbolLog
from vidcodec.video import Frame, VideoFormat

YUV, RGB = b"\x00", b"\x01"  # kinds of planes in a file's `extra`
CODED, PACKED = b"\x00", b"\x01"
HASH_BYTES = 8

Array = np.ndarray


class LosslessPictureCodec:
    """Codes frames of one format with a network's weights."""

    def __init__(self, network: Lossless, video: VideoFormat) -> None:
        self.exact, self.video = ExactLossless(network), video

    @property
    def extra(self) -> bytes:
        return RGB if self.video.rgb else YUV

    def encode(self, frame: Frame) -> CodedFrame:
        f = self.video
        samples = CODED + self.exact.encode(*to_planes(frame, f), f.bit_depth, rgb=f.rgb).finish()
        if len(samples) > 1 + _packed_size(f):
            samples = PACKED + _pack(frame, f.bit_depth)
        crc, digest = fingerprints(frame)
        log = SymbolLog(crc, z_bits=8.0 * len(digest), y_bits=8.0 * len(samples))
        return CodedFrame(digest + samples, log, lambda: frame)

    def reconstruct(self, payload: bytes, pts: int, reference: None = None) -> CodedFrame:
        """The frame; raises CorruptBitstreamError unless every sample is as it was."""
        f = self.video
        digest, how, data = payload[:HASH_BYTES], payload[HASH_BYTES : HASH_BYTES + 1], payload[HASH_BYTES + 1 :]
        if how == PACKED:
            frame = _unpack(data, f, pts)
        elif how == CODED:
            planes = self.exact.decode(data, f.height, f.width, f.bit_depth, rgb=f.rgb)
            frame = from_planes(*planes, f, pts)
        else:
            raise CorruptBitstreamError("a frame is stored in an unknown way: use a newer vidcodec")
        crc, found = fingerprints(frame)
        if found != digest:
            raise CorruptBitstreamError(
                "the decoded samples do not match their hash; payload or model differ from the encoder's"
            )
        log = SymbolLog(crc, z_bits=8.0 * len(digest), y_bits=8.0 * (len(data) + 1))
        return CodedFrame(payload, log, lambda: frame)


def to_planes(frame: Frame, video: VideoFormat) -> tuple[Array, Array]:
    """Luma (H, W) and chroma (2, ., .) as the network sees them."""
    if not video.rgb:
        return frame.y, frame.uv
    return rgb_to_ycocg(np.stack([frame.uv[1], frame.y, frame.uv[0]], -1), video.bit_depth)


def from_planes(y: Array, chroma: Array, video: VideoFormat, pts: int) -> Frame:
    """The opposite of `to_planes`. Planes of a damaged payload may lead out of the range: they wrap around."""
    if video.rgb:
        r, g, b = np.moveaxis(ycocg_to_rgb(y, chroma, video.bit_depth), 2, 0)
        y, chroma = g, np.stack([b, r])
    top = (1 << video.bit_depth) - 1
    return Frame((y & top).astype(video.dtype), (chroma & top).astype(video.dtype), pts)


def fingerprints(frame: Frame) -> tuple[int, bytes]:
    """CRC-32 of a frame's samples, and the first bytes of their SHA-256."""
    planes = [np.ascontiguousarray(p, p.dtype.newbyteorder("<")) for p in (frame.y, frame.uv)]
    crc, digest = 0, hashlib.sha256()
    for plane in planes:
        crc = zlib.crc32(plane.data, crc)
        digest.update(plane.data)
    return crc, digest.digest()[:HASH_BYTES]


def _samples(video: VideoFormat) -> int:
    return video.frame_bytes // video.dtype.itemsize


def _packed_size(video: VideoFormat) -> int:
    return (_samples(video) * video.bit_depth + 7) // 8


def _pack(frame: Frame, bits: int) -> bytes:
    """All samples of 8 or 10 bits, the highest bit first."""
    flat = np.concatenate([frame.y.ravel(), frame.uv.ravel()])
    if bits == 8:
        return flat.tobytes()
    a, b, c, d = np.pad(flat, (0, -flat.size % 4)).reshape(-1, 4).T
    out = np.empty((a.size, 5), np.uint8)  # four samples to five bytes
    for i, of_two in enumerate((a >> 2, a << 6 | b >> 4, b << 4 | c >> 6, c << 2 | d >> 8, d)):
        out[:, i] = of_two & 0xFF
    return out.tobytes()[: (flat.size * bits + 7) // 8]


def _unpack(data: bytes, video: VideoFormat, pts: int) -> Frame:
    if len(data) != _packed_size(video):
        raise CorruptBitstreamError("a frame's packed samples are not as many as it has: it is cut off or damaged")
    flat = np.frombuffer(data, np.uint8)
    if video.bit_depth == 10:
        p, q, r, s, t = np.pad(flat, (0, -flat.size % 5)).reshape(-1, 5).T.astype(np.uint16)
        fours = (p << 2 | q >> 6, (q & 63) << 4 | r >> 4, (r & 15) << 6 | s >> 2, (s & 3) << 8 | t)
        flat = np.stack(fours, 1).ravel()[: _samples(video)]
    luma = video.width * video.height
    uv = flat[luma:].reshape(2, video.chroma_height, video.chroma_width)
    return Frame(flat[:luma].reshape(video.height, video.width).astype(video.dtype), uv.astype(video.dtype), pts)
