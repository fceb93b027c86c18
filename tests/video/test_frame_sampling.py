"""Which frames of a clip are taken. Frame i of `make_clip` has luma 16 + i."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest

from vidcodec.errors import NoVideoError
from vidcodec.video import Sampling, VideoReader
from vidcodec.video.sampling import Clock


def taken(path, sampling):
    with VideoReader(path, sampling, threads=1) as reader:
        return [int(frame.y[0, 0]) - 16 for frame in reader.frames()]


def test_two_frames_per_second_of_thirty(make_clip):
    assert taken(make_clip("a.mp4", 61, codec="libx264", options={"qp": "0"}), Sampling()) == [0, 15, 30, 45, 60]


def test_rates_that_do_not_divide(make_clip):
    clip = make_clip("a.mkv", 31)  # in milliseconds: 0, 33, 67, 100, ...
    assert taken(clip, Sampling(fps=10)) == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30]
    assert taken(clip, Sampling(fps=3)) == [0, 10, 20, 30]
    assert taken(clip, Sampling(fps=Fraction(1, 2))) == [0]
    assert taken(clip, Sampling(fps=7)) == [0, 5, 9, 13, 18, 22, 26, 30]


def test_a_rate_above_the_source_takes_every_frame_once(make_clip):
    clip = make_clip("a.mkv", 5)
    assert taken(clip, Sampling(fps=200)) == taken(clip, Sampling(fps=None)) == [0, 1, 2, 3, 4]


def test_variable_frame_rate(make_clip):
    milliseconds = [0, 100, 490, 510, 900, 2600, 2700, 3001, 3010]
    clip = make_clip("a.mkv", 9, pts=milliseconds, time_base=Fraction(1, 1000))
    # due at .5 1.0 1.5 2.0 2.5 3.0 s; frame 5 serves four of them
    assert taken(clip, Sampling(fps=2)) == [0, 3, 5, 7]
    with VideoReader(clip, Sampling(fps=None)) as reader:
        assert [frame.pts for frame in reader.frames()] == milliseconds


def test_only_key_frames(make_clip):
    options = {"g": "4", "bf": "0", "qp": "0", "x264-params": "scenecut=0"}
    clip = make_clip("a.mp4", 10, codec="libx264", options=options)
    assert taken(clip, Sampling(keyframes=True)) == [0, 4, 8]
    assert taken(clip, Sampling(keyframes=True, start=0.1)) == [4, 8]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_range_in_the_middle_of_a_group(make_clip, name):
    clip = make_clip(name, 60, codec="libx264", options={"g": "25", "bf": "2", "qp": "0"})
    assert taken(clip, Sampling(fps=None, start=1.0, duration=0.1)) == [30, 31, 32]
    assert taken(clip, Sampling(fps=10, start=0.9)) == [27, 30, 33, 36, 39, 42, 45, 48, 51, 54, 57]
    assert taken(clip, Sampling(start=1.9)) == [57]


def test_a_range_after_the_end(make_clip):
    clip = make_clip("a.mkv", 5)
    with pytest.raises(NoVideoError, match="'start'"):
        VideoReader(clip, Sampling(start=100))


def test_the_sampled_rate(make_clip):
    clip = make_clip("a.mp4", 60, codec="libx264")
    for fps, rate in ((2, 2), (0.5, Fraction(1, 2)), (None, 30), (60, 30)):
        with VideoReader(clip, Sampling(fps=fps)) as reader:
            assert reader.format.frame_rate == rate
    with VideoReader(clip, Sampling(keyframes=True)) as reader:
        assert reader.format.frame_rate is None


def test_the_estimate(make_clip):
    clip = make_clip("a.mp4", 60, codec="libx264")
    for sampling, count in ((Sampling(), 4), (Sampling(fps=None), 60), (Sampling(fps=None, start=1, duration=0.5), 15)):
        with VideoReader(clip, sampling) as reader:
            assert reader.estimated_frames == count == len(list(reader.frames()))


def test_reading_twice(make_clip):
    with VideoReader(make_clip("a.mkv", 20), Sampling(fps=10)) as reader:
        first = [frame.pts for frame in reader.frames()]
        assert first == [frame.pts for frame in reader.frames()]
        next(reader.frames())
        assert first == [frame.pts for frame in reader.frames()]


@pytest.mark.parametrize("wrong", [{"fps": 0}, {"fps": -1}, {"fps": float("nan")}, {"start": -1}, {"duration": 0}])
def test_numbers_out_of_range(wrong):
    with pytest.raises(ValueError):
        Sampling(**wrong)


@dataclass(frozen=True)
class Found:
    pts: int | None
    dts: int | None = None


def stamps(*found):
    clock = Clock(Fraction(1, 1000), 40)
    return [clock.stamp(picture) for picture in found], clock


def test_missing_time_stamps_follow_the_average_rate():
    assert stamps(Found(None), Found(None), Found(100), Found(None))[0] == [0, 40, 100, 140]


def test_repeated_time_stamps_move_and_a_long_step_back_goes_on():
    times, clock = stamps(Found(0), Found(40), Found(40), Found(80), Found(5000), Found(0), Found(40))
    assert times == [0, 40, 41, 80, 5000, 5040, 5080]
    assert clock.repaired == 2


def test_decoding_times_replace_shuffled_ones():
    pictures = [Found(0, 0), Found(120, 40), Found(80, 80), Found(160, 120), Found(40, 160), Found(280, 200)]
    assert stamps(*pictures)[0] == [0, 120, 121, 122, 160, 200]
