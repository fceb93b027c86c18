"""Every way of adapting, refining and quantising: one file each that decodes to what was coded, and none is worse."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidcodec.bitstream import BitstreamReader, bitstream_bytes
from vidcodec.codec import coding, encode
from vidcodec.codec.decode import VideoDecoder, decode_video
from vidcodec.codec.encode import EncodeResult, encode_video
from vidcodec.codec.files import units_size
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.presets import QUANTIZERS, REFINE
from vidcodec.errors import UnsupportedInputError, UnsupportedVersionError, VidcodecError
from vidcodec.families.msp import quantising, refining
from vidcodec.families.msp.checkpoint import save_model
from vidcodec.families.msp.network import Msp, MspConfig
from vidcodec.families.msp.refine import Refiner
from vidcodec.families.planes import plane_errors
from vidcodec.latents.quantizer import Quantizer
from vidcodec.rate import PLANE_WEIGHTS, RateLevel
from vidcodec.video import Frame, Sampling, VideoReader

LEVELS = 3
EVERY_FRAME = Sampling(fps=None)


@pytest.fixture(scope="module")
def tiny_weights(make_tiny: Callable[..., Msp], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fewer passes than elsewhere: many files are made here."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_model(make_tiny(scales=1), path)
    return path


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(refining.REFINE_SCALE, "sga", 1)


@pytest.fixture(scope="module")
def options(tiny_weights: Path) -> EncodeOptions:
    return EncodeOptions(
        sampling=EVERY_FRAME,
        weights=tiny_weights,
        quality=60,
        device="cpu",
        steps=2,
        refine_steps=2,
        adapt="none",
        refine="none",
        quantizer="uniform",
    )


@pytest.fixture(scope="module")
def clip(make_clip: Callable[..., Path]) -> Path:
    return make_clip(frames=1, size=(48, 32))


def frames_of(path: Path, weights: Path) -> dict[int, Frame]:
    with VideoDecoder(path, weights=weights, device="cpu") as decoder:
        frames = {index: frame for index, frame, _ in decoder.frames()}
        assert decoder.problems == []
        return frames


def true_cost(result: EncodeResult, source: Path, weights: Path) -> float:
    """R-D-M cost, bits per pixel, from the file alone."""
    with BitstreamReader(result.output) as reader:
        frames = list(reader.frames())
        update = b"".join(reader.update(n).payload for n in reader.update_numbers)
        size = units_size(update, [len(f.to_bytes()) for f in frames])
    level = RateLevel(frames[0].level).real
    low, high = MspConfig().lambda_range
    lam = low * (high / low) ** (level / (LEVELS - 1))
    decoded = frames_of(result.output, weights)
    with VideoReader(source, EVERY_FRAME) as reader:
        errors = [plane_errors(frame, decoded[i]) for i, frame in enumerate(reader.frames())]
    pixels = result.width * result.height * result.frames
    return 8 * size / pixels + lam * float(np.mean(errors, axis=0) @ PLANE_WEIGHTS)


def quantizer_of(path: Path) -> int:
    """The code of a file's one quantiser."""
    with BitstreamReader(path) as reader:
        [code] = {frame.quantizer for frame in reader.frames()}
    return code


@pytest.mark.parametrize("adapt", ["none", "encoder", "full"])
@pytest.mark.parametrize(("refine", "quantizer"), itertools.product(REFINE, QUANTIZERS))
def test_every_combination_decodes_to_what_it_costs(
    clip: Path, options: EncodeOptions, tiny_weights: Path, tmp_path: Path, adapt: str, refine: str, quantizer: str
) -> None:
    asked = replace(options, adapt=adapt, refine=refine, quantizer=quantizer)
    result = encode_video(clip, tmp_path / "o.vdc", asked)
    least = result.costs[result.chosen]
    assert least == min(result.costs.values())
    assert true_cost(result, clip, tiny_weights) == pytest.approx(least, rel=1e-6)
    assert len(result.costs) == 1 + (adapt != "none") + (refine != "none")
    kind = Quantizer.from_code(quantizer_of(result.output)).kind
    trellises = {"trellis4": "trellis4", "trellis": "trellis8"}
    assert kind in {"scalar", trellises.get(quantizer)}
    if quantizer == "uniform":
        assert quantizer_of(result.output) == 0


