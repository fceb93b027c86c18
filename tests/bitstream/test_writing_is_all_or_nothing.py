"""The target appears whole, or stays as it was, with nothing left beside it."""

from __future__ import annotations

import dataclasses
import io
import os
import tracemalloc
from pathlib import Path

import pytest
from bitstream_support import make_frame

from vidcodec.bitstream import BitstreamReader, BitstreamWriter, FrameUnit, UpdateUnit
from vidcodec.errors import OutputError


def write_all(target, sample) -> None:
    pending = list(sample.updates)
    with BitstreamWriter(target, sample.header) as writer:
        for frame in sample.frames:
            if pending and pending[0].first_frame == frame.index:
                writer.write_update(pending.pop(0))
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
            assert writer.frame_count == frame.index + 1
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


def test_nothing_is_promised_and_nothing_is_a_file_too(sample):
    buffer = io.BytesIO()
    with BitstreamWriter(buffer, sample.header):
        pass
    reader = BitstreamReader(buffer, strict=True)
    assert reader.complete
    assert reader.frame_count == len(reader) == 0
    assert list(reader.frames()) == reader.chain_starts == reader.update_numbers == []


@pytest.mark.parametrize(
    ("unit", "why"),
    [
        (make_frame(0, update=1), "frame 0 where frame 2 is due"),
        (make_frame(3, update=1), "frame 3 where frame 2 is due"),
        (make_frame(2, update=2), "update 2, which has not been written"),
        (make_frame(2, 2, update=0), "outside of its chain"),  # to the chain before
        (make_frame(2, 1, update=0), "update 0, its chain update 1"),
        (UpdateUnit(1, 0, 2, b""), "update 1 where update 2 is due"),
        (UpdateUnit(3, 0, 2, b""), "update 3 where update 2 is due"),
        (UpdateUnit(2, 0, 1, b""), "where frame 2 is due"),
    ],
)
def test_what_does_not_follow_is_refused_and_not_written(sample, unit, why):
    buffer = io.BytesIO()
    with BitstreamWriter(buffer, sample.header) as writer:
        writer.write_frame(make_frame(0))
        writer.write_update(UpdateUnit(1, 0, 1, b"update"))
        writer.write_frame(make_frame(1, update=1))
        size = writer.size
        with pytest.raises(ValueError, match=why):
            (writer.write_frame if isinstance(unit, FrameUnit) else writer.write_update)(unit)
        assert writer.size == size
        writer.write_frame(make_frame(2, 1, update=1))
    assert BitstreamReader(buffer, strict=True).frame_count == 3


def test_a_video_does_not_begin_with_a_predicted_frame_nor_use_an_update_early(sample):
    writer = BitstreamWriter(io.BytesIO(), sample.header)
    writer.__enter__()
    for first in (make_frame(1), make_frame(1, 1)):
        with pytest.raises(ValueError, match="frame 1 where frame 0 is due"):
            writer.write_frame(first)
    writer.write_update(UpdateUnit(1, 0, 1, b""))
    with pytest.raises(ValueError, match="for frames from 1 on"):
        writer.write_frame(make_frame(0, update=1))
    writer.write_frame(make_frame(0))
    writer.write_frame(make_frame(1, update=1))


@pytest.mark.parametrize(
    "change",
    [
        {"index": -1},
        {"index": 2**24},
        {"pts": 2**63},
        {"checksum": 2**32},
        {"level": -1},
        {"level": 2**16},
        {"quantizer": 256},
        {"update": -1},
        {"update": 2**24},
        {"reference": -1},
        {"reference": 5},
    ],
)
def test_frames_out_of_bounds_cannot_be_made(change):
    dataclasses.replace(make_frame(4), reference=4)
    with pytest.raises(ValueError):
        dataclasses.replace(make_frame(4), **change)


@pytest.mark.parametrize(
    "numbers", [(0, 0, 0), (2**24, 0, 0), (1, 1, 0), (2, 3, 0), (1, -1, 0), (1, 0, -1), (1, 0, 2**24)]
)
def test_updates_out_of_bounds_cannot_be_made(numbers):
    with pytest.raises(ValueError):
        UpdateUnit(*numbers, b"")


@pytest.mark.parametrize("kind", ["file object", "/dev/fd", "fifo"])
def test_a_pipe_gets_every_unit_when_it_is_written(tmp_path, sample, kind):
    """Something of no position, written while somebody reads; nothing is kept back until the end."""
    if kind == "fifo":
        os.mkfifo(path := tmp_path / "fifo")
        source, target = os.open(path, os.O_RDONLY | os.O_NONBLOCK), os.open(path, os.O_WRONLY)
    else:
        source, target = os.pipe()
        os.set_blocking(source, False)
        path = Path(f"/dev/fd/{target}")
    received = bytearray()
    with (
        open(target, "wb", buffering=0) as file,
        BitstreamWriter(file if kind == "file object" else path, sample.header) as writer,
    ):
        for unit in sorted([*sample.updates, *sample.frames], key=_place):
            (writer.write_frame if isinstance(unit, FrameUnit) else writer.write_update)(unit)
            received += os.read(source, 1 << 16)
            assert len(received) == writer.size
            assert len(BitstreamReader(io.BytesIO(received))) == writer.frame_count
    received += os.read(source, 1 << 16)
    os.close(source)
    assert bytes(received) == sample.data


def test_a_reader_that_goes_away_is_an_error_of_the_output(sample):
    source, target = os.pipe()
    os.close(source)
    with open(target, "wb", buffering=0) as file, pytest.raises(OutputError, match="cannot write"):
        write_all(file, sample)


def _place(unit: FrameUnit | UpdateUnit) -> tuple[int, bool]:
    return (unit.index, True) if isinstance(unit, FrameUnit) else (unit.first_frame, False)


def test_a_long_video_takes_a_few_bytes_of_memory_a_frame(sample):
    class Nowhere(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            return len(data)

    payload = bytes(2000)
    frames = [FrameUnit(i, i, b"", i, 0, 0, 0, i and 1) for i in range(3000)]
    tracemalloc.start()
    with BitstreamWriter(Nowhere(), sample.header) as writer:
        before = tracemalloc.get_traced_memory()[0]
        for frame in frames:
            writer.write_frame(dataclasses.replace(frame, payload=payload))
        grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert writer.size > 3000 * 2000
    assert grown < 3000 * 8 + 4096


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
