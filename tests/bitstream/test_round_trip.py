"""What is written comes back, and the bytes on disk do not change by accident."""

from __future__ import annotations

import dataclasses
import io
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcodec.bitstream import FORMAT_VERSION, BitstreamReader, FrameUnit, Header, UpdateUnit, bitstream_bytes
from vidcodec.bitstream.fields import FieldReader, signed_varint, varint
from vidcodec.errors import CorruptBitstreamError, UnsupportedVersionError

GOLDEN = """
895644430d0a1a0a48454144013c000000010100003412080a06060601000102030405060708090a0b0c0d0e0f646566
6768696a6be002a00204028001750190bf050201086d73702d626173657d7d7a7a55504454010d000000006669727374
207570646174650a0de3174652414d01110000000000efbeadde0000ff00ff00ff00ff00fff1df3a054652414d011200
00000190bf05f0beadde017a01ff01ff01ff01ffc4068a5b555044540107000000027365636f6e641767d8634652414d
011100000002a0fe0af1beadde027a7a02ff02ff02ffa074f7c34652414d011000000003b0bd10f2beadde037a7a7a03
ff03ff864642b0494e445800460000003c010100003412080a06060601000102030405060708090a0b0c0d0e0f646566
6768696a6be002a00204028001750190bf050201086d73702d6261736506350044481d02444029abce75444f4e45010c
000000040000008f8fe742530000000919744e
"""

terms = st.integers(1, 2**31 - 1)
fractions = st.builds(Fraction, terms, terms)
u8 = st.integers(0, 255)
headers = st.integers(0, 2**24).flatmap(
    lambda frame_count: st.builds(
        Header,
        model=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64),
        model_digest=st.binary(min_size=16, max_size=16),
        bank_digest=st.binary(min_size=8, max_size=8),
        arithmetic=u8,
        level=st.integers(0, 65535),
        width=st.integers(1, 16384),
        height=st.integers(1, 8192),
        bit_depth=st.sampled_from((8, 10)),
        matrix=u8,
        primaries=u8,
        transfer=u8,
        full_range=st.booleans(),
        chroma_location=u8,
        sample_aspect=st.one_of(st.just(Fraction(0)), fractions),
        rotation=st.sampled_from((0, 90, 180, 270)),
        time_base=fractions,
        frame_rate=st.one_of(st.none(), fractions),
        frame_count=st.just(frame_count),
        update_count=st.integers(0, frame_count),
        quantizer=u8,
        extra=st.binary(max_size=300),
    )
)
frame_units = st.builds(
    FrameUnit,
    index=st.integers(0, 2**24 - 1),
    pts=st.integers(-(2**63), 2**63 - 1),
    z=st.binary(max_size=300),
    y=st.binary(max_size=300),
    checksum=st.integers(0, 2**32 - 1),
)


@given(headers)
def test_any_header_round_trips(header):
    assert Header.from_bytes(header.to_bytes()) == header


@given(frame_units)
def test_any_frame_round_trips(frame):
    assert FrameUnit.from_bytes(frame.to_bytes()) == frame


@given(st.builds(UpdateUnit, st.integers(0, 2**24 - 1), st.binary(max_size=300)))
def test_any_update_round_trips(update):
    assert UpdateUnit.from_bytes(update.to_bytes()) == update


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_number_round_trips(value):
    assert FieldReader(signed_varint(value), "test").signed_varint() == value
    assert FieldReader(varint(abs(value)), "test").varint() == abs(value)


@pytest.mark.parametrize("data", [b"\x80\x00", b"\xff" * 10 + b"\x01", b"\xff" * 9 + b"\x02", b"\x80", b""])
def test_a_number_has_one_encoding_and_64_bits(data):
    with pytest.raises(CorruptBitstreamError):
        FieldReader(data, "test").varint()


@given(st.binary(max_size=200))
def test_random_payloads_raise_nothing_but_our_errors(data):
    for parse in (Header.from_bytes, FrameUnit.from_bytes, UpdateUnit.from_bytes):
        try:
            unit = parse(data)
        except (CorruptBitstreamError, UnsupportedVersionError):
            continue
        assert unit.to_bytes() == data


