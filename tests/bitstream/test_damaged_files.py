"""A damaged file gives every frame that can still be decoded as it was, names what was lost, and never a wrong one."""

from __future__ import annotations

import dataclasses
import io
import random
import re

import pytest
from bitstream_support import Sample, make_frame

from vidcodec.bitstream import BitstreamReader, FrameUnit, UpdateUnit, bitstream_bytes, pack_unit
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


def check(reader: BitstreamReader, sample: Sample) -> None:
    """What is given is right, with all that it needs; what is not given is named."""
    given = list(reader.frames())
    assert [f.index for f in given] == reader.frame_indices
    assert given == [sample.frames[f.index] for f in given]
    there = {f.index for f in given}
    for frame in given:
        assert set(reader.reference_path(frame.index)) <= there
        expected, number = [], frame.update
        while number:
            expected.insert(0, sample.updates[number - 1].payload)
            number = sample.updates[number - 1].parent
        assert reader.update_chain(frame.update) == expected
        assert reader.why_lost(frame.index) is None
    named: set[int] = set()
    for problem in reader.problems:
        if match := re.search(r"frames? (\d+)(?: to (\d+))?(?:: |$)", problem):
            named |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    for index in range(reader.frame_count):
        if index not in there:
            assert index in named, (index, reader.problems)
            assert (reader.why_lost(index) or "").startswith(f"frame {index} ")
            with pytest.raises(CorruptBitstreamError, match=f"frame {index} "):
                reader.frame(index)
    if reader.counted and reader.header == sample.header:
        assert reader.frame_count == len(sample.frames)


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_any_flipped_byte_costs_only_what_needs_its_unit(sample, mask):
    for place in range(len(sample.data)):
        reader = opened(flipped(sample.data, place, mask=mask))
        frames, updates = sample.untouched(place)
        assert reader.frame_indices == sample.decodable(frames, updates), place
        check(reader, sample)
        assert reader.header == sample.header
        assert reader.problems, place
        assert reader.counted
        assert reader.update_numbers == sorted(updates)
        assert reader.missing_updates == [n for n in (1, 2, 3) if n not in updates]
        assert reader.chain_starts == [0, 3, 6, 8]
        assert reader.complete == (len(frames) == 9 and len(updates) == 3)
        assert sum(reader.sizes.values()) == len(sample.data)
        with pytest.raises((CorruptBitstreamError, TruncatedBitstreamError)):
            opened(flipped(sample.data, place, mask=mask), strict=True)


def test_any_flipped_byte_costs_only_what_needs_its_unit_without_an_index_too(sample):
    """The last 30 bytes are gone, so that units are found by search and nothing tells how many there were."""
    cut = sample.data[:-30]
    for place in range(sample.units()[0][2], sample.frame_spans()[-1][1]):
        reader = opened(flipped(cut, place))
        frames, updates = sample.untouched(place)
        assert reader.frame_indices == sample.decodable(frames, updates), place
        check(reader, sample)
        assert not reader.counted
        assert not reader.complete
        assert f"the number of frames is not known: at least {reader.frame_count}" in reader.problems
        last_is_lost_from_sight = 8 not in frames and reader.frame_count == 8
        assert reader.frame_count == 9 or last_is_lost_from_sight


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
        check(reader, sample)
        assert "end" in " ".join(reader.problems)
        assert reader.counted == (length >= sample.units()[-2][2])  # the index is whole
        with pytest.raises(TruncatedBitstreamError):
            opened(cut, strict=True)


@pytest.fixture(scope="module")
def long_sample(header) -> Sample:
    """Forty frames in chains of all kinds, eight updates that build on each other."""
    rng = random.Random(3)
    updates = [UpdateUnit(n, rng.randrange(n), 4 * n, rng.randbytes(rng.randint(0, 40))) for n in range(1, 9)]
    frames: list[FrameUnit] = []
    key = 0
    for index in range(40):
        if index == 0 or rng.random() < 0.2:
            key = index
            known = [0, *(u.number for u in updates if u.first_frame <= index)]
            own = (rng.randrange(65536), rng.randrange(256), rng.choice(known))
        reference = rng.randint(1, index - key) if index > key else 0
        level = rng.choice((own[0], rng.randrange(65536))) if reference else own[0]
        payload = rng.randbytes(rng.randint(0, 120))
        frames.append(FrameUnit(index, 512 * index, payload, rng.getrandbits(32), level, *own[1:], reference))
    return Sample(header, updates, frames, bitstream_bytes(header, updates, frames))


