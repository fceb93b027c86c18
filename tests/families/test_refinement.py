"""Refining a picture's latents: cheaper than what it starts from, exact to repeat, bounded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from vidcodec.entropy.rates import rounding
from vidcodec.families.msp.network import Msp
from vidcodec.families.msp.quantising import error_weights
from vidcodec.families.msp.refine import RefineConfig, Refiner, annealed, gumbel_round
from vidcodec.latents.decisions import Decisions
from vidcodec.latents.quantizer import Quantizer
from vidcodec.rate import weighted_mse

LEVEL = torch.tensor([1.0])


@pytest.fixture
def planes() -> Tensor:
    slope = np.add.outer(np.arange(32), np.arange(32)) / 64 - 0.5
    noise = np.random.default_rng(3).normal(0, 0.04, (6, 32, 32))
    return torch.from_numpy(np.clip(slope + noise, -0.5, 0.5).astype(np.float32))[None]


@pytest.fixture
def model(make_tiny: Callable[..., Msp]) -> Msp:
    return make_tiny(scales=1)


def latents(model: Msp, planes: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        y = model.analyse(planes, LEVEL)
        return y, model.hyper_analysis(y)


def decisions(model: Msp, planes: Tensor, kind: str, trade_off: float = 0.7) -> Decisions:
    return Decisions(Quantizer(kind), trade_off, error_weights(model, [planes], LEVEL))


@pytest.mark.parametrize("kind", ["scalar", "trellis8"])
def test_greedy_search_lowers_the_cost_it_reports(model: Msp, planes: Tensor, kind: str) -> None:
    refiner = Refiner(model, LEVEL, decisions(model, planes, kind), RefineConfig("lof", steps=8))
    y, z = latents(model, planes)
    with torch.enable_grad():
        before = refiner._state(planes, y, torch.round(z)).cost
        after = refiner._state(planes, *refiner.refine(planes, y, z)).cost
    assert float(after) < 0.995 * float(before)


@pytest.fixture
def pictures(planes: Tensor) -> Tensor:
    """Three of different contrast and detail, which a search treats differently."""
    return torch.cat([planes, 0.2 * planes.flip(3), planes.roll(5, 2).clamp(-0.3, 0.1)])


@pytest.fixture
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bfloat16, in which other batches are other numbers."""
    monkeypatch.setattr("vidcodec.families.msp.refine.autocast", lambda _: nullcontext())


@pytest.mark.parametrize("method", ["lof", "sga"])
def test_pictures_refined_together_end_as_each_alone(
    model: Msp, pictures: Tensor, method: str, full_precision: None
) -> None:
    given = decisions(model, pictures[:1], "trellis8")
    refiner = Refiner(model, LEVEL, given, RefineConfig(method, steps=9, seed=2))
    y, z = latents(model, pictures)
    together = refiner.refine(pictures, y, z, numbers=(5, 3, 9))
    for i, number in enumerate((5, 3, 9)):
        one = slice(i, i + 1)
        alone = refiner.refine(pictures[one], y[one], z[one], numbers=[number])
        with torch.enable_grad():
            ends = ((together[0][one], together[1][one]), alone)
            costs = [float(refiner._state(pictures[one], y_, torch.round(z_)).cost) for y_, z_ in ends]
        assert costs[0] == pytest.approx(costs[1], rel=1e-3)
        assert float((together[0][one] - alone[0]).abs().mean()) < 1e-2


def test_pictures_that_have_settled_do_not_run_on(
    model: Msp, pictures: Tensor, monkeypatch: pytest.MonkeyPatch, full_precision: None
) -> None:
    refiner = Refiner(model, LEVEL, decisions(model, pictures[:1], "scalar"), RefineConfig("lof", steps=24))
    tried: list[int] = []  # pictures of every trial
    state = refiner._state
    monkeypatch.setattr(refiner, "_state", lambda x, *rest: tried.append(len(x)) or state(x, *rest))
    y, z = latents(model, pictures)
    refiner.refine(pictures, y, z)
    together = tried.copy()
    alone = []
    for i in range(3):
        tried.clear()
        refiner.refine(pictures[i : i + 1], y[i : i + 1], z[i : i + 1])
        alone.append(sum(tried))
    assert len(set(alone)) > 1
    assert (len(together), sum(together)) == (max(alone), sum(alone))


