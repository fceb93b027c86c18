"""A damaged file gives every intact frame as it was, names what was lost, and never a wrong frame."""

from __future__ import annotations

import dataclasses
import io
import random

import pytest

from vidcodec.bitstream import BitstreamReader, bitstream_bytes, pack_unit
from vidcodec.bitstream.fields import varint
from vidcodec.bitstream.units import UnitFile
from vidcodec.errors import CorruptBitstreamError, TruncatedBitstreamError, VidcodecError


def opened(data: bytes, **options: bool) -> BitstreamReader:
    return BitstreamReader(io.BytesIO(data), **options)


def flipped(data: bytes, *places: int, mask: int = 0x01) -> bytes:
    out = bytearray(data)
    for place in places:
        out[place] ^= mask
    return bytes(out)


def undecodable(reader: BitstreamReader) -> set[int]:
    """Frames whose update was lost."""
    lost = set()
    for index in range(reader.header.frame_count):
        try:
            reader.update_for(index)
        except CorruptBitstreamError:
            lost.add(index)
    return lost


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_any_flipped_byte_costs_only_its_own_unit(sample, mask):
    updates = sample.update_spans()
    for place in range(len(sample.data)):
        reader = opened(flipped(sample.data, place, mask=mask))
        expected = [
            f for f, (start, end) in zip(sample.frames, sample.frame_spans(), strict=True) if not start <= place < end
        ]
        assert list(reader.frames()) == expected, place
        assert reader.header == sample.header
        assert reader.problems, place
        lost = {i for i, (start, end) in enumerate(updates) if start <= place < end}
        assert reader.updates == [u for i, u in enumerate(sample.updates) if i not in lost]
        assert undecodable(reader) == {f for i in lost for f in ((0, 1), (2, 3))[i]}
        assert reader.complete == (len(expected) == 4 and not lost)
        assert sum(reader.sizes.values()) == len(sample.data)
        with pytest.raises((CorruptBitstreamError, TruncatedBitstreamError)):
            opened(flipped(sample.data, place, mask=mask), strict=True)


def test_any_flipped_byte_costs_only_its_own_unit_without_an_index_too(sample):
    """The last 30 bytes are gone, so that units are found by search."""
    cut = sample.data[:-30]
    (head, *_), updates = sample.units(), sample.update_spans()
    for place in range(head[2], sample.frame_spans()[-1][1]):
        reader = opened(flipped(cut, place))
        expected = [
            f for f, (start, end) in zip(sample.frames, sample.frame_spans(), strict=True) if not start <= place < end
        ]
        assert list(reader.frames()) == expected, place
        for i, (start, end) in enumerate(updates):
            if start <= place < end:
                assert undecodable(reader) >= set(((0, 1), (2, 3))[i])
                assert not undecodable(reader) & set(((2, 3), (0, 1))[i])


def test_any_cut_leaves_every_whole_frame(sample):
    head_end = sample.units()[0][2]
    for length in range(len(sample.data)):
        cut = sample.data[:length]
        if length < head_end:
            with pytest.raises(VidcodecError):
                opened(cut)
            continue
        reader = opened(cut)
        whole = [f for f, (_, end) in zip(sample.frames, sample.frame_spans(), strict=True) if end <= length]
        assert list(reader.frames()) == whole
        assert not undecodable(reader) & {f.index for f in whole}
        assert "end" in " ".join(reader.problems)
        with pytest.raises(TruncatedBitstreamError):
            opened(cut, strict=True)


def test_problems_name_what_was_lost(sample):
    start, end = sample.frame_spans()[2]
    damaged = opened(flipped(sample.data, start + 20))
    assert damaged.problems == ["frame 2: checksum of the unit does not match, left out"]
    with pytest.raises(CorruptBitstreamError, match="frame 2"):
        damaged.frame(2)
    assert opened(sample.data[: end - 3]).problems == [
        "file ends inside frame 2",
        "frame 3: missing",
        "index missing, rebuilt",
        "end marker missing",
    ]


def test_a_damaged_header_is_taken_from_the_index(sample):
    reader = opened(flipped(sample.data, 30))
    assert reader.problems == ["header: damaged, its copy in the index is used"]
    assert reader.complete
    with pytest.raises(CorruptBitstreamError, match="nothing can be decoded"):
        opened(flipped(sample.data, 30, sample.units()[-2][1] + 20))


def test_header_and_end_marker_damaged_together_are_survived(sample):
    reader = opened(flipped(sample.data, 30, len(sample.data) - 1))
    assert list(reader.frames()) == sample.frames


def test_two_neighbours_lost_and_a_stretch_cut_out(sample):
    (first, _), (second, _), (third, _), _ = sample.frame_spans()
    reader = opened(flipped(sample.data, first + 5, second + 14))
    assert reader.frame_indices == [2, 3]
    reader = opened(sample.data[: first + 7] + sample.data[third - 5 :])
    assert reader.frame_indices == [2, 3]
    assert 2 in reader.missing_updates
    assert undecodable(reader) == {2, 3}
    assert undecodable(opened(sample.data[:first] + b"\r" + sample.data[first:])) == set()