def test_the_long_sample_has_everything(long_sample):
    frames = long_sample.frames
    assert sum(f.is_key for f in frames) >= 5
    assert max(f.reference for f in frames) >= 3
    assert len({f.update for f in frames}) >= 4
    assert any(u.parent for u in long_sample.updates)
    reader = opened(long_sample.data, strict=True)
    check(reader, long_sample)
    assert len(reader) == 40


def test_500_flips_and_100_cuts_never_give_a_wrong_frame(long_sample):
    rng = random.Random(11)
    lost = 0
    for _ in range(500):
        places = [rng.randrange(8, len(long_sample.data)) for _ in range(rng.randint(1, 6))]
        data = flipped(long_sample.data, *places, mask=rng.randint(1, 255))
        frames, updates = long_sample.untouched(*places)
        try:
            reader = opened(data)
        except CorruptBitstreamError:
            hit = {kind for kind, a, b in long_sample.units() if any(a <= place < b for place in places)}
            assert hit >= {b"HEAD", b"INDX"}
            continue
        assert reader.frame_indices == long_sample.decodable(frames, updates)
        check(reader, long_sample)
        lost += 40 - len(reader)
    assert lost > 500  # this does damage
    for _ in range(100):
        length = rng.randrange(long_sample.units()[0][2], len(long_sample.data))
        reader = opened(long_sample.data[:length])
        check(reader, long_sample)
        assert len(reader) == sum(end <= length for _, end in long_sample.frame_spans())


def test_stretches_cut_out_put_in_and_overwritten_never_give_a_wrong_frame(long_sample):
    rng = random.Random(7)
    for _ in range(300):
        data = bytearray(long_sample.data)
        for _ in range(rng.randint(1, 4)):
            a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
            action = rng.randrange(4)
            if action == 0:
                data[a : min(b, a + 400)] = b""
            elif action == 1:
                data[a:a] = rng.randbytes(rng.randint(1, 30))
            elif action == 2:
                data[a:a] = data[b : b + 500]  # units told twice
            else:
                data[a : a + 4] = rng.randbytes(len(data[a : a + 4]))
        try:
            reader = opened(bytes(data))
        except VidcodecError:
            continue
        assert reader.header == long_sample.header
        check(reader, long_sample)
        assert sum(reader.sizes.values()) == len(data)


def test_problems_name_what_was_lost_and_what_needs_it(sample):
    spans = sample.frame_spans()
    damaged = opened(flipped(sample.data, spans[3][0] + 20))
    assert damaged.problems == [
        "frame 3: checksum of the unit does not match, left out",
        "frames 4 to 5: need frame 3, which is damaged",
    ]
    assert damaged.why_lost(3) == "frame 3 is damaged"
    with pytest.raises(CorruptBitstreamError, match="frame 5 needs frame 3, which is damaged"):
        damaged.frame(5)
    with pytest.raises(CorruptBitstreamError, match="frame 5 needs frame 3, which is damaged"):
        damaged.chain_start(5)
    assert opened(flipped(sample.data, spans[1][0] + 20)).problems == [
        "frame 1: checksum of the unit does not match, left out"  # frame 2 refers to frame 0
    ]
    assert opened(sample.data[: spans[4][0]] + sample.data[spans[5][0] :]).problems[-2:] == [
        "frame 4: missing",
        "frame 5: needs frame 4, which is missing",
    ]
    assert opened(sample.data[: spans[5][1] - 3]).problems == [
        "file ends inside frame 5",
        "index missing, rebuilt",
        "end marker missing",
        "the number of frames is not known: at least 6",
    ]


