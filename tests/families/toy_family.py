"""A family of networks in one file: a block transform of 2x2 samples of the planes, and a table index per channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from vidcodec.checkpoint import sent_parameters, weights_digest
from vidcodec.entropy.rates import rate_of_symbols, ste_round
from vidcodec.families.family import CodedPicture, Family, FrameCoder, PlaneCoder
from vidcodec.latents.decisions import PLAIN, ROUNDING, Decisions
from vidcodec.latents.quantizer import UNIT, reconstruct
from vidcodec.latents.symbols import SymbolReader, SymbolWriter
from vidcodec.rate import RateLevel, TradeOff, weighted_mse
from vidcodec.updates.objective import Outcome, signs
from vidcodec.video import VideoFormat


class Toy(nn.Module):
    """Planes (B, 6, h, w) to latents (B, 24, h/2, w/2) and back, with a gain that grows with the rate level."""

    encoder_only = ("analysis",)

    def __init__(self) -> None:
        super().__init__()
        basis = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(0)))[0]
        self.analysis = nn.Parameter(basis.clone())
        self.synthesis = nn.Parameter(basis.T.clone())
        self.index = nn.Parameter(torch.full((24,), 20.0))

    def latents(self, planes: Tensor, level: float) -> Tensor:
        return torch.einsum("oc,bchw->bohw", self.analysis, F.pixel_unshuffle(planes, 2)) * 16 * 2**level

    def planes(self, y: Tensor, level: float) -> Tensor:
        return F.pixel_shuffle(torch.einsum("oc,bchw->bohw", self.synthesis, y / (16 * 2**level)), 2)

    def forward(self, planes: Tensor, level: float, rate: str) -> tuple[Tensor, Tensor]:
        y = self.latents(planes, level)
        q = ste_round(y)
        bits = rate_of_symbols(y, q, self.index[:, None, None].expand_as(y), rate)
        return self.planes(q, level), bits.sum()


class ToyCoder(PlaneCoder):
    def __init__(self, network: Toy, level: RateLevel, decisions: Decisions, shrink: float = 1.0) -> None:
        self.network, self.level, self.decisions, self.shrink = network, level.real, decisions, shrink

    def tables(self, shape: Sequence[int]) -> Any:
        index = self.network.index.detach().round().clamp(1, 63)
        return index[:, None, None].expand(1, 24, *shape).numpy().astype("uint8")

    @torch.no_grad()
    def encode(self, planes: Tensor) -> CodedPicture:
        y = self.network.latents(planes, self.level) * self.shrink
        writer, index = SymbolWriter(), self.tables(y.shape[2:])
        symbols, values = self.decisions.quantise(y.numpy(), index, slice(0, 24))
        writer.put_quantised(self.decisions.quantizer, symbols, index)
        shown = self.network.planes(torch.from_numpy(values).float() / UNIT, self.level)
        return CodedPicture(writer.coder.finish(), writer.log, lambda: shown)

    @torch.no_grad()
    def reconstruct(self, payload: bytes, height: int, width: int, reference: None = None) -> CodedPicture:
        reader, index = SymbolReader(payload), self.tables((height // 4, width // 4))
        values = reconstruct(ROUNDING, reader.get_quantised(ROUNDING, index), index)
        shown = self.network.planes(torch.from_numpy(values).float() / UNIT, self.level)
        return CodedPicture(payload, reader.log, lambda: shown)


@dataclass(frozen=True)
class ToyObjective:
    level: float
    worth: float

    def outcome(self, network: nn.Module, parameters: dict[str, Tensor], batch: Tensor, *, hard: bool) -> Outcome:
        planes, bits = functional_call(network, parameters, (batch, self.level, "rounded" if hard else "mixed"))
        return Outcome(bits, weighted_mse(planes, batch).mean(), batch[:, :4].numel())

    def probe(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        planes, bits = network(batch, self.level, "rounded")
        return (planes * signs(planes, generator)).sum() * (self.worth / planes.numel()) ** 0.5 + bits / planes.numel()


class ToyFamily(Family):
    refinements: ClassVar[tuple[str, ...]] = ("none", "lof")

    @classmethod
    def load(cls, name: str, weights: Path | None, device: torch.device) -> ToyFamily:
        return cls(
            name, network := Toy().requires_grad_(False), weights_digest({}, sent_parameters(network))[:16], device
        )

    @property
    def top(self) -> RateLevel:
        return RateLevel.of(4)

    def trade_off(self, level: RateLevel) -> TradeOff:
        return TradeOff(0.005 * 4**level.real)

    def picture_coder(self, level: RateLevel, video: VideoFormat, **how: Any) -> FrameCoder:
        return FrameCoder(ToyCoder(self.network, level, how.get("decisions", PLAIN)), video, self.multiple)

    def objective(self, level: RateLevel, video: VideoFormat, decisions: Decisions = PLAIN) -> ToyObjective:
        return ToyObjective(level.real, self.trade_off(level).worth)

    def refiner(self, level: RateLevel, video: VideoFormat, refine: str, decisions: Any, *_: Any) -> Any:
        planes = [ToyCoder(self.network, level, decisions["lof"], shrink) for shrink in (1.0, 0.9)]
        coders = [FrameCoder(coder, video, self.multiple) for coder in planes]
        return SimpleNamespace(encode=lambda frames, *_: [[c.encode(f) for c in coders] for f in frames])
