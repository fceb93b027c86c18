"""Learning which parameters are worth updating, over many contents.

"Learn to overfit better" (Zhang et al., VCIP 2021, doi 10.1109/VCIP53242.2021.9675360) learns importance scores by
optimising two objectives derived from simple distribution models of the weight update, and updates the important
parameters only. The paper's own text was not at hand, its abstract alone; the derivation here is ours.

For every content the whole network is overfitted for a few steps, which gives an update x, in grid steps. A score s
of a parameter is the logarithm of a price per bit, and at a price p the parameter is kept by the part

    m = sigmoid((s - log2 p) / T).

With prices drawn at random, scores descend on

    E over contents and p of   ( L(theta + m x) + p * sum_i m_i r_i ) / p

L: the objective's loss in bits of the whole video. What r_i, the bits of a parameter's update, are is told by a
distribution model whose scale is learned at the same time, by maximum likelihood over contents,

    Gaussian    r = log2(v / e^2) / 2 + (x^2 - sigma^2) / (2 v ln 2),   v = sigma^2 + e^2,  e^2 = 1 / (2 pi e)
    Laplace     r = log2(w / e) + (|x| - b) / (w ln 2),                 w = b + e,          e = 1 / (2 e')

(e' Euler's number): the code length of x on a grid of step 1. Its mean is log2(sigma sqrt(2 pi e')) or log2(2 e' b)
for wide distributions, and nothing for one that never moves: e stands for the width of the zero bin. Finetuning rounds
x with a dither, and so |x| and x^2 are the means of its integer's: |x| and x^2 + f (1 - f), f the fraction of |x|.
Where a score rests, the gain of the parameter's update, among the others kept at that price, equals p times its bits:
it is the gain per bit in octaves, and a selection at any threshold is a cut through one ranking.

Scores and scales of a matrix are a row's plus a column's, of a vector an entry's own (`vidcodec.updates.importance`).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from vidcodec.denormals import flushed_denormals
from vidcodec.families import load_family
from vidcodec.families.family import Family
from vidcodec.postfilter.checkpoint import load_filter
from vidcodec.postfilter.network import PROFILES
from vidcodec.postfilter.objective import FilterCrops, FilterObjective, Sample
from vidcodec.rate import RateLevel
from vidcodec.training.data import bgr_to_planes
from vidcodec.training.filter_data import Pairs, prepare_pairs
from vidcodec.training.lossless import Pictures, load_photographs, to_420
from vidcodec.updates.curvature import step_exponents
from vidcodec.updates.finetune import FinetuneConfig
from vidcodec.updates.importance import LEAST, UNIT, Importance, factor_shapes, fingerprint
from vidcodec.updates.objective import Batches, Objective
from vidcodec.updates.optim import GRID_CURVATURE
from vidcodec.updates.selection import everything
from vidcodec.video import Frame, VideoFormat

LN2 = math.log(2)
Report = Callable[[float, dict[str, Any]], None]
# Bits of a zero that is sent: why an entry that never moves is not selected.
ZERO_BITS = 0.005
MOST_STEPS = 8.0  # that Newton's step may take a weight
RGB_SHARE = 0.4  # of the pictures of a lossless family; the others are 4:2:0
FILTERS = {f"filter-{profile}": profile for profile in PROFILES}


@dataclass(frozen=True)
class ImportanceConfig:
    """How scores are learned.

    contents: how many. pixels: of the video whose prices the scores are (of a filter: bits). batch: crops per step.
    rounds: steps of overfitting per content, each along the mean of so many gradients; reach: the part of the best
    step of every weight alone that the first one tries; price: bits that a weight must gain per grid step to move.
    score_steps: per content and distribution model. lr: of Adam, in octaves. temperature: T, prices: the range of p,
    both in octaves.
    """

    contents: int = 96
    pixels: int = 4_000_000
    batch: int = 2
    rounds: int = 3
    gradients: int = 3
    reach: float = 0.5
    price: float = 4.0
    score_steps: int = 4
    lr: float = 0.3
    temperature: float = 1.0
    prices: tuple[float, float] = (-5.0, 6.0)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("contents", "pixels", "batch", "rounds", "gradients", "score_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be above zero, not {getattr(self, name)}")


class Content(NamedTuple):
    """Something to overfit to."""

    objective: Objective
    batches: Batches


# ------------------------------------------------------------------- distribution models


def gaussian_bits(x: Tensor, scale: Tensor) -> Tensor:
    """Mean bits of x, rounded with a dither, under a normal distribution of deviation `scale`, both in grid steps."""
    zero = 1 / (2 * math.pi * math.e)
    v = scale.square() + zero
    fraction = x.abs().frac()
    square = x.square() + fraction * (1 - fraction)
    return 0.5 * torch.log2(v / zero) + (square - scale.square()) / (2 * LN2 * v)


def laplace_bits(x: Tensor, scale: Tensor) -> Tensor:
    """Mean bits of x, rounded with a dither, under a Laplace distribution of mean magnitude `scale`, in grid steps."""
    zero = 1 / (2 * math.e)
    w = scale + zero
    return torch.log2(w / zero) + (x.abs() - scale) / (LN2 * w)


MODELS = {"gaussian": gaussian_bits, "laplace": laplace_bits}


class Factors:
    """A number for every entry of every parameter, as a row's plus a column's."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], start: float) -> None:
        self.shapes = shapes
        self.parts: dict[str, tuple[Tensor, Tensor]] = {}
        for name, shape in shapes.items():
            rows, columns = factor_shapes(name, shape)
            self.parts[name] = (torch.zeros(rows).requires_grad_(), torch.full(columns, start).requires_grad_())

    def __call__(self, name: str) -> Tensor:
        """Of one parameter, in its shape."""
        row, column = self.parts[name]
        shape = self.shapes[name]
        rows = shape[0] if len(shape) > 1 else 1
        return (row + column).expand(rows, math.prod(shape) // rows).reshape(shape)

    @property
    def leaves(self) -> list[Tensor]:
        return [f for pair in self.parts.values() for f in pair]


class Learner:
    """Scores under one distribution model."""

    def __init__(self, objective: str, shapes: dict[str, tuple[int, ...]], c: ImportanceConfig) -> None:
        self.bits, self.c = MODELS[objective], c
        self.scores, self.scales = Factors(shapes, 0.0), Factors(shapes, -4.0)
        self.adam = torch.optim.Adam([*self.scores.leaves, *self.scales.leaves], lr=c.lr, betas=(0.9, 0.98))

    def step(
        self,
        network: nn.Module,
        content: Content,
        base: dict[str, Tensor],
        update: dict[str, Tensor],
        steps: dict[str, float],
        price: float,
        batch: Any,
        share: float,
    ) -> float:
        """One step of all scores and scales on one content's update x, in grid `steps`; returns the loss over p."""
        c, pixels = self.c, content.batches.pixels
        masks = {n: torch.sigmoid((self.scores(n) - math.log2(price)) / c.temperature) for n in update}
        moved = {n: base[n] + masks[n] * (update[n] * steps[n]) for n in update}
        out = content.objective.outcome(network, moved, batch, hard=False)
        loss = pixels * (out.bits / out.pixels + content.objective.worth * out.error) / price
        charge, likelihood = torch.zeros(()), torch.zeros(())
        for n, x in update.items():
            r = self.bits(x, torch.exp2(self.scales(n)))
            charge = charge + (masks[n] * (r.detach() + ZERO_BITS)).sum()
            likelihood = likelihood + r.sum()
        (loss + charge + likelihood).backward()  # type: ignore[no-untyped-call]
        for group in self.adam.param_groups:
            group["lr"] = c.lr * 0.5 * (1 + math.cos(math.pi * share))
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return float(loss.detach() + charge.detach())

    def integers(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The scores as they ship."""

        def grid(x: Tensor) -> np.ndarray:
            return (x.detach() * UNIT).round().clamp(LEAST, -LEAST).numpy().astype(np.int16)

        return {n: (grid(row), grid(column)) for n, (row, column) in self.scores.parts.items()}


# ------------------------------------------------------------------------------ the loop


def priced_step(gradient: Tensor, price: float) -> Tensor:
    """The step from 0 that is best for every weight alone, at so many bits per grid step of magnitude."""
    step = (gradient.abs() - price).clamp_min(0.0) / GRID_CURVATURE
    return -gradient.sign() * step.clamp_max(MOST_STEPS)


def overfitted(
    network: nn.Module, content: Content, c: ImportanceConfig, rng: np.random.Generator
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """A content's update, real numbers in grid steps, and the steps: a few long steps.

    Grids are matched by curvature, so the gradient in grid steps is Newton's direction for every weight alone. Weights
    whose gradient does not pay for a step's bits stay, as they do in finetuning; how far the others may go together is
    searched on crops held apart. An update that helps nowhere is zero.
    """
    chosen = everything(network)
    base: dict[str, Tensor] = {n: p for n, p in network.named_parameters() if n in chosen.masks}
    settings = FinetuneConfig(batch=c.batch, seed=int(rng.integers(1 << 31)))
    steps = {
        n: 2.0**-k for n, k in step_exponents(network, content.objective, content.batches, settings, chosen).items()
    }
    held = content.batches.crops(rng, c.batch)

    def loss(x: dict[str, Tensor], batch: Any) -> Tensor:
        moved = {n: base[n] + x[n] * steps[n] for n in x}
        out = content.objective.outcome(network, moved, batch, hard=False)
        return content.batches.pixels * (out.bits / out.pixels + content.objective.worth * out.error)

    update, reach = {n: torch.zeros_like(p) for n, p in base.items()}, c.reach
    for _ in range(c.rounds):
        leaves = {n: x.requires_grad_(True) for n, x in update.items()}
        for _ in range(c.gradients):
            loss(leaves, content.batches.crops(rng, c.batch)).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            ahead = {
                n: priced_step(torch.zeros_like(x) if x.grad is None else x.grad / c.gradients, c.price)
                for n, x in leaves.items()
            }
            update = {n: x.detach() for n, x in leaves.items()}
            before = float(loss(update, held))
            while reach > c.reach / 256:
                trial = {n: x + reach * ahead[n] for n, x in update.items()}
                if float(loss(trial, held)) < before:
                    update, reach = trial, 2 * reach
                    break
                reach /= 2
    return update, steps


@torch.random.fork_rng(devices=())
def learn_importance(
    network: nn.Module, contents: Iterator[Content], c: ImportanceConfig, report: Report | None = None
) -> Importance:
    """Scores of both distribution models for a network with its base weights, from `c.contents` of the contents."""
    network.requires_grad_(False)
    sent = everything(network).masks
    base: dict[str, Tensor] = {n: p for n, p in network.named_parameters() if n in sent}
    shapes = {n: tuple(p.shape) for n, p in base.items()}
    learners = {name: Learner(name, shapes, c) for name in MODELS}
    rng = np.random.default_rng(c.seed)
    torch.manual_seed(c.seed)
    for k in range(c.contents):
        content = next(contents)
        update, steps = overfitted(network, content, c, rng)
        figures: dict[str, Any] = {}
        for _ in range(c.score_steps):
            price, batch = 2.0 ** rng.uniform(*c.prices), content.batches.crops(rng, c.batch)
            for name, learner in learners.items():
                share = k / c.contents
                figures[name] = learner.step(network, content, base, update, steps, price, batch, share)
        if report:
            report((k + 1) / c.contents, {"contents": k + 1, **figures})
    return Importance(fingerprint(network), c.pixels, {name: x.integers() for name, x in learners.items()})


# ------------------------------------------------------------------------------ contents


def random_crops(rng: np.random.Generator, bgr: np.ndarray, count: int, side: int, most: float) -> list[np.ndarray]:
    """`count` squares of a picture shrunk by a random factor, `most` at most, as video shows whole scenes.

    Float32 BGR (side, side, 3) each, at even places.
    """
    least = side / min(bgr.shape[:2])
    scale = max(least, math.exp(rng.uniform(math.log(min(least, most)), math.log(most))))
    h, w = (max(side, round(n * scale)) for n in bgr.shape[:2])
    small = cv2.resize(bgr.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
    places = [[2 * int(rng.integers(0, (n - side) // 2 + 1)) for n in (h, w)] for _ in range(count)]
    return [small[top : top + side, left : left + side] for top, left in places]


def frames_of(rng: np.random.Generator, parts: list[np.ndarray], *, lossless: bool) -> tuple[list[Frame], bool]:
    """Squares of a picture as the frames of a video, and whether they are RGB: what is kept without loss may be."""
    if lossless and rng.random() >= RGB_SHARE:
        planes = [to_420(rng, x, 8) for x in parts]
        return [Frame(y.astype(np.uint8), uv.astype(np.uint8), k) for k, (y, uv) in enumerate(planes)], False
    pictures = [np.rint(x).clip(0, 255).astype(np.uint8) for x in parts]
    if lossless:
        return [Frame(p[..., 1], np.stack([p[..., 0], p[..., 2]]), k) for k, p in enumerate(pictures)], True
    return [Frame(*bgr_to_planes(p), k) for k, p in enumerate(pictures)], False


def family_contents(family: Family, pictures: Pictures, c: ImportanceConfig) -> Iterator[Content]:
    """Endless: pictures in random order, each at a random rate level."""
    count, side, most = (8, 128, 0.6) if family.lossless else (6, 256, 1.0)
    rng = np.random.default_rng([c.seed, 1])
    while True:
        for i in rng.permutation(len(pictures)):
            parts = random_crops(rng, pictures[i][1], count, side, most)
            frames, rgb = frames_of(rng, parts, lossless=family.lossless)
            video = VideoFormat(side, side, rgb=rgb)
            level = RateLevel.of(rng.uniform(0.05, 0.95) * family.top.real)
            yield Content(family.objective(level, video), family.crops(frames, video, pixels=c.pixels, size=side))


def filter_contents(pairs: Pairs, c: ImportanceConfig, *, side: int = 128) -> Iterator[Content]:
    """Endless: coded clips in random order, each as if it took `c.pixels` bits."""
    rng = np.random.default_rng([c.seed, 1])
    while True:
        for i in rng.permutation(len(pairs.kept)):
            clip, qp = pairs.kept[i]
            pictures = [Sample(decoded, source, k) for k, (decoded, source) in enumerate(np.asarray(clip))]
            error = np.mean([np.square(s.decoded.astype(np.float64) - s.source).mean((1, 2)) for s in pictures], 0)
            planes = np.array([error[:4].mean(), error[4], error[5]])
            crops = FilterCrops(pictures, 8, qp, c.pixels, side)
            yield Content(FilterObjective.of(planes, 8, float(c.pixels)), crops)


@flushed_denormals()
def importance_of(
    model: str, data: Path, c: ImportanceConfig, weights: Path | None = None, report: Report | None = None
) -> Importance:
    """Scores of a model of any family or of a filter ('filter-small', 'filter-base') from a folder of pictures.

    A filter's clips are made from the pictures, and coded; `data` may be a folder of its training pairs instead. Raises
    ModelNotFoundError for an unknown model or without weights, TrainingError without pictures.
    """
    if model not in FILTERS:
        family = load_family(model, weights, torch.device("cpu"))
        pictures = load_photographs(data, limit=4 * c.contents)
        return learn_importance(family.network, family_contents(family, pictures, c), c, report)
    network, _ = load_filter(FILTERS[model], weights)
    with tempfile.TemporaryDirectory(prefix="vidcodec-") as folder:
        made = data if (data / "index.jsonl").is_file() else Path(folder)
        if made != data:
            prepare_pairs(data, made, max(2, c.contents), seed=c.seed)
        return learn_importance(network, filter_contents(Pairs(made), c), c, report)
