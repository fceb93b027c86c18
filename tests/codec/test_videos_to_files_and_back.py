"""Whole videos: what is decoded, what it costs, targets, damage and wrong weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidcodec.bitstream import BitstreamReader
from vidcodec.codec import encode, steps
from vidcodec.codec.decode import VideoDecoder, decode_video
from vidcodec.codec.encode import EncodeResult, encode_video
from vidcodec.codec.options import EncodeOptions
from vidcodec.errors import ModelError, ModelMismatchError, RateControlError, VidcodecError
from vidcodec.families.crops import FrameCrops
from vidcodec.families.msp.checkpoint import save_model
from vidcodec.families.msp.network import Msp
from vidcodec.families.planes import plane_errors
from vidcodec.rate import RateLevel
from vidcodec.updates import importance
from vidcodec.video import Frame, Sampling, VideoReader

EVERY_FRAME = Sampling(fps=None)


@pytest.fixture(scope="module")
def options(tiny_weights: Path) -> EncodeOptions:
    return EncodeOptions(
        sampling=EVERY_FRAME,
        weights=tiny_weights,
        steps=5,
        adapt="none",
        quality=60,
        device="cpu",
        quantizer="uniform",
        refine="none",
    )


def read(path: Path) -> list[Frame]:
    with VideoReader(path, EVERY_FRAME) as reader:
        return list(reader.frames())


def decoded(path: Path, weights: Path) -> dict[int, Frame]:
    with VideoDecoder(path, weights=weights, device="cpu") as decoder:
        return {index: frame for index, frame, _ in decoder.frames()}


def same(a: Frame, b: Frame) -> bool:
    return a.pts == b.pts and np.array_equal(a.y, b.y) and np.array_equal(a.uv, b.uv)


def assert_as_promised(result: EncodeResult, source: Path, weights: Path, bits: int) -> None:
    """The file decodes to the quality, size and times that the encoder reported."""
    frames, originals = decoded(result.output, weights), read(source)
    assert list(frames) == list(range(len(originals))) == list(range(result.frames))
    with VideoReader(source, EVERY_FRAME) as reader, VideoDecoder(result.output, weights=weights) as decoder:
        ours, theirs = decoder.format, reader.format
        assert (ours.width, ours.height, ours.bit_depth) == (theirs.width, theirs.height, bits)
    for index, original in enumerate(originals):
        assert frames[index].pts * ours.time_base == original.pts * theirs.time_base == Fraction(index, 2)
    mse = np.mean([plane_errors(o, frames[i]) for i, o in enumerate(originals)], axis=0)
    y, u, v = 10 * np.log10(((1 << bits) - 1) ** 2 / mse)
    assert result.quality_figures["psnr_y"] == pytest.approx(y, abs=1e-9)
    assert result.quality_figures["psnr_yuv"] == pytest.approx((6 * y + u + v) / 8, abs=1e-9)
    assert result.size == result.output.stat().st_size
    assert result.bpp == pytest.approx(8 * result.size / (ours.width * ours.height * result.frames))


@pytest.mark.parametrize("adapt", ["none", "encoder", "decoder", "full"])
@pytest.mark.parametrize("bits", [8, 10])
def test_files_decode_to_what_the_encoder_saw(
    make_clip: Callable[..., Path], options: EncodeOptions, tiny_weights: Path, tmp_path: Path, adapt: str, bits: int
) -> None:
    clip = make_clip(frames=2, size=(50, 34), bits=bits)
    result = encode_video(clip, tmp_path / "o.vdc", replace(options, adapt=adapt))
    assert_as_promised(result, clip, tiny_weights, bits)
    plain = encode_video(clip, tmp_path / "plain.vdc", options)
    assert result.costs["plain"] == plain.costs["plain"]
    assert result.costs[result.chosen] == min(result.costs.values())
    assert (len(result.costs) > 1) == (adapt != "none")
    if result.chosen == "plain":  # the same file, to the byte
        assert result.output.read_bytes() == plain.output.read_bytes()
    if adapt in ("none", "encoder"):
        assert result.update_size == 0


def test_of_a_long_video_coded_one_way_an_even_part_is_compared(
    make_clip: Callable[..., Path], options: EncodeOptions, tiny_weights: Path, tmp_path: Path
) -> None:
    clip = make_clip(frames=49, size=(16, 16))
    result = encode_video(clip, tmp_path / "o.vdc", options)
    assert (result.frames, result.compared) == (49, 17)
    frames, originals = decoded(result.output, tiny_weights), read(clip)
    mse = np.mean([plane_errors(originals[i], frames[i]) for i in range(0, 49, 3)], axis=0)
    assert result.quality_figures["psnr_y"] == pytest.approx(10 * np.log10(255**2 / mse[0]), abs=1e-9)
    by_psnr = encode_video(clip, tmp_path / "p.vdc", replace(options, quality=None, target_psnr=12.0))
    assert by_psnr.compared == 49


@pytest.mark.parametrize("prior", ["adaptive", "spike-slab", "no-rate", "no-quantisation"])
def test_updates_reach_the_decoder(
    make_clip: Callable[..., Path],
    options: EncodeOptions,
    tiny_weights: Path,
    tmp_path: Path,
    prior: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With bits of the update made cheap and steps large, an update pays; the file carries and applies it."""
    original = steps.FinetuneConfig
    eager = {"vector_lr": 1.0, "matrix_lr": 0.3, "adam_lr": 0.8, "vector_share": 0.0}
    monkeypatch.setattr(steps, "FinetuneConfig", lambda **o: original(**{**o, **eager}))
    monkeypatch.setattr(encode.CodedVideo, "cost", lambda v, *_: float(v.candidate.name == "plain"))
    monkeypatch.setattr(FrameCrops, "pixels", property(lambda _: 10**9, lambda *_: None), raising=False)
    clip = make_clip(frames=2)
    chosen = replace(options, adapt="full", steps=8, update_prior=prior)
    result = encode_video(clip, tmp_path / "o.vdc", chosen)
    assert result.chosen.startswith("adapted")
    assert result.update_size > 10
    assert_as_promised(result, clip, tiny_weights, 8)
    with BitstreamReader(tmp_path / "o.vdc") as reader:
        assert len(reader.update(1).payload) == result.update_size
        assert {frame.update for frame in reader.frames()} == {1}


