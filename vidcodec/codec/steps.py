"""The steps of an encode, each from one candidate to the next; see `vidcodec.codec.encode` for their order.

Those after the quantiser's start from a video that was coded: what it took says what an update of the network may take.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import numpy as np

from vidcodec.codec.candidates import Candidate, CodedVideo
from vidcodec.codec.job import Job
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.work import encoder_side, rebuilt
from vidcodec.errors import VidcodecError
from vidcodec.latents.decisions import Decisions, Settings
from vidcodec.latents.quantizer import Quantizer
from vidcodec.rate import RateLevel
from vidcodec.updates.coder import tensor_bits
from vidcodec.updates.finetune import FinetuneConfig, Finetuned, Finetuner
from vidcodec.updates.prior import update_prior
from vidcodec.updates.selection import Selection, select
from vidcodec.updates.strategy import LEAST_PAYING, Strategy, paying_rank
from vidcodec.updates.worth import account, brought_bits

Step = Callable[[Job, CodedVideo], Candidate]

# Luma samples that a quantiser's settings are searched on, and about how many codings of them that takes.
SAMPLE_PIXELS, TRIALS = 250_000, 15


def steps_of(job: Job) -> list[Step]:
    """What is tried on top of the unadapted candidate, in order."""
    asked = ((job.plan.strategy is not None, adapted), (job.plan.refine != "none", refined))
    return [step for wanted, step in asked if wanted]


@lru_cache(maxsize=2)
def sample_pictures(job: Job) -> list[Any]:
    """A few fixed pictures of the video, or crops of them, as the family's networks take them."""
    return job.family.crops(job.footage.sample, job.format, check_pixels=SAMPLE_PIXELS).checks()


def decisions_of(job: Job, candidate: Candidate, level: RateLevel, method: str = "") -> Decisions:
    """The candidate's settings at a rate level, with weights measured there; method: of refinement, if any."""
    if candidate.settings.trade_off is None and not method:
        return Decisions(candidate.settings.quantizer)
    return candidate.family.decisions(candidate.settings, level, sample_pictures(job), method)


def quantised(job: Job, candidate: Candidate, level: RateLevel) -> Candidate:
    """The same network, under the quantiser that suits a sample of the frames best, by real bytes."""
    if job.plan.quantizer == "uniform":
        return candidate
    with job.record.timed("quantiser"):
        came_from = ("settings", level, candidate.name)
        if known := job.work.load(came_from):
            settings = Settings(Quantizer(**known[0]["quantizer"]), known[0]["trade_off"])
        else:
            settings = candidate.family.search_settings(
                level,
                sample_pictures(job),
                job.plan.quantizer,
                lambda n: job.report("quantiser", min(1.0, n / TRIALS), {}),
            )
            job.work.save(came_from, asdict(settings), {})
    if settings == candidate.settings:
        return candidate
    return replace(candidate, name=f"{candidate.name}, {settings.quantizer.kind}", settings=settings)


def adapted(job: Job, unadapted: CodedVideo) -> Candidate:
    """The network finetuned to the video, on symbols as the candidate's settings decide them."""
    candidate, level = unadapted.candidate, unadapted.level
    if reason := hopeless(job.options, len(unadapted), unadapted.size):
        job.record.notes.append(reason)
        job.report("not adapted", 1.0, {"frames": len(unadapted), "bytes": unadapted.size})
        return candidate
    with job.record.timed("adapt"):
        job.report("adapt", 0.0, {})
        came_from = ("adapted", level, candidate.settings, candidate.parent)
        if known := job.work.load(came_from):
            try:
                return _kept(job, candidate, *known)
            except VidcodecError as error:  # other importance scores, say
                job.work.refuse(came_from, error)
        assert job.plan.strategy is not None
        strategy = paying_strategy(job.options, job.plan.strategy, unadapted.size)
        tuned, selection = finetuned(job, candidate, level, strategy)
        if not tuned.payload and (job.family.lossless or job.options.adapt == "decoder"):
            return candidate  # nothing paid, and there is no encoder that changed
        what = [job.options.adapt] if job.options.adapt != "full" or not job.family.lossless else []
        what += [] if selection.strategy.name == "all" else [str(selection.strategy)]
        done = f"adapted ({', '.join(what)})" if what else "adapted"
        name = candidate.name.replace("plain", done)
        if job.work.folder:
            arrays = encoder_side(tuned.model, candidate.family, tuned.payload)
            arrays["update:"] = np.frombuffer(tuned.payload, np.uint8)
            job.work.save(came_from, {"name": name, "curve": tuned.curve, "tensors": job.record.tensors}, arrays)
        job.record.curve[:] = tuned.curve
        return replace(
            candidate, name=name, family=candidate.family.with_network(tuned.model.eval()), update=tuned.payload
        )


