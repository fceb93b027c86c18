"""The compiled loops give what autograd gives, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidcodec.families.pocket.network import (
    PocketConfig,
    distortion,
    flatten,
    initial,
    rate,
    synthesise,
    unflatten,
)
from vidcodec.families.pocket.symbol_kernels import round_softly
from vidcodec.families.pocket.workspace import Workspace

WEIGHTS = (0.75, 0.125, 0.125)
CHARGE = 1e-5


def closeness(ours: np.ndarray, other: np.ndarray) -> float:
    """Largest difference, in units of the largest value."""
    return float(np.abs(ours - other).max() / max(float(np.abs(other).max()), 1e-12))


def moved_parameters(config: PocketConfig) -> np.ndarray:
    """Parameters with no zeros left among them."""
    rng = np.random.default_rng(3)
    theta = flatten(config, initial(config, 2e-3, seed=1))
    return (theta + rng.normal(0, 0.05, theta.shape)).astype(np.float32)


@pytest.mark.parametrize("size", [(24, 40), (21, 33), (1, 1), (67, 75)])
@pytest.mark.parametrize("config", [PocketConfig(), PocketConfig(grids=5, own=8, coarse=4, context=8, hidden=16)])
def test_losses_and_gradients_agree(config: PocketConfig, size: tuple[int, int]) -> None:
    h, w = size
    rng = np.random.default_rng(0)
    work = Workspace(config, h, w)
    for grid in work.grids(work.symbols):
        grid[:] = rng.normal(0, 2, grid.shape)
    target = rng.uniform(-0.5, 0.5, (6, h, w)).astype(np.float32)
    theta = moved_parameters(config)
    errors, bits, by_theta = work.evaluate(theta, target, np.array(WEIGHTS), CHARGE)

    leaf = torch.tensor(theta, requires_grad=True)
    sizes = [int(np.prod(s)) for s in config.shapes().values()]
    parts = zip(config.shapes().items(), leaf.split(sizes), strict=True)
    parameters = {name: part.view(shape) for (name, shape), part in parts}
    grids = [torch.tensor(g.copy(), requires_grad=True) for g in work.grids(work.symbols)]
    total = rate(config, parameters, grids)
    planes = synthesise(parameters, grids)
    error = distortion(planes, torch.tensor(target), WEIGHTS)
    (error + CHARGE * total).backward()

    assert closeness(work.planes(), planes.detach().numpy()) < 1e-4
    assert bits.sum() == pytest.approx(total.item(), rel=1e-4)
    assert float(errors @ WEIGHTS) == pytest.approx(error.item(), rel=1e-4)
    assert leaf.grad is not None
    for name, ours in unflatten(config, by_theta).items():
        assert closeness(ours, unflatten(config, leaf.grad.numpy())[name]) < 1e-4, name
    for ours, grid in zip(work.grids(work.gradient), grids, strict=True):
        assert grid.grad is not None
        assert closeness(ours, grid.grad.numpy()) < 1e-4


def test_slopes_of_soft_rounding_are_its_derivative() -> None:
    x = np.linspace(-3, 3, 999, dtype=np.float32)
    ones, values, slope = np.ones_like(x), np.zeros_like(x), np.zeros_like(x)
    more, less, unused = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    round_softly(x, ones, 0.3, 0.2, 7, values, slope)
    round_softly(x + np.float32(1e-3), ones, 0.3, 0.2, 7, more, unused)
    round_softly(x - np.float32(1e-3), ones, 0.3, 0.2, 7, less, unused)
    np.testing.assert_allclose((more - less) / 2e-3, slope, atol=0.05 * float(slope.max()))


def test_noise_of_soft_rounding_has_the_size_asked_for() -> None:
    x = np.full(100_000, 0.5, np.float32)
    values, slope = np.zeros_like(x), np.zeros_like(x)
    round_softly(x, np.ones_like(x), 10.0, 0.1, 1, values, slope)
    assert values.std() == pytest.approx(0.1, rel=0.05)
    assert values.mean() == pytest.approx(0.5, abs=0.01)
