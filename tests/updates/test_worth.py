"""What every part of an update brings adds up to what the whole one does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from vidcodec.updates.objective import Outcome
from vidcodec.updates.worth import account, brought_bits, kind_of

PIXELS = 1000


class Line(nn.Module):
    """Batches of numbers (B, 2) through an encoder's matrix and a decoder's."""

    encoder_only = ("encode",)

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encode, self.decode = nn.Linear(2, 2, bias=False), nn.Linear(2, 2)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


class Exact:
    """Sum of squares of what a network gives."""

    worth = 0.5

    def outcome(self, network: nn.Module, parameters: dict[str, Tensor], batch: Tensor, *, hard: bool) -> Outcome:
        y = functional_call(network, parameters, (batch,))
        return Outcome(y.abs().sum(), y.square().mean(), 10)


def cost(network: nn.Module, batch: Tensor) -> float:
    out = Exact().outcome(network, {}, batch, hard=False)
    return float(out.bits / out.pixels + Exact.worth * out.error)


def test_parts_add_up_to_the_whole_gain() -> None:
    base, adapted, batch = Line(0), Line(0), torch.randn(4, 2, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():  # small enough for no output to change its sign
        for p in adapted.parameters():
            p.mul_(0.9)
    batches: Any = SimpleNamespace(pixels=PIXELS, crops=lambda rng, count: batch)
    brought = brought_bits(base, adapted, Exact(), batches, 4)
    assert set(brought) == {"encode.weight", "decode.weight", "decode.bias"}
    assert sum(brought.values()) == pytest.approx(PIXELS * (cost(base, batch) - cost(adapted, batch)), rel=1e-3)


def test_what_did_not_change_brings_nothing() -> None:
    batches: Any = SimpleNamespace(pixels=PIXELS, crops=lambda rng, count: torch.ones(1, 2))
    assert brought_bits(Line(0), Line(0), Exact(), batches, 4) == {}


def test_accounts_have_the_dearest_first_and_one_row_for_the_encoder() -> None:
    brought = {"encode.weight": 5.0, "decode.bias": 2.0, "decode.weight": -1.0}
    rows = account(Line(0), {"decode.bias": 8.0, "decode.weight": 16.0}, brought)
    assert [(r["name"], r["kind"], r["bits"], r["brought"]) for r in rows] == [
        ("decode.weight", "matrices", 16.0, -1.0),
        ("decode.bias", "biases", 8.0, 2.0),
        ("encoder", "encoder", 0.0, 5.0),
    ]


def test_kinds_of_tensors() -> None:
    shapes = {"a.bias": (4,), "gain.table": (9, 4), "a.depth.weight": (4, 1, 3, 3), "a.conv.weight": (4, 4, 3, 3)}
    kinds = [kind_of(name, shape) for name, shape in shapes.items()]
    assert kinds == ["biases", "tables", "depthwise", "matrices"]
