"""Which entries of which parameters an update may change; `vidcodec.updates.strategy` says what there is to choose.

A selection is a mask per parameter. Both sides know it from a few bytes, and what it leaves out costs no bits; the
update's own gate per tensor narrows it to what pays for a video.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

from vidcodec.checkpoint import sent_parameters
from vidcodec.errors import ModelError, ModelMismatchError
from vidcodec.updates.importance import AS_ENCODED, Importance, find_importance
from vidcodec.updates.strategy import DEFAULT_LEARNED, DIGEST_BYTES, Strategy

__all__ = ["Selection", "Strategy", "everything", "select"]

_ENDS = {  # of parameters' names
    "biases": (".bias", ".bias.table"),
    "multipliers": (".multiplier",),
    "biases+multipliers": (".bias", ".table", ".multiplier"),
}


@dataclass(frozen=True, eq=False)
class Selection:
    """A strategy for one network.

    masks: bool in the shape of each parameter of which anything may change, in the order of `sent_parameters`.
    """

    strategy: Strategy = field(default_factory=Strategy)
    masks: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def count(self) -> int:
        """Entries that may change."""
        return sum(int(m.sum()) for m in self.masks.values())

    @cached_property
    def partial(self) -> dict[str, np.ndarray]:
        """The masks that leave something out."""
        return {n: m for n, m in self.masks.items() if not m.all()}

    @property
    def rank(self) -> int:
        """Of the matrices' updates; 0 for whole matrices."""
        return self.strategy.count if self.strategy.name == "low-rank" else 0


def everything(network: nn.Module) -> Selection:
    """What needs no selection: all parameters that travel."""
    return Selection(Strategy(), {n: np.ones(tuple(p.shape), bool) for n, p in sent_parameters(network)})


def usual_strategy(network: nn.Module, folder: Path | None = None) -> Strategy:
    """What to update where nobody says: the learned selection if scores of these very weights are at hand, else all."""
    try:
        find_importance(network, folder)
    except ModelError:
        return Strategy()
    return Strategy(DEFAULT_LEARNED)


def select(
    strategy: Strategy,
    network: nn.Module,
    *,
    pixels: int | None = None,
    importance: Importance | None = None,
    folder: Path | None = None,
) -> Selection:
    """The entries a strategy stands for, the same on every machine.

    network: with its base weights. pixels: of the video, for a learned selection without a number: the more pixels
    share the update, the more entries are worth their bits. importance: instead of the scores that lie in `folder` or
    beside the shipped weights. Raises ModelError where a network has nothing of the kind, and its kin where learned
    scores are missing, of other weights, or not those a stream was written with.
    """
    name = strategy.name
    if name == "random" or strategy.learned:
        if strategy.learned:
            importance = importance or find_importance(network, folder, decoding=bool(strategy.scores))
            strategy = _settled(strategy, importance, network, pixels)
            values = np.concatenate([s.ravel() for s in importance.scores(strategy.learned, network).values()])
        else:
            values = _hashed(sum(p.numel() for _, p in sent_parameters(network)), strategy.seed)
        return Selection(strategy, _greatest(values, strategy.count, network))
    if name in ("all", "low-rank"):
        return Selection(strategy, everything(network).masks)
    starts = getattr(network, "last_layer", ()) if name == "last-layer" else ("",)
    ends = _ENDS.get(name, ("",))
    masks = {
        n: np.ones(tuple(p.shape), bool)
        for n, p in sent_parameters(network)
        if n.endswith(ends) and n.startswith(starts)
    }
    if not masks:
        raise ModelError(f"{type(network).__name__} has no {name.replace('-', ' ')}: choose another selection")
    return Selection(strategy, masks)


def _settled(strategy: Strategy, importance: Importance, network: nn.Module, pixels: int | None) -> Strategy:
    """With the number of entries and the digest of the scores, or checked against them."""
    digest = importance.digest(strategy.learned)[:DIGEST_BYTES]
    if strategy.scores and strategy.scores != digest:
        raise ModelMismatchError(
            f"the file's update was selected by other importance scores ({strategy.scores.hex()}; here are "
            f"{digest.hex()}): {AS_ENCODED}"
        )
    count = strategy.count or importance.worthwhile(strategy.learned, network, pixels or importance.pixels)
    return replace(strategy, count=count, scores=digest)


def _hashed(count: int, seed: int) -> np.ndarray:
    """Numbers that look random, by integer arithmetic only (splitmix64): int64 (count,)."""
    start = np.uint64(seed * 0xD1342543DE82EF95 % (1 << 64))
    x = (np.arange(1, count + 1, dtype=np.uint64) + start) * np.uint64(0x9E3779B97F4A7C15)  # wraps, as it should
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))).view(np.int64)


def _greatest(values: np.ndarray, count: int, network: nn.Module) -> dict[str, np.ndarray]:
    """Masks of the `count` greatest values (int64), the earlier first among equals."""
    chosen = np.zeros(values.size, bool)
    chosen[np.argsort(~values, kind="stable")[:count]] = True
    masks, at = {}, 0
    for n, p in sent_parameters(network):
        part = chosen[at : at + p.numel()]
        at += p.numel()
        if part.any():
            masks[n] = part.reshape(tuple(p.shape))
    return masks
