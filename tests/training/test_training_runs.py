"""Training: configurations, data that depend on (seed, step) alone, stops and resumption."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from vidcodec.checkpoint import is_sent
from vidcodec.errors import TrainingError
from vidcodec.families.msp.checkpoint import save_model
from vidcodec.families.msp.network import Msp, MspConfig
from vidcodec.training import codec
from vidcodec.training.codec import (
    TrainConfig,
    build_model,
    draw_levels,
    learning_rate,
    rd_loss,
    split_pictures,
    train,
    uninterrupted,
)
from vidcodec.training.data import Planes, batches, load_pictures

TINY = {
    "widths": [12, 12],
    "blocks": [1, 1],
    "analysis_blocks": [1, 1],
    "latent": 12,
    "hyper": 6,
    "mean_features": 8,
    "scale_features": 8,
    "pass_width": 8,
    "pass_known": 6,
    "scale_width": 8,
    "scale_known": 6,
    "scales": 2,
    "levels": 3,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of 96x80."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(1)
    for index in range(6):
        picture = noise.integers(0, 256, (10, 12, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(picture, (96, 80)))
    return folder


@pytest.fixture
def config(pictures: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        data=str(pictures), out=str(tmp_path / "run"), model=TINY, steps=6, batch=2, crop=64, warmup=2, device="cpu"
    )


@pytest.fixture(autouse=True)
def _plain_torch() -> Iterator[None]:
    """Training sets torch's threads and how it treats denormals."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def state_of(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def assert_same(a: object, b: object) -> None:
    if isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for k in a:
            assert_same(a[k], b[k])
    elif isinstance(a, list):
        assert isinstance(b, list)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)  # type: ignore[arg-type]
    else:
        assert a == b


