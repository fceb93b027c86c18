"""Integer layers: equal to Python's integers, whatever the order of sums, threads and libraries."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from vidcodec.entropy.exact import (
    ACCUMULATOR_LIMIT,
    ACTIVATION_LIMIT,
    WEIGHT_LIMIT,
    WIDE_BIAS_LIMIT,
    WIDE_LIMIT,
    WIDE_MAX_FAN_IN,
    IntConv,
    IntLevels,
    WideConv,
    leaky,
    shift_to_int,
    to_activation,
    to_grid,
)


def integers(*shape: int, seed: int = 0, low: int = 0, high: int = 2**15) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(low, high, shape).astype(np.float64))


def conv(outputs: int, inputs: int, size: int, seed: int = 1) -> IntConv:
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, size, size, generator=g)
    return IntConv.from_float(weight, torch.randn(outputs, generator=g) * 100)


def reference(layer: IntConv, x: Tensor) -> np.ndarray:
    """The convolution in Python's integers."""
    k = layer.size
    w = np.array([[int(v) for v in row] for row in layer.weight.tolist()], object)
    w = w.reshape(len(w), -1, k, k)
    a = np.array(x.long().tolist(), object)
    b, inputs, height, width = a.shape
    padded = np.zeros((b, inputs, height + k - 1, width + k - 1), object)
    padded[..., k // 2 : k // 2 + height, k // 2 : k // 2 + width] = a
    out = np.zeros((b, len(w), height, width), object)
    for o in range(len(w)):
        out[:, o] = int(layer.bias[o, 0])
        for c, i, j in np.ndindex(inputs, k, k):
            out[:, o] += w[o, c, i, j] * padded[:, c, i : i + height, j : j + width]
    return out


@pytest.mark.parametrize("size", [1, 3, 5])
def test_convolution_equals_whole_numbers(size: int) -> None:
    layer, x = conv(4, 3, size), integers(2, 3, 5, 7)
    assert layer(x).long().tolist() == reference(layer, x).tolist()


def test_largest_values_stay_exact() -> None:
    inputs = 64
    weight = torch.full((2, inputs, 3, 3), 1e6)
    weight[1] = -1e6
    layer = IntConv.from_float(weight, torch.full((2,), 1e30))
    assert layer.weight.abs().max() == WEIGHT_LIMIT
    assert layer.bias.abs().max() == ACCUMULATOR_LIMIT
    x = torch.full((1, inputs, 3, 3), ACTIVATION_LIMIT, dtype=torch.float64)
    acc = layer(x)
    assert acc.abs().max() < 2**53
    assert acc.long().tolist() == reference(layer, x).tolist()


def test_sums_of_the_widest_layers_are_below_2_to_53() -> None:
    widest = 2**23 - 2**11  # leaves room for the bias
    assert WEIGHT_LIMIT * ACTIVATION_LIMIT * widest + ACCUMULATOR_LIMIT < 2**53
    assert 2**15 * WIDE_LIMIT * WIDE_MAX_FAN_IN + WIDE_BIAS_LIMIT < 2**53 + 2**51


def backends() -> list[tuple[str, Callable[[], Tensor]]]:
    layer, x = conv(24, 40, 3), integers(1, 40, 33, 17)
    wide = WideConv.from_transposed(torch.randn(16, 8, 5, 5, generator=torch.Generator().manual_seed(3)), torch.ones(8))
    y = integers(1, 16, 9, 11, low=-(2**22), high=2**22)
    return [("conv", lambda: to_activation(layer(x))), ("wide", lambda: wide(y))]


@pytest.mark.usefixtures("any_threads")
@pytest.mark.parametrize("which", [0, 1])
def test_threads_and_libraries_change_nothing(which: int) -> None:
    compute = backends()[which][1]
    expected = compute()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for enabled in (True, False):
            with torch.backends.mkldnn.flags(enabled=enabled):
                assert torch.equal(compute(), expected)


def test_order_of_sums_changes_nothing() -> None:
    layer, x = conv(6, 32, 1), integers(1, 32, 8, 8)
    for seed in range(5):
        order = torch.randperm(32, generator=torch.Generator().manual_seed(seed))
        shuffled = IntConv(layer.weight[:, order], layer.bias, 1)
        assert torch.equal(shuffled(x[:, order]), layer(x))


def test_rounding_is_half_up_and_clipped() -> None:
    acc = torch.tensor([-5000.0, -1.0, 0.0, 2047.0, 2048.0, 6143.0, 6144.0, 2.0**40], dtype=torch.float64)
    assert to_activation(acc).tolist() == [0, 0, 0, 0, 1, 1, 2, ACTIVATION_LIMIT]
    assert shift_to_int(torch.tensor([-3.0, -1.0, 1.0, 3.0, 5.0]).double(), 1).tolist() == [-1, 0, 1, 2, 3]
    assert to_grid(torch.tensor([0.5, -0.5, 1.5, 9e9]), 0, 100.0).tolist() == [1, 0, 2, 100]


def test_slopes_of_leaky_relus_are_whole_numbers() -> None:
    x = integers(1000, low=-(2**23) + 1, high=2**23)
    factor = math.floor(0.01 * 2**16 + 0.5)
    expected = [v if v >= 0 else (v * factor * 2 + 2**16) // 2**17 for v in x.long().tolist()]
    assert leaky(x, 0.01).long().tolist() == expected


def test_levels_are_interpolated_in_whole_numbers() -> None:
    table = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)) * 3
    levels = IntLevels.from_float(table)
    for level in (0, 1, 128, 255, 256, 300, 511, 700, 767, 768):
        low, t = min(level // 256, 2), level - 256 * min(level // 256, 2)
        pairs = zip(levels.table[low].long().tolist(), levels.table[low + 1].long().tolist(), strict=True)
        expected = [(a * (256 - t) + b * t + 128) // 256 for a, b in pairs]
        assert levels.at(level).flatten().long().tolist() == expected
    for k in range(4):
        assert torch.equal(levels.at(256 * k).flatten(), levels.table[k])
        assert (levels.at(256 * k).flatten() * 2.0**-20 - table[k]).abs().max() < 1e-6


def test_integer_layers_follow_the_float_ones() -> None:
    g = torch.Generator().manual_seed(4)
    layer = torch.nn.Conv2d(6, 5, 3, padding=1)
    torch.nn.init.normal_(layer.weight, std=0.2, generator=g)
    x = torch.rand(1, 6, 8, 8, generator=g) * 100
    exact = IntConv.from_float(layer.weight, layer.bias)((x * 256).round().double()) * 2.0**-20
    assert (exact - layer(x).double()).abs().max() < 0.2
