"""The frames of a source, read for as many passes as it takes, in bounded space."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vidcodec.codec import encode, footage
from vidcodec.codec.encode import encode_video
from vidcodec.codec.footage import Footage
from vidcodec.codec.options import EncodeOptions
from vidcodec.errors import InputError
from vidcodec.video import Frame, Sampling, VideoReader

EVERY_FRAME = Sampling(fps=None)


def silent(*_: object) -> None:
    pass


def read(path: Path) -> list[Frame]:
    with VideoReader(path, EVERY_FRAME) as reader:
        return list(reader.frames())


def same(a: Frame, b: Frame) -> bool:
    return a.pts == b.pts and np.array_equal(a.y, b.y) and np.array_equal(a.uv, b.uv)


@pytest.fixture
def few_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for four frames."""
    monkeypatch.setattr(footage, "LEAST_KEPT", 4)
    monkeypatch.setattr(footage, "KEPT_BYTES", 0)
    monkeypatch.setattr(encode, "Footage", lambda *a, **k: Footage(*a, **k, kept_bytes=0))


@pytest.mark.usefixtures("few_kept")
@pytest.mark.parametrize("count", [1, 4, 5, 8, 9, 17])
def test_all_frames_come_every_time_and_a_spread_of_them_is_kept(make_clip: Callable[..., Path], count: int) -> None:
    clip = make_clip(frames=count)
    originals = read(clip)
    with Footage(clip, EVERY_FRAME, silent, kept_bytes=0) as frames:
        assert len(frames) == count
        assert frames.complete == (count <= 4)
        for _ in range(2):
            shown = list(frames)
            assert len(shown) == count
            assert all(same(a, b) for a, b in zip(shown, originals, strict=True))
        places = [next(i for i, o in enumerate(originals) if o.pts == f.pts) for f in frames.sample]
        assert all(same(f, originals[i]) for f, i in zip(frames.sample, places, strict=True))
        assert min(count, 2) <= len(places) <= 4
        assert len({b - a for a, b in itertools.pairwise(places)}) <= 1  # evenly spread, from the first on
        assert places[0] == 0
        assert frames.pixels == count * 48 * 32


def test_the_digest_names_samples_and_times(make_clip: Callable[..., Path]) -> None:
    def digest(clip: Path, sampling: Sampling = EVERY_FRAME) -> str:
        with Footage(clip, sampling, silent) as frames:
            return frames.digest

    clip = make_clip(frames=4)
    assert digest(clip) == digest(clip)
    assert len({digest(clip), digest(make_clip(frames=3)), digest(clip, Sampling(fps=1))}) == 3


@pytest.mark.usefixtures("few_kept")
def test_a_source_that_changes_between_passes_is_told(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    path.write_bytes(make_clip(frames=9).read_bytes())
    with Footage(path, EVERY_FRAME, silent, kept_bytes=0) as frames:
        path.write_bytes(make_clip(frames=6).read_bytes())
        with pytest.raises(InputError, match="changed while it was read"):
            list(frames)


def test_a_long_video_is_coded_as_if_all_of_it_were_kept(
    make_clip: Callable[..., Path], tiny_weights: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    clip = make_clip(frames=9)
    asked = EncodeOptions(
        sampling=EVERY_FRAME,
        weights=tiny_weights,
        adapt="none",
        quantizer="uniform",
        refine="none",
        device="cpu",
    )
    whole = encode_video(clip, tmp_path / "whole.vdc", asked).output.read_bytes()
    request.getfixturevalue("few_kept")
    assert encode_video(clip, tmp_path / "long.vdc", asked).output.read_bytes() == whole