def test_random_numbers_are_the_pictures_own(model: Msp, planes: Tensor) -> None:
    refiner = Refiner(model, LEVEL, Decisions(), RefineConfig("sga", steps=3))
    y, z = latents(model, planes)
    first, again, other = (refiner.refine(planes, y, z, numbers=[n])[0] for n in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_annealing_lowers_the_cost_of_rounded_latents(model: Msp, planes: Tensor) -> None:
    def cost(y: Tensor, z: Tensor) -> float:
        z_hat = torch.round(z)
        with torch.no_grad():
            y_hat, bits = model.code_passes(y, z_hat, LEVEL, rounding("rounded"))
            error = weighted_mse(model.synthesise(y_hat, LEVEL), planes)
        return float(bits + model.rate_lambda(LEVEL) * 255**2 * 64 * 64 * error)

    y, z = latents(model, planes)
    refiner = Refiner(model, LEVEL, Decisions(), RefineConfig("sga", steps=60, learning_rate=0.02))
    assert cost(*refiner.refine(planes, y, z)) < cost(y, z)


@pytest.mark.parametrize("method", ["lof", "sga"])
def test_same_seed_same_latents(model: Msp, planes: Tensor, method: str) -> None:
    refiner = Refiner(model, LEVEL, decisions(model, planes, "trellis8"), RefineConfig(method, steps=3, seed=4))
    first, second = (refiner.refine(planes, *latents(model, planes)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("method", ["lof", "sga"])
def test_time_bounds_the_work_and_progress_ends_it(
    model: Msp, planes: Tensor, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(0.0, 1 / 16)  # as if a step took as long, however busy the machine
    monkeypatch.setattr("vidcodec.families.msp.refine.time", SimpleNamespace(monotonic=lambda: next(clock)))
    shares: list[float] = []
    refiner = Refiner(model, LEVEL, decisions(model, planes, "scalar"), RefineConfig(method, steps=10**9))
    refiner.refine(planes, *latents(model, planes), 1.0, shares.append)
    assert shares == sorted(shares)
    assert shares[0] < 1.0
    if method == "sga":  # the greedy search may have found all it can
        assert shares[-1] == 1.0


def test_no_time_gives_the_latents_back(model: Msp, planes: Tensor) -> None:
    y, z = latents(model, planes)
    refiner = Refiner(model, LEVEL, decisions(model, planes, "scalar"), RefineConfig("sga"))
    assert all(torch.equal(a, b) for a, b in zip(refiner.refine(planes, y, z, 0.0), (y, z), strict=True))


def test_the_greedy_search_needs_a_trade_off(model: Msp) -> None:
    with pytest.raises(ValueError, match="trade-off"):
        Refiner(model, LEVEL, Decisions(), RefineConfig("lof"))
    with pytest.raises(ValueError, match="method"):
        Refiner(model, LEVEL, Decisions(), RefineConfig("guess"))


def test_cold_rounding_is_rounding_and_differentiable() -> None:
    x = torch.tensor([[0.1, 0.9, -0.2, 2.0, -1.7]], requires_grad=True)
    generator = [torch.Generator().manual_seed(0)]
    cold = gumbel_round(x, 0.01, generator)
    assert torch.allclose(cold, x.round(), atol=1e-3)
    warm = gumbel_round(x, 0.5, generator)
    assert bool(((warm >= x.floor()) & (warm <= x.floor() + 1)).all())
    (gradient,) = torch.autograd.grad(warm.sum(), x)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


def test_the_temperature_is_the_papers() -> None:
    """min(0.5, exp(-0.001 (t - 700))) over 2000 steps."""
    for t in (0, 700, 1400, 1999):
        assert annealed(t / 2000, 0.35) == pytest.approx(min(0.5, np.exp(-0.001 * (t - 700))))
