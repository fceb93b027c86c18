"""Adaptation to a video, as every way of coding runs it: what may change, for how long, under which prior."""

from __future__ import annotations

from typing import Any

from vidcodec.adapt.finetune import FinetuneConfig, Finetuned, Finetuner
from vidcodec.adapt.objective import Objective
from vidcodec.adapt.prior import update_prior
from vidcodec.adapt.selection import Selection, select, usual_strategy
from vidcodec.adapt.strategy import Strategy
from vidcodec.codec.files import Report
from vidcodec.codec.models import BaseModel
from vidcodec.codec.options import EncodeOptions


def settled_strategy(o: EncodeOptions, base: BaseModel) -> Strategy:
    """What an update may change. Raises ModelError, before anything slow, where the network cannot be updated so."""
    if o.update_parameters:
        strategy = Strategy.parse(o.update_parameters, o.seed)
        if strategy.name != "all":  # anew when the pixels are known
            select(strategy, base.network, folder=base.folder)
        return strategy
    # Spike and slab knows every parameter or none; an encoder's changes are not sent.
    if o.lossless or o.update_prior == "spike-slab" or o.adapt == "encoder":
        return Strategy()
    return usual_strategy(base.network, base.folder)


def finetuned(
    o: EncodeOptions,
    base: BaseModel,
    strategy: Strategy,
    objective: Objective,
    crops: Any,
    report: Report,
    **settings: Any,
) -> tuple[Finetuned, Selection]:
    """The base network finetuned to a video, and what was selected to change.

    crops: a `Source` that says its `batch`. settings: of `FinetuneConfig`, beside what the options say.
    """
    prior = update_prior(o.update_prior)
    quantise = o.update_prior != "no-quantisation"
    config = FinetuneConfig(steps=o.finetuning_steps, batch=crops.batch, seed=o.seed, quantise=quantise, **settings)
    selection = select(strategy, base.network, pixels=crops.pixels, folder=base.folder)
    tuner = Finetuner(base.network, objective, crops, prior, config, selection)
    return tuner.run(lambda share, figures: report("adapt", share, figures)), selection
