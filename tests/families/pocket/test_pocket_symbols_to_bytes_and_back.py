"""Symbols and networks survive their bytes, and damage is noticed or bounded."""

from __future__ import annotations

import numpy as np
import pytest

from vidcodec.errors import CorruptBitstreamError
from vidcodec.families.pocket.exact import SYMBOL_LIMIT, ExactContext
from vidcodec.families.pocket.network import Pocket, PocketConfig, flatten, grid_sizes, initial
from vidcodec.families.pocket.update import choose_steps, moved
from vidcodec.families.pocket.workspace import Workspace
from vidcodec.updates.coder import decode_update, encode_update

CONFIG = PocketConfig()


def parameters(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    start = initial(CONFIG, seed=seed)
    start["context_2_bias"][:, 1] = 1.0  # about as wide as the symbols here
    theta = flatten(CONFIG, start)
    return (np.rint((theta + rng.normal(0, 0.05, theta.shape)) * 4096) / 4096).astype(np.float32)


def random_grids(h: int, w: int, spread: float = 2.0, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.rint(rng.laplace(0, spread, size)).astype(np.int32) for size in grid_sizes(CONFIG, h, w)]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("size", [(1, 1), (21, 33), (40, 24)])
def test_symbols_survive(size: tuple[int, int]) -> None:
    grids, coder = random_grids(*size), ExactContext.of(CONFIG, parameters())
    assert same(coder.decode(coder.encode(grids), *size), grids)


def test_extreme_symbols_survive_and_larger_ones_are_refused() -> None:
    coder = ExactContext.of(CONFIG, parameters())
    grids = random_grids(8, 8)
    grids[0][3, 3], grids[2][0, 0] = SYMBOL_LIMIT, -SYMBOL_LIMIT
    assert same(coder.decode(coder.encode(grids), 8, 8), grids)
    grids[1][0, 0] = SYMBOL_LIMIT + 1
    with pytest.raises(ValueError, match="beyond"):
        coder.encode(grids)


def test_grids_of_zeros_cost_nothing() -> None:
    coder = ExactContext.of(CONFIG, parameters())
    grids = [np.zeros(size, np.int32) for size in grid_sizes(CONFIG, 40, 24)]
    assert coder.encode(grids) == b"\0"
    assert same(coder.decode(b"\0", 40, 24), grids)
    grids[4][0, 0] = 3
    assert len(coder.encode(grids)) < 30


def test_bytes_are_what_the_training_rate_says() -> None:
    theta = parameters()
    work, grids = Workspace(CONFIG, 60, 70), random_grids(60, 70)
    for mine, grid in zip(work.grids(work.symbols), grids, strict=True):
        mine[:] = grid
    bits, _ = work.charge(theta, 0.0)
    payload = ExactContext.of(CONFIG, theta).encode(grids)
    assert 8 * len(payload) == pytest.approx(bits.sum(), rel=0.01)


def test_cut_and_foreign_payloads_are_refused() -> None:
    coder = ExactContext.of(CONFIG, parameters())
    payload = coder.encode(random_grids(21, 33))
    for bad in (b"", payload[:-3], payload[: len(payload) // 8 * 4 + 1], b"\xff" + payload[1:], payload[:1]):
        with pytest.raises(CorruptBitstreamError):
            coder.decode(bad, 21, 33)


def test_flipped_bits_never_crash() -> None:
    coder, grids = ExactContext.of(CONFIG, parameters()), random_grids(10, 12)
    payload = coder.encode(grids)
    rng = np.random.default_rng(0)
    for _ in range(40):
        bad = bytearray(payload)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        try:
            out = coder.decode(bytes(bad), 10, 12)
        except CorruptBitstreamError:
            continue
        assert max(int(np.abs(g).max()) for g in out) <= SYMBOL_LIMIT + 1


def test_updates_survive_and_coarser_steps_are_cheaper() -> None:
    network, theta = Pocket(CONFIG, parameters(0)), parameters(1)

    def loss(x: np.ndarray) -> float:
        return float(np.square(x - theta).mean())

    sizes = []
    for price in (1e-9, 1e-6):
        update = choose_steps(network, theta, loss, price)
        payload = encode_update(update, network)
        after = Pocket(CONFIG, network.theta)
        decode_update(payload, after).apply(after)
        np.testing.assert_array_equal(after.theta, moved(network, update))
        sizes.append(len(payload))
    assert sizes[1] < sizes[0]


def test_an_unchanged_network_sends_nothing() -> None:
    network = Pocket(CONFIG, parameters())
    assert encode_update(choose_steps(network, network.theta, lambda x: 0.0, 1.0), network) == b""
