"""The target appears whole, or stays as it was, with nothing left beside it."""

from __future__ import annotations

import dataclasses
import io
import os

import pytest

from vidcodec.bitstream import BitstreamReader, BitstreamWriter, FrameUnit, UpdateUnit
from vidcodec.errors import OutputError


def write_all(target, sample) -> None:
    with BitstreamWriter(target, sample.header) as writer:
        for update in sample.updates[:1]:
            writer.write_update(update)
        for frame in sample.frames[:2]:
            writer.write_frame(frame)
        writer.write_update(sample.updates[1])
        for frame in sample.frames[2:]:
            writer.write_frame(frame)


def write_some(target, sample, error: type[BaseException]) -> None:
    with BitstreamWriter(target, sample.header) as writer:
        writer.write_update(sample.updates[0])
        raise error


def test_path_file_object_and_memory_give_the_same_bytes(tmp_path, sample):
    path = tmp_path / "out.vdc"
    write_all(path, sample)
    buffer = io.BytesIO()
    write_all(buffer, sample)
    assert path.read_bytes() == buffer.getvalue() == sample.data
    assert os.listdir(tmp_path) == ["out.vdc"]
    with BitstreamReader(path) as reader:
        assert list(reader.frames()) == sample.frames


def test_the_target_is_untouched_until_the_end(tmp_path, sample):
    path = tmp_path / "out.vdc"
    path.write_bytes(b"precious")
    with BitstreamWriter(path, sample.header) as writer:
        for update in sample.updates:
            writer.write_update(update)
        for frame in sample.frames:
            writer.write_frame(frame)
            assert path.read_bytes() == b"precious"
        assert writer.size > len(b"precious")
    assert BitstreamReader(path).complete


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_nothing(tmp_path, sample, error):
    path = tmp_path / "out.vdc"
    for before in (None, b"precious"):
        if before:
            path.write_bytes(before)
        with pytest.raises(error):
            write_some(path, sample, error)
        assert os.listdir(tmp_path) == (["out.vdc"] if before else [])
        assert not before or path.read_bytes() == before


def test_too_few_or_too_many_units_leave_nothing(tmp_path, sample):
    path = tmp_path / "out.vdc"
    with pytest.raises(ValueError, match="0 frames were written, the header says 4"):
        BitstreamWriter(path, sample.header).__enter__().__exit__(None, None, None)
    no_updates = dataclasses.replace(sample, header=dataclasses.replace(sample.header, update_count=1))
    with pytest.raises(ValueError, match="2 updates were written, the header says 1"):
        write_all(path, no_updates)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "unit",
    [
        FrameUnit(0, 0, b"", b"", 0),
        FrameUnit(2, 0, b"", b"", 0),
        UpdateUnit(0, b""),
        UpdateUnit(4, b""),
    ],
)
def test_order_is_kept(sample, unit):
    writer = BitstreamWriter(io.BytesIO(), sample.header)
    writer.__enter__()
    writer.write_update(sample.updates[0])
    writer.write_frame(sample.frames[0])
    write = writer.write_frame if isinstance(unit, FrameUnit) else writer.write_update
    with pytest.raises(ValueError):
        write(unit)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FrameUnit(-1, 0, b"", b"", 0),
        lambda: FrameUnit(2**24, 0, b"", b"", 0),
        lambda: FrameUnit(0, 2**63, b"", b"", 0),
        lambda: FrameUnit(0, 0, b"", b"", 2**32),
        lambda: UpdateUnit(2**24, b""),
    ],
)
def test_units_out_of_bounds_cannot_be_made(make):
    with pytest.raises(ValueError):
        make()


def test_outputs_that_cannot_be_written(tmp_path, sample):
    for path in (tmp_path / "none" / "out.vdc", tmp_path):
        with pytest.raises(OutputError, match="cannot write"):
            write_all(path, sample)

    class Full(io.BytesIO):
        def write(self, data) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        write_all(Full(), sample)
    assert os.listdir(tmp_path) == []


def test_a_symbolic_link_keeps_pointing_and_a_device_stays_a_device(tmp_path, sample):
    real, link = tmp_path / "real.vdc", tmp_path / "link.vdc"
    link.symlink_to(real)
    write_all(link, sample)
    assert link.is_symlink()
    assert real.read_bytes() == sample.data
    if os.path.exists("/dev/null"):
        write_all("/dev/null", sample)
        assert not os.path.isfile("/dev/null")
