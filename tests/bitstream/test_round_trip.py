"""What is written comes back, and the bytes on disk do not change by accident."""

from __future__ import annotations

import dataclasses
import io
import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcodec.bitstream import FORMAT_VERSION, BitstreamReader, FrameUnit, Header, Settings, UpdateUnit, bitstream_bytes
from vidcodec.bitstream.fields import FieldReader, signed_varint, varint
from vidcodec.errors import CorruptBitstreamError, UnsupportedVersionError

GOLDEN = """
895644430d0a1a0a4845414401360000000201080a06060601000102030405060708090a0b0c0d0e0f6465666768696a
6be002a0028001750190bf050201086d73702d626173655f365ac955504454010f000000010000666972737420757064
617465604fd9ab4652414d011d000000020000efbeaddeb424000100ff00ff00ff00ff00ff00ff00ff00ff00ff92c238
1a4652414d011b000000010190bf05f0beadde017a01ff01ff01ff01ff01ff01ff01ff01ff637fadc14652414d011e00
00000302a0fe0af1beadde80209101027a7a02ff02ff02ff02ff02ff02ff02ffe89d5d3d555044540109000000020103
7365636f6e64a62c816d4652414d011d0000000203b0bd10f2beaddeffff0353027a7a7a03ff03ff03ff03ff03ff03ff
90df2ab34652414d01180000000104c0fc15f3beadde017a7a7a7a04ff04ff04ff04ff04ff074b072d4652414d011700
00000105d0bb1bf4beadde017a7a7a7a7a05ff05ff05ff05fff56b92c855504454010300000003000698803b09465241
4d01180000000206e0fa20f5beadde0000037a7a7a7a7a7a06ff06ff06ff65ffc2644652414d01150000000107f0b926
f6beadde017a7a7a7a7a7a7a07ff07ff0890934e4652414d0117000000020880f92bf7beaddeb42400007a7a7a7a7a7a
7a7a08ff98d67413494e44580047000000360201080a06060601000102030405060708090a0b0c0d0e0f646566676869
6a6be002a0028001750190bf050201086d73702d626173650c3d00766c78250376605c0d0662545e3fe0223c444f4e45
010c00000009000000f1e0d0d6540000003529d1b4
"""

terms = st.integers(1, 2**31 - 1)
fractions = st.builds(Fraction, terms, terms)
u8 = st.integers(0, 255)
headers = st.builds(
    Header,
    model=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64),
    model_digest=st.binary(min_size=16, max_size=16),
    tables_digest=st.binary(min_size=8, max_size=8),
    arithmetic=u8,
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
    extra=st.binary(max_size=300),
)
numbers = st.integers(0, 2**24 - 1)
levels = st.integers(0, 65535)
all_pts = st.integers(-(2**63), 2**63 - 1)
checksums = st.integers(0, 2**32 - 1)
settings_of_frames = st.builds(Settings, levels, u8, numbers)
frame_units = numbers.flatmap(
    lambda index: st.builds(
        FrameUnit,
        st.just(index),
        all_pts,
        st.binary(max_size=300),
        checksums,
        levels,
        u8,
        numbers,
        st.integers(0, index),
    )
)
update_units = st.integers(1, 2**24 - 1).flatmap(
    lambda number: st.builds(UpdateUnit, st.just(number), st.integers(0, number - 1), numbers, st.binary(max_size=300))
)


@st.composite
def files(draw: st.DrawFn) -> tuple[Header, list[UpdateUnit], list[FrameUnit]]:
    """Any video that may be written: chains of any length, references within them, updates with parents."""
    count = draw(st.integers(0, 12))
    starts = sorted(draw(st.lists(st.integers(0, count), max_size=4)))
    updates = [
        UpdateUnit(n, draw(st.integers(0, n - 1)), first, draw(st.binary(max_size=50)))
        for n, first in enumerate(starts, 1)
    ]
    frames: list[FrameUnit] = []
    key = FrameUnit(0, 0, b"", 0, 0, 0, 0)
    for index in range(count):
        own = Settings(draw(levels), draw(u8), key.update)
        reference = draw(st.integers(0, index - key.index))
        if not reference:
            known = [0, *(u.number for u in updates if u.first_frame <= index)]
            own = own._replace(update=draw(st.sampled_from(known)))
        elif draw(st.booleans()):
            own = key.settings
        frames.append(FrameUnit(index, draw(all_pts), draw(st.binary(max_size=90)), draw(checksums), *own, reference))
        if not reference:
            key = frames[-1]
    return draw(headers), updates, frames


@given(headers)
def test_any_header_round_trips(header):
    assert Header.from_bytes(header.to_bytes()) == header