def test_no_minutes_go_into_what_cannot_pay(
    make_clip: Callable[..., Path], options: EncodeOptions, tmp_path: Path
) -> None:
    said: list[str] = []
    asked = replace(options, adapt="full", steps=None)
    result = encode_video(make_clip(frames=2), tmp_path / "o.vdc", asked, lambda stage, *_: said.append(stage))
    assert list(result.costs) == ["plain"]
    assert said.index("not adapted") > 0
    assert "adapt" not in said
    assert any(note.startswith("2 frames of ") for note in result.notes)


@pytest.mark.parametrize(
    "changes",
    [{"preset": "slow"}, {"max_minutes": 1}, {"steps": 9}, {"update_parameters": "all"}, {"adapt": "encoder"}],
    ids=str,
)
def test_who_insists_gets_an_adaptation(changes: dict[str, Any]) -> None:
    assert steps.hopeless(EncodeOptions(), 8, 20_000)
    assert not steps.hopeless(EncodeOptions(), 20, 100_000)
    assert not steps.hopeless(replace(EncodeOptions(), **changes), 8, 20_000)


def pretend(monkeypatch: pytest.MonkeyPatch, update: bytes = b"") -> None:
    """What is called adapted is plain, with an update (of nothing, for no decoder)."""
    monkeypatch.setattr(
        steps,
        "adapted",
        lambda job, video: replace(
            video.candidate, name="adapted", update=update, family=replace(video.candidate.family)
        ),
    )


