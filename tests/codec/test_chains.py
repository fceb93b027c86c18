"""Frames that refer to others: what they cost, that they decode anywhere, and what damage spoils."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from vidcodec import EncodeOptions, encode_video
from vidcodec.bitstream import BitstreamReader
from vidcodec.codec.decode import VideoDecoder
from vidcodec.codec.quality import quality_figures
from vidcodec.errors import ModelError, ModelMismatchError
from vidcodec.families.msp.checkpoint import load_model, save_model
from vidcodec.families.planes import plane_errors
from vidcodec.video import Frame, Sampling, VideoReader

SIDE = 64
EVERY = Sampling(fps=None)


def scene(seed: int, moved: int = 0) -> np.ndarray:
    """A smooth random picture, RGB (64, 64, 3) uint8, turned around by some columns."""
    coarse = np.random.default_rng(seed).uniform(30, 220, (8, 8, 3))
    return np.roll(np.kron(coarse, np.ones((8, 8, 1))), moved, 1).astype(np.uint8)


def texture(moved: int) -> np.ndarray:
    """A window on a larger smooth picture, RGB (64, 64, 3) uint8, so many samples from its left."""
    coarse = np.random.default_rng(5).uniform(30, 220, (12, 20, 3)).astype(np.float32)
    return (
        cv2.resize(coarse, (2 * SIDE, SIDE), interpolation=cv2.INTER_CUBIC)[:, moved : moved + SIDE]
        .clip(0, 255)
        .astype(np.uint8)
    )


def clip_of(path: Path, pictures: list[np.ndarray]) -> Path:
    """A lossless clip of 2 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=2)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def options(tiny_weights: Path) -> EncodeOptions:
    return EncodeOptions(
        sampling=EVERY,
        weights=tiny_weights,
        device="cpu",
        preset="fast",
        quality=60,
        quantizer="uniform",
        key_seconds=60,
    )


def decoded(path: Path, weights: Path, order: list[int] | None = None) -> dict[int, Frame]:
    with VideoDecoder(path, weights=weights, device="cpu") as decoder:
        return {i: decoder.frame(i)[0] for i in order or range(len(decoder))}


def kinds(path: Path) -> str:
    with BitstreamReader(path) as reader:
        return "".join("K" if reader.frame(i).is_key else "p" for i in range(reader.frame_count))


def test_a_still_picture_is_paid_once(options: EncodeOptions, tiny_weights: Path, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "still.mkv", [scene(1)] * 12)
    result = encode_video(clip, tmp_path / "o.vdc", options)
    assert kinds(result.output) == "K" + 11 * "p"
    with BitstreamReader(result.output) as reader:
        sizes = [len(reader.frame(i).payload) for i in range(12)]
    assert sizes[6:] == [0] * 6, sizes  # what is left to refine has been said by then
    assert (result.size - sum(sizes) - 200) / 11 <= 32  # header and index take less than 200
    frames = decoded(result.output, tiny_weights)
    assert all(np.array_equal(frames[6].y, frames[i].y) for i in range(6, 12))


def test_chains_decode_to_what_the_encoder_saw_from_any_frame(
    options: EncodeOptions, tiny_weights: Path, tmp_path: Path
) -> None:
    pictures = [scene(1), scene(1), scene(1)]
    for picture, row in zip(pictures, (0, 16, 32), strict=True):
        picture[row : row + 16, 16:32] = 255  # a white square that moves
    clip = clip_of(tmp_path / "clip.mkv", pictures + [scene(2)] * 2)
    result = encode_video(clip, tmp_path / "o.vdc", options)
    assert kinds(result.output)[0] == "K"
    assert "p" in kinds(result.output)
    frames = decoded(result.output, tiny_weights)
    with VideoReader(clip, EVERY) as reader:
        errors = [plane_errors(source, frames[i]) for i, source in enumerate(reader.frames())]
    assert result.quality_figures["psnr_yuv"] == pytest.approx(quality_figures(errors, 8)["psnr_yuv"], abs=1e-9)
    backwards = decoded(result.output, tiny_weights, [4, 3, 2, 1, 0, 2])
    for i, frame in backwards.items():
        assert np.array_equal(frame.y, frames[i].y)
        assert np.array_equal(frame.uv, frames[i].uv)
    assert result.size == result.output.stat().st_size


