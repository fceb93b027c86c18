"""Importance learning: distribution models that say what they claim, and scores that find what was planted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from lossless_support import tiny_lossless_weights
from torch import Tensor, nn
from torch.func import functional_call

from vidcodec.errors import ModelError
from vidcodec.families import load_family
from vidcodec.postfilter.checkpoint import load_filter
from vidcodec.training.filter_data import prepare_pairs
from vidcodec.training.importance import (
    MODELS,
    Content,
    ImportanceConfig,
    family_contents,
    importance_of,
    learn_importance,
    overfitted,
)
from vidcodec.updates.importance import OBJECTIVES, save_importance
from vidcodec.updates.objective import Outcome, signs
from vidcodec.updates.selection import Strategy, select

QUICK = ImportanceConfig(contents=12, pixels=1000, batch=1, rounds=2, gradients=1, score_steps=4)
ROW = 2  # of `second.weight`: what contents differ in


class Toy(nn.Module):
    """Weights at rest; the loss is how far those that matter are from what a content wants."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.second = nn.Linear(5, 6)

    def forward(self, wanted: Tensor) -> Tensor:  # (11,) -> (1,) errors
        matters = (self.second.weight[ROW] - wanted[:5]).square().sum()
        hardly = 1e-6 * (self.first.weight[0].mean() - wanted[5]).square() + 1e-6 * self.second.bias.sum() * wanted[6]
        return (matters + hardly)[None]


class ToyObjective:
    worth = 1.0

    def outcome(self, network: nn.Module, parameters: dict[str, Tensor], batch: Any, *, hard: bool) -> Outcome:
        error = functional_call(network, parameters, (batch,))[0]
        return Outcome(error.new_zeros(()), error, 1)

    def probe(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        everything = torch.cat([p.flatten() for p in network.parameters()])
        return (everything * signs(everything, generator)).sum() * math.sqrt(2)


class ToyBatches:
    def __init__(self, wanted: Tensor, pixels: int) -> None:
        self.wanted, self.pixels = wanted, pixels

    def crops(self, rng: np.random.Generator, count: int) -> Tensor:
        return self.wanted

    def checks(self) -> list[Tensor]:
        return [self.wanted]


def contents(c: ImportanceConfig) -> Iterator[Content]:
    rng = np.random.default_rng([c.seed, 1])
    while True:
        yield Content(ToyObjective(), ToyBatches(torch.from_numpy(rng.normal(0, 1, 11).astype(np.float32)), c.pixels))


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy().requires_grad_(False)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_planted_row_is_found(objective: str, toy: Toy) -> None:
    found = learn_importance(toy, contents(QUICK), QUICK)
    row = found.factors[objective]["second.weight"][0][:, 0]
    assert row.argmax() == ROW
    scores = found.scores(objective, toy)
    others = np.concatenate([scores[n].ravel() for n in scores if n != "second.weight"])
    assert scores["second.weight"][ROW].min() > others.max() + 256  # an octave
    masks = select(Strategy(f"learned-{objective}", 5), toy, importance=found).masks
    assert list(masks) == ["second.weight"]
    assert masks["second.weight"][ROW].all()


def test_same_seed_same_scores(toy: Toy) -> None:
    c = replace(QUICK, contents=3)
    numbers = torch.get_rng_state()
    first, again = (learn_importance(toy, contents(c), c) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), numbers), "those of others stay as they were"
    other = learn_importance(toy, contents(replace(c, seed=1)), replace(c, seed=1))
    for objective in OBJECTIVES:
        assert first.digest(objective) == again.digest(objective) != other.digest(objective)


def test_overfitting_lowers_the_loss_and_moves_little_else(toy: Toy) -> None:
    content = next(contents(QUICK))
    update, steps = overfitted(toy, content, QUICK, np.random.default_rng(0))
    base = dict(toy.named_parameters())
    moved = {n: base[n] + update[n] * steps[n] for n in update}
    before, after = (
        float(content.objective.outcome(toy, p, content.batches.checks()[0], hard=True).error)
        for p in (dict(base), moved)
    )
    assert after < 0.7 * before
    assert update["second.weight"][ROW].abs().min() > 0
    assert not update["first.weight"].any()


