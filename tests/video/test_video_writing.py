"""Files written and read back."""

from __future__ import annotations

import os
from fractions import Fraction

import cv2
import numpy as np
import pytest

from vidcodec.errors import OutputError
from vidcodec.video import Sampling, VideoFormat, VideoReader, open_writer, yuv_to_rgb


def write(path, format, frames, **options):
    with open_writer(path, format, **options) as writer:
        for frame in frames:
            writer.write(frame)
    return writer


def read(path):
    with VideoReader(path, Sampling(fps=None), threads=1) as reader:
        return list(reader.frames()), reader.format


def same(frames, others):
    return len(frames) == len(others) and all(
        np.array_equal(a.y, b.y) and np.array_equal(a.uv, b.uv) for a, b in zip(frames, others, strict=True)
    )


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("size", [(1, 1), (17, 31), (4096, 16)])
def test_mkv_brings_everything_back(tmp_path, random_frames, wide_tags, size, bits):
    format = VideoFormat(*size, bits, wide_tags, Fraction(8, 9), 90, Fraction(1, 1000), None)
    frames = random_frames(format, [5, 38, 39, 1000, 100_000])
    assert write(tmp_path / "a.mkv", format, frames).notes == []
    back, found = read(tmp_path / "a.mkv")
    assert same(frames, back)
    assert [frame.pts for frame in back] == [frame.pts for frame in frames]
    assert (found.bit_depth, found.sample_aspect, found.rotation) == (bits, Fraction(8, 9), 90)
    assert found.time_base == format.time_base
    tags = found.colour
    assert (tags.matrix, tags.primaries, tags.transfer, tags.full_range) == (9, 9, 16, True)


@pytest.mark.parametrize("time_base", [Fraction(1, 25), Fraction(1, 90_000), Fraction(1001, 30_000), Fraction(2)])
def test_mkv_keeps_time_to_the_microsecond(tmp_path, random_frames, time_base):
    format = VideoFormat(4, 4, time_base=time_base, frame_rate=1 / time_base)
    frames = random_frames(format, [-3, -2, 0, 1, 70_000])
    notes = write(tmp_path / "a.mkv", format, frames).notes
    back, found = read(tmp_path / "a.mkv")
    assert notes == ["negative time stamps moved up: Matroska starts at zero"]
    for frame, other in zip(frames, back, strict=True):
        assert abs((frame.pts + 3) * time_base - other.pts * found.time_base) <= Fraction(1, 1_000_000)


def test_mkv_can_be_sought(tmp_path, random_frames):
    format = VideoFormat(64, 64, time_base=Fraction(1, 25), frame_rate=Fraction(25))
    frames = random_frames(format, range(50))
    write(tmp_path / "a.mkv", format, frames)
    with VideoReader(tmp_path / "a.mkv", Sampling(fps=None, start=1.6, duration=0.08)) as reader:
        assert same(list(reader.frames()), frames[40:42])
        assert reader.estimated_frames == 2
        assert reader.format.frame_rate == 25


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("size", [(1, 1), (17, 31), (64, 48)])
def test_y4m_brings_the_planes_back(tmp_path, random_frames, wide_tags, size, bits):
    format = VideoFormat(*size, bits, wide_tags, Fraction(4, 3), 0, Fraction(1, 1000), Fraction(30_000, 1001))
    frames = random_frames(format, [0, 33, 67])
    write(tmp_path / "a.y4m", format, frames)
    back, found = read(tmp_path / "a.y4m")
    assert same(frames, back)
    assert (found.frame_rate, found.sample_aspect) == (Fraction(30_000, 1001), Fraction(4, 3))
    assert found.colour.full_range