def test_what_moved_is_found_and_decoded(options: EncodeOptions, tiny_weights: Path, tmp_path: Path) -> None:
    """A texture that moves by parts of blocks costs less than alone, and decodes to what the encoder saw."""
    clip = clip_of(tmp_path / "clip.mkv", [texture(3 * i) for i in range(4)])
    result = encode_video(clip, tmp_path / "o.vdc", options)
    alone = encode_video(clip, tmp_path / "a.vdc", replace(options, key_seconds=0))
    assert kinds(result.output) == "Kppp"
    assert result.size < 0.8 * alone.size
    with VideoDecoder(result.output, weights=tiny_weights, device="cpu") as decoder, VideoReader(clip, EVERY) as reader:
        errors = [plane_errors(source, decoder.frame(i)[0]) for i, source in enumerate(reader.frames())]
        assert decoder._left[3].moved.mean() > 0.3
    assert result.quality_figures["psnr_yuv"] == pytest.approx(quality_figures(errors, 8)["psnr_yuv"], abs=1e-9)


def test_an_update_leaves_the_analysis_of_what_moved_as_it_was_shipped(
    options: EncodeOptions, tiny_weights: Path, tmp_path: Path
) -> None:
    """Finetuning changes the encoder's analysis, which no update carries."""
    clip = clip_of(tmp_path / "clip.mkv", [texture(3 * i) for i in range(4)])
    adapted = replace(options, adapt="full", steps=8, seed=1, update_parameters="all")
    result = encode_video(clip, tmp_path / "o.vdc", adapted)
    assert result.update_size > 0
    with VideoDecoder(result.output, weights=tiny_weights, device="cpu") as decoder, VideoReader(clip, EVERY) as reader:
        errors = [plane_errors(source, decoder.frame(i)[0]) for i, source in enumerate(reader.frames())]
        assert any(decoder._left[i].moved.any() for i in (2, 3))
    assert result.quality_figures["psnr_yuv"] == pytest.approx(quality_figures(errors, 8)["psnr_yuv"], abs=1e-9)


def test_weights_with_another_analysis_are_refused(options: EncodeOptions, tiny_weights: Path, tmp_path: Path) -> None:
    """They decode what refers to nothing, but would show what moved wrongly."""
    network, _ = load_model(weights=tiny_weights)
    network.analysis.stem.weight.data[0] += 1
    save_model(network, tmp_path / "other.safetensors")
    clip = clip_of(tmp_path / "clip.mkv", [texture(3 * i) for i in range(2)])
    for seconds, message in ((60, "another analysis"), (0, None)):
        result = encode_video(clip, tmp_path / f"{seconds}.vdc", replace(options, key_seconds=seconds))
        if message:
            with pytest.raises(ModelMismatchError, match=message):
                decoded(result.output, tmp_path / "other.safetensors")
        else:
            assert len(decoded(result.output, tmp_path / "other.safetensors")) == 2


def test_chains_cost_no_more_than_frames_by_themselves(options: EncodeOptions, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "cuts.mkv", [scene(seed) for seed in range(5)])
    chained = encode_video(clip, tmp_path / "o.vdc", options)
    alone = encode_video(clip, tmp_path / "a.vdc", replace(options, key_seconds=0))
    assert min(chained.costs.values()) <= 1.005 * min(alone.costs.values())


def test_a_key_frame_comes_after_the_interval(options: EncodeOptions, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "still.mkv", [scene(1)] * 7)
    result = encode_video(clip, tmp_path / "o.vdc", replace(options, key_seconds=1.5))
    assert kinds(result.output) == "KppKppK"


def test_refinement_leaves_chains_alone(options: EncodeOptions, tiny_weights: Path, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "clip.mkv", [scene(1)] * 3 + [scene(2)])
    refined = replace(options, refine="lof", refine_steps=2)
    result = encode_video(clip, tmp_path / "o.vdc", refined)
    assert kinds(result.output) == "KppK"
    assert len(decoded(result.output, tiny_weights)) == 4


def test_damage_spoils_the_rest_of_a_chain_only(options: EncodeOptions, tiny_weights: Path, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "clip.mkv", [scene(1, i) for i in range(3)] + [scene(2, i) for i in range(3)])
    result = encode_video(clip, tmp_path / "o.vdc", replace(options, key_seconds=1.5))
    whole = decoded(result.output, tiny_weights)
    data = bytearray(result.output.read_bytes())
    with BitstreamReader(result.output) as reader:
        payload = reader.frame(0).payload
    at = data.index(payload) + len(payload) // 2
    data[at] ^= 16
    (tmp_path / "d.vdc").write_bytes(data)
    with VideoDecoder(tmp_path / "d.vdc", weights=tiny_weights, device="cpu") as decoder:
        left = {i: frame for i, frame, _ in decoder.frames()}
        assert any("frame 0" in problem for problem in decoder.problems)
    assert 3 in left
    assert 0 not in left
    for i, frame in left.items():
        assert np.array_equal(frame.y, whole[i].y)


def test_families_that_predict_nothing_say_so(tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "one.mkv", [scene(1)])
    with pytest.raises(ModelError, match="key_seconds"):
        encode_video(clip, tmp_path / "o.vdc", EncodeOptions(sampling=EVERY, lossless=True, key_seconds=60))
