"""`pocket` as the pipeline sees it: symbols are fitted, not analysed, and the network with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch

from vidcodec.entropy.logistics import logistic_tables
from vidcodec.families.family import CodedFrame, Family, FrameCoder
from vidcodec.families.planes import frame_to_planes
from vidcodec.families.pocket.checkpoint import load_pocket
from vidcodec.families.pocket.exact import ExactContext, rules_digest
from vidcodec.families.pocket.fit import Fit, FitOptions
from vidcodec.families.pocket.network import Pocket, unflatten
from vidcodec.families.pocket.pictures import PocketPictureCodec
from vidcodec.families.pocket.update import all_in_steps, choose_steps, moved
from vidcodec.latents.decisions import PLAIN, Decisions
from vidcodec.rate import RateLevel, TradeOff
from vidcodec.updates.coder import encode_update
from vidcodec.updates.objective import Objective
from vidcodec.video import Frame, VideoFormat

Array = np.ndarray

LEVELS, LAMBDAS = 8, (2e-4, 1.185)  # the same rate range as the default network's
BASE_WORTH = 4000 / 3  # bits that an error of 1 in luma was worth where the base weights were fitted
ALONE_ROUNDS = 40  # of a picture that comes alone, as the search of a rate level has them
# Times the cost of the frame before, above which its symbols are no start: a choice. At 100 visits a start saved 21 %
# of an akiyo frame's cost half a second later; where more had moved (another pair of akiyo, two of foreman) it cost 8
# to 17 % more.
START = 1.5
CURVE = 10  # true costs noted while fitting


@dataclass(frozen=True, eq=False)
class PocketFamily(Family):
    """`vidcodec.families.pocket.network`: continuous rate, plain rounding; a small network, sent whole."""

    network: Pocket

    fitted: ClassVar[bool] = True
    multiple: ClassVar[int] = 2

    @classmethod
    def load(cls, name: str, weights: Path | None, device: torch.device) -> Self:
        """The loops are compiled for processors: there the network stays."""
        network, digest = load_pocket(weights)
        return cls(name, network, digest, torch.device("cpu"), weights and Path(weights).parent)

    @property
    def tables_digest(self) -> bytes:
        """Of the tables of logistics, and of what the integer arithmetic does with them."""
        return sha256(logistic_tables().digest + rules_digest()).digest()[:8]

    @property
    def top(self) -> RateLevel:
        return RateLevel.of(LEVELS)

    def trade_off(self, level: RateLevel) -> TradeOff:
        low, high = (math.log(v) for v in LAMBDAS)
        return TradeOff(math.exp(low + (high - low) * level.real / LEVELS))

    def theta(self, level: RateLevel, theta: Array | None = None, *, back: bool = False) -> Array:
        """All parameters in a row at a rate level, whose steps follow the trade-off; back: the opposite."""
        theta = self.network.theta if theta is None else theta.copy()
        trade_off = self.trade_off(level)
        worth = trade_off.worth * trade_off.weights[0]
        shift = round(-512 * math.log2(worth / BASE_WORTH)) / 1024
        unflatten(self.network.config, theta)["gain"][:] += np.float32(-shift if back else shift)
        return theta

    def picture_coder(
        self, level: RateLevel, video: VideoFormat, *, extra: bytes = b"", decisions: Decisions = PLAIN
    ) -> FrameCoder:
        self.only_rounds(decisions.quantizer)
        options = self._options(level, ALONE_ROUNDS, shared=0, seed=0)
        return FrameCoder(PocketPictureCodec(self.network.config, self.theta(level), options), video, self.multiple)

    def objective(self, level: RateLevel, video: VideoFormat, decisions: Decisions = PLAIN) -> Objective:
        raise NotImplementedError("a fit finds the network and the symbols together")

    def fitter(
        self,
        level: RateLevel,
        video: VideoFormat,
        frames: Sequence[Frame],
        rounds: int,
        shared: int,
        seed: int,
        before: tuple[Frame, bytes] | None = None,
    ) -> PocketFitter:
        options = self._options(level, rounds, shared, seed)
        return PocketFitter(self, level, video, frames, options, before)

    def _options(self, level: RateLevel, rounds: int, shared: int, seed: int) -> FitOptions:
        t = self.trade_off(level)
        return FitOptions(1 / t.worth, t.weights, rounds=rounds, shared=shared, seed=seed)


class _Planes(Sequence[Array]):
    """Frames as planes float32 (6, h, w), each made when it is asked for."""

    def __init__(self, frames: Sequence[Frame], bit_depth: int) -> None:
        self._frames, self._bit_depth = frames, bit_depth

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Array:  # type: ignore[override]
        return frame_to_planes(self._frames[index], self._bit_depth, PocketFamily.multiple)[0].numpy()


class PocketFitter:
    """A fit of frames at a rate level, with what of it the pipeline asks for."""

    def __init__(
        self,
        family: PocketFamily,
        level: RateLevel,
        video: VideoFormat,
        frames: Sequence[Frame],
        options: FitOptions,
        before: tuple[Frame, bytes] | None = None,
    ) -> None:
        self.family, self.level, self.video, self.frames, self.options = family, level, video, frames, options
        config = family.network.config
        self.fit = Fit(_Planes(frames, video.bit_depth), options, config, family.theta(level))
        self.curve: list[dict[str, float]] = []
        if before is not None:
            self._start_like(*before)

    def _start_like(self, frame: Frame, payload: bytes) -> None:
        """Start the first frame from another one's symbols, where they show it nearly as well as their own."""
        config, theta = self.family.network.config, self.fit.theta
        grids = ExactContext.of(config, theta).decode(payload, self.fit.work.h, self.fit.work.w)
        own = Fit(_Planes([frame], self.video.bit_depth), self.options, config, theta)
        for fit in (own, self.fit):
            fit.start(0, grids)
        if self.fit.loss(theta) > START * own.loss(theta):
            self.fit.states[:] = 0

    def run(self, seconds: float, pause: float, progress: Callable[[float, dict[str, float]], None]) -> bool:
        fit = self.fit

        def look() -> None:
            share = fit.visits / fit.total
            if share * CURVE >= len(self.curve) + 1 and self.options.shared:
                self.curve.append(self._measured())
            progress(share, self.curve[-1] if self.curve else {})

        return fit.run(seconds, pause, look)

    def _measured(self) -> dict[str, float]:
        """True R-D-M cost in bits per pixel, were the fit to end here with a network in plain steps."""
        update = all_in_steps(self.family.network, self.family.theta(self.level, self.fit.theta, back=True), 6)
        payload = encode_update(update, self.family.network)
        pixels = self.fit.samples * self.options.shared
        cost = self.fit.loss(self._at(moved(self.family.network, update))) + 8 * len(payload) / pixels
        return {"step": self.fit.visits, "cost": cost, "update_bits": 8.0 * len(payload)}

    def _at(self, theta: Array) -> Array:
        return self.family.theta(self.level, theta)

    def state(self) -> dict[str, Array]:
        curve = np.array([list(point.values()) for point in self.curve], np.float64).reshape(-1, 3)
        return {**self.fit.state(), "curve": curve}

    def load(self, state: Mapping[str, Array]) -> None:
        self.fit.load(state)
        self.curve = [dict(zip(("step", "cost", "update_bits"), row, strict=True)) for row in state["curve"].tolist()]

    def update(self) -> bytes:
        """What the network changed by, in the steps that pay; empty where it was to stay."""
        if not self.options.shared:
            return b""
        network, price = self.family.network, 1 / (self.fit.samples * self.options.shared)
        theta = self.family.theta(self.level, self.fit.theta, back=True)
        return encode_update(choose_steps(network, theta, lambda t: self.fit.loss(self._at(t)), price), network)

    def coded(self, family: Family) -> list[CodedFrame]:
        """All frames with the network that `update` leads to."""
        coder = family.picture_coder(self.level, self.video)
        assert isinstance(coder, FrameCoder)
        assert isinstance(coder.planes, PocketPictureCodec)
        size = (self.fit.work.h, self.fit.work.w)
        pictures = (coder.planes.code(self.fit.grids(i), *size) for i in range(len(self.frames)))
        return [coder.coded(frame.pts, picture) for frame, picture in zip(self.frames, pictures, strict=True)]