@given(st.data())
@settings(max_examples=60)
def test_any_file_round_trips(data):
    header = data.draw(headers)
    count = data.draw(st.integers(0, 8))
    starts = sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=3))) if count else []
    header = dataclasses.replace(header, frame_count=count, update_count=len(starts))
    updates = [UpdateUnit(first, data.draw(st.binary(max_size=50))) for first in starts]
    frames = [dataclasses.replace(data.draw(frame_units), index=index) for index in range(count)]
    file = bitstream_bytes(header, updates, frames)
    reader = BitstreamReader(io.BytesIO(file), strict=True)
    assert reader.header == header
    assert reader.updates == updates
    assert list(reader.frames()) == frames
    assert reader.complete
    assert sum(reader.sizes.values()) == len(file)


def test_the_format_is_what_it_was(sample):
    """A change here breaks every file out there: raise FORMAT_VERSION and keep reading this one."""
    golden = bytes.fromhex(GOLDEN)
    assert FORMAT_VERSION == 1
    assert sample.data == golden
    reader = BitstreamReader(io.BytesIO(golden), strict=True)
    assert (reader.header, reader.updates, list(reader.frames())) == (sample.header, sample.updates, sample.frames)


def test_overheads_stay_small(header):
    assert len(header.to_bytes()) + 13 < 100
    updates = [UpdateUnit(0, b""), UpdateUnit(1, b"")]

    def size(count: int) -> int:
        some = dataclasses.replace(header, frame_count=count)
        frames = [FrameUnit(i, 45000 * i, b"z" * 100, b"y" * 900, 1) for i in range(count)]
        return len(bitstream_bytes(some, updates, frames))

    assert size(100) - size(99) - 1000 <= 26  # the frame's unit and its entry in the index
    assert len(FrameUnit(1, 45000, b"z" * 100, b"y" * 900, 1).to_bytes()) - 1000 + 13 <= 22


def test_sizes_tell_where_the_bytes_went(sample):
    reader = BitstreamReader(io.BytesIO(sample.data))
    assert reader.sizes["update"] == sum(len(u.payload) for u in sample.updates)
    assert reader.sizes["frames"] == sum(len(f.z) + len(f.y) for f in sample.frames)
    assert reader.stream_sizes == {"z": sum(len(f.z) for f in sample.frames), "y": sum(len(f.y) for f in sample.frames)}
    assert reader.sizes["damaged"] == 0
    assert sum(reader.sizes.values()) == len(sample.data)


@pytest.mark.parametrize(
    "change",
    [
        {"model": ""},
        {"model": "m" * 65},
        {"model": "tab\t"},
        {"model": "modèle"},
        {"model_digest": b"short"},
        {"bank_digest": b"x" * 9},
        {"arithmetic": 256},
        {"level": -1},
        {"width": 0},
        {"height": 16385},
        {"width": 16384, "height": 16384},
        {"bit_depth": 12},
        {"rotation": 45},
        {"sample_aspect": Fraction(-1)},
        {"time_base": Fraction(0)},
        {"time_base": Fraction(1, 2**31)},
        {"frame_rate": Fraction(2**31)},
        {"frame_count": 2**24 + 1},
        {"update_count": 5},
        {"coding_order": 1},
        {"extra": bytes(4097)},
    ],
)
def test_a_header_out_of_bounds_cannot_be_made(header, change):
    with pytest.raises(ValueError):
        dataclasses.replace(header, **change)


def test_a_header_out_of_bounds_is_not_read(header):
    good = header.to_bytes()
    for offset, value in ((0, 0), (6, 12), (7, 0x80), (36, 0)):  # version, bit depth, flags, width
        bad = bytearray(good)
        bad[offset] = value
        with pytest.raises(CorruptBitstreamError):
            Header.from_bytes(bytes(bad))
    zero_denominator = good.replace(varint(128) + varint(117), varint(128) + varint(0))
    with pytest.raises(CorruptBitstreamError, match="denominator 0"):
        Header.from_bytes(zero_denominator)


def test_an_unknown_coding_order_asks_for_an_update(header):
    data = bytearray(header.to_bytes())
    data[3] = 1
    with pytest.raises(UnsupportedVersionError, match="update vidcodec"):
        Header.from_bytes(bytes(data))