def test_frames_of_a_lost_update_are_lost_and_no_others(sample):
    first, second, third = sample.update_spans()
    reader = opened(flipped(sample.data, first[0] + 14))
    assert reader.frame_indices == [6, 7, 8]
    assert reader.problems == [
        "update 1 for frames from 0 on: checksum of the unit does not match, left out",
        "frames 0 to 5: need update 1, which is lost",  # update 2 builds on it
        "updates missing: 1",
    ]
    with pytest.raises(CorruptBitstreamError, match="update 1 is lost"):
        reader.update_chain(1)
    with pytest.raises(CorruptBitstreamError, match="update 2 needs update 1, which is lost"):
        reader.update_chain(2)
    assert reader.update_chain(3) == [b""]
    assert opened(flipped(sample.data, second[0] + 14)).frame_indices == [0, 1, 2, 6, 7, 8]
    assert opened(flipped(sample.data, third[0] + 14)).frame_indices == [0, 1, 2, 3, 4, 5, 8]


def test_a_damaged_header_is_taken_from_the_index(sample):
    reader = opened(flipped(sample.data, 30))
    assert reader.problems == ["header: damaged, its copy in the index is used"]
    assert reader.complete
    with pytest.raises(CorruptBitstreamError, match="nothing can be decoded"):
        opened(flipped(sample.data, 30, sample.units()[-2][1] + 20))


def test_header_and_end_marker_damaged_together_are_survived(sample):
    reader = opened(flipped(sample.data, 30, len(sample.data) - 1))
    assert list(reader.frames()) == sample.frames
    assert reader.counted


@pytest.mark.parametrize("end", [-2, -1])
def test_one_of_both_ends_is_enough_to_count_frames(sample, end):
    """The index or the end marker lost, and the last two frames with it."""
    place = sample.units()[end][1] + 14
    reader = opened(flipped(sample.data, place, *(start + 14 for start, _ in sample.frame_spans()[-2:])))
    assert reader.counted
    assert reader.frame_count == 9
    assert reader.frame_indices == list(range(7))
    check(reader, sample)


def test_two_neighbours_lost_and_a_stretch_cut_out(sample):
    (_, _), (first, _), (second, _), (third, _), *_ = sample.frame_spans()
    reader = opened(flipped(sample.data, first + 5, second + 14))
    assert reader.frame_indices == [0, 3, 4, 5, 6, 7, 8]
    reader = opened(sample.data[: first + 7] + sample.data[third - 5 :])  # update 2 is gone with them
    assert reader.frame_indices == [0, 6, 7, 8]
    assert reader.missing_updates == [2]
    reader = opened(sample.data[:first] + b"\r" + sample.data[first:])
    assert reader.frame_indices == list(range(9))


def test_trailing_bytes_are_reported_and_ignored(sample):
    for tail in (b"\0", b"garbage" * 100, sample.data):
        reader = opened(sample.data + tail)
        assert reader.problems == [f"{len(tail)} bytes after the end marker, ignored"]
        assert list(reader.frames()) == sample.frames
        assert reader.complete


def other_encode(sample: Sample) -> bytes:
    """Other frames of the same video under the same header."""
    frames = [dataclasses.replace(f, payload=b"other" + f.payload) for f in sample.frames]
    return bitstream_bytes(sample.header, sample.updates, frames)


def test_the_index_of_a_file_glued_behind_is_not_believed(sample):
    reader = opened(sample.data + other_encode(sample))
    assert reader.complete
    assert list(reader.frames()) == sample.frames
    assert len(reader.problems) == 1


def test_the_index_of_another_video_is_not_believed(sample):
    """In the place of the right one, with an end marker that leads to it."""
    header = dataclasses.replace(sample.header, rotation=0)
    other = Sample(header, [], [], bitstream_bytes(header, [], [make_frame(0), make_frame(1)]))
    _, (_, start, _), _ = sample.units()[-3:]
    reader = opened(sample.data[:start] + other.data[other.units()[-2][1] : other.units()[-1][1]])
    assert list(reader.frames()) == sample.frames
    assert reader.problems[0] == "index: does not belong to this file, left out"
    assert not reader.counted
    head_end = sample.units()[0][2]
    reader = opened(flipped(sample.data[:start], head_end + 14) + other.data[other.units()[-2][1] :])
    assert reader.frame_indices == [6, 7, 8]
    assert reader.problems[0].startswith("update at byte")  # not what the other one's index says


