"""Telling a .vdc file from everything else, by its first bytes, with advice that fits."""

from __future__ import annotations

from vidcodec.bitstream.units import MAGIC
from vidcodec.errors import BitstreamError, NotABitstreamError, TruncatedBitstreamError

SNIFF_SIZE = 512

_ENCODE = "encode it first: vidcodec encode IN -o OUT.vdc"
_MANGLED = "send or copy it again in binary mode"

_MANGLED_STARTS = (
    (MAGIC.replace(b"\r\n", b"\n"), "a .vdc file whose line ends were changed in transfer (CR LF to LF)"),
    (MAGIC.replace(b"\n", b"\r\n"), "a .vdc file whose line ends were changed in transfer (LF to CR LF)"),
    (MAGIC.replace(b"\r", b"\n"), "a .vdc file whose line ends were changed in transfer (CR to LF)"),
    (MAGIC.replace(b"\n", b"\r"), "a .vdc file whose line ends were changed in transfer (LF to CR)"),
    (b"\x09VDC", "a .vdc file that lost the top bit of its bytes in transfer"),
    (b"\xc2\x89VDC", "a .vdc file that was converted as if it were text"),
    (b"\xef\xbf\xbdVDC", "a .vdc file that was converted as if it were text"),
)

_VIDEO_STARTS = (
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM file"),
    (4, b"ftyp", "an MP4 or QuickTime file"),
    (4, b"moov", "a QuickTime file"),
    (8, b"AVI ", "an AVI file"),
    (0, b"YUV4MPEG2", "a Y4M file"),
    (0, b"DKIF", "an IVF file"),
    (0, b"FLV", "a Flash video file"),
    (0, b"OggS", "an Ogg file"),
    (188, b"\x47", "an MPEG transport stream"),
    (0, b"\x00\x00\x01\xba", "an MPEG program stream"),
    (0, b"\x00\x00\x00\x01", "a raw H.264 or HEVC stream"),
    (0, b"GIF8", "a GIF picture"),
)

_OTHER_STARTS = (
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (8, b"WEBP", "a WebP picture"),
    (0, b"PK\x03\x04", "a ZIP archive: unpack it first"),
    (0, b"\x1f\x8b", "a gzip file: unpack it first"),
    (0, b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with git lfs pull"),
    (0, b"<!DOCTYPE", "a web page: the download went wrong"),
    (0, b"<html", "a web page: the download went wrong"),
)


def signature_error(start: bytes) -> BitstreamError:
    """The error for a file whose first bytes (up to SNIFF_SIZE) are not the magic."""
    if not start:
        return NotABitstreamError("the file is empty")
    if MAGIC.startswith(start):
        return TruncatedBitstreamError(f"the file ends after {len(start)} bytes, inside its signature")
    for magic, name in _MANGLED_STARTS:
        if start.startswith(magic):
            return NotABitstreamError(f"this is {name}: {_MANGLED}")
    for offset, magic, name in _VIDEO_STARTS:
        if start[offset:].startswith(magic) and (offset != 188 or start[:1] == magic):
            return NotABitstreamError(f"this is {name}, not a .vdc file: {_ENCODE}")
    for offset, magic, name in _OTHER_STARTS:
        if start[offset:].startswith(magic):
            return NotABitstreamError(f"not a .vdc file; this is {name}")
    return NotABitstreamError(f"not a .vdc file: it begins with {start[:8].hex(' ')}")
