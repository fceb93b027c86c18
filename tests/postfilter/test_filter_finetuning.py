"""Finetuning: only what may change does, the cost falls or nothing is sent, and bytes say what was meant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from filter_support import TUNING

from vidcodec.errors import UnsupportedInputError
from vidcodec.postfilter.apply import updated
from vidcodec.postfilter.finetune import FilterFinetuneConfig, finetune_filter
from vidcodec.postfilter.network import Filter
from vidcodec.postfilter.objective import FilterCrops, FilterObjective, Sample
from vidcodec.postfilter.planes import filtered, to_tensor
from vidcodec.postfilter.sparse import SparseConfig
from vidcodec.updates import objective
from vidcodec.updates.coder import decode_update
from vidcodec.updates.finetune import Finetuned, measured_cost

QP = (30.0, 32.0, 34.0)
ENDS = {
    "multipliers": (".multiplier",),
    "biases": (".bias",),
    "biases+multipliers": (".bias", ".multiplier"),
    "all": (".multiplier", ".bias", ".weight"),
}
OBJECTIVES = {"rate": None, "sparsity": SparseConfig(lr=3e-2)}


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


def tuned(base: Filter, samples: list[Sample], **changes: object) -> Finetuned:
    error = np.mean([np.square(s.decoded.astype(float) - s.source).mean((1, 2)) for s in samples], 0)
    planes = np.array([error[:4].mean(), error[4], error[5]])
    config = replace(TUNING, **{"steps": 60, "vector_lr": 0.5, **changes})  # type: ignore[arg-type]
    return finetune_filter(base, samples, 8, QP, 2e5, planes, config)


@pytest.mark.parametrize("strategy", list(ENDS))
@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_cost_falls_and_only_the_chosen_change(
    strategy: str, objective: str, tiny_filter: Filter, samples: list[Sample]
) -> None:
    done = tuned(tiny_filter, samples, strategy=strategy, sparse=OBJECTIVES[objective])
    assert done.payload, "something is to be gained here"
    assert min(row["cost"] for row in done.curve) < 0.99 * done.curve[0]["cost"]
    assert all(name.endswith(ENDS[strategy]) for name in done.update.tensors)
    kept = min(done.curve, key=lambda row: row["cost"])
    assert kept["bytes"] == len(done.payload)


def test_bytes_make_the_same_filter(tiny_filter: Filter, samples: list[Sample]) -> None:
    done = tuned(tiny_filter, samples, strategy="all")
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
    done = finetune_filter(tiny_filter, perfect, 8, QP, 2e3, error, replace(TUNING, steps=20))
    assert done.payload == b""


def test_time_limit_ends_the_run(tiny_filter: Filter, samples: list[Sample]) -> None:
    done = tuned(tiny_filter, samples, max_seconds=1e-6)
    assert [row["step"] for row in done.curve] == [0]
    assert done.payload == b""
    assert tuned(tiny_filter, samples, max_seconds=1e-6, sparse=SparseConfig()).curve[-1]["step"] == 1


def test_multipliers_act_after_the_convolution(tiny_filter: Filter) -> None:
    x, qp = torch.rand(1, 6, 8, 8) - 0.5, torch.tensor([30.0])
    with torch.no_grad():
        before = tiny_filter(x, qp) - x
        tiny_filter.requires_grad_(False).tail.multiplier.fill_(2.0)
        assert torch.allclose(tiny_filter(x, qp) - x, 2 * before, atol=1e-6)


@pytest.mark.parametrize("depth", [8, 10])
def test_strips_and_whole_pictures_agree(depth: int, tiny_filter: Filter, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert FilterFinetuneConfig().sparse is None


@pytest.mark.parametrize("strategy", ["low-rank:2", "random:30", "learned"])
def test_the_sparse_reference_takes_whole_tensors(strategy: str) -> None:
    assert FilterFinetuneConfig(strategy=strategy).strategy == strategy
    with pytest.raises(UnsupportedInputError, match="'strategy'"):
        FilterFinetuneConfig(strategy=strategy, sparse=SparseConfig())


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_random_numbers_of_others_stay_as_they_were(objective: str, tiny_filter: Filter, samples: list[Sample]) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    tuned(tiny_filter, samples, sparse=OBJECTIVES[objective], steps=2)
    assert torch.equal(torch.get_rng_state(), before)


# --------------------------------------------------------------------------- any processor


@pytest.mark.parametrize("depth", [8, 10])
def test_pictures_do_not_depend_on_the_processor(
    depth: int, tiny_filter: Filter, monkeypatch: pytest.MonkeyPatch
) -> None:
    planes = np.random.default_rng(1).integers(0, 1 << depth, (6, 60, 80)).astype(np.uint8 if depth == 8 else np.uint16)
    shown = []
    for available in (False, True):
        monkeypatch.setattr(objective, "has_bfloat16", lambda there=available: there)
        shown.append(filtered(tiny_filter, planes, depth, 33.0))
    with torch.autocast("cpu", torch.bfloat16):
        shown.append(filtered(tiny_filter, planes, depth, 33.0))
    assert all(np.array_equal(other, shown[0]) for other in shown[1:])


def test_measures_do_not_depend_on_the_processor(
    tiny_filter: Filter, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = np.array([40.0, 30.0, 20.0])
    crops, lowered = FilterCrops(samples, 8, QP, 2e5, 32), FilterObjective.of(error, 8, 2e5)
    measures, learned = [], []
    for available in (False, True):
        monkeypatch.setattr(objective, "has_bfloat16", lambda there=available: there)
        measures.append(measured_cost(tiny_filter, {}, lowered, crops, b""))
        learned.append(float(lowered.outcome(tiny_filter, {}, crops.checks()[0], hard=False).error))
    assert measures[0] == measures[1]
    assert learned[0] != learned[1], "learning may be coarser"
