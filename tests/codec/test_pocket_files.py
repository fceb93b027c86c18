"""The family whose symbols are fitted, through the driver: files and back, time, stopping, damage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidcodec.bitstream import BitstreamReader
from vidcodec.codec import fitting
from vidcodec.codec.decode import VideoDecoder
from vidcodec.codec.encode import encode_video
from vidcodec.codec.options import EncodeOptions
from vidcodec.errors import BitstreamError, ModelError, ModelMismatchError
from vidcodec.families.pocket.checkpoint import load_pocket, save_pocket
from vidcodec.families.pocket.family import PocketFamily
from vidcodec.families.pocket.fit import Fit
from vidcodec.families.pocket.network import Pocket, PocketConfig, flatten, initial
from vidcodec.rate import RateLevel
from vidcodec.video import Frame, Sampling, VideoFormat, VideoReader, open_writer

OPTIONS = EncodeOptions(sampling=Sampling(fps=None), model="pocket", steps=40, quality=60)
MakeClip = Callable[..., Path]


@pytest.fixture(scope="module")
def coded(make_clip: MakeClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames in a file."""
    return encode_video(make_clip(), tmp_path_factory.mktemp("coded") / "o.vdc", OPTIONS).output


@pytest.mark.parametrize(("size", "bits"), [((48, 32), 8), ((37, 21), 10), ((1, 1), 8)])
def test_videos_come_back_as_they_were_measured(
    make_clip: MakeClip, tmp_path: Path, size: tuple[int, int], bits: int
) -> None:
    clip = make_clip(2, size, bits)
    result = encode_video(clip, tmp_path / "o.vdc", OPTIONS)
    with VideoDecoder(tmp_path / "o.vdc") as decoder, VideoReader(clip, Sampling(fps=None)) as reader:
        shown = [frame for _, frame, _ in decoder.frames()]
        pairs = zip(shown, reader.frames(), strict=True)
        error = np.mean([np.square(a.y.astype(float) - b.y).mean() for a, b in pairs])
        assert decoder.problems == []
        assert decoder.format.bit_depth == bits
    top = (1 << bits) - 1
    assert min(100, 10 * np.log10(top**2 / max(error, 1e-9))) == pytest.approx(result.quality_figures["psnr_y"])
    assert result.chosen == "fitted"
    assert result.quality_figures["psnr_yuv"] > 20


def test_grey_stays_grey(tmp_path: Path) -> None:
    video = VideoFormat(40, 24, time_base=Fraction(1, 2))
    slope = np.add.outer(3 * np.arange(24), 2 * np.arange(40)).astype(np.uint8)
    with open_writer(tmp_path / "grey.mkv", video) as writer:
        writer.write(Frame(slope, np.full((2, 12, 20), 128, np.uint8), 0))
    result = encode_video(tmp_path / "grey.mkv", tmp_path / "o.vdc", replace(OPTIONS, steps=150))
    assert min(result.quality_figures[f"psnr_{plane}"] for plane in "yuv") > 35


def test_the_network_travels_as_an_update_that_more_frames_share(coded: Path, make_clip: MakeClip) -> None:
    with BitstreamReader(coded) as reader:
        assert reader.update_numbers == [1]
        assert {f.update for f in reader.frames()} == {1}
    frozen = encode_video(make_clip(), coded.with_name("frozen.vdc"), replace(OPTIONS, adapt="none"))
    assert frozen.update_size == 0
    assert frozen.chosen == "fitted, network as it is"


