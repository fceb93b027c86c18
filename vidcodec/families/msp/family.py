"""The default network as the pipeline sees it. What only an encoder needs is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor

from vidcodec.errors import ModelMismatchError
from vidcodec.families.family import Family, FrameCoder
from vidcodec.families.msp.checkpoint import load_model
from vidcodec.families.msp.network import Msp
from vidcodec.families.msp.pictures import MspPictureCodec
from vidcodec.latents.decisions import PLAIN, Decisions, Settings
from vidcodec.rate import RateLevel, TradeOff
from vidcodec.video import VideoFormat

if TYPE_CHECKING:
    from vidcodec.families.msp.objective import MspObjective
    from vidcodec.families.msp.refining import FrameRefiner


@dataclass(frozen=True, eq=False)
class MspFamily(Family):
    """`vidcodec.families.msp.network`: continuous rate, every quantiser, refinement."""

    network: Msp
    _weights: dict[int, np.ndarray] = field(default_factory=dict)  # of errors, by rate level

    predicts: ClassVar[bool] = True
    quantizers: ClassVar[tuple[str, ...]] = ("uniform", "rdoq", "trellis4", "trellis")
    refinements: ClassVar[tuple[str, ...]] = ("none", "lof", "sga", "best")

    @classmethod
    def load(cls, name: str, weights: Path | None, device: torch.device) -> Self:
        network, digest = load_model(name, weights)
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(name, network, digest, device, weights and Path(weights).parent)

    def with_network(self, network: torch.nn.Module) -> Self:
        return replace(super().with_network(network), _weights={})

    @property
    def top(self) -> RateLevel:
        return RateLevel.of(self.network.config.levels - 1)

    def trade_off(self, level: RateLevel) -> TradeOff:
        return self.network.trade_off(level)

    def picture_coder(
        self, level: RateLevel, video: VideoFormat, *, extra: bytes = b"", decisions: Decisions = PLAIN
    ) -> FrameCoder:
        planes = MspPictureCodec(self.network, level, decisions, cast(Msp, self.base))
        if extra and extra != planes.chain_extra:
            raise ModelMismatchError(
                "frames of the file are predicted with another analysis than that of the weights here; decode with the "
                "weights that it was made with, given with 'weights'"
            )
        return FrameCoder(planes, video, self.multiple)

    def objective(self, level: RateLevel, video: VideoFormat, decisions: Decisions = PLAIN) -> MspObjective:
        from vidcodec.families.msp.objective import MspObjective
        from vidcodec.latents.deciding import deciding

        code = None if decisions.trade_off is None else deciding([decisions])
        return MspObjective(self.network, level.tensor(self.device), code=code)

    def search_settings(
        self, level: RateLevel, pictures: Sequence[Any], quantizer: str, step: Callable[[int], None]
    ) -> Settings:
        from vidcodec.families.msp.quantising import search_settings

        return search_settings(self.network, level, pictures, quantizer, step)

    def decisions(
        self, settings: Settings, level: RateLevel, pictures: Sequence[Tensor], method: str = ""
    ) -> Decisions:
        """With weights measured on the pictures, once for every level."""
        from vidcodec.families.msp.quantising import error_weights
        from vidcodec.families.msp.refining import LOF_TRADE_OFF

        if method == "lof":
            settings = replace(settings, trade_off=max(LOF_TRADE_OFF, settings.trade_off or 0.0))
        if settings.trade_off is None:
            return Decisions(settings.quantizer)
        if level.steps not in self._weights:
            self._weights[level.steps] = error_weights(self.network, pictures, level.tensor(self.device))
        return Decisions(settings.quantizer, settings.trade_off, self._weights[level.steps])

    def refiner(
        self,
        level: RateLevel,
        video: VideoFormat,
        refine: str,
        decisions: Mapping[str, Decisions],
        steps: int,
        seed: int,
    ) -> FrameRefiner:
        from vidcodec.families.msp.refining import FrameRefiner

        coders = {method: self.picture_coder(level, video, decisions=d) for method, d in decisions.items()}
        return FrameRefiner(self.network, level, coders, refine, decisions, steps, seed)

    def refining_methods(self, refine: str) -> Sequence[str]:
        from vidcodec.families.msp.refining import methods_of

        return methods_of(refine)
