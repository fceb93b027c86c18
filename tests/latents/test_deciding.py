"""Decisions of a quantiser inside a training step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidcodec.families.msp.network import Msp, MspConfig
from vidcodec.families.msp.pictures import MspPictureCodec
from vidcodec.families.msp.quantising import error_weights
from vidcodec.latents.deciding import deciding
from vidcodec.latents.decisions import Decisions
from vidcodec.latents.quantizer import Quantizer, symbol_bits
from vidcodec.rate import RateLevel
from vidcodec.training.deciding import Deciders

SCALAR, TRELLIS = Quantizer("scalar", 1, 0), Quantizer("trellis8", 1, 3)
CHANNELS = slice(0, 12)


def cell(seed: int = 0, pictures: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, means and real-valued table indices of a cell."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.rand(pictures, 12, 5, 7, generator=generator) * 40
    y = torch.randn(index.shape, generator=generator) * 3
    return y, 0.3 * torch.randn(index.shape, generator=generator), index


def decisions(quantizer: Quantizer, trade_off: float = 0.3) -> Decisions:
    return Decisions(quantizer, trade_off, np.linspace(0.5, 2.0, 12))


@pytest.mark.parametrize("quantizer", [SCALAR, TRELLIS], ids=lambda q: q.kind)
def test_a_step_sees_the_values_and_bits_of_the_coder(quantizer: Quantizer) -> None:
    y, mean, index = cell()
    index = index.round().clamp(1, 60)
    q, bits = deciding([decisions(quantizer)])(y, mean, index, CHANNELS)
    for i in range(len(y)):
        row = index[i : i + 1].numpy().astype(np.uint8)
        symbols, values = decisions(quantizer).quantise((y - mean)[i : i + 1].numpy(), row, CHANNELS)
        np.testing.assert_allclose(q[i : i + 1].numpy(), values / 256, atol=1e-5)
        np.testing.assert_allclose(bits[i].item(), symbol_bits(quantizer, symbols, row).sum(), rtol=1e-5)


def test_every_picture_is_decided_by_its_own_trade_off() -> None:
    y, mean, index = cell()
    cheap, dear = decisions(SCALAR, 0.01), decisions(SCALAR, 4.0)
    q, _ = deciding([cheap, dear])(y, mean, index, CHANNELS)
    parts = [(t[:1], t[1:]) for t in (y, mean, index)]
    alone = [deciding([d])(*(part[i] for part in parts), CHANNELS)[0] for i, d in enumerate((cheap, dear))]
    assert torch.equal(q, torch.cat(alone))
    assert (q[1] == 0).float().mean() > (q[0] == 0).float().mean()


@pytest.mark.parametrize("quantizer", [SCALAR, TRELLIS], ids=lambda q: q.kind)
def test_gradients_go_straight_through_and_along_the_tables(quantizer: Quantizer) -> None:
    y, mean, index = cell()
    y.requires_grad_(True)
    index.requires_grad_(True)
    q, bits = deciding([decisions(quantizer)])(y, mean, index, CHANNELS)
    (straight,) = torch.autograd.grad(q.sum(), y, retain_graph=True)
    assert torch.equal(straight, torch.ones_like(y))
    to_index, to_y = torch.autograd.grad(bits.sum(), (index, y))
    assert torch.isfinite(torch.cat([to_index, to_y])).all()
    # Large symbols under narrow tables want wider ones, zeros under wide tables narrower ones.
    coded = index.detach().round() > 0
    large, zero = coded & (q.detach().abs() > 4) & (index < 15), coded & (q.detach() == 0) & (index > 15)
    assert min(large.sum(), zero.sum()) > 0
    assert to_index[large].max() < 0
    assert to_index[zero].min() > 0


@pytest.mark.parametrize("quantizer", [SCALAR, TRELLIS], ids=lambda q: q.kind)
@pytest.mark.parametrize("value", [0.6, 0.9, 62.9, 63.5])
def test_indices_at_the_ends_of_the_range_can_come_back(quantizer: Quantizer, value: float) -> None:
    y, mean, _ = cell()
    y = y * (40.0 if value < 1 else 0.01)  # far too large for the narrowest table, far too small for the widest
    index = torch.full_like(y, value, requires_grad=True)
    _, bits = deciding([decisions(quantizer)])(y, mean * 0, index, CHANNELS)
    (gradient,) = torch.autograd.grad(bits.sum(), index)
    assert gradient.mean() < 0 if value < 1 else gradient.mean() > 0


def test_samples_that_no_file_codes_are_zero_and_free() -> None:
    y, mean, index = cell()
    index = torch.zeros_like(index).requires_grad_(True)
    q, bits = deciding([decisions(TRELLIS)])(y, mean, index, CHANNELS)
    assert torch.allclose(q, torch.zeros_like(q), atol=1e-6)
    assert bits.abs().max() < 1e-3
    (gradient,) = torch.autograd.grad(bits.sum(), index)
    assert gradient[(y - mean).abs() > 1].max() < 0  # large ones want to be coded


def test_a_step_charges_what_files_cost() -> None:
    torch.manual_seed(3)
    model = Msp(
        MspConfig(
            widths=(8, 8),
            blocks=(1, 1),
            analysis_blocks=None,
            latent=24,
            hyper=8,
            mean_features=8,
            scale_features=8,
            pass_width=8,
            pass_known=8,
            scale_width=8,
            scale_known=8,
        )
    ).eval()
    planes = torch.rand(1, 6, 64, 64) - 0.5
    model.calibrate(planes)
    level = torch.full((1,), 5.0)
    decision = Decisions(TRELLIS, 0.4, error_weights(model, [planes], level))
    with torch.no_grad():
        out = model(planes, level, rate="rounded", code=deciding([decision]))
    coded = MspPictureCodec(model, RateLevel.of(5), decision).encode(planes)
    assert (out.y_bits + out.z_bits).item() == pytest.approx(8 * len(coded.payload), rel=0.03)


def test_weights_between_levels_lie_between() -> None:
    deciders = Deciders(np.log(np.array([[1.0, 4.0], [4.0, 16.0]])))
    assert deciders.at(0.5, SCALAR).weight == pytest.approx([2.0, 8.0])
    assert deciders.coder(torch.tensor([0.5]), None) is None
