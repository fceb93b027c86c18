"""Training the post-filter: pairs from pictures, a run that stops and goes on, weights out of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vidcodec.errors import TrainingError
from vidcodec.postfilter.checkpoint import load_filter
from vidcodec.training.filter import FilterTrainConfig, checkpoint, train_filter
from vidcodec.training.filter_data import (
    FRAMES,
    KEPT,
    SIDE,
    Pairs,
    coded,
    make_clip,
    mirrored,
    prepare_pairs,
    to_planes,
)
from vidcodec.training.run import export_weights, load_run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(1)
    for index in range(2):
        coarse = noise.integers(0, 256, (12, 14, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(coarse, (300, 290)))
    return folder


@pytest.fixture(scope="module")
def pairs(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    prepare_pairs(pictures, folder, 3, seed=2)
    return folder


@pytest.fixture
def config(pictures: Path, pairs: Path, tmp_path: Path) -> FilterTrainConfig:
    return FilterTrainConfig(
        data=str(pictures),
        pairs=str(pairs),
        out=str(tmp_path / "run"),
        profile="small",
        clips=3,
        steps=4,
        batch=2,
        crop=32,
        warmup=1,
    )


def test_pairs_hold_coded_pictures_and_their_sources(pairs: Path) -> None:
    rows = [json.loads(line) for line in (pairs / "index.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        data = np.load(pairs / row["file"])
        assert data.shape == (KEPT, 2, 6, SIDE // 2, SIDE // 2)
        assert len(row["qp"]) == KEPT
        error = np.square(data[:, 0].astype(float) - data[:, 1]).mean()
        assert 0 < error < 400, "decoded and source show the same picture"


def test_making_pairs_goes_on_and_repeats_itself(pictures: Path, pairs: Path, tmp_path: Path) -> None:
    prepare_pairs(pictures, tmp_path, 1, seed=2)
    prepare_pairs(pictures, tmp_path, 2, seed=2)
    for name in ("00000.npy", "00001.npy"):
        ours, theirs = np.load(tmp_path / name), np.load(pairs / name)
        assert np.array_equal(ours[:, 1], theirs[:, 1])


@pytest.mark.parametrize("codec", ["x264", "x265", "svtav1"])
def test_clips_are_coded_with_prediction(codec: str) -> None:
    texture = cv2.resize(np.random.default_rng(1).integers(0, 256, (30, 30, 3)).astype(np.uint8), (400, 400))
    clip = make_clip(np.random.default_rng(5), [("a", texture)])
    low, qps = coded(clip, codec, 24, constant=True)
    high, _ = coded(clip, codec, 44, constant=True)
    assert low.shape == high.shape == (FRAMES, SIDE * 3 // 2, SIDE)
    errors = [np.square(x.astype(float) - clip).mean() for x in (low, high)]
    assert errors[0] < errors[1]
    assert len(qps) == FRAMES
    assert len(set(qps)) > (codec != "svtav1")  # types of pictures differ


def test_mirrored_planes_are_those_of_the_mirrored_picture() -> None:
    i420 = np.random.default_rng(0).integers(0, 255, (24, 16)).astype(np.uint8)
    seen = set()
    for seed in range(20):
        out = mirrored(np.random.default_rng(seed), to_planes(i420)[None])[0]
        luma = i420[:16]
        variants = [
            f(g(h(luma)))
            for f in (np.fliplr, np.asarray)
            for g in (np.flipud, np.asarray)
            for h in (np.transpose, np.asarray)
        ]
        found = [
            k
            for k, v in enumerate(variants)
            if all(np.array_equal(out[2 * i + j], v[i::2, j::2]) for i in (0, 1) for j in (0, 1))
        ]
        assert found
        seen.add(found[0])
    assert len(seen) > 3


def test_resumed_run_equals_an_uninterrupted_one(config: FilterTrainConfig, tmp_path: Path) -> None:
    whole = torch.load(train_filter(config), weights_only=True)["average"]
    half = replace(config, out=str(tmp_path / "half"))
    train_filter(replace(half, steps=2, lr=config.lr))
    state = torch.load(tmp_path / "half" / "state.pt", weights_only=True)
    assert state["step"] == 2
    with pytest.raises(TrainingError, match="resume it"):
        train_filter(half)
    again = torch.load(train_filter(half, resume=True), weights_only=True)
    assert again["step"] == 4
    assert again["average"].keys() == whole.keys()
    assert all(torch.equal(v, torch.ones_like(v)) for k, v in again["average"].items() if k.endswith("multiplier"))


def test_trained_weights_are_exported(config: FilterTrainConfig, tmp_path: Path) -> None:
    state = train_filter(config)
    run = load_run(state.parent)
    digest = export_weights(run, checkpoint(), tmp_path / "w.safetensors")
    assert run["step"] == 4
    assert load_filter(weights=tmp_path / "w.safetensors")[1] == digest
    log = [json.loads(line) for line in (state.parent / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 4


def test_held_out_clips_are_not_trained_on(pairs: Path) -> None:
    found = Pairs(pairs)
    assert len(found.held) == 1
    assert len(found.kept) == 2
    step, decoded, source, qp = next(found.batches(seed=1, start=7, batch=3, crop=64))
    assert (step, decoded.shape, source.shape, qp.shape) == (7, (3, 6, 32, 32), (3, 6, 32, 32), (3,))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"profile": "huge"}, "small, base"),
        ({"crop": 33}, "'crop'"),
        ({"steps": None}, "steps or minutes"),
        ({"lr": "fast"}, "a number"),
        ({"batch": 0}, "above zero"),
        ({"ema": 1.0}, "'ema'"),
    ],
)
def test_senseless_configurations_are_refused(config: FilterTrainConfig, change: dict, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        replace(config, **change)


def test_missing_data_is_told(config: FilterTrainConfig, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no usable picture"):
        train_filter(replace(config, data=str(tmp_path / "none"), pairs=str(tmp_path / "p")))
    with pytest.raises(TrainingError, match="no training run"):
        load_run(tmp_path)
    (tmp_path / "index.jsonl").write_text('{"file": "gone.npy", "qp": [1]}\n')
    with pytest.raises(TrainingError, match="no training pairs"):
        Pairs(tmp_path)
