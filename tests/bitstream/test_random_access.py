"""Any frame, in any order, is the one that a run from the start gives."""

from __future__ import annotations

import io

import pytest

from vidcodec.bitstream import BitstreamReader


@pytest.mark.parametrize("cut", [0, 30])
def test_random_access_equals_sequential(sample, cut):
    """With its index, and with the index cut off."""
    reader = BitstreamReader(io.BytesIO(sample.data[: len(sample.data) - cut]))
    for index in (3, 0, 2, 2, 1):
        assert reader.frame(index) == sample.frames[index]
    assert list(reader.frames()) == sample.frames
    assert list(reader.frames(1, 3)) == sample.frames[1:3]
    assert list(reader.frames(stop=1)) == sample.frames[:1]
    assert list(reader.frames(2)) == sample.frames[2:]
    assert len(reader) == 4
    assert reader.frame_indices == [0, 1, 2, 3]


def test_two_readings_at_once_do_not_disturb_each_other(sample):
    reader = BitstreamReader(io.BytesIO(sample.data))
    assert [a.index + b.index for a, b in zip(reader.frames(), reader.frames(1), strict=False)] == [1, 3, 5]


@pytest.mark.parametrize("index", [-1, 4])
def test_frames_that_never_were(sample, index):
    reader = BitstreamReader(io.BytesIO(sample.data))
    with pytest.raises(IndexError):
        reader.frame(index)
    with pytest.raises(IndexError):
        reader.update_for(index)


def test_each_frame_has_its_update(sample):
    reader = BitstreamReader(io.BytesIO(sample.data))
    assert [reader.update_for(index) for index in range(4)] == [sample.updates[i] for i in (0, 0, 1, 1)]


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