@given(frame_units, st.one_of(st.none(), settings_of_frames))
def test_any_frame_round_trips(frame, inherited):
    for its in (inherited, frame.settings):
        assert FrameUnit.from_bytes(frame.to_bytes(its), its) == frame
    assert FrameUnit.from_bytes(frame.to_bytes(), inherited) == frame  # what it carries goes before what it inherits


@given(frame_units)
def test_a_predicted_frame_says_only_what_differs_from_its_key_frame(frame):
    short, whole = frame.to_bytes(frame.settings), frame.to_bytes()
    if frame.is_key:
        assert short == whole
        return
    assert len(whole) - len(short) == len(varint(frame.level)) + 1 + len(varint(frame.update))
    with pytest.raises(CorruptBitstreamError, match="key frame that is not at hand"):
        FrameUnit.from_bytes(short)


@given(update_units)
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


@given(files())
@settings(max_examples=100, deadline=None)
def test_any_file_round_trips(made):
    header, updates, frames = made
    file = bitstream_bytes(header, updates, frames)
    reader = BitstreamReader(io.BytesIO(file), strict=True)
    assert reader.header == header
    assert [reader.update(n) for n in reader.update_numbers] == updates
    assert list(reader.frames()) == frames
    assert reader.complete
    assert reader.counted
    assert reader.frame_count == len(frames)
    assert reader.chain_starts == [f.index for f in frames if f.is_key]
    assert sum(reader.sizes.values()) == len(file)
    for frame in frames:
        path = reader.reference_path(frame.index)
        assert path[0] == reader.chain_start(frame.index) <= frame.index == path[-1]
        assert [b - a for a, b in itertools.pairwise(path)] == [frames[i].reference for i in path[1:]]
        payloads, number = [], frame.update
        while number:
            payloads, number = [updates[number - 1].payload, *payloads], updates[number - 1].parent
        assert reader.update_chain(frame.update) == payloads


def test_the_format_is_what_it_was(sample):
    """A change here breaks every file out there: raise FORMAT_VERSION and say who reads this one."""
    golden = bytes.fromhex(GOLDEN)
    assert FORMAT_VERSION == 2
    assert sample.data == golden
    reader = BitstreamReader(io.BytesIO(golden), strict=True)
    assert (reader.header, list(reader.frames())) == (sample.header, sample.frames)
    assert [reader.update(n) for n in (1, 2, 3)] == sample.updates


def test_overheads_stay_small(header):
    """A file of predicted frames that have nothing to say but their symbols: what each of them adds to it."""
    assert len(header.to_bytes()) + 13 < 100

    def size(count: int, reference: int, unit: int) -> int:
        frames = [FrameUnit(i, unit * i, bytes(1000), 1, 900, 3, 0, i and reference) for i in range(count)]
        return len(bitstream_bytes(header, [], frames)) - 1000 * count

    in_index = 2
    assert size(100, 1, 1) - size(99, 1, 1) == 22 + 1 + in_index - 1  # time stamps that count frames
    assert size(100, 1, 45000) - size(99, 1, 45000) <= 24 + in_index
    assert size(100, 0, 45000) - size(99, 0, 45000) <= 27 + in_index  # key frames, with their settings


def test_sizes_tell_where_the_bytes_went(sample):
    reader = BitstreamReader(io.BytesIO(sample.data))
    assert reader.sizes["update"] == sum(len(u.payload) for u in sample.updates)
    assert reader.sizes["frames"] == sum(len(f.payload) for f in sample.frames)
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
        {"tables_digest": b"x" * 9},
        {"arithmetic": 256},
        {"width": 0},
        {"height": 16385},
        {"width": 16384, "height": 16384},
        {"bit_depth": 12},
        {"rotation": 45},
        {"sample_aspect": Fraction(-1)},
        {"time_base": Fraction(0)},
        {"time_base": Fraction(1, 2**31)},
        {"frame_rate": Fraction(2**31)},
        {"extra": bytes(4097)},
    ],
)
def test_a_header_out_of_bounds_cannot_be_made(header, change):
    with pytest.raises(ValueError):
        dataclasses.replace(header, **change)


def test_a_header_out_of_bounds_is_not_read(header):
    good = header.to_bytes()
    for offset, value in ((0, 0), (2, 12), (3, 0x80), (32, 0)):  # version, bit depth, flags, width
        bad = bytearray(good)
        bad[offset] = value
        with pytest.raises(CorruptBitstreamError):
            Header.from_bytes(bytes(bad))
    zero_denominator = good.replace(varint(128) + varint(117), varint(128) + varint(0))
    with pytest.raises(CorruptBitstreamError, match="denominator 0"):
        Header.from_bytes(zero_denominator)
