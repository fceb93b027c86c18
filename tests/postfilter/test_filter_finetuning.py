"""Finetuning: only what may change does, the cost falls or nothing is sent, and bytes say what was meant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from filter_support import TUNING

from vidcodec.adapt.coder import decode_update
from vidcodec.postfilter.apply import updated
from vidcodec.postfilter.finetune import STRATEGIES, FilterFinetuneConfig, FilterFinetuner, FilterUpdate, Sample
from vidcodec.postfilter.network import Filter
from vidcodec.postfilter.planes import filtered, to_tensor

QP = (30.0, 32.0, 34.0)


@pytest.fixture
def samples(tiny_filter: Filter) -> list[Sample]:
    """Sources are what a filter with other multipliers makes of the decoded pictures: learnable exactly."""
    teacher = Filter(tiny_filter.config)
    teacher.load_state_dict(tiny_filter.state_dict())
    with torch.no_grad():
        teacher.tail.multiplier.mul_(-3.0)
        teacher.tail.bias.add_(0.5)
    noise = np.random.default_rng(2)
    out = []
    for type in (0, 1, 2, 1):
        decoded = noise.integers(40, 200, (6, 32, 48)).astype(np.uint8)
        source = filtered(teacher.eval().requires_grad_(False), decoded, 8, QP[type])
        out.append(Sample(decoded, source, type))
    return out


def tuned(base: Filter, samples: list[Sample], **changes: object) -> FilterUpdate:
    error = np.mean([np.square(s.decoded.astype(float) - s.source).mean((1, 2)) for s in samples], 0)
    planes = np.array([error[:4].mean(), error[4], error[5]])
    config = replace(TUNING, steps=60, lr=0.5, **changes)  # type: ignore[arg-type]
    return FilterFinetuner(base, samples, 8, QP, 2e5, planes, config).run()


@pytest.mark.parametrize("strategy", list(STRATEGIES))
@pytest.mark.parametrize("objective", ["rate", "sparsity"])
def test_cost_falls_and_only_the_chosen_change(
    strategy: str, objective: str, tiny_filter: Filter, samples: list[Sample]
) -> None:
    done = tuned(tiny_filter, samples, strategy=strategy, objective=objective, real_lr=3e-2)
    assert done.payload, "something is to be gained here"
    assert min(row["cost"] for row in done.curve) < 0.99 * done.curve[0]["cost"]
    assert all(name.endswith(STRATEGIES[strategy]) for name in done.update.tensors)
    kept = min(done.curve, key=lambda row: row["cost"])
    assert kept["bytes"] == len(done.payload)


def test_bytes_make_the_same_filter(tiny_filter: Filter, samples: list[Sample]) -> None:
    done = tuned(tiny_filter, samples, strategy="full")
    again = decode_update(done.payload, tiny_filter)
    assert again.tensors.keys() == done.update.tensors.keys()
    assert all(np.array_equal(t.n, done.update.tensors[n].n) for n, t in again.tensors.items())
    base = {n: p.clone() for n, p in tiny_filter.named_parameters()}
    changed = dict(updated(tiny_filter, done.payload).named_parameters())
    for name, p in tiny_filter.named_parameters():
        assert torch.equal(p, base[name]), "an update applies to a copy"
        assert torch.equal(changed[name], p) == (name not in done.update.tensors)


def test_same_seed_same_bytes(tiny_filter: Filter, samples: list[Sample]) -> None:
    first, again, other = (tuned(tiny_filter, samples, seed=seed) for seed in (1, 1, 2))
    assert first.payload == again.payload
    assert first.curve == again.curve
    assert other.payload != first.payload


def test_nothing_to_gain_sends_nothing(tiny_filter: Filter, samples: list[Sample]) -> None:
    perfect = [Sample(s.decoded, filtered(tiny_filter, s.decoded, 8, QP[s.type]), s.type) for s in samples]
    error = np.array([4.0, 4.0, 4.0])
    done = FilterFinetuner(tiny_filter, perfect, 8, QP, 2e3, error, replace(TUNING, steps=20)).run()
    assert done.payload == b""


def test_time_limit_ends_the_run(tiny_filter: Filter, samples: list[Sample]) -> None:
    done = tuned(tiny_filter, samples, max_seconds=1e-6)
    assert done.curve[-1]["step"] == 1


def test_multipliers_act_after_the_convolution(tiny_filter: Filter) -> None:
    x, qp = torch.rand(1, 6, 8, 8) - 0.5, torch.tensor([30.0])
    with torch.no_grad():
        before = tiny_filter(x, qp) - x
        tiny_filter.requires_grad_(False).tail.multiplier.fill_(2.0)
        assert torch.allclose(tiny_filter(x, qp) - x, 2 * before, atol=1e-6)


@pytest.mark.parametrize("depth", [8, 10])
def test_strips_and_whole_pictures_agree(depth: int, tiny_filter: Filter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidcodec.postfilter.planes.autocast", lambda device: torch.autocast("cpu", enabled=False))
    planes = np.random.default_rng(1).integers(0, 1 << depth, (6, 90, 40)).astype(np.uint8 if depth == 8 else np.uint16)
    whole = filtered(tiny_filter, planes, depth, 33.0)
    monkeypatch.setattr("vidcodec.postfilter.planes.STRIP_SAMPLES", 40 * 16)
    assert np.abs(filtered(tiny_filter, planes, depth, 33.0).astype(int) - whole).max() <= 1
    with torch.no_grad():
        y = tiny_filter(to_tensor(planes, depth)[None], torch.tensor([33.0]))[0]
    codes = ((y + 0.5) * ((1 << depth) - 1)).round().clamp(0, (1 << depth) - 1).numpy()
    assert np.abs(codes - whole).max() <= 1


def test_defaults_are_those_of_the_command_line() -> None:
    assert FilterFinetuneConfig().strategy == "multipliers"
    assert FilterFinetuneConfig().objective == "rate"
