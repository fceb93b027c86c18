"""Finetuning a tiny network: never worse than its start, exactly what the stream carries, repeatable."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from vidcodec.checkpoint import is_sent, sent_parameters
from vidcodec.families.msp.network import Msp
from vidcodec.families.msp.objective import MspObjective
from vidcodec.updates import finetune as finetune_module
from vidcodec.updates.coder import decode_update
from vidcodec.updates.curvature import mean_curvature
from vidcodec.updates.finetune import FinetuneConfig, Finetuned, Finetuner, measured_cost
from vidcodec.updates.prior import AdaptivePrior, SpikeSlabPrior

LEVEL = torch.tensor([1.0])


class Pictures:
    """Three moving gradients with noise, 64x64; `pixels` says how many the update is shared by."""

    def __init__(self, pixels: int = 10**8) -> None:
        rng = np.random.default_rng(3)
        slope = np.add.outer(np.arange(32), np.arange(32)) / 64 - 0.5
        frames = [np.stack([np.roll(slope, 5 * k) * (1 - c / 8) for c in range(6)]) for k in range(3)]
        noise = rng.normal(0, 0.04, (3, 6, 32, 32))
        self.planes = torch.from_numpy(np.clip(np.stack(frames) + noise, -0.5, 0.5).astype(np.float32))
        self.pixels = pixels

    def crops(self, rng: np.random.Generator, count: int) -> Tensor:
        return self.planes[torch.from_numpy(rng.integers(0, 3, count))]

    def checks(self) -> list[Tensor]:
        return list(self.planes.split(1))


def finetune(
    base: Msp, *, pixels: int = 10**8, prior: str = "adaptive", **settings: object
) -> tuple[Finetuner, Finetuned]:
    defaults = {"steps": 14, "batch": 2, "seed": 5, "encoder_lr": 1e-3, "adam_lr": 0.2, "measure_every": 0.2}
    config = FinetuneConfig(**{**defaults, **settings})  # type: ignore[arg-type]
    chosen = SpikeSlabPrior() if prior == "spike-slab" else AdaptivePrior()
    tuner = Finetuner(base, MspObjective(base, LEVEL), Pictures(pixels), chosen, config)
    return tuner, tuner.run()


def assert_decoder_gets(tuner: Finetuner, tuned: Finetuned, base: Msp) -> None:
    """Decoded bytes on the base weights give the adapted network, bit for bit."""
    payload = tuner.prior.encode(tuned.update, base)
    decode_update(payload, base).apply(base)
    adapted = dict(tuned.model.named_parameters())
    for name, p in sent_parameters(base):
        assert torch.equal(p, adapted[name]), name


@pytest.mark.parametrize("prior", ["adaptive", "spike-slab"])
def test_cheap_updates_are_found_and_arrive_exactly(make_tiny: Callable[..., Msp], prior: str) -> None:
    tuner, tuned = finetune(make_tiny(), prior=prior, vector_lr=1.0, matrix_lr=0.3)
    assert tuned.update.nonzero > 0
    assert tuned.curve[-1]["update_bits"] > 0
    assert_decoder_gets(tuner, tuned, make_tiny())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_steps_that_are_not_numbers_are_not_taken(
    make_tiny: Callable[..., Msp], monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """Every third batch has a loss that is not finite; the others are learned from as if it had not been."""
    calls, real = [0], Finetuner.loss

    def loss(self: Finetuner, batch: Tensor, *, hard: bool) -> tuple[Tensor, dict[str, float]]:
        total, parts = real(self, batch, hard=hard)
        calls[0] += 1
        return (total, parts) if calls[0] % 3 else (total * value, {**parts, "loss": value})

    monkeypatch.setattr(Finetuner, "loss", loss)
    tuner, tuned = finetune(make_tiny(), vector_lr=1.0, matrix_lr=0.3)
    assert calls[0] == 14
    assert tuned.update.nonzero > 0
    assert all(math.isfinite(row["cost"]) and math.isfinite(row["loss"]) for row in tuned.curve[1:])
    assert_decoder_gets(tuner, tuned, make_tiny())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["update", "encoder"])
def test_a_state_that_is_not_finite_is_never_the_best(
    make_tiny: Callable[..., Msp], monkeypatch: pytest.MonkeyPatch, value: float, where: str
) -> None:
    """Spoilt after half of the steps, at a weight that a clamp or a mask might hide; what was best before is kept."""
    calls, real = [0], AdaptivePrior.observe

    def observe(self: AdaptivePrior, u: dict[str, Tensor]) -> None:
        real(self, u)
        calls[0] += 1
        if calls[0] == 7:
            with torch.no_grad():
                x = next(iter(u.values())) if where == "update" else spoilt[0]
                x[(0,) * x.ndim] = value

    base = make_tiny()
    config = FinetuneConfig(
        steps=14, batch=2, seed=5, encoder_lr=1e-3, vector_lr=1.0, matrix_lr=0.3, patience=100, measure_every=0.1
    )
    tuner = Finetuner(base, MspObjective(base, LEVEL), Pictures(), AdaptivePrior(), config)
    spoilt = tuner.free
    monkeypatch.setattr(AdaptivePrior, "observe", observe)
    if where == "update":
        assert tuner.is_finite
        with torch.no_grad():
            first = next(iter(tuner.u.values())).view(-1)
            first[0] = value
            assert tuner.measure()["cost"] == math.inf
            with pytest.raises(ValueError, match="is not finite"):
                tuner.grid.update()
            first[0] = 0.0
    tuned = tuner.run()
    assert calls[0] == 14
    assert tuner.is_finite
    assert all(bool(p.isfinite().all()) for p in tuned.model.parameters())
    assert all(row["step"] <= 7 for row in tuned.curve)
    assert_decoder_gets(tuner, tuned, make_tiny())


@pytest.mark.parametrize("scope", ["encoder", "decoder", "full"])
@pytest.mark.parametrize("pixels", [10**3, 10**8])
def test_the_result_never_costs_more_than_the_start(make_tiny: Callable[..., Msp], scope: str, pixels: int) -> None:
    tuner, tuned = finetune(make_tiny(), pixels=pixels, scope=scope, vector_lr=2.0, matrix_lr=0.5, encoder_lr=0.01)
    costs = [row["cost"] for row in tuned.curve]
    assert tuned.curve[0]["step"] == 0
    assert tuned.curve[0]["update_bits"] == 0
    found = measured_cost(tuned.model, {}, tuner.objective, tuner.batches, tuned.payload)  # what it returns
    assert found["cost"] == pytest.approx(min(costs), rel=1e-6)
    assert found["cost"] <= costs[0]


def test_scope_encoder_sends_nothing(make_tiny: Callable[..., Msp]) -> None:
    base = make_tiny()
    tuner, tuned = finetune(make_tiny(), scope="encoder")
    assert not tuned.update
    assert tuner.prior.encode(tuned.update, base) == b""
    moved = {
        n
        for (n, p), (_, q) in zip(base.named_parameters(), tuned.model.named_parameters(), strict=True)
        if not torch.equal(p, q)
    }
    assert moved
    assert not any(is_sent(base, n) for n in moved)


def test_scope_decoder_leaves_the_analysis_alone(make_tiny: Callable[..., Msp]) -> None:
    base = make_tiny()
    _, tuned = finetune(make_tiny(), scope="decoder", vector_lr=1.0)
    adapted = dict(tuned.model.named_parameters())
    assert all(torch.equal(p, adapted[n]) for n, p in base.named_parameters() if not is_sent(base, n))


def test_the_base_network_is_not_touched(make_tiny: Callable[..., Msp]) -> None:
    base = make_tiny()
    finetune(base, vector_lr=1.0)
    assert all(torch.equal(p, q) for p, q in zip(base.parameters(), make_tiny().parameters(), strict=True))


def test_same_seed_same_bytes(make_tiny: Callable[..., Msp]) -> None:
    payloads = []
    for _ in range(2):
        tuner, tuned = finetune(make_tiny(), vector_lr=1.0, matrix_lr=0.3)
        payloads.append(tuner.prior.encode(tuned.update, tuned.model))
    assert payloads[0] == payloads[1]
    assert payloads[0]


def test_random_numbers_of_others_stay_as_they_were(make_tiny: Callable[..., Msp]) -> None:
    base = make_tiny()
    torch.manual_seed(11)
    before = torch.get_rng_state()
    finetune(base, prior="spike-slab", steps=3)  # draws numbers in its prior and in the network
    assert torch.equal(torch.get_rng_state(), before)


@dataclass
class Clock:
    """Passes as the work does, however busy the machine."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def charge(self, patch: pytest.MonkeyPatch, where: object, name: str, seconds: float) -> None:
        """Calls of a function take so long."""
        original = getattr(where, name)

        def charged(*args: object, **options: object) -> object:
            self.now += seconds
            return original(*args, **options)

        patch.setattr(where, name, charged)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Grid steps take 2 seconds, a measure 1, a step 1/8."""
    clock = Clock()
    monkeypatch.setattr(finetune_module, "time", clock)
    clock.charge(monkeypatch, finetune_module, "step_exponents", 2.0)
    clock.charge(monkeypatch, Finetuner, "measure", 1.0)
    clock.charge(monkeypatch, Finetuner, "loss", 1 / 8)
    return clock


@pytest.mark.parametrize("seconds", [5.0, 9.5])
def test_time_limit_holds_for_all_of_finetuning(make_tiny: Callable[..., Msp], clock: Clock, seconds: float) -> None:
    _, tuned = finetune(make_tiny(), steps=10**6, max_seconds=seconds)
    assert seconds - 1.2 <= clock.now <= seconds + 1 / 8
    assert tuned.seconds == clock.now
    assert tuned.curve[-1]["step"] >= 6
    assert tuned.curve[-1]["phase"] == "latents"  # the schedule shrank, all phases were reached


def test_measures_leave_time_to_learn(make_tiny: Callable[..., Msp], clock: Clock) -> None:
    _, tuned = finetune(make_tiny(), steps=10**6, max_seconds=23.0)
    assert len(tuned.curve) - 1 <= 7
    assert tuned.curve[-1]["step"] >= 100


@pytest.mark.parametrize("seconds", [0.01, 3.0, 3.9])
def test_without_time_for_a_step_the_base_stays(make_tiny: Callable[..., Msp], clock: Clock, seconds: float) -> None:
    base = make_tiny()
    _, tuned = finetune(base, steps=10**6, max_seconds=seconds)
    assert clock.now == 3.0
    assert not tuned.update
    assert tuned.payload == b""
    assert all(torch.equal(p, q) for p, q in zip(base.parameters(), tuned.model.parameters(), strict=True))


def test_steps_without_a_limit_do_not_depend_on_the_clock(make_tiny: Callable[..., Msp], clock: Clock) -> None:
    _, slow = finetune(make_tiny(), vector_lr=1.0)
    clock.now = 1e9
    _, quick = finetune(make_tiny(), vector_lr=1.0)
    assert slow.payload == quick.payload != b""
    assert slow.curve == quick.curve


def test_progress_rises_to_one(make_tiny: Callable[..., Msp]) -> None:
    config = FinetuneConfig(steps=5, batch=1)
    seen: list[float] = []
    objective = MspObjective(make_tiny(), LEVEL)
    Finetuner(make_tiny(), objective, Pictures(), AdaptivePrior(), config).run(lambda share, _: seen.append(share))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_curvature_is_positive_where_weights_are_used(make_tiny: Callable[..., Msp]) -> None:
    model, rng = make_tiny(), np.random.default_rng(0)
    names = [n for n, _ in sent_parameters(model)]
    batches = Pictures()
    curvature = mean_curvature(model, MspObjective(model, LEVEL), names, lambda: batches.crops(rng, 2))
    assert set(curvature) == set(names)
    assert all(np.isfinite(v) and v >= 0 for v in curvature.values())
    unused = [n for n, v in curvature.items() if v == 0]
    assert len(unused) <= len(names) // 20, unused
    assert not any(p.requires_grad for p in model.parameters())


def test_curvature_of_the_last_biases_is_known(make_tiny: Callable[..., Msp]) -> None:
    model, batches = make_tiny(), Pictures()
    name = "synthesis.linear.bias"
    rng = np.random.default_rng(0)
    objective = MspObjective(model, LEVEL)
    got = mean_curvature(model, objective, [name], lambda: batches.crops(rng, 2), probes=100)[name]
    lam = float(model.rate_lambda(LEVEL))
    # A bias moves one sample in 64 of one plane by as much: 2 lambda 255^2 w / 64, w on average 1/6. In two pictures
    # these are 32 samples, and signs that cancel are not counted.
    expected = 2 * lam * 255**2 / 6 / 64 / (1 - math.comb(32, 16) / 2**32)
    assert got == pytest.approx(expected, rel=0.05)
