"""Frames kept on disk."""

from __future__ import annotations

import os

import numpy as np
import pytest

from vidcodec.errors import OutputError
from vidcodec.video import FrameSpool, VideoFormat


@pytest.mark.parametrize(("size", "bits"), [((1, 1), 8), ((17, 31), 10), ((64, 48), 8)])
def test_any_frame_at_any_time(tmp_path, random_frames, size, bits):
    format = VideoFormat(*size, bits)
    frames = random_frames(format, [3, -1, 2**40])
    with FrameSpool(format, tmp_path) as spool:
        for frame in frames:
            spool.append(frame)
            assert np.array_equal(spool[-1].uv, frame.uv)
        assert len(spool) == 3
        for index in (2, 0, -2, -3, 1):
            assert np.array_equal(spool[index].y, frames[index].y)
            assert np.array_equal(spool[index].uv, frames[index].uv)
            assert spool[index].pts == frames[index].pts
        assert [frame.pts for frame in spool] == [3, -1, 2**40]
        for outside in (3, -4):
            with pytest.raises(IndexError):
                spool[outside]
        assert os.listdir(tmp_path) == []


def test_frames_are_copies(random_frames):
    format = VideoFormat(4, 4)
    with FrameSpool(format) as spool:
        spool.append(random_frames(format, [0])[0])
        before = spool[0].y.copy()
        spool[0].y[:] = 1
        assert np.array_equal(spool[0].y, before)


def test_views_with_strides(random_frames):
    format = VideoFormat(4, 6)
    frame = random_frames(VideoFormat(6, 4), [0])[0]
    turned = type(frame)(frame.y.T, frame.uv.transpose(0, 2, 1), 0)
    with FrameSpool(format) as spool:
        spool.append(turned)
        assert np.array_equal(spool[0].y, turned.y)
        assert np.array_equal(spool[0].uv, turned.uv)


def test_a_foreign_frame(random_frames):
    with FrameSpool(VideoFormat(4, 4)) as spool:
        with pytest.raises(ValueError):
            spool.append(random_frames(VideoFormat(4, 4, 10), [0])[0])
        assert len(spool) == 0


def test_a_full_disk(random_frames, monkeypatch):
    format = VideoFormat(4, 4)

    def full(*_):
        raise OSError(28, "No space left on device")

    with FrameSpool(format) as spool:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(OutputError, match="No space left"):
            spool.append(random_frames(format, [0])[0])
        assert len(spool) == 0


def test_no_directory(tmp_path):
    with pytest.raises(OutputError):
        FrameSpool(VideoFormat(4, 4), tmp_path / "missing")