def test_nothing_to_gain_moves_nothing(toy: Toy) -> None:
    still = Content(ToyObjective(), ToyBatches(torch.cat([toy.second.weight[ROW], torch.zeros(6)]), 1000))
    update, _ = overfitted(toy, still, QUICK, np.random.default_rng(0))
    assert not any(x.any() for x in update.values())
    found = learn_importance(toy, iter([still]), replace(QUICK, contents=1))
    assert all(np.isfinite(v).all() for o in OBJECTIVES for v in found.scores(o, toy).values())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_movement_costs_nothing_and_more_costs_more(objective: str) -> None:
    bits = MODELS[objective]
    assert float(bits(torch.tensor(0.0), torch.tensor(0.0))) == pytest.approx(0, abs=1e-6)
    costs = bits(torch.tensor([0.0, 0.5, 1.0, 3.0]), torch.tensor(0.5))
    assert (costs.diff() > 0).all()


@pytest.mark.parametrize(
    ("objective", "width"), [("gaussian", math.sqrt(2 * math.pi * math.e)), ("laplace", 2 * math.e)]
)
def test_mean_bits_of_wide_distributions_are_their_entropies(objective: str, width: float) -> None:
    rng, scale = np.random.default_rng(0), 20.0
    draw = rng.normal if objective == "gaussian" else rng.laplace
    x = torch.from_numpy(draw(0, scale, 200_000))
    assert float(MODELS[objective](x, torch.tensor(scale)).mean()) == pytest.approx(math.log2(width * scale), abs=0.03)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_likeliest_scale_is_the_spread(objective: str) -> None:
    x = torch.from_numpy(np.random.default_rng(1).laplace(0, 5.0, 50_000))
    scales = torch.linspace(2.0, 12.0, 101)
    best = float(scales[torch.stack([MODELS[objective](x, s).mean() for s in scales]).argmin()])
    assert best == pytest.approx(5.0 * (math.sqrt(2) if objective == "gaussian" else 1.0), rel=0.06)


def test_scores_of_a_filter_come_from_pictures_or_its_training_pairs(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures" / "0.png"), cv2.resize(noise, (300, 290)))
    prepare_pairs(tmp_path / "pictures", tmp_path / "pairs", 2, seed=0)
    c = replace(QUICK, contents=1, score_steps=1, pixels=1_000_000)
    found = [importance_of("filter-small", tmp_path / folder, c) for folder in ("pictures", "pairs")]
    assert found[0].digest("laplace") == found[1].digest("laplace")
    network, _ = load_filter("small")
    save_importance(found[0], tmp_path / "own-importance.safetensors")
    chosen = select(Strategy("learned-laplace", 50), network, folder=tmp_path)
    assert chosen.count == 50


@pytest.mark.parametrize("name", ["msp", "lossless"])
def test_every_family_has_contents(name: str, tiny_weights: Path, tmp_path: Path) -> None:
    """Crops of what the family codes: 4:2:0 at a random rate level, or pictures without loss of both kinds."""
    weights = tiny_weights if name == "msp" else tiny_lossless_weights(tmp_path)
    family = load_family(name, weights, torch.device("cpu"))
    picture = np.random.default_rng(1).integers(0, 256, (280, 300, 3), np.uint8)
    found = list(islice(family_contents(family, [("0.png", picture)], QUICK), 8))
    for content in found[:2]:
        batch = content.batches.crops(np.random.default_rng(0), 2)
        assert content.objective.outcome(family.network, {}, batch, hard=False).bits > 0
        assert content.batches.pixels == QUICK.pixels
    if name == "lossless":
        assert {content.batches.checks()[0].rgb for content in found} == {True, False}
    else:
        assert len({content.objective.worth for content in found}) == len(found)


def test_unknown_models_are_named(tmp_path: Any) -> None:
    with pytest.raises(ModelError, match="mbt2018"):
        importance_of("mbt2018", tmp_path, QUICK)
    with pytest.raises(ValueError, match="contents"):
        ImportanceConfig(contents=0)
