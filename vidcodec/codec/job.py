"""One encode: what is asked for, settled before anything slow, and what was noted on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidcodec.codec.footage import Footage, Report, Stretch
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.presets import PRESETS
from vidcodec.codec.shares import Helpers, Share
from vidcodec.codec.work import Work
from vidcodec.errors import ModelError
from vidcodec.families.family import Family
from vidcodec.rate import RateLevel, TradeOff
from vidcodec.updates.selection import select, usual_strategy
from vidcodec.updates.strategy import Strategy
from vidcodec.video import VideoFormat

# Frame by frame refinement comes last: it has what is left of the time. Finetuning leaves it this share where that is
# enough for all frames, less where it is not: a second of it gains few frames something, one of finetuning all of them.
REFINING_SHARE = 0.4
REFINED_PIXELS = 40_000  # a second, on one core (results/refinement.md)


@dataclass(frozen=True)
class Plan:
    """What the options leave open, settled for a family. strategy: None where nothing is finetuned."""

    quantizer: str
    refine: str
    refine_steps: int
    strategy: Strategy | None

    @classmethod
    def of(cls, o: EncodeOptions, family: Family) -> Plan:
        """Raises ModelError for what the family cannot do."""
        preset = PRESETS[o.preset]
        quantizer = o.quantizer or (preset.quantizer if preset.quantizer in family.quantizers else "uniform")
        refine = o.refine or (preset.refine if preset.refine in family.refinements else "none")
        steps = preset.refine_steps if o.refine_steps is None else o.refine_steps
        for name, asked, known in (("quantizer", quantizer, family.quantizers), ("refine", refine, family.refinements)):
            if asked not in known:
                raise ModelError(f"{family.name} is coded with {name} {' or '.join(known)} only, not {asked}")
        if family.fitted and (o.update_parameters or o.update_prior != "adaptive"):
            raise ModelError(f"{family.name} sends what pays of all its parameters: leave the update's options out")
        if o.key_seconds and not family.predicts:
            raise ModelError(f"frames of {family.name} refer to no others: leave 'key_seconds' at 0")
        if family.lossless and o.adapt == "encoder":
            raise ModelError("the lossless codec has no encoder of its own to adapt: adapt full, decoder or none")
        if o.segment_minutes and not family.one_extra:
            raise ModelError(f"files of {family.name} hold tables for all frames: leave 'segment_minutes' at 0")
        strategy = _settled_strategy(o, family) if o.finetuning_steps and not family.fitted else None
        return cls(quantizer, refine if steps else "none", steps, strategy)


def _settled_strategy(o: EncodeOptions, family: Family) -> Strategy:
    """What an update may change. Raises ModelError where the network cannot be updated so."""
    if o.update_parameters:
        strategy = Strategy.parse(o.update_parameters, o.seed)
        if strategy.name != "all":  # anew when the pixels are known
            select(strategy, family.network, folder=family.folder)
        return strategy
    # Spike and slab knows every parameter or none; an encoder's changes are not sent.
    if family.lossless or o.update_prior == "spike-slab" or o.adapt == "encoder":
        return Strategy()
    return usual_strategy(family.network, family.folder)


class Budget:
    """The time that searching, finetuning and refining may take together, from now on."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, below zero when they are over."""
        return self._end - time.monotonic()


@dataclass
class Record:
    """What an encode tells afterwards: seconds by stage, true costs by candidate, the curve of finetuning, notes.

    tensors: what every part of the adapted network cost and saved (`vidcodec.updates.worth.account`).
    """

    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)
    tensors: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the block's time to a stage's."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - start


@dataclass(frozen=True, eq=False)
class Job:
    """One encode, with its frames at hand. helpers: who codes frames, too. share: what this process codes of them.
    sound: a file of the audio and subtitles that go beside the pictures.
    """

    output: Path
    options: EncodeOptions
    family: Family
    plan: Plan
    footage: Footage | Stretch
    work: Work
    budget: Budget
    record: Record
    report: Report
    helpers: Helpers | None = None
    share: Share | None = None
    sound: Path | None = None

    @property
    def format(self) -> VideoFormat:
        return self.footage.format

    @property
    def codes_once(self) -> bool:
        """Whether all frames are coded one way, whatever their quality."""
        return not self.plan.strategy and self.plan.refine == "none" and self.options.target_psnr is None

    @property
    def in_chains(self) -> bool:
        """Whether frames may refer to others."""
        return self.options.key_seconds > 0

    @property
    def finetuning_seconds(self) -> float:
        """What finetuning may take of the time that is left."""
        left = self.budget.left
        reach = min(1.0, max(0.0, left) * REFINED_PIXELS / self.footage.pixels)
        return left * (1 - REFINING_SHARE * reach * (self.plan.refine != "none"))

    def trade_off(self, level: RateLevel) -> TradeOff:
        return self.family.trade_off(level)