def test_deciding_by_rate_and_refining_pay(clip: Path, options: EncodeOptions, tmp_path: Path) -> None:
    asked = replace(options, quantizer="trellis", refine="lof", refine_steps=5)
    [plain] = encode_video(clip, tmp_path / "p.vdc", options).costs.values()
    quantised, refined = encode_video(clip, tmp_path / "o.vdc", asked).costs.values()
    assert refined < quantised < plain


def test_four_states_are_written_where_they_cost_less(
    clip: Path, options: EncodeOptions, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(quantising.KINDS, "trellis4", ("trellis4",))
    result = encode_video(clip, tmp_path / "o.vdc", replace(options, quantizer="trellis4"))
    assert result.chosen == "plain, trellis4"
    assert true_cost(result, clip, tiny_weights) == pytest.approx(result.costs[result.chosen], rel=1e-6)


@pytest.mark.parametrize("dearest", ["lof", "sga", "both"])
def test_of_both_methods_the_cheaper_is_kept_for_every_frame(
    make_clip: Callable[..., Path],
    options: EncodeOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dearest: str,
) -> None:
    """Whatever method is spoilt, the file costs no more than by the other, nor than with no refinement."""
    refine = Refiner.refine

    def spoilt(self: Refiner, planes: Any, y: Any, z: Any, *rest: Any) -> Any:
        y, z = refine(self, planes, y, z, *rest)
        return (y + 30.0, z) if dearest in (self.c.method, "both") else (y, z)

    clip, asked = make_clip(frames=2), replace(options, quantizer="rdoq")
    costs = encode_video(clip, tmp_path / "sane.vdc", replace(asked, refine="best")).costs
    sane = costs["plain, scalar, best"]
    monkeypatch.setattr(Refiner, "refine", spoilt)
    costs = encode_video(clip, tmp_path / "o.vdc", replace(asked, refine="best")).costs
    refined = costs["plain, scalar, best"]
    if dearest == "both":
        assert refined == costs["plain, scalar"]
    else:
        other = {"lof": "sga", "sga": "lof"}[dearest]
        alone = encode_video(clip, tmp_path / "a.vdc", replace(asked, refine=other)).costs[f"plain, scalar, {other}"]
        assert sane <= refined <= alone + 1e-9


def test_frames_in_batches_cost_what_they_cost_alone(
    make_clip: Callable[..., Path], options: EncodeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, asked = make_clip(frames=5), replace(options, quantizer="rdoq", refine="best", refine_steps=4)
    costs = []
    for pixels in (1, 2 * 48 * 32, 10**9):  # 5 batches, 3, 1
        monkeypatch.setitem(coding.IN_FLIGHT, "cpu", pixels)
        costs.append(min(encode_video(clip, tmp_path / "o.vdc", asked).costs.values()))
    assert costs == pytest.approx([costs[0]] * 3, rel=1e-3)


@pytest.mark.parametrize("refine", ["lof", "sga"])
def test_same_seed_same_file(clip: Path, options: EncodeOptions, tmp_path: Path, refine: str) -> None:
    for name in ("a", "b"):
        encode_video(clip, tmp_path / name, replace(options, refine=refine, quantizer="trellis", seed=3))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_targets_hold_for_refined_files(clip: Path, options: EncodeOptions, tmp_path: Path) -> None:
    plain = encode_video(clip, tmp_path / "plain.vdc", options)
    psnr = plain.quality_figures["psnr_yuv"]
    refined = replace(options, quality=None, refine="lof", quantizer="trellis")
    by_psnr = encode_video(clip, tmp_path / "p.vdc", replace(refined, target_psnr=psnr))
    assert by_psnr.quality_figures["psnr_yuv"] >= psnr
    by_size = encode_video(clip, tmp_path / "s.vdc", replace(refined, target_size=plain.size))
    assert by_size.size <= plain.size


def test_refined_frames_are_compared_with_unrefined_ones_at_the_level_that_meets_the_target(
    clip: Path, options: EncodeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[tuple[str, int], bool] = {}
    code = encode.code

    def noted(job: Any, candidate: Any, level: RateLevel, picked: Any = None, **given: Any) -> Any:
        if picked is None and candidate.refine != "none":
            known[candidate.name, level.steps] = given["known"] is not None
        return code(job, candidate, level, picked, **given)

    monkeypatch.setattr(encode, "code", noted)
    monkeypatch.setattr(encode, "_starting_level", lambda *_: RateLevel(300))
    monkeypatch.setattr(encode, "meet_target", lambda sample, whole, *_: whole(200)[1])
    asked = replace(options, quality=None, target_psnr=1.0, refine="lof", quantizer="rdoq")
    encode_video(clip, tmp_path / "o.vdc", asked)
    assert set(known.values()) == {True}
    assert {level for _, level in known} == {300, 200}


def test_no_time_left_refines_nothing(clip: Path, options: EncodeOptions, tmp_path: Path) -> None:
    hurried = replace(options, refine="sga", refine_steps=10**6, max_minutes=0.02)
    result = encode_video(clip, tmp_path / "o.vdc", hurried)
    assert result.costs[result.chosen] <= result.costs["plain"]
    assert result.seconds["refine"] < 60


def test_presets_fill_in_what_is_not_asked_for(clip: Path, tiny_weights: Path, tmp_path: Path) -> None:
    options = EncodeOptions(sampling=EVERY_FRAME, weights=tiny_weights, preset="fast", quality=60)
    result = encode_video(clip, tmp_path / "o.vdc", options)
    assert list(result.costs) == [result.chosen]  # every frame is coded once
    assert result.chosen.startswith("plain, ")
    assert quantizer_of(result.output) != 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"refine": "twice"},
        {"quantizer": "vector"},
        {"preset": "now"},
        {"adapt": "most"},
        {"update_prior": "none"},
        {"device": "tpu"},
    ],
    ids=str,
)
def test_unknown_choices_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(UnsupportedInputError, match="is one of"):
        EncodeOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["steps", "refine_steps", "seed"])