def test_frames_of_a_file_glued_behind_a_cut_one_are_not_taken_for_its_own(sample):
    """As a download that was begun twice; both have the same header, for nothing in it depends on the frames."""
    other = other_encode(sample)
    for length in range(sample.units()[0][2], len(sample.data) - 1):
        reader = opened(sample.data[:length] + other)
        whole = sum(end <= length for _, end in sample.frame_spans())
        assert list(reader.frames()) == sample.frames[:whole]
        assert f"{len(other) - 8} bytes of another .vdc file, ignored" in reader.problems or whole == 9
        assert sum(reader.sizes.values()) == length + len(other)


def test_sealed_nonsense_is_left_out(sample):
    """Units whose checksums hold, but whose contents do not."""
    head_end = sample.units()[0][2]
    huge = 2**60
    rest = bytes(4) + varint(5) + b"\0" + varint(0)
    for kind, payload in (
        (b"FRAM", b"\x02" + varint(0) + varint(0) + bytes(4) + varint(huge) + b"\0\0"),
        (b"FRAM", b"\x02" + varint(huge) + varint(0) + rest),
        (b"FRAM", b"\x00" + varint(0) + varint(0) + rest),  # a key frame without settings
        (b"FRAM", b"\x01" + varint(0) + varint(0) + bytes(4) + varint(1)),  # refers to before the first one
        (b"FRAM", b"\x01" + varint(1) + varint(0) + bytes(4) + varint(0)),  # refers to itself
        (b"FRAM", b"\x02" + varint(0) + b"\xff" * 12),
        (b"FRAM", b""),
        (b"UPDT", varint(huge)),
        (b"UPDT", varint(0) * 3),
        (b"UPDT", varint(1) + varint(1) + varint(0)),
        (b"UPDT", varint(1) + varint(0) + varint(huge)),
        (b"INDX", varint(huge)),
        (b"INDX", varint(0) + varint(huge)),
        (b"INDX", varint(0) + varint(1) + varint(1)),
        (b"HEAD", sample.header.to_bytes()),
    ):
        extra = pack_unit(kind, payload)
        for place in (head_end, sample.frame_spans()[-1][1]):
            for end in (len(sample.data), sample.frame_spans()[-1][1]):
                reader = opened(sample.data[:place] + extra + sample.data[place:end])
                assert list(reader.frames()) == sample.frames
                assert reader.frame_count == 9
                assert reader.problems
                assert reader.sizes["damaged"] >= len(extra)


def sealed(sample: Sample, *units: FrameUnit | UpdateUnit) -> BitstreamReader:
    """A file of these units, which the writer may have refused; a predicted frame carries what it is told."""
    kinds = [(b"FRAM" if isinstance(u, FrameUnit) else b"UPDT", u.to_bytes()) for u in units]
    return opened(sample.data[: sample.units()[0][2]] + b"".join(pack_unit(*k) for k in kinds))


def test_references_out_of_their_chain_and_updates_out_of_place_are_not_followed(sample):
    update = UpdateUnit(1, 0, 1, b"")
    reader = sealed(sample, make_frame(0), make_frame(1), make_frame(2, 2), make_frame(3, 1), make_frame(4, 3))
    assert reader.frame_indices == [0, 1, 4]
    assert reader.why_lost(2) == "frame 2 refers to frame 0, outside of its chain"
    assert reader.why_lost(3) == "frame 3 needs frame 2, which refers to frame 0, outside of its chain"
    reader = sealed(sample, make_frame(0), update, make_frame(1, 1, update=1), make_frame(2, update=1))
    assert reader.frame_indices == [0, 2]
    assert reader.why_lost(1) == "frame 1 uses update 1, its chain update 0"
    reader = sealed(sample, update, make_frame(0, update=1), make_frame(1, update=1))
    assert reader.frame_indices == [1]
    assert reader.why_lost(0) == "frame 0 uses update 1, which is for frames from 1 on"
    reader = sealed(sample, make_frame(0), make_frame(1, update=1), update)  # too late
    assert reader.frame_indices == [0]
    assert reader.missing_updates == [1]
    reader = sealed(sample, update, UpdateUnit(1, 0, 1, b"again"), make_frame(0), make_frame(1, update=1))
    assert reader.update_chain(1) == [b""]
    reader = sealed(sample, UpdateUnit(4, 2, 0, b""), make_frame(0, update=4), make_frame(1))
    assert reader.frame_indices == [1]
    assert reader.missing_updates == [1, 2, 3]
    assert reader.why_lost(0) == "frame 0 needs update 2, which is lost"