def test_an_update_costs_what_it_adds_to_the_file(
    make_clip: Callable[..., Path], options: EncodeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(frames=2)
    pretend(monkeypatch, bytes(12))
    plain = encode_video(clip, tmp_path / "plain.vdc", options)
    adapted = replace(options, adapt="full")
    result = encode_video(clip, tmp_path / "a.vdc", adapted)
    assert (result.chosen, result.update_size) == ("plain", 0)
    monkeypatch.setattr(encode, "_better", lambda job, best, other: other)
    forced = encode_video(clip, tmp_path / "b.vdc", adapted)
    assert forced.update_size == 12
    added = (forced.costs["adapted"] - forced.costs["plain"]) * 2 * 48 * 32 / 8
    assert added == pytest.approx(forced.size - plain.size, abs=1e-6)
    assert added > 12 + 13


@pytest.mark.parametrize("better_there", ["plain", "adapted"])
def test_at_the_level_that_meets_the_target_adapted_files_are_compared_with_plain_ones(
    make_clip: Callable[..., Path],
    options: EncodeOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    better_there: str,
) -> None:
    pretend(monkeypatch)
    monkeypatch.setattr(encode, "_starting_level", lambda *_: RateLevel(300))
    monkeypatch.setattr(encode, "meet_target", lambda sample, whole, *_: whole(200)[1])
    least = {300: "adapted", 200: better_there}
    monkeypatch.setattr(
        encode.CodedVideo, "cost", lambda v, *_: float(not v.candidate.name.startswith(least[v.level.steps]))
    )
    asked = replace(options, quality=None, target_psnr=1.0, adapt="full", quantizer="rdoq")
    result = encode_video(make_clip(frames=1), tmp_path / "o.vdc", asked)
    assert result.chosen.startswith(better_there)
    assert result.quality == pytest.approx(100 * 200 / 512, abs=0.01)
    assert result.costs[result.chosen] == min(result.costs.values())
    assert any(name.startswith("plain") for name in result.costs)


def test_plain_files_that_miss_the_target_do_not_win(
    make_clip: Callable[..., Path], options: EncodeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    monkeypatch.setattr(encode, "_starting_level", lambda *_: RateLevel(300))
    monkeypatch.setattr(encode, "meet_target", lambda sample, whole, *_: whole(200)[1])
    monkeypatch.setattr(
        encode.CodedVideo, "cost", lambda v, *_: float((v.candidate.name == "adapted") == (v.level.steps == 200))
    )
    asked = replace(options, quality=None, target_psnr=99.0, adapt="full")
    assert encode_video(make_clip(frames=1), tmp_path / "o.vdc", asked).chosen == "adapted"


def test_sizes_are_predicted(
    make_clip: Callable[..., Path], options: EncodeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, bytes(200))
    predicted: list[float] = []
    monkeypatch.setattr(
        encode, "meet_target", lambda sample, whole, *_: predicted.append(whole(200)[0]) or whole(200)[1]
    )
    monkeypatch.setattr(encode.CodedVideo, "cost", lambda v, *_: float(v.candidate.name == "plain"))
    asked = replace(options, quality=None, target_size=10**6, adapt="full")
    result = encode_video(make_clip(frames=3), tmp_path / "o.vdc", asked)
    assert result.update_size == 200
    assert result.size <= predicted[0] <= result.size + encode.FILE_OVERHEAD


@pytest.mark.parametrize("wrong", ["weights", "scores"])
def test_models_and_scores_are_sought_before_the_video_is_read(
    make_clip: Callable[..., Path], options: EncodeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    def read_first(*_: object, **__: object) -> None:
        raise AssertionError("the video is read first")

    monkeypatch.setattr(encode, "Footage", read_first)
    monkeypatch.setattr(importance, "WEIGHTS", tmp_path)
    asked = (
        replace(options, adapt="full", update_parameters="learned")
        if wrong == "scores"
        else replace(options, weights=tmp_path / "none")
    )
    with pytest.raises(ModelError):
        encode_video(make_clip(frames=1), tmp_path / "o.vdc", asked)


def test_same_seed_same_file(make_clip: Callable[..., Path], options: EncodeOptions, tmp_path: Path) -> None:
    clip = make_clip(frames=2)
    for name in ("a", "b"):
        encode_video(clip, tmp_path / name, replace(options, adapt="full", seed=3, steps=4))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("size", [(2, 2), (18, 34)])
def test_tiny_and_unaligned_videos(
    make_clip: Callable[..., Path], options: EncodeOptions, tiny_weights: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    clip = make_clip(frames=1, size=size)
    assert_as_promised(encode_video(clip, tmp_path / "o.vdc", options), clip, tiny_weights, 8)


def test_decoding_to_a_lossless_file_keeps_frames_and_times(
    make_clip: Callable[..., Path], options: EncodeOptions, tiny_weights: Path, tmp_path: Path
) -> None:
    encode_video(make_clip(frames=5), tmp_path / "o.vdc", options)
    result = decode_video(tmp_path / "o.vdc", tmp_path / "o.mkv", start=1, stop=4, weights=tiny_weights)
    assert (result.frames, result.expected, result.problems) == (3, 3, [])
    frames = decoded(tmp_path / "o.vdc", tiny_weights)
    shown = read(tmp_path / "o.mkv")
    assert len(shown) == 3
    for index, frame in enumerate(shown, 1):
        assert np.array_equal(frame.y, frames[index].y)
        assert np.array_equal(frame.uv, frames[index].uv)


# ------------------------------------------------------------------------------- targets


@pytest.fixture(scope="module")
def anchor(
    make_clip: Callable[..., Path], options: EncodeOptions, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, EncodeResult]:
    """A clip and its plain coding at quality 60."""
    clip = make_clip(frames=4)
    return clip, encode_video(clip, tmp_path_factory.mktemp("anchor") / "o.vdc", options)


@pytest.mark.parametrize("kind", ["bpp", "psnr", "size"])
def test_targets_within_reach_are_met_closely(
    anchor: tuple[Path, EncodeResult], options: EncodeOptions, tmp_path: Path, kind: str
) -> None:
    clip, at = anchor
    targets: dict[str, Any] = {"bpp": at.bpp * 1.05, "psnr": at.quality_figures["psnr_yuv"] - 0.3, "size": at.size + 20}
    asked = replace(options, quality=None, **{f"target_{kind}": targets[kind]})
    result = encode_video(clip, tmp_path / "o.vdc", asked)
    if kind == "psnr":
        assert targets[kind] <= result.quality_figures["psnr_yuv"] <= targets[kind] + 1.0
    else:
        reached = result.bpp if kind == "bpp" else result.size
        assert 0.85 * targets[kind] <= reached <= targets[kind]


@pytest.mark.parametrize("target", [{"target_psnr": 99.0}, {"target_size": 150}, {"target_bpp": 1e-4}], ids=str)
def test_targets_out_of_reach_are_told(
    anchor: tuple[Path, EncodeResult], options: EncodeOptions, tmp_path: Path, target: dict[str, Any]
) -> None:
    with pytest.raises(RateControlError):
        encode_video(anchor[0], tmp_path / "o.vdc", replace(options, quality=None, **target))
    assert not list(tmp_path.iterdir())


def test_quality_orders_rates(anchor: tuple[Path, EncodeResult], options: EncodeOptions, tmp_path: Path) -> None:
    sizes = [encode_video(anchor[0], tmp_path / f"{q}.vdc", replace(options, quality=q)).size for q in (0, 30, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


# -------------------------------------------------------------------- damage, wrong weights


def test_damage_gives_intact_frames_or_a_typed_error(
    anchor: tuple[Path, EncodeResult], tiny_weights: Path, tmp_path: Path
) -> None:
    data = anchor[1].output.read_bytes()
    clean = decoded(anchor[1].output, tiny_weights)
    rng = np.random.default_rng(8)
    path, survivors = tmp_path / "damaged.vdc", 0
    for k in range(40):
        damaged = bytearray(data)
        if k < 30:
            damaged[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
        else:
            del damaged[int(rng.integers(0, len(data))) :]
        path.write_bytes(damaged)
        try:
            with VideoDecoder(path, weights=tiny_weights) as decoder:
                frames = {index: frame for index, frame, _ in decoder.frames()}
                assert len(frames) == len(clean) or decoder.problems
        except VidcodecError:
            continue
        survivors += len(frames)
        assert all(same(frame, clean[index]) for index, frame in frames.items())
    assert survivors > 60


def test_other_weights_are_refused(
    anchor: tuple[Path, EncodeResult], make_tiny: Callable[..., Msp], tmp_path: Path
) -> None:
    save_model(make_tiny(99), tmp_path / "other.safetensors")
    with pytest.raises(ModelMismatchError, match="'weights'"):
        decode_video(anchor[1].output, tmp_path / "o.y4m", weights=tmp_path / "other.safetensors")
    assert not (tmp_path / "o.y4m").exists()
