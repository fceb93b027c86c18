"""A video's frames with refined latents, a batch at a time: each method is tried and coded, the cheapest is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidcodec.families.family import CodedFrame, FrameCoder
from vidcodec.families.msp.network import Msp
from vidcodec.families.msp.pictures import MspPictureCodec
from vidcodec.families.msp.refine import RefineConfig, Refiner
from vidcodec.families.planes import frame_to_planes
from vidcodec.latents.decisions import Decisions
from vidcodec.rate import RateLevel
from vidcodec.video import Frame

# The greedy search knows what a symbol is worth to later passes, so rate may count nearly in full.
LOF_TRADE_OFF = 0.707
# A step of annealing is one of many small ones.
REFINE_SCALE = {"lof": 1, "sga": 10}


@dataclass(frozen=True)
class Search:
    """One method on the encoder's latents, or on what search `start` made of them; share: of the time left, at most."""

    method: str
    start: int | None = None
    share: float = 1.0


# The greedy search gains most a minute, so annealing has what it leaves; then it goes on from annealed latents, as it
# decides by the rates that are paid.
SEARCHES = {
    "lof": (Search("lof"),),
    "sga": (Search("sga"),),
    "best": (Search("lof"), Search("sga", share=0.7), Search("lof", start=1)),
}


class FrameRefiner:
    """Frames through refinement and coding, under one network at one rate level.

    refine: of `SEARCHES`. decisions: by method. steps: of the greedy search; `REFINE_SCALE` times as many of annealing.
    """

    def __init__(
        self,
        network: Msp,
        level: RateLevel,
        coders: Mapping[str, FrameCoder],
        refine: str,
        decisions: Mapping[str, Decisions],
        steps: int,
        seed: int,
    ) -> None:
        """coders: by method, each of a `MspPictureCodec` with that method's decisions."""
        self.searchs, self.coders = SEARCHES[refine], coders
        rate_level = level.tensor(network.gain.table.device)
        self.refiners = {
            method: Refiner(network, rate_level, d, RefineConfig(method, steps * REFINE_SCALE[method], seed=seed))
            for method, d in decisions.items()
        }

    def encode(
        self, frames: Sequence[Frame], numbers: Sequence[int], seconds: float, progress: Callable[[float], None]
    ) -> list[list[CodedFrame]]:
        """The ways of coding each frame that the searchs found; see `vidcodec.families.family.Refiner`."""
        end = time.monotonic() + seconds
        coder = next(iter(self.coders.values()))
        planes = torch.cat([frame_to_planes(f, coder.video.bit_depth, coder.multiple) for f in frames])
        y, z = zip(*(latents(coder).latents(x) for x in planes.split(1)), strict=True)
        first = (torch.cat(y), torch.cat(z))
        found: list[tuple[Tensor, Tensor]] = []
        ways: list[list[CodedFrame]] = [[] for _ in numbers]
        for k, search in enumerate(self.searchs):
            left = end - time.monotonic()
            if k and left <= 0:
                break

            def told(share: float, k: int = k) -> None:
                progress((k + share) / len(self.searchs))

            start = first if search.start is None else found[search.start]
            found.append(self.refiners[search.method].refine(planes, *start, left * search.share, told, numbers))
            coder = self.coders[search.method]
            for frame, way, y, z in zip(frames, ways, *(v.split(1) for v in found[-1]), strict=True):
                way.append(coder.coded(frame.pts, latents(coder).encode_latents(y, z)))
        return ways


def latents(coder: FrameCoder) -> MspPictureCodec:
    """The coder of latents in a coder of frames."""
    assert isinstance(coder.planes, MspPictureCodec)
    return coder.planes


def methods_of(refine: str) -> list[str]:
    """Methods of `vidcodec.families.msp.refine` that a name of `SEARCHES` uses."""
    return list(dict.fromkeys(search.method for search in SEARCHES[refine]))
