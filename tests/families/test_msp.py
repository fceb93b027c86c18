"""The default network: passes, shapes, and a scale path that is the same on integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from vidcodec.entropy.rates import rate_of_symbols, symbol_bits
from vidcodec.entropy.scales import MAX_INDEX
from vidcodec.families.msp.exact import ExactScales
from vidcodec.families.msp.network import PROFILES, Msp, MspConfig, block_transform, magnitude
from vidcodec.families.msp.passes import schedule
from vidcodec.latents.quantizer import UNIT, magnitudes
from vidcodec.rate import RateLevel

CPU = torch.device("cpu")


@pytest.mark.parametrize("scales", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 8), (9, 1), (17, 12)])
def test_every_sample_is_coded_exactly_once(scales: int, size: tuple[int, int]) -> None:
    count = torch.zeros(1, 6, *size)
    steps = schedule(scales)
    assert len(steps) == 1 + 3 * scales
    for step in steps:
        for cell in step.cells(6):
            count[(slice(None), cell.group, *cell.site)] += 1
    assert (count == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 16)])
def test_a_cell_is_the_same_place_on_both_grids(size: tuple[int, int]) -> None:
    where = torch.arange(6.0 * size[0] * size[1]).reshape(1, 6, *size)
    for step in schedule(2):
        for cell in step.cells(6):
            on_pass = where[(..., *step.grid)][(slice(None), cell.group, *cell.phase)]
            assert torch.equal(on_pass, where[(slice(None), cell.group, *cell.site)])


def test_every_pass_but_the_first_has_known_neighbours() -> None:
    known = torch.zeros(1, 6, 16, 16)
    for k, step in enumerate(schedule(3)):
        near = torch.nn.functional.max_pool2d(known[(..., *step.grid)], 3, 1, 1).amax(1, keepdim=True)
        for cell in step.cells(6):
            assert k == 0 or near[(..., *cell.phase)].all()
        for cell in step.cells(6):
            known[(slice(None), cell.group, *cell.site)] = 1


@pytest.mark.parametrize("scales", [0, 1, 3])
@pytest.mark.parametrize("size", [(16, 16), (48, 80)])
def test_shapes_and_rates(make_tiny: Callable[..., Msp], scales: int, size: tuple[int, int]) -> None:
    model = make_tiny(1, scales=scales)
    planes = torch.rand(2, 6, size[0] // 2, size[1] // 2) - 0.5
    level = torch.tensor([0.3, 2.0])
    out = model(planes, level)
    y = model.analyse(planes, level)
    assert y.shape == (2, 12, size[0] // 16, size[1] // 16)
    assert model.hyper_analysis(y).shape == (2, 6, -(-size[0] // 64), -(-size[1] // 64))
    assert out.planes.shape == planes.shape
    assert out.y_bits.shape == out.z_bits.shape == (2,)
    assert torch.isfinite(out.planes).all()
    assert (out.y_bits > 0).all()
    assert (out.z_bits >= 0).all()


def test_every_weight_has_a_gradient(make_tiny: Callable[..., Msp]) -> None:
    model = make_tiny(2).requires_grad_(True)
    out = model(torch.rand(2, 6, 32, 32) - 0.5, torch.tensor([0.4, 1.5]))
    (out.planes.square().sum() + out.y_bits.sum() + out.z_bits.sum()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().sum() > 0, name


def test_rate_grows_with_the_level(tiny: Msp) -> None:
    planes = torch.rand(1, 6, 32, 32) - 0.5
    rates = [float(sum(tiny(planes, torch.tensor([v]), rate="rounded")[1:])) for v in (0.0, 1.0, 2.0)]
    assert rates == sorted(rates)
    assert float(tiny.rate_lambda(torch.tensor(0.0))) == pytest.approx(2e-4)
    assert float(tiny.rate_lambda(torch.tensor(2.0))) == pytest.approx(1.185)


def test_mixed_rate_charges_symbols_and_pulls_smoothly() -> None:
    x = torch.tensor([-1.7, -0.2, 0.0, 0.4, 2.6, 40.0], requires_grad=True)
    index = torch.full_like(x, 20.0).requires_grad_(True)
    q = x.detach().round()
    mixed = rate_of_symbols(x, q, index, "mixed")
    assert torch.allclose(mixed, symbol_bits(q, index))
    dx, di = torch.autograd.grad(mixed.sum(), (x, index))
    assert torch.equal(dx, torch.autograd.grad(symbol_bits(x, index.detach()).sum(), x)[0])
    assert torch.equal(di, torch.autograd.grad(symbol_bits(q, index).sum(), index)[0])


@pytest.mark.parametrize(("symbol", "index", "moves"), [(0, -3, 0), (1, -3, 1), (0, 70, -1), (900, 70, 0), (0, 5, -1)])
def test_indices_outside_the_table_are_only_led_back_inside(symbol: int, index: int, moves: int) -> None:
    at = torch.tensor(float(index), requires_grad=True)
    symbol_bits(torch.tensor(float(symbol)), at).backward()
    assert at.grad is not None
    assert torch.sign(-at.grad) == moves


@pytest.mark.parametrize("channels", [12, 48, 144, 327])
def test_transform_rows_are_orthonormal(channels: int) -> None:
    rows = block_transform(channels)
    assert rows.shape == (channels, 384)
    assert torch.allclose(rows @ rows.T, torch.eye(channels), atol=1e-5)


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_share_the_code(profile: str) -> None:
    model = Msp(PROFILES[profile])
    out = model(torch.rand(1, 6, 32, 40) - 0.5, torch.tensor([3.3]))
    assert out.planes.shape == (1, 6, 32, 40)
    assert MspConfig.from_dict(PROFILES[profile].to_dict()) == PROFILES[profile]


def test_config_survives_its_dictionary() -> None:
    config = MspConfig(widths=(4, 5), lambda_range=(0.1, 0.2))
    assert MspConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="multiple of 3"):
        MspConfig(latent=10)


# ------------------------------------------------------------------- the exact scale path


def symbols(model: Msp, size: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """z and y symbols of a wide spread."""
    g = torch.Generator().manual_seed(seed)
    c = model.config
    z = (torch.randn(1, c.hyper, -(-size[0] // 4), -(-size[1] // 4), generator=g) * 3).round()
    y = torch.randn(1, c.latent, *size, generator=g)
    return z, (y * torch.exp(torch.randn(y.shape, generator=g) * 1.5)).round()


def exact_indices(model: Msp, level: int, z: Tensor, q: Tensor) -> Tensor:
    scales = ExactScales(model, RateLevel(level))
    features = scales.features(z, (q.shape[-2], q.shape[-1]))
    known = torch.from_numpy(magnitudes(UNIT * q.numpy().astype(np.int32))).double()
    out = [scales.z_index.flatten()]
    for k, step in enumerate(model.schedule):
        grid = (..., *step.grid)
        out += [index.flatten() for index in scales.pass_index(k, features[grid], known[grid])]
    return torch.cat(out)


def float_indices(model: Msp, level: int, z: Tensor, q: Tensor) -> Tensor:
    lv = torch.tensor([level / 256])
    features, known = model.hyper_scale(z, lv, (q.shape[-2], q.shape[-1])), magnitude(q)
    out = [model.z_indices(lv).flatten()]
    for k, step in enumerate(model.schedule):
        grid = (..., *step.grid)
        out += [index.flatten() for index in model.pass_scale[k](features[grid], known[grid], model.y_index(lv))]
    return torch.cat(out).clamp(0, MAX_INDEX)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("level", [0, 100, 256, 512])
def test_integer_scale_path_follows_the_float_one(make_tiny: Callable[..., Msp], seed: int, level: int) -> None:
    model = make_tiny(seed)
    z, q = symbols(model, (21, 30), seed)
    exact, floats = exact_indices(model, level, z, q), float_indices(model, level, z, q)
    assert torch.equal(exact, exact.round())
    assert exact.min() >= 0
    assert exact.max() <= MAX_INDEX
    assert len(exact.unique()) > 10
    assert ((exact - floats).abs() <= 1).float().mean() >= 0.99


@pytest.mark.usefixtures("any_threads")
def test_indices_do_not_depend_on_threads_or_libraries(tiny: Msp) -> None:
    z, q = symbols(tiny, (40, 60))
    expected = exact_indices(tiny, 300, z, q)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for enabled in (True, False):
            with torch.backends.mkldnn.flags(enabled=enabled):
                assert torch.equal(exact_indices(tiny, 300, z, q), expected)


def test_wild_symbols_give_indices_all_the_same(tiny: Msp) -> None:
    z, q = symbols(tiny, (8, 8))
    index = exact_indices(tiny, 512, z * 1e4, (q * 1e4).clamp(-32767, 32767))
    assert torch.equal(index, index.round())
    assert ((index >= 0) & (index <= MAX_INDEX)).all()