# ----------------------------------------------------------------------- configurations


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nosuch": 1}, "unknown entries"),
        ({"minutes": 5}, "either steps or minutes"),
        ({"steps": None}, "either steps or minutes"),
        ({"steps": "6"}, "'steps' .* whole number"),
        ({"steps": 1.5}, "'steps' .* whole number"),
        ({"steps": True}, "'steps' .* whole number"),
        ({"data": 3}, "'data' .* string"),
        ({"out": None}, "'out' .* string"),
        ({"lr": "fast"}, "'lr' .* number"),
        ({"lr": 0}, "'lr' must be above zero"),
        ({"batch": 0}, "'batch' must be above zero"),
        ({"crop": 100}, "multiple of 16"),
        ({"crop": 0}, "multiple of 16"),
        ({"ema": 1}, "'ema'"),
        ({"warmup": -1}, "'warmup'"),
        ({"device": "tpu"}, "'device'"),
        ({"model": [1]}, "'model' .* object"),
    ],
    ids=str,
)
def test_bad_configurations_are_told(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"data": "d", "out": "o", "steps": 6, **change}))
    with pytest.raises(TrainingError, match=said) as error:
        TrainConfig.from_file(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot read"),
        ("[]", "JSON object"),
        ("7", "JSON object"),
        ('{"steps": 1}', "'data' and 'out'"),
        ('{"steps": 1, "data": "d"}', "must name 'out'"),
    ],
)
def test_incomplete_files_are_told(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(TrainingError, match=said):
        TrainConfig.from_file(path)
    with pytest.raises(TrainingError, match="cannot read"):
        TrainConfig.from_file(tmp_path)


@pytest.mark.parametrize(
    "model",
    [{"nosuch": 1}, {"latent": 10}, {"latent": "a"}, {"latent": -3}, {"blocks": "x"}, {"widths": 3}],
    ids=str,
)
def test_bad_networks_are_told(config: TrainConfig, model: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match="'model' in the training configuration"):
        train(replace(config, model={**TINY, **model}))
    assert not Path(config.out).exists()


def test_no_pictures_is_told(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for data in ("empty", "missing"):
        with pytest.raises(TrainingError, match="no usable picture"):
            train(replace(config, data=str(tmp_path / data)))


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    c = TrainConfig(data="d", out="o", steps=1000, warmup=100, lr=1.0)
    rates = [learning_rate(c, step, 0.0) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert np.argmax(rates) == 99
    assert (np.diff(rates[100:]) < 0).all()
    assert rates[500] == pytest.approx(0.5)
    assert rates[1000] == pytest.approx(0, abs=1e-12)
    assert learning_rate(replace(c, warmup=0), 0, 0.0) == 1.0
    clock = replace(c, steps=None, minutes=10.0, warmup=0)
    assert learning_rate(clock, 5, 300.0) == pytest.approx(0.5)
    assert learning_rate(clock, 5, 6000.0) == pytest.approx(0, abs=1e-12)


# --------------------------------------------------------------------------------- data


def test_batches_depend_on_seed_and_step_alone(pictures: Path) -> None:
    loaded = load_pictures(pictures, progress=False)
    options: dict[str, Any] = {"batch": 3, "crop": 64}
    first = batches(loaded, seed=4, start=0, **options)
    steps = [next(first) for _ in range(6)]
    later = batches(loaded, seed=4, start=3, **options)
    for step, planes, rng in steps[3:]:
        again, same, other = next(later)
        assert again == step
        assert torch.equal(same, planes)
        assert rng.random() == other.random()
        assert planes.shape == (3, 6, 32, 32)
        assert planes.abs().max() <= 0.5
    assert not torch.equal(next(batches(loaded, seed=5, start=0, **options))[1], steps[0][1])


@pytest.mark.parametrize("count", [1, 4, 5, 6, 40, 300])
@pytest.mark.parametrize("holdout", [0, 4, 48, 10_000])
def test_at_most_a_fifth_is_held_out(count: int, holdout: int) -> None:
    planes = Planes(np.zeros((64, 64), np.uint8), np.zeros((2, 32, 32), np.uint8))
    held, kept = split_pictures([(str(i), planes) for i in range(count)], holdout)
    assert sorted(n for n, _ in held + kept) == sorted(str(i) for i in range(count))
    assert len(held) <= math.ceil(count / 5)
    assert len(kept) >= 1
    assert bool(held) == (count >= 5 and holdout > 0)


# ---------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("quantizer", ["uniform", "mixed"])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantizer: str
) -> None:
    config = replace(config, quantizer=quantizer, middle=0.5)
    whole = state_of(train(config))
    assert whole["step"] == 6
    row = json.loads((Path(config.out) / "log.jsonl").read_text().splitlines()[-1])
    assert math.isfinite(row["score"])
    assert ("decided" in row) == (quantizer != "uniform")
    assert row["step"] == 6

    def stopped(*args: Any, **options: Any) -> Iterator[Any]:
        for item in batches(*args, **options):
            if item[0] == 3:
                raise KeyboardInterrupt
            yield item

    part = replace(config, out=str(tmp_path / "part"))
    with monkeypatch.context() as m:
        m.setattr(codec, "batches", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(part)
    assert state_of(tmp_path / "part" / "state.pt")["step"] == 3
    resumed = state_of(train(part, resume=True))
    for key in ("model", "optimiser", "average", "step", "config"):
        assert_same(whole[key], resumed[key])


def test_training_the_decoder_on_a_quantisers_symbols_leaves_the_encoder_as_it_is(config: TrainConfig) -> None:
    before = build_model(config.profile, config.model)
    start = Path(config.out).parent / "start.safetensors"
    save_model(before, start)
    state = state_of(train(replace(config, quantizer="trellis", trains="decoder", start=str(start))))
    changed = {n for n, p in before.state_dict().items() if not torch.equal(p, state["model"][n])}
    parts = {n.partition(".")[0] for n in changed}
    assert parts >= {"synthesis", "pass_mean", "pass_scale"}
    assert not [n for n in changed if not is_sent(before, n)]


def test_levels_come_from_the_middle_as_often_as_asked() -> None:
    rng = np.random.default_rng(1)
    every = draw_levels(rng, 2000, 9, 0.0)
    middle = draw_levels(rng, 2000, 9, 1.0)
    assert every.max() > 7.5 > 0.3 > every.min()
    assert 0.72 * 8 >= middle.max() > middle.min() >= 0.06 * 8


@pytest.mark.parametrize(("entry", "value"), [("quantizer", "tcq"), ("trains", "encoder"), ("middle", 1.5)])
def test_a_training_that_does_not_exist_is_refused(config: TrainConfig, entry: str, value: Any) -> None:
    with pytest.raises(TrainingError, match=entry):
        replace(config, **{entry: value})


def test_ctrl_c_within_a_step_waits_for_its_end(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return original(self, *args)

    with monkeypatch.context() as m:
        m.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    state = state_of(Path(config.out) / "state.pt")
    assert state["step"] == 2
    assert all(int(s["step"]) == 2 for s in state["optimiser"]["state"].values())


def test_signals_are_held_back_and_then_delivered() -> None:
    before = signal.getsignal(signal.SIGINT)
    order = []

    def shielded() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            order.append("complete")

    with pytest.raises(KeyboardInterrupt):
        shielded()
    assert order == ["complete"]
    assert signal.getsignal(signal.SIGINT) is before


def test_few_pictures_are_all_trained_on(
    config: TrainConfig, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for index in range(2):
        (few / f"{index}.png").write_bytes((pictures / f"{index}.png").read_bytes())
    train(replace(config, data=str(few), steps=1))
    row = json.loads((Path(config.out) / "log.jsonl").read_text())
    assert math.isfinite(row["score"])
    assert "training pictures stand in" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["folder", "state", "checkpoint"])
def test_start_takes_a_run_or_a_checkpoint(config: TrainConfig, tmp_path: Path, form: str) -> None:
    first = train(replace(config, steps=1))
    average = state_of(first)["average"]
    start = {"folder": first.parent, "state": first, "checkpoint": tmp_path / "w.safetensors"}[form]
    if form == "checkpoint":
        model = Msp(MspConfig.from_dict(TINY))
        model.load_state_dict(average)
        save_model(model, start)
        average = model.state_dict()
    second = state_of(train(replace(config, out=str(tmp_path / "second"), steps=1, lr=1e-30, start=str(start))))
    for name, weight in average.items():  # after a step of next to nothing
        assert torch.allclose(second["model"][name], weight, rtol=0, atol=1e-20), name


def test_unusable_starts_are_told(config: TrainConfig, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pt"
    junk.write_bytes(b"junk")
    other = train(replace(config, out=str(tmp_path / "other"), steps=1, model={**TINY, "hyper": 9}))
    for start, said in (
        (tmp_path / "no", "no weights to start from"),
        (tmp_path, "no weights to start from"),
        (junk, "cannot be read"),
        (other, "do not fit"),
    ):
        with pytest.raises(TrainingError, match=said):
            train(replace(config, start=str(start)))
    assert not Path(config.out).exists()


def test_unusable_states_are_told_and_kept(config: TrainConfig) -> None:
    path = train(replace(config, steps=1))
    with pytest.raises(TrainingError, match="resume it"):
        train(config)
    with pytest.raises(TrainingError, match="does not fit"):
        train(replace(config, model={**TINY, "hyper": 9}), resume=True)
    with pytest.raises(TrainingError, match="does not fit"):
        train(replace(config, model={**TINY, "lambda_range": [1e-4, 0.1]}), resume=True)
    data = path.read_bytes()
    for content in (b"", b"junk", data[: len(data) // 2]):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match="cannot be read"):
            train(config, resume=True)
        assert path.read_bytes() == content
    torch.save({"model": {}}, path)
    with pytest.raises(TrainingError, match="it holds no"):
        train(config, resume=True)


# ---------------------------------------------------------------------------------- loss


def test_loss_charges_what_the_coder_charges(make_tiny: Callable[..., Msp]) -> None:
    model = make_tiny()
    planes, level = torch.rand(2, 6, 32, 32) - 0.5, torch.tensor([0.2, 1.7])
    loss, shown = rd_loss(model, planes, level)
    assert torch.isfinite(loss)
    out = model(planes, level, rate="rounded")
    assert shown["bpp"] == pytest.approx(float(((out.y_bits + out.z_bits) / 4096).mean()), rel=1e-4)
    assert shown["z_bpp"] <= shown["bpp"]


def test_training_needs_neither_video_nor_compressai_nor_safetensors() -> None:
    code = (
        "import sys, vidcodec.training.codec, vidcodec.families.msp.network\n"
        "print(sorted({'av', 'compressai', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ----------------------------------------------------------------------- several workers


def test_workers_train_one_network(config: TrainConfig, tmp_path: Path) -> None:
    """Two processes end with the same weights, those of the mean of their gradients."""
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**asdict(config), "steps": 3}))
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, sys, torch\n"
        "from pathlib import Path\n"
        "from vidcodec.training import codec\n"
        "seen = []\n"
        "plain = codec.Workers.average_gradients\n"
        "def spy(self, parameters):\n"
        "    before = [p.grad.clone() for p in parameters]\n"
        "    plain(self, parameters)\n"
        "    seen.append((before, [p.grad.clone() for p in parameters]))\n"
        "codec.Workers.average_gradients = spy\n"
        "codec.train(codec.TrainConfig.from_file(Path(sys.argv[1])))\n"
        "torch.save(seen, Path(sys.argv[2]) / f'rank{os.environ[\"RANK\"]}.pt')\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    done = subprocess.run([*command, path, tmp_path], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in (0, 1))
    assert len(first) == len(second) == 3
    for (mine, mean), (theirs, same) in zip(first, second, strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))  # batches of their own
        for a, b, c, d in zip(mine, theirs, mean, same, strict=True):
            assert torch.equal(c, d)
            assert torch.allclose(c, (a + b) / 2)
    assert state_of(Path(config.out) / "state.pt")["step"] == 3