@pytest.mark.parametrize("payload", [b"", b"\0" * 12, b"\xff" * 12, b"\xff" * 13])
def test_a_sealed_but_wrong_end_marker_harms_no_frame(sample, payload):
    for body in (sample.data[: sample.units()[-1][1]], sample.data[: sample.units()[-2][1]]):
        reader = opened(body + pack_unit(b"DONE", payload))
        assert list(reader.frames()) == sample.frames
        assert reader.frame_count == 9
        assert reader.problems


def test_a_repeated_frame_is_left_out(sample):
    start, end = sample.frame_spans()[1]
    reader = opened(sample.data[:end] + sample.data[start:])
    assert list(reader.frames()) == sample.frames
    assert any("out of place" in problem for problem in reader.problems)


def test_an_end_marker_that_promises_millions_costs_nothing(sample):
    """Sixteen million frames promised, one there."""
    done = pack_unit(b"DONE", (2**24).to_bytes(4, "little") + bytes(8))
    reader = opened(sample.data[: sample.frame_spans()[0][1]] + done)
    assert reader.frame_count == 2**24
    assert len(reader) == 1
    assert len(reader.problems) < 10
    assert reader.why_lost(2**24 - 1) == f"frame {2**24 - 1} is missing"


def test_long_lines_of_parents_are_followed_in_no_time(sample):
    """Three thousand updates, each with the one before as its parent, all of them lost with the first."""
    count = 3000
    units = [*(UpdateUnit(n, n - 1, 0, b"") for n in range(2, count)), make_frame(0, update=count - 1)]
    reader = sealed(sample, *units)
    assert len(reader) == 0
    assert reader.why_lost(0) == "frame 0 needs update 1, which is lost"
    whole = sealed(sample, UpdateUnit(1, 0, 0, b""), *units)
    assert len(whole.update_chain(count - 1)) == count - 1


def test_lengths_beyond_the_file_read_nothing(sample):
    class Counting(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert size >= 0
            Counting.largest = max(Counting.largest, size)
            return super().read(size)

    start = sample.frame_spans()[1][0]
    for length in (2**32 - 1, 2**31, 2**30, 2**20):
        data = sample.data[: start + 5] + length.to_bytes(4, "little") + sample.data[start + 9 :]
        reader = BitstreamReader(Counting(data))
        assert reader.frame_indices == [0, 2, 3, 4, 5, 6, 7, 8]
        assert Counting.largest <= len(data)


def test_a_file_made_to_be_slow_is_given_up_on(sample):
    """Every second byte pair claims a unit as long as all the rest; the search stops instead of growing squarely."""
    unit = b"FRAM\x01" + (150_000).to_bytes(4, "little")
    data = sample.data[: sample.units()[0][2]] + unit * 40_000
    file = UnitFile(io.BytesIO(data))
    assert len(list(file.walk(8))) < 10
    assert len(opened(data)) == 0


def test_a_whole_file_inside_an_update_does_not_mislead(sample):
    outer = dataclasses.replace(sample.updates[0], payload=sample.data)
    nested = bitstream_bytes(sample.header, [outer, *sample.updates[1:]], sample.frames)
    place = nested.index(b"UPDT") + 13  # inside the outer update, before the nested file
    for data in (flipped(nested, place), flipped(nested, place)[:-30]):
        reader = opened(data)
        assert reader.update_numbers == [2, 3]
        assert reader.frame_indices == [6, 7, 8]
        assert list(reader.frames()) == sample.frames[6:]
