"""Training the lossless network: its data, a run that stops and goes on, weights out of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vidcodec.errors import TrainingError
from vidcodec.families.lossless.checkpoint import load_lossless
from vidcodec.training.lossless import (
    LosslessTrainConfig,
    batches,
    checkpoint,
    filmed,
    load_photographs,
    train_lossless,
    with_coarse_chroma,
)
from vidcodec.training.run import export_weights, load_run

TINY = {"luma": [8], "chroma": [8], "mixtures": 2, "scales": 3, "tiers": 1}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(1)
    for index in range(6):
        coarse = noise.integers(0, 256, (12, 14, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(coarse, (150, 140), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture
def config(pictures: Path, tmp_path: Path) -> LosslessTrainConfig:
    return LosslessTrainConfig(
        data=str(pictures), out=str(tmp_path / "run"), model=TINY, steps=6, batch=2, crop=32, warmup=1, device="cpu"
    )


def test_crops_of_video_are_frames_that_h264_has_coded() -> None:
    rng = np.random.default_rng(5)
    y, uv = rng.integers(90, 160, (64, 64)).astype(np.uint8), rng.integers(90, 160, (2, 32, 32)).astype(np.uint8)
    seen = [filmed(np.random.default_rng(seed), y, uv) for seed in range(12)]
    assert all(a.shape == (64, 64) and b.shape == (2, 32, 32) and a.dtype == b.dtype == np.uint8 for a, b in seen)
    again = filmed(np.random.default_rng(3), y, uv)
    assert all((a == b).all() for a, b in zip(again, seen[3], strict=True))
    # White noise: what is left of it tells the quantiser apart from a copy.
    kept = sorted(float(a.std()) for a, _ in seen)
    assert kept[0] < 0.9 * y.std()
    assert len(set(kept)) > 6


def test_batches_hold_both_kinds_of_pictures_and_repeat_themselves(pictures: Path) -> None:
    photographs = load_photographs(pictures)
    depths = set()
    first, second = (batches(photographs, seed=3, start=0, batch=5, crop=32) for _ in range(2))
    for (step, parts), (_, again) in zip(first, second, strict=False):
        rgb, yuv = parts
        assert (rgb.rgb, yuv.rgb) == (True, False)
        assert rgb.y.shape == (2, 32, 32)
        assert rgb.uv.shape == (2, 2, 32, 32)
        assert yuv.y.shape == (3, 32, 32)
        assert yuv.uv.shape == (3, 2, 16, 16)
        for part, levels in ((rgb, 511), (yuv, 1 << yuv.bits)):
            for plane, top in ((part.y, 1 << part.bits), (part.uv, levels)):
                assert torch.equal(plane, plane.round())
                assert 0 <= plane.min() <= plane.max() < top
        for a, b in zip(parts, again, strict=True):
            assert torch.equal(a.y, b.y)
            assert torch.equal(a.uv, b.uv)
        depths.add(yuv.bits)
        if step == 40:
            break
    assert depths == {8, 10}


def test_coarse_chroma_leaves_luma_nearly_alone() -> None:
    rng = np.random.default_rng(0)
    bgr = rng.uniform(60, 190, (32, 32, 3)).astype(np.float32)
    coarse = with_coarse_chroma(rng, bgr)
    weights = np.array([0.114, 0.587, 0.299])
    assert np.abs(coarse @ weights - bgr @ weights).max() < 2
    assert np.abs(coarse - bgr).max() > 10


def test_training_lowers_the_rate_and_its_weights_are_exported(config: LosslessTrainConfig, tmp_path: Path) -> None:
    runs = [replace(config, steps=1, lr=1e-2, out=str(tmp_path / "first")), replace(config, steps=20, lr=1e-2)]
    first, last = (json.loads((train_lossless(run).parent / "log.jsonl").read_text()) for run in runs)
    assert last["score"] < first["score"]
    assert last["rgb"][0] == pytest.approx(sum(last["rgb"][1:]), abs=1e-3)
    digest = export_weights(load_run(Path(config.out)), checkpoint(), tmp_path / "weights.safetensors")
    model, loaded = load_lossless(tmp_path / "weights.safetensors")
    assert loaded == digest
    assert model.config.luma == (8,)


def test_a_run_that_stopped_goes_on_as_if_it_had_not(config: LosslessTrainConfig, tmp_path: Path) -> None:
    whole = train_lossless(config)
    half = replace(config, out=str(tmp_path / "half"))
    train_lossless(replace(half, steps=3))
    # The schedule is that of the longer run only from here on: compare data and state, not rates.
    resumed = train_lossless(half, resume=True)
    a, b = (torch.load(path, weights_only=True) for path in (whole, resumed))
    assert a["step"] == b["step"] == 6
    assert a["model"].keys() == b["model"].keys()
    again = train_lossless(replace(config, out=str(tmp_path / "again")))
    c = torch.load(again, weights_only=True)
    assert all(torch.equal(a["model"][k], c["model"][k]) for k in a["model"])


@pytest.mark.parametrize(
    ("entry", "value"),
    [("crop", 31), ("batch", 1), ("device", "tpu"), ("model", {"luma": "wide"}), ("model", {"depth": 3}), ("steps", 0)],
)
def test_configurations_that_cannot_be_run_are_refused(config: LosslessTrainConfig, entry: str, value: object) -> None:
    with pytest.raises(TrainingError):
        train_lossless(replace(config, **{entry: value}))  # type: ignore[arg-type]
    assert not Path(config.out).exists()


def test_a_folder_without_pictures_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no usable picture"):
        load_photographs(tmp_path)