def test_negative_numbers_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedInputError, match="must not be negative"):
        EncodeOptions(**{name: -1})


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        ({"adapt": "none"}, "take full or decoder"),
        ({"adapt": "encoder"}, "take full or decoder"),
        ({"preset": "fast"}, "medium, slow or best"),
        ({"steps": 0}, "more than 0"),
        ({"preset": "fast", "lossless": True}, "medium, slow or best"),
    ],
    ids=str,
)
def test_selections_without_an_update_are_refused(asked: dict[str, Any], advice: str) -> None:
    with pytest.raises(UnsupportedInputError, match=advice):
        EncodeOptions(update_parameters="biases", **asked)
    EncodeOptions(update_parameters="all", **asked)
    EncodeOptions(update_parameters="biases", preset="fast", steps=3)


# ------------------------------------------------------------------- damage, later versions


@pytest.fixture(scope="module")
def trellis_file(clip: Path, options: EncodeOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trellis") / "o.vdc"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(quantising.KINDS, "trellis", ("trellis8",))
        encode_video(clip, path, replace(options, quantizer="trellis"))
    assert Quantizer.from_code(quantizer_of(path)).kind == "trellis8"
    return path


def with_quantizer(data: bytes, code: int) -> bytes:
    """The file with another quantiser in its frames."""
    with BitstreamReader(io.BytesIO(data)) as reader:
        frames = [replace(frame, quantizer=code) for frame in reader.frames()]
        return bitstream_bytes(reader.header, [], frames)


def test_a_quantiser_of_a_later_version_is_told(trellis_file: Path, tiny_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "newer.vdc"
    path.write_bytes(with_quantizer(trellis_file.read_bytes(), 255))
    with pytest.raises(UnsupportedVersionError, match="quantiser 255"):
        decode_video(path, tmp_path / "o.y4m", weights=tiny_weights)
    assert not (tmp_path / "o.y4m").exists()


def test_damage_in_a_trellis_file_gives_intact_frames_or_a_typed_error(
    trellis_file: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    data, clean = trellis_file.read_bytes(), frames_of(trellis_file, tiny_weights)
    rng, survivors = np.random.default_rng(5), 0
    path = tmp_path / "damaged.vdc"
    for k in range(30):
        damaged = bytearray(data)
        if k < 20:
            damaged[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
        else:
            del damaged[int(rng.integers(0, len(data))) :]
        path.write_bytes(damaged)
        try:
            with VideoDecoder(path, weights=tiny_weights, device="cpu") as decoder:
                frames = {index: frame for index, frame, _ in decoder.frames()}
                assert len(frames) == len(clean) or decoder.problems
        except VidcodecError:
            continue
        survivors += len(frames)
        for index, frame in frames.items():
            assert np.array_equal(frame.y, clean[index].y)
    assert survivors > 5