def _kept(job: Job, candidate: Candidate, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Candidate:
    """With the network that finetuning gave in an earlier run."""
    payload = arrays.pop("update:").tobytes()
    family = rebuilt(candidate.family, payload, arrays)
    job.record.curve[:], job.record.tensors[:] = about["curve"], about["tensors"]
    return replace(candidate, name=about["name"], family=family, update=payload)


def hopeless(o: EncodeOptions, frames: int, size: int) -> str:
    """Why not to adapt to frames that take `size` bytes unadapted, or nothing.

    A user insists by a slower preset, a time, steps or what to update; encoders' changes alone cost nothing.
    """
    insists = o.preset in ("slow", "best") or math.isfinite(o.max_minutes) or o.steps is not None or o.update_parameters
    if insists or o.lossless or o.adapt == "encoder" or size >= LEAST_PAYING:
        return ""
    what = "1 frame" if frames == 1 else f"{frames} frames"
    return (
        f"{what} of {size / 1000:.0f} kB would share a model update: no gain to expect, not adapted "
        "('preset' slow, or a time, adapts all the same)"
    )


def paying_strategy(o: EncodeOptions, settled: Strategy, size: int) -> Strategy:
    """What to update in a video that takes `size` bytes unadapted: low rank where a lossy one takes much.

    A user's own word stands; so do priors and scopes that know no factors.
    """
    free = (
        not o.lossless
        and o.update_parameters is None
        and o.update_prior != "spike-slab"
        and o.adapt in ("full", "decoder")
    )
    rank = paying_rank(size) if free else 0
    return Strategy("low-rank", rank) if rank else settled


def finetuned(job: Job, candidate: Candidate, level: RateLevel, strategy: Strategy) -> tuple[Finetuned, Selection]:
    """The candidate's network finetuned to the video, and what was selected to change; notes what each part brings."""
    o, family = job.options, candidate.family
    crops = family.crops(job.footage.sample, job.format, pixels=job.footage.pixels)
    config = FinetuneConfig(
        **{
            "scope": "decoder" if family.lossless else o.adapt,
            "steps": o.finetuning_steps,
            "batch": crops.batch,
            "seed": o.seed,
            "quantise": o.update_prior != "no-quantisation",
            "max_seconds": job.finetuning_seconds,
            **family.pace,
        }
    )
    selection = select(strategy, family.base, pixels=crops.pixels, folder=family.folder)
    objective = family.objective(level, job.format, decisions_of(job, candidate, level))
    tuner = Finetuner(family.network, objective, crops, update_prior(o.update_prior), config, selection)
    tuned = tuner.run(lambda share, figures: job.report("adapt", share, figures))
    if tuned.payload:
        brought = brought_bits(family.network, tuned.model, objective, crops, config.batch, o.seed)
        bits = tensor_bits(tuned.update, family.base, selection)
        job.record.tensors[:] = account(tuned.model, bits, brought)
    return tuned, selection


def refined(job: Job, video: CodedVideo) -> Candidate:
    """The same decoder's view, with latents to be refined while there is time."""
    candidate = video.candidate
    return replace(candidate, name=f"{candidate.name}, {job.plan.refine}", refine=job.plan.refine)