def test_random_damage_never_gives_a_wrong_frame(sample):
    rng = random.Random(7)
    for _ in range(500):
        data = bytearray(sample.data)
        for _ in range(rng.randint(1, 4)):
            a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
            action = rng.randrange(3)
            if action == 0:
                data[a : min(b, a + 40)] = b""
            elif action == 1:
                data[a:a] = rng.randbytes(rng.randint(1, 30))
            else:
                data[a : a + 4] = rng.randbytes(len(data[a : a + 4]))
        try:
            reader = opened(bytes(data))
        except VidcodecError:
            continue
        assert reader.header == sample.header
        safe = set(range(4)) - undecodable(reader)
        for frame in reader.frames():
            assert frame == sample.frames[frame.index]
            if frame.index in safe:
                assert reader.update_for(frame.index) == sample.updates[frame.index // 2]
        assert sum(reader.sizes.values()) == len(data)


def test_trailing_bytes_are_reported_and_ignored(sample):
    for tail in (b"\0", b"garbage" * 100, sample.data):
        reader = opened(sample.data + tail)
        assert reader.problems == [f"{len(tail)} bytes after the end marker, ignored"]
        assert list(reader.frames()) == sample.frames
        assert reader.complete


def test_the_index_of_a_file_glued_behind_is_not_believed(sample):
    other = bitstream_bytes(
        sample.header, [sample.updates[0], dataclasses.replace(sample.updates[1], first_frame=1)], sample.frames
    )
    reader = opened(sample.data + other)
    assert reader.complete
    assert undecodable(reader) == set()
    assert len(reader.problems) == 1


def test_sealed_nonsense_is_left_out(sample):
    """Units whose checksums hold, but whose contents do not."""
    head_end = sample.units()[0][2]
    huge = 2**60
    for kind, payload in (
        (b"FRAM", varint(0) + varint(0) + bytes(4) + varint(huge)),
        (b"FRAM", varint(huge) + varint(0) + bytes(4) + varint(0)),
        (b"FRAM", b""),
        (b"UPDT", varint(huge)),
        (b"UPDT", varint(4)),
        (b"INDX", varint(huge)),
        (b"INDX", varint(0) + varint(huge)),
        (b"INDX", varint(0) + varint(1) + varint(2)),
        (b"HEAD", sample.header.to_bytes()),
    ):
        extra = pack_unit(kind, payload)
        reader = opened(sample.data[:head_end] + extra + sample.data[head_end:])
        assert list(reader.frames()) == sample.frames
        assert reader.problems
        assert reader.sizes["damaged"] >= len(extra)


@pytest.mark.parametrize("payload", [b"", b"\0" * 12, b"\xff" * 12, b"\xff" * 13])
def test_a_sealed_but_wrong_end_marker_harms_no_frame(sample, payload):
    body = sample.data[: sample.units()[-1][1]]
    reader = opened(body + pack_unit(b"DONE", payload))
    assert list(reader.frames()) == sample.frames
    assert reader.problems


def test_a_repeated_frame_is_left_out(sample):
    start, end = sample.frame_spans()[1]
    reader = opened(sample.data[:end] + sample.data[start:])
    assert list(reader.frames()) == sample.frames
    assert any("out of place" in problem for problem in reader.problems)


def test_a_header_that_promises_millions_costs_nothing(sample):
    """Sixteen million frames and updates promised, none there."""
    promise = dataclasses.replace(sample.header, frame_count=2**24, update_count=2**24)
    reader = opened(sample.data[:8] + pack_unit(b"HEAD", promise.to_bytes()))
    assert len(reader) == 0
    assert len(reader.problems) < 10
    with pytest.raises(CorruptBitstreamError):
        reader.update_for(2**24 - 1)


def test_lengths_beyond_the_file_read_nothing(sample):
    class Counting(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert size >= 0
            Counting.largest = max(Counting.largest, size)
            return super().read(size)

    start = sample.frame_spans()[0][0]
    for length in (2**32 - 1, 2**31, 2**30, 2**20):
        data = sample.data[: start + 5] + length.to_bytes(4, "little") + sample.data[start + 9 :]
        reader = BitstreamReader(Counting(data))
        assert reader.frame_indices == [1, 2, 3]
        assert Counting.largest <= len(data)


def test_a_file_made_to_be_slow_is_given_up_on(sample):
    """Every second byte pair claims a unit as long as all the rest; the search stops instead of growing squarely."""
    unit = b"FRAM\x01" + (150_000).to_bytes(4, "little")
    data = sample.data[: sample.units()[0][2]] + unit * 40_000
    file = UnitFile(io.BytesIO(data))
    assert len(list(file.walk(8))) < 10
    assert len(opened(data)) == 0


def test_a_whole_file_inside_an_update_does_not_mislead(sample):
    header = dataclasses.replace(sample.header, update_count=1)
    nested = bitstream_bytes(header, [dataclasses.replace(sample.updates[0], payload=sample.data)], sample.frames)
    place = nested.index(b"UPDT") + 13  # inside the outer update, before the nested file
    for data in (flipped(nested, place), flipped(nested, place)[:-30]):
        reader = opened(data)
        assert reader.updates == []
        assert list(reader.frames()) == sample.frames
        assert undecodable(reader) == {0, 1, 2, 3}
