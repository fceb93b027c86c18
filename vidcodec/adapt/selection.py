"""Which entries of which parameters an update may change, and how the stream says so.

    all                   every parameter the decoder uses
    biases                numbers added to whole channels, those of rate levels included
    biases+multipliers    all that acts on whole channels: biases, gains, scale indices, multipliers
    last-layer            what makes the output samples (a network names it: `last_layer`)
    low-rank[:R]          vectors as they are, matrices as products of two thin ones of rank R (1)
    random:N              N entries drawn from a seed, to compare with
    learned[:N]           the N entries of the greatest learned importance; without N, those worth their bits

`learned` is `learned-laplace`; `learned-gaussian` takes the other objective's scores (`vidcodec.adapt.importance`).
A selection is a mask per parameter. Both sides know it from a few bytes, and what it leaves out costs no bits; the
update's own gate per tensor narrows it to what pays for a video.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

from vidcodec.adapt.importance import Importance, find_importance
from vidcodec.adapt.update import sent_parameters
from vidcodec.bitstream.fields import FieldReader, varint
from vidcodec.errors import CorruptBitstreamError, ModelError, ModelMismatchError, UnsupportedInputError

# Place in this tuple: how the stream names a strategy. Only ever append.
STRATEGIES = (
    "all", "biases", "biases+multipliers", "last-layer", "low-rank", "random", "learned-gaussian", "learned-laplace",
)  # fmt: skip
DEFAULT_LEARNED = "learned-laplace"
USAGE = "all, biases, biases+multipliers, last-layer, low-rank[:RANK], random:N, learned[:N]"
MAX_RANK = 16
DIGEST_BYTES = 4
_MULTIPLIERS = (".bias", ".table", ".multiplier")
_BIASES = (".bias", ".bias.table")


@dataclass(frozen=True)
class Strategy:
    """A strategy and what there is to know of it besides.

    count: entries of random and learned (0: not settled yet), the rank of low-rank. seed: of random. scores: first
    bytes of the digest of the scores that learned went by.
    """

    name: str = "all"
    count: int = 0
    seed: int = 0
    scores: bytes = b""

    def __str__(self) -> str:
        return f"{self.name}:{self.count}" if self.count else self.name

    @property
    def learned(self) -> str:
        """The objective whose scores it takes, or nothing."""
        return self.name.removeprefix("learned-") if self.name.startswith("learned-") else ""

    @classmethod
    def parse(cls, text: str, seed: int = 0) -> Strategy:
        """From what a user writes; raises UnsupportedInputError."""
        match = re.fullmatch(r"([a-z+-]+)(?::(\d{1,12}))?", text, re.ASCII)
        name = match[1] if match else ""
        name = DEFAULT_LEARNED if name == "learned" else name
        counted = name in ("low-rank", "random") or name.startswith("learned-")
        if name not in STRATEGIES or match is None or (match[2] and not counted):
            raise UnsupportedInputError(f"what may be updated is one of {USAGE}; not {text!r}")
        count = int(match[2]) if match[2] else 1 if name == "low-rank" else 0
        if (match[2] or name == "random") and not count:
            raise UnsupportedInputError(f"{name} needs a number of entries above zero, like {name}:10000")
        if name == "low-rank" and count > MAX_RANK:
            raise UnsupportedInputError(f"the rank of an update goes up to {MAX_RANK}, not {count}")
        return cls(name, count, seed if name == "random" else 0)

    def to_bytes(self) -> bytes:
        """For the stream."""
        out = bytes([STRATEGIES.index(self.name)])
        if self.name == "low-rank" or self.learned:
            return out + varint(self.count) + self.scores
        return out + varint(self.count) + varint(self.seed) if self.name == "random" else out

    @classmethod
    def read(cls, fields: FieldReader) -> Strategy:
        """The opposite of `to_bytes`; raises CorruptBitstreamError for what no encoder writes."""
        code = fields.unsigned(1)
        if code >= len(STRATEGIES):
            raise CorruptBitstreamError(f"model update: unknown selection of parameters {code}: use a newer vidcodec")
        s = cls(STRATEGIES[code])
        if s.name == "random":
            s = replace(s, count=fields.varint(), seed=fields.varint())
        elif s.name == "low-rank":
            s = replace(s, count=fields.varint())
        elif s.learned:
            s = replace(s, count=fields.varint(), scores=fields.take(DIGEST_BYTES))
        if (s.name in ("random", "low-rank") or s.learned) and not s.count:
            raise CorruptBitstreamError("model update: it selects no parameter")
        if s.name == "low-rank" and s.count > MAX_RANK:
            raise CorruptBitstreamError(f"model update: a rank of {s.count} is out of bounds")
        return s


@dataclass(frozen=True, eq=False)
class Selection:
    """A strategy for one network.

    masks: bool in the shape of each parameter of which anything may change, in the order of `sent_parameters`.
    """

    strategy: Strategy = Strategy()
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


def select(
    strategy: Strategy, network: nn.Module, *, pixels: int | None = None, importance: Importance | None = None,
    folder: Path | None = None,
) -> Selection:  # fmt: skip
    """The entries a strategy stands for, the same on every machine.

    network: with its base weights. pixels: of the video, for a learned selection without a number: the more pixels
    share the update, the more entries are worth their bits. importance: instead of the scores that lie in `folder` or
    beside the shipped weights. Raises ModelError where a network has no last layer to name, and its kin where learned
    scores are missing, of other weights, or not those a stream was written with.
    """
    name = strategy.name
    if name == "random" or strategy.learned:
        if strategy.learned:
            importance = importance or find_importance(network, folder)
            strategy = _settled(strategy, importance, network, pixels)
            values = np.concatenate([s.ravel() for s in importance.scores(strategy.learned, network).values()])
        else:
            values = _hashed(sum(p.numel() for _, p in sent_parameters(network)), strategy.seed)
        return Selection(strategy, _greatest(values, strategy.count, network))
    if name in ("all", "low-rank"):
        return Selection(strategy, everything(network).masks)
    ends, starts = {
        "biases": (_BIASES, ("",)), "biases+multipliers": (_MULTIPLIERS, ("",)), "last-layer": (("",), _last(network)),
    }[name]  # fmt: skip
    return Selection(
        strategy,
        {n: np.ones(tuple(p.shape), bool) for n, p in sent_parameters(network)
         if n.endswith(ends) and n.startswith(starts)},
    )  # fmt: skip


def _last(network: nn.Module) -> tuple[str, ...]:
    named: tuple[str, ...] | None = getattr(network, "last_layer", None)
    if not named:
        raise ModelError(f"{type(network).__name__} does not name its last layer: choose another selection")
    return named


def _settled(strategy: Strategy, importance: Importance, network: nn.Module, pixels: int | None) -> Strategy:
    """With the number of entries and the digest of the scores, or checked against them."""
    digest = importance.digest(strategy.learned)[:DIGEST_BYTES]
    if strategy.scores and strategy.scores != digest:
        raise ModelMismatchError(
            f"the update was selected by other importance scores ({strategy.scores.hex()}; here are {digest.hex()}): "
            "use the version of vidcodec that made the file"
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
