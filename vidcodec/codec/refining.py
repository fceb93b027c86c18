"""A video's frames with refined latents, a batch at a time: each method is tried and coded, the cheapest is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidcodec.adapt.decisions import Decisions
from vidcodec.adapt.refine import RefineConfig, Refiner
from vidcodec.codec.pictures import CodedPicture, MspPictureCodec
from vidcodec.models.msp import Msp

# The greedy search knows what a symbol is worth to later passes, so rate may count nearly in full.
LOF_TRADE_OFF = 0.707
# A step of annealing is one of many small ones.
REFINE_SCALE = {"lof": 1, "sga": 10}
# Luma samples refined together: more fill a GPU better, and take more memory.
IN_FLIGHT = {"cpu": 1_500_000, "cuda": 12_000_000}


@dataclass(frozen=True)
class Stage:
    """One method on the encoder's latents, or on what stage `start` made of them; share: of the time left, at most."""

    method: str
    start: int | None = None
    share: float = 1.0


# The greedy search gains most a minute, so annealing has what it leaves; then it goes on from annealed latents, as it
# decides by the rates that are paid.
STAGES = {
    "lof": (Stage("lof"),),
    "sga": (Stage("sga"),),
    "best": (Stage("lof"), Stage("sga", share=0.7), Stage("lof", start=1)),
}


class RefinedPictures:
    """Pictures through refinement and coding, under one network at one rate level (in 1/256 steps).

    refine: of `STAGES`. decisions: by method. steps: of the greedy search; `REFINE_SCALE` times as many of annealing.
    """

    def __init__(
        self, network: Msp, level: int, refine: str, decisions: Mapping[str, Decisions], steps: int, seed: int
    ) -> None:
        self.stages = STAGES[refine]
        rate_level = torch.full((1,), level / 256, device=network.gain.table.device)
        self.codecs, self.refiners = {}, {}
        for method in {stage.method for stage in self.stages}:
            config = RefineConfig(method, steps * REFINE_SCALE[method], seed=seed)
            self.codecs[method] = MspPictureCodec(network, level, decisions[method])
            self.refiners[method] = Refiner(network, rate_level, decisions[method], config)

    def encode(
        self, planes: Tensor, numbers: Sequence[int], seconds: float, progress: Callable[[float], None]
    ) -> list[list[CodedPicture]]:
        """The ways of coding each picture that the stages found; planes: (B, 6, H/2, W/2).

        numbers: of the frames in their video; seconds: for all of it, above 0.
        """
        end = time.monotonic() + seconds
        codec = next(iter(self.codecs.values()))
        y, z = zip(*(codec.latents(x) for x in planes.split(1)), strict=True)
        first = (torch.cat(y), torch.cat(z))
        found: list[tuple[Tensor, Tensor]] = []
        ways: list[list[CodedPicture]] = [[] for _ in numbers]
        for k, stage in enumerate(self.stages):
            left = end - time.monotonic()
            if k and left <= 0:
                break
            found.append(
                self.refiners[stage.method].refine(
                    planes,
                    *(first if stage.start is None else found[stage.start]),
                    left * stage.share,
                    lambda share, k=k: progress((k + share) / len(self.stages)),
                    numbers,  # type: ignore[misc]
                )
            )
            for way, y, z in zip(ways, *(v.split(1) for v in found[-1]), strict=True):
                way.append(self.codecs[stage.method].encode_latents(y, z))
        return ways


def batches(count: int, pixels: int, device: torch.device) -> list[range]:
    """0 .. count - 1 in order, as many frames of `pixels` luma samples together as the device takes."""
    size = max(1, IN_FLIGHT.get(device.type, IN_FLIGHT["cpu"]) // pixels)
    return [range(at, min(at + size, count)) for at in range(0, count, size)]


def methods_of(refine: str) -> list[str]:
    """Methods of adapt.refine that a --refine uses."""
    return list(dict.fromkeys(stage.method for stage in STAGES[refine]))