def test_quality_is_rate_and_targets_are_met(
    make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidcodec.families.pocket.family.ALONE_ROUNDS", 20)
    clip, options = make_clip(1, (32, 16)), replace(OPTIONS, steps=20)
    low, high = (encode_video(clip, tmp_path / "o.vdc", replace(options, quality=q)).size for q in (50, 80))
    assert low < high
    wanted = (low + high) // 2
    assert encode_video(clip, tmp_path / "o.vdc", replace(options, quality=None, target_size=wanted)).size <= wanted


def test_frames_that_the_network_was_not_fitted_to_are_fitted_to_it(
    make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "FITTED_PIXELS", 0)
    monkeypatch.setattr(fitting, "LEAST_FITTED", 2)
    clip = make_clip(4)
    result = encode_video(clip, tmp_path / "o.vdc", OPTIONS)
    with VideoDecoder(tmp_path / "o.vdc") as decoder:
        assert [i for i, _, _ in decoder.frames()] == [0, 1, 2, 3]
    assert result.quality_figures["psnr_y"] > 25


@pytest.mark.parametrize("stage", ["fit", "code fitted"])
def test_what_was_stopped_goes_on_to_the_same_file(
    make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setattr(fitting, "FITTED_PIXELS", 0)
    monkeypatch.setattr(fitting, "LEAST_FITTED", 2)
    monkeypatch.setattr(fitting, "KEPT_SECONDS", 0.0)
    clip, options, visits = make_clip(3), replace(OPTIONS, steps=6, work=tmp_path / "work"), [0]
    whole = encode_video(clip, tmp_path / "whole.vdc", replace(options, work=None)).output.read_bytes()
    step = Fit.step

    def counted(self: Fit) -> None:
        visits[0] += 1
        step(self)

    def stop(now: str, share: float, _: dict[str, Any]) -> None:
        if now == stage and share > 0.6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Fit, "step", counted)
    with pytest.raises(KeyboardInterrupt):
        encode_video(clip, tmp_path / "o.vdc", options, stop)
    done, visits[0] = visits[0], 0
    assert encode_video(clip, tmp_path / "o.vdc", options).output.read_bytes() == whole
    assert done + visits[0] <= 3 * 6 + 1


def test_time_is_kept(make_clip: MakeClip, tmp_path: Path) -> None:
    result = encode_video(make_clip(), tmp_path / "o.vdc", replace(OPTIONS, steps=10**6, max_minutes=0.005))
    assert sum(result.seconds.values()) < 10
    assert result.curve[-1]["step"] < 10**5


def test_the_curve_of_true_costs_falls(make_clip: MakeClip, tmp_path: Path) -> None:
    result = encode_video(make_clip(), tmp_path / "o.vdc", OPTIONS)
    costs = [point["cost"] for point in result.curve]
    assert len(costs) == 10
    assert costs[-1] < costs[0]
    assert costs[-1] == pytest.approx(result.costs["fitted"], rel=0.2)


def test_flips_and_cuts_are_told(coded: Path, tmp_path: Path) -> None:
    """Every one by an error or a problem; frames that decode are those that were coded."""
    data, rng, bad = coded.read_bytes(), np.random.default_rng(0), tmp_path / "bad.vdc"
    with VideoDecoder(coded) as decoder:
        good = {i: log.crc for i, _, log in decoder.frames()}
    for k in range(60):
        damaged = bytearray(data)
        if k % 3:
            damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        else:
            del damaged[rng.integers(1, len(data)) :]
        bad.write_bytes(bytes(damaged))
        try:
            with VideoDecoder(bad) as decoder:
                shown = {i: log.crc for i, _, log in decoder.frames()}
                told = bool(decoder.problems) or not decoder.reader.complete
        except (BitstreamError, ModelError):
            continue
        assert told
        assert shown.items() <= good.items()


def test_other_weights_and_options_without_meaning_are_refused(coded: Path, make_clip: MakeClip) -> None:
    weights = coded.with_name("other.safetensors")
    config = PocketConfig(grids=5, own=8, coarse=4, context=8, hidden=16)
    save_pocket(Pocket(config, flatten(config, initial(config))), weights)
    with pytest.raises(ModelMismatchError):
        VideoDecoder(coded, weights=weights)
    for change in ({"update_parameters": "biases"}, {"refine": "lof"}, {"quantizer": "trellis"}):
        with pytest.raises(ModelError):
            encode_video(make_clip(), coded.with_name("o.vdc"), replace(OPTIONS, **change))  # type: ignore[arg-type]
    other = replace(OPTIONS, weights=weights)
    encode_video(make_clip(), coded.with_name("o.vdc"), other)
    with VideoDecoder(coded.with_name("o.vdc"), weights=weights) as decoder:
        assert len(list(decoder.frames())) == 3


def test_the_shipped_weights_are_those_that_files_name() -> None:
    network, digest = load_pocket()
    assert PocketFamily.load("pocket", None, torch.device("cpu")).digest == digest
    assert network.config == PocketConfig()


def test_a_frame_starts_from_one_that_shows_it() -> None:
    video, level, family = VideoFormat(48, 32), RateLevel.of(4), PocketFamily.load("pocket", None, torch.device("cpu"))
    slope = np.add.outer(3 * np.arange(32), 2 * np.arange(48)).astype(np.uint8)
    chroma = np.full((2, 16, 24), 128, np.uint8)
    frame, other = Frame(slope, chroma, 0), Frame(255 - slope, chroma, 1)
    payload = family.picture_coder(level, video).encode(frame).payload
    for following, starts in ((frame, True), (other, False)):
        fitter = family.fitter(level, video, [following], 10, 0, 0, (frame, payload))
        assert fitter.state()["states"].any() == starts
