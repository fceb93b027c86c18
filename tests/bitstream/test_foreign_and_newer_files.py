"""Files that are not ours, or from a later vidcodec, get an error that says what to do."""

from __future__ import annotations

import io
import zlib

import pytest

from vidcodec.bitstream import MAGIC, BitstreamReader, pack_unit
from vidcodec.errors import InputError, NotABitstreamError, TruncatedBitstreamError, UnsupportedVersionError

VERSION_1 = """
895644430d0a1a0a48454144013c000000010100003412080a06060601000102030405060708090a0b0c0d0e0f646566
6768696a6be002a00204028001750190bf050201086d73702d626173657d7d7a7a55504454010d000000006669727374
207570646174650a0de3174652414d01110000000000efbeadde0000ff00ff00ff00ff00fff1df3a054652414d011200
00000190bf05f0beadde017a01ff01ff01ff01ffc4068a5b555044540107000000027365636f6e641767d8634652414d
011100000002a0fe0af1beadde027a7a02ff02ff02ffa074f7c34652414d011000000003b0bd10f2beadde037a7a7a03
ff03ff864642b0494e445800460000003c010100003412080a06060601000102030405060708090a0b0c0d0e0f646566
6768696a6be002a00204028001750190bf050201086d73702d6261736506350044481d02444029abce75444f4e45010c
000000040000008f8fe742530000000919744e
"""


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
    with pytest.raises(UnsupportedVersionError, match=r"version 7.*up to 2.*update vidcodec"):
        BitstreamReader(io.BytesIO(data))


def test_a_newer_version_is_named_by_its_index_where_its_header_is_damaged():
    """Only the copy of the header is read of an index that may look like anything."""
    head, index = pack_unit(b"HEAD", b"\x07 all new"), pack_unit(b"INDX", b"\x08\x07 all new\xff\xff and more")
    data = bytearray(MAGIC + head + pack_unit(b"FRAM", b"all new too") + index)
    data[len(MAGIC) + 12] ^= 1
    with pytest.raises(UnsupportedVersionError, match=r"version 7.*up to 2.*update vidcodec"):
        BitstreamReader(io.BytesIO(bytes(data)))


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


def resealed(data: bytes, span: tuple[int, int], place: int, mask: int) -> bytes:
    """The file with one byte of a unit (from its beginning) flipped, and its checksum made to fit."""
    start, end = span
    body = bytearray(data[start : end - 4])
    body[place] ^= mask
    return data[:start] + bytes(body) + zlib.crc32(body).to_bytes(4, "little") + data[end:]


@pytest.mark.parametrize("mask", [0x02, 0x80])
def test_a_known_unit_with_unknown_flags_is_of_a_newer_version(sample, mask):
    with pytest.raises(UnsupportedVersionError, match="update vidcodec"):
        BitstreamReader(io.BytesIO(resealed(sample.data, sample.frame_spans()[1], 4, mask)))


@pytest.mark.parametrize("mask", [0x04, 0x08, 0x80])
def test_a_frame_with_unknown_flags_is_of_a_newer_version(sample, mask):
    with pytest.raises(UnsupportedVersionError, match="update vidcodec"):
        BitstreamReader(io.BytesIO(resealed(sample.data, sample.frame_spans()[1], 9, mask)))


def version_1() -> bytes:
    """A file of format version 1, as vidcodec 0.1.0 wrote it: two updates, four frames."""
    return bytes.fromhex(VERSION_1)


def test_a_file_of_version_1_names_the_vidcodec_that_reads_it():
    with pytest.raises(UnsupportedVersionError, match=r"format version 1, .*vidcodec 0\.1\.0"):
        BitstreamReader(io.BytesIO(version_1()))


def test_a_damaged_file_of_version_1_still_names_it():
    """Its index has entries of another layout, but begins with the same copy of the header."""
    for place in (3, 8, 21, 22, 40, 78):
        data = bytearray(version_1())
        data[place] ^= 0x10
        with pytest.raises(UnsupportedVersionError, match=r"vidcodec 0\.1\.0"):
            BitstreamReader(io.BytesIO(bytes(data)))


@pytest.mark.parametrize("kind", [b"abcd", b"ABC", b"ABCDE", b"AB1D", b""])
def test_unit_types_are_four_capitals(kind):
    with pytest.raises(ValueError, match="4 ASCII capitals"):
        pack_unit(kind, b"")