def test_y4m_has_the_average_rate_when_it_varies(tmp_path, random_frames):
    format = VideoFormat(4, 4, time_base=Fraction(1, 1000))
    frames = random_frames(format, [1000, 1100, 3000])
    assert "average rate" in write(tmp_path / "a.y4m", format, frames).notes[0]
    back, found = read(tmp_path / "a.y4m")
    assert same(frames, back)
    assert found.frame_rate == 1


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("size", [(1, 1), (17, 31), (64, 48)])
def test_mp4_is_close(tmp_path, random_frames, wide_tags, size, bits):
    format = VideoFormat(*size, bits, wide_tags, Fraction(8, 9), 270, Fraction(1, 1000), None)
    frames = random_frames(format, [0, 40, 200, 201])
    for frame in frames:
        frame.y[:], frame.uv[:] = 100, 90
    notes = write(tmp_path / "a.mp4", format, frames).notes
    back, found = read(tmp_path / "a.mp4")
    assert "lossy" in notes[0]
    assert any("padded" in note for note in notes) == (size != (64, 48))
    assert (found.width, found.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert (found.bit_depth, found.rotation, found.sample_aspect) == (bits, 270, Fraction(8, 9))
    assert (found.colour.matrix, found.colour.full_range) == (9, True)
    assert [frame.pts * found.time_base for frame in back] == [frame.pts * format.time_base for frame in frames]
    assert all(np.abs(frame.y.astype(int) - 100).max() <= 1 for frame in back)


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (10, np.uint16)])
def test_png_files(tmp_path, random_frames, bits, dtype):
    format = VideoFormat(17, 31, bits, time_base=Fraction(1, 4))
    frames = random_frames(format, [0, 3])
    write(tmp_path / "out", format, frames)
    names = ["frame_000000_0.000000.png", "frame_000001_0.750000.png"]
    assert sorted(os.listdir(tmp_path / "out")) == names
    picture = cv2.imread(str(tmp_path / "out" / names[1]), cv2.IMREAD_UNCHANGED)
    assert picture.dtype == dtype
    assert np.array_equal(picture[..., ::-1], yuv_to_rgb(frames[1], format))


def test_png_files_leave_a_full_directory_alone(tmp_path, random_frames):
    format = VideoFormat(4, 4)
    mine = tmp_path / "out" / "mine.txt"
    write(tmp_path / "out", format, random_frames(format, [0, 1, 2]))
    mine.write_text("keep")
    with pytest.raises(OutputError, match="not empty"):
        open_writer(tmp_path / "out", format)
    write(tmp_path / "out", format, random_frames(format, [0]), overwrite=True)
    assert sorted(os.listdir(tmp_path / "out")) == ["frame_000000_0.000000.png", "mine.txt"]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.y4m", "out"])
@pytest.mark.parametrize("count", [0, 2])
def test_nothing_is_left_after_an_error(tmp_path, random_frames, name, count):
    format = VideoFormat(16, 16)

    def fail_after_some():
        with open_writer(tmp_path / name, format) as writer:
            for frame in random_frames(format, range(count)):
                writer.write(frame)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_after_some()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.y4m", "out"])
def test_no_frame_is_an_error(tmp_path, name):
    with pytest.raises(OutputError, match="no frame"), open_writer(tmp_path / name, VideoFormat(16, 16)):
        pass
    assert os.listdir(tmp_path) == []


def test_an_earlier_file_stays_until_the_new_one_is_complete(tmp_path, random_frames):
    format = VideoFormat(4, 4, frame_rate=Fraction(5))
    (tmp_path / "a.y4m").write_text("earlier")
    with open_writer(tmp_path / "a.y4m", format) as writer:
        writer.write(random_frames(format, [0])[0])
        assert (tmp_path / "a.y4m").read_text() == "earlier"
    assert (tmp_path / "a.y4m").read_bytes().startswith(b"YUV4MPEG2")
    assert os.listdir(tmp_path) == ["a.y4m"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["a.mkv", "a.y4m"])
def test_a_full_disk(tmp_path, random_frames, name):
    format = VideoFormat(640, 480)
    writer = open_writer(tmp_path / name, format)
    writer._file.close()
    writer._file = open("/dev/full", "wb")  # noqa: SIM115
    if name == "a.mkv":
        writer._muxer._file = writer._file

    def fill():
        with writer:
            for frame in random_frames(format, range(3)):
                writer.write(frame)

    with pytest.raises(OutputError, match="free some space"):
        fill()
    assert os.listdir(tmp_path) == []


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("missing/a.mkv", "a.avi", "file"):
        with pytest.raises(OutputError):
            open_writer(tmp_path / name, VideoFormat(4, 4))
    assert os.listdir(tmp_path) == ["file"]


def test_a_foreign_frame(tmp_path, random_frames):
    with pytest.raises(ValueError), open_writer(tmp_path / "a.mkv", VideoFormat(16, 16)) as writer:
        writer.write(random_frames(VideoFormat(16, 18), [0])[0])
    assert os.listdir(tmp_path) == []
