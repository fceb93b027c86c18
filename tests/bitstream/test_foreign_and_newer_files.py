"""Files that are not ours, or from a later vidcodec, get an error that says what to do."""

from __future__ import annotations

import io

import pytest

from vidcodec.bitstream import MAGIC, BitstreamReader, pack_unit
from vidcodec.errors import InputError, NotABitstreamError, TruncatedBitstreamError, UnsupportedVersionError


@pytest.mark.parametrize(
    ("start", "advice"),
    [
        (b"", "empty"),
        (b"\x1a\x45\xdf\xa3\x01\x00\x00\x00", "Matroska.*encode it first"),
        (b"\x00\x00\x00\x20ftypisom", "MP4.*encode it first"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "AVI"),
        (b"YUV4MPEG2 W352", "Y4M"),
        (b"\x47" + bytes(187) + b"\x47", "transport stream"),
        (b"\x89PNG\r\n\x1a\n", "PNG picture"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"version https://git-lfs.github.com", "git lfs pull"),
        (b"<!DOCTYPE html>", "web page"),
        (b"\x89VDC\n\x1a\n", "line ends.*binary mode"),
        (b"\x89VDC\r\r\n\x1a\r\n", "line ends.*binary mode"),
        (b"\x09VDC\r\n\x1a\n", "top bit"),
        (b"\xc2\x89VDC\r\n", "as if it were text"),
        (b"hello, world", "not a .vdc file: it begins with 68 65"),
    ],
)
def test_foreign_files_are_recognised(start, advice):
    with pytest.raises(NotABitstreamError, match=advice):
        BitstreamReader(io.BytesIO(start))


def test_a_signature_cut_short_is_truncated():
    with pytest.raises(TruncatedBitstreamError):
        BitstreamReader(io.BytesIO(MAGIC[:5]))


def test_every_transfer_as_text_is_noticed(sample):
    """With a line end in a payload the header no longer parses; the message still tells why."""
    for data in (sample.data.replace(b"\r\n", b"\n"), sample.data.replace(b"\n", b"\r\n")):
        try:
            problems = BitstreamReader(io.BytesIO(data)).problems
        except NotABitstreamError as error:
            problems = [str(error)]
        assert problems


def test_missing_files_directories_and_pipes(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        BitstreamReader(tmp_path / "none.vdc")
    with pytest.raises(InputError, match="is a directory"):
        BitstreamReader(str(tmp_path))

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with pytest.raises(InputError, match="save it to a file first"):
        BitstreamReader(Pipe(MAGIC))


def test_a_newer_version_names_both(sample):
    """Only the version byte is relied on: the rest of a newer header may look like anything."""
    data = MAGIC + pack_unit(b"HEAD", b"\x07 all new") + pack_unit(b"FRAM", b"all new too")
    with pytest.raises(UnsupportedVersionError, match=r"version 7.*up to 1.*update vidcodec"):
        BitstreamReader(io.BytesIO(data))


def test_unknown_units_are_skipped_unless_critical(sample):
    for _, place, _ in sample.units()[1:]:
        for kind in (b"NOTE", b"PREV"):
            extra = pack_unit(kind, b"anything at all", critical=False)
            reader = BitstreamReader(io.BytesIO(sample.data[:place] + extra + sample.data[place:]))
            assert list(reader.frames()) == sample.frames
            assert reader.complete
            extra = pack_unit(kind, b"anything at all")
            with pytest.raises(UnsupportedVersionError, match=kind.decode()):
                BitstreamReader(io.BytesIO(sample.data[:place] + extra + sample.data[place:]))


def test_a_known_unit_with_unknown_flags_is_of_a_newer_version(sample):
    import zlib

    start, end = sample.frame_spans()[1]
    body = bytearray(sample.data[start : end - 4])
    body[4] |= 0x02
    sealed = bytes(body) + zlib.crc32(body).to_bytes(4, "little")
    with pytest.raises(UnsupportedVersionError, match="update vidcodec"):
        BitstreamReader(io.BytesIO(sample.data[:start] + sealed + sample.data[end:]))


@pytest.mark.parametrize("kind", [b"abcd", b"ABC", b"ABCDE", b"AB1D", b""])
def test_unit_types_are_four_capitals(kind):
    with pytest.raises(ValueError, match="4 ASCII capitals"):
        pack_unit(kind, b"")
