"""Any frame, in any order, is the one that a run from the start gives; chains say where to begin."""

from __future__ import annotations

import io

import pytest

from vidcodec.bitstream import BitstreamReader


@pytest.mark.parametrize("cut", [0, 30])
def test_random_access_equals_sequential(sample, cut):
    """With its index, and with the index cut off."""
    reader = BitstreamReader(io.BytesIO(sample.data[: len(sample.data) - cut]))
    for index in (8, 3, 0, 2, 2, 5, 1):
        assert reader.frame(index) == sample.frames[index]
    assert list(reader.frames()) == sample.frames
    assert list(reader.frames(1, 3)) == sample.frames[1:3]
    assert list(reader.frames(stop=1)) == sample.frames[:1]
    assert list(reader.frames(2)) == sample.frames[2:]
    assert len(reader) == reader.frame_count == 9
    assert reader.frame_indices == list(range(9))


@pytest.mark.parametrize("cut", [0, 30])
def test_a_chain_begins_with_its_key_frame(sample, cut):
    reader = BitstreamReader(io.BytesIO(sample.data[: len(sample.data) - cut]))
    assert reader.chain_starts == [0, 3, 6, 8]
    assert [reader.chain_start(i) for i in range(9)] == [0, 0, 0, 3, 3, 3, 6, 6, 8]
    assert [reader.reference_path(i) for i in range(9)] == [
        [0],
        [0, 1],
        [0, 2],  # refers past frame 1, which is not needed then
        [3],
        [3, 4],
        [3, 4, 5],
        [6],
        [6, 7],
        [8],
    ]


def test_updates_build_on_their_parents(sample):
    reader = BitstreamReader(io.BytesIO(sample.data))
    first, second, third = sample.updates
    assert reader.update_numbers == [1, 2, 3]
    assert [reader.update(n) for n in (3, 1, 2)] == [third, first, second]
    assert [reader.update_chain(n) for n in range(4)] == [
        [],
        [first.payload],
        [first.payload, second.payload],
        [third.payload],
    ]
    assert [frame.update for frame in reader.frames()] == [1, 1, 1, 2, 2, 2, 3, 3, 0]


@pytest.mark.parametrize("number", [-1, 0, 4])
def test_updates_that_never_were(sample, number):
    reader = BitstreamReader(io.BytesIO(sample.data))
    with pytest.raises(IndexError):
        reader.update(number)


def test_two_readings_at_once_do_not_disturb_each_other(sample):
    reader = BitstreamReader(io.BytesIO(sample.data))
    pairs = zip(reader.frames(), reader.frames(1), strict=False)
    assert [a.index + b.index for a, b in pairs] == list(range(1, 16, 2))


@pytest.mark.parametrize("index", [-1, 9])
def test_frames_that_never_were(sample, index):
    reader = BitstreamReader(io.BytesIO(sample.data))
    for ask in (reader.frame, reader.chain_start, reader.reference_path, reader.why_lost):
        with pytest.raises(IndexError):
            ask(index)


def test_a_file_object_stays_open_and_a_path_is_closed(tmp_path, sample):
    file = io.BytesIO(sample.data)
    with BitstreamReader(file):
        pass
    assert not file.closed
    path = tmp_path / "out.vdc"
    path.write_bytes(sample.data)
    with BitstreamReader(str(path)) as reader:
        pass
    with pytest.raises(ValueError):
        reader.frame(0)
