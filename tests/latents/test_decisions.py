"""Which symbols are chosen: against brute force, against plain rounding, and on odd inputs."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from quantize_support import PLAIN, QUANTIZERS, SCALAR, TRADE_OFF, TRELLIS8, TRELLISES, cost_of, latents

from vidcodec.latents.choice import choose_quantizer
from vidcodec.latents.choice import cost_of as mean_cost
from vidcodec.latents.quantizer import (
    HIGH_RATE_TRADE_OFF,
    MACHINES,
    SYMBOL_LIMIT,
    Quantizer,
    quantise,
    reconstruct,
    symbol_bits,
)
from vidcodec.latents.tables import tables


def brute_force(
    quantizer: Quantizer, residual: np.ndarray, index: np.ndarray, trade_off: float, runs: np.ndarray | None, reach: int
) -> float:
    """The least cost over all sequences of symbols up to `reach`, each weighed by the public functions."""
    sequences = np.array(list(itertools.product(range(-reach, reach + 1), repeat=residual.size)), np.int32)
    n = residual.size
    many = (len(sequences), n)
    starts = np.array([0, n]) if runs is None else runs
    all_runs = np.append((np.arange(len(sequences))[:, None] * n + starts[:-1]).ravel(), len(sequences) * n)
    indices = np.broadcast_to(index, many)
    values = reconstruct(quantizer, sequences, indices, all_runs) / 256
    bits = symbol_bits(quantizer, sequences, indices, all_runs)
    return float(((residual - values) ** 2 + trade_off * bits).sum(1).min())


def shortest_path(quantizer: Quantizer, residual: np.ndarray, index: np.ndarray, trade_off: float) -> float:
    """The least cost by dynamic programming over every symbol up to 12, without any choice of candidates."""
    machine = MACHINES[quantizer.kind]
    k = np.arange(-12, 13)
    costs = {machine.start: 0.0}
    for x, i in zip(residual * 256 / quantizer.step, index, strict=True):
        after: dict[int, float] = {}
        for state, cost in costs.items():
            points = 2 * k - np.sign(k) * int(machine.use[state])
            table = quantizer.table(np.full(k.shape, i), np.full(k.shape, state))
            branch = (x - points) ** 2 * (quantizer.step / 256) ** 2 + trade_off * tables().symbol_bits(k, table)
            for parity in (0, 1):
                to = int(machine.next_state[state, parity])
                after[to] = min(after.get(to, np.inf), cost + float(branch[k & 1 == parity].min()))
        costs = after
    return min(costs.values())


@pytest.mark.parametrize("quantizer", [*TRELLISES, Quantizer("trellis8", 0, 1)])
@pytest.mark.parametrize("trade_off", [0.0, 0.115, 0.8])
def test_a_trellis_finds_the_shortest_path(quantizer: Quantizer, trade_off: float) -> None:
    residual, index = latents(1500, 1, centre=20, spread=8)
    residual, index = residual.astype(np.float64).clip(-10, 10), np.maximum(index, 1)
    found = quantise(quantizer, residual, index, trade_off)
    best = shortest_path(quantizer, residual, index, trade_off)
    assert cost_of(quantizer, residual, index, *found, trade_off) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("quantizer", [*TRELLISES, Quantizer("trellis8", 0, 0), Quantizer("trellis4", 3, 2)])
@pytest.mark.parametrize("trade_off", [0.0, 0.115, 0.5])
def test_a_trellis_finds_the_best_sequence(quantizer: Quantizer, trade_off: float) -> None:
    for seed in range(5):
        residual, index = latents(4, seed, centre=20, spread=4)
        residual, index = residual.astype(np.float64), np.maximum(index, 1)
        found = quantise(quantizer, residual, index, trade_off)
        best = brute_force(quantizer, residual, index, trade_off, None, 4)
        cost = cost_of(quantizer, residual, index, *found, trade_off)
        assert cost == pytest.approx(best, rel=1e-5)  # rates are looked up in single precision


def test_a_trellis_finds_the_best_sequence_of_each_run() -> None:
    residual, index = latents(5, 3, centre=20, spread=2)
    residual, index, runs = residual.astype(np.float64), np.maximum(index, 1), np.array([0, 2, 2, 5])
    found = quantise(TRELLIS8, residual, index, TRADE_OFF, runs=runs)
    best = brute_force(TRELLIS8, residual, index, TRADE_OFF, runs, 4)
    assert cost_of(TRELLIS8, residual, index, *found, TRADE_OFF, runs=runs) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("table_set", range(4))
@pytest.mark.parametrize("trade_off", [0.0, 0.02, 0.115, 1.0])
def test_rdoq_is_never_worse_than_rounding(table_set: int, trade_off: float) -> None:
    quantizer = Quantizer("scalar", table_set, 1)
    residual, index = latents(5000, table_set)
    weight = np.random.default_rng(1).gamma(2, 0.5, residual.shape)
    plain = quantise(quantizer, residual, index)
    chosen = quantise(quantizer, residual, index, trade_off, weight=weight)
    each = [
        weight * (residual - q.values / 256) ** 2 + trade_off * symbol_bits(quantizer, q.symbols, index)
        for q in (plain, chosen)
    ]
    assert (each[1] <= each[0] + 1e-5)[index > 0].all()
    if trade_off > 0:
        assert each[1].sum() < each[0].sum()


def test_a_trellis_beats_rounding_at_its_own_trade_off() -> None:
    residual, index = latents(20000)
    plain, scalar, trellis = (
        cost_of(q, residual, index, *quantise(q, residual, index, t), HIGH_RATE_TRADE_OFF)
        for q, t in ((PLAIN, None), (SCALAR, HIGH_RATE_TRADE_OFF), (TRELLIS8, HIGH_RATE_TRADE_OFF))
    )
    assert trellis < scalar < plain


def test_plain_rounding_is_the_nearest_integer() -> None:
    residual, index = latents(5000)
    symbols, values = quantise(PLAIN, residual, index)
    assert np.array_equal(symbols, np.rint(residual) * (index > 0))
    assert np.array_equal(values, 256 * symbols)


@pytest.mark.parametrize("quantizer", TRELLISES)
def test_without_a_price_on_bits_the_nearest_reachable_points_are_taken(quantizer: Quantizer) -> None:
    residual, index = latents(20000, centre=40, spread=3)
    nearest = quantise(quantizer, residual, index, 0.0)
    error = residual - nearest.values / 256
    step = quantizer.step / 256
    # Both quantisers' points together lie a step apart, each one's own points two: the error is in between.
    assert step**2 / 12 < np.square(error).mean() < (2 * step) ** 2 / 12


def test_the_chosen_quantizer_is_the_cheapest_of_its_neighbours() -> None:
    residual, index = latents(4000)
    chosen = choose_quantizer(residual, index, TRADE_OFF)
    costs = {q: mean_cost(q, residual, index, TRADE_OFF) for q in (chosen, PLAIN, SCALAR, *TRELLISES)}
    assert min(costs, key=costs.__getitem__) == chosen
    assert chosen.kind == "trellis8"
    for shift in (chosen.shift - 1, chosen.shift + 1):
        assert mean_cost(replace(chosen, shift=shift), residual, index, TRADE_OFF) >= costs[chosen]
    among = choose_quantizer(residual, index, TRADE_OFF, kinds=["scalar"], table_sets=[1, 2], shifts=range(2, 4))
    assert among.kind == "scalar"
    assert among.table_set in (1, 2)
    assert among.shift in (2, 3)


def test_weights_move_bits_to_where_errors_weigh_more() -> None:
    residual, index = latents(20000, centre=20, spread=3)
    weight = np.where(np.arange(20000) < 10000, 4.0, 0.25)
    for quantizer in (SCALAR, TRELLIS8):
        error = (residual - quantise(quantizer, residual, index, TRADE_OFF, weight=weight).values / 256) ** 2
        even = (residual - quantise(quantizer, residual, index, TRADE_OFF).values / 256) ** 2
        assert error[:10000].mean() < even[:10000].mean()
        assert error[10000:].mean() > even[10000:].mean()


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_index_zero_is_zero_and_no_trellis_sees_it(quantizer: Quantizer) -> None:
    residual, index = latents(3000, centre=8)
    assert (index == 0).any()
    found = quantise(quantizer, residual, index, TRADE_OFF)
    assert not found.symbols[index == 0].any()
    assert not found.values[index == 0].any()
    alone = quantise(quantizer, residual[index > 0], index[index > 0], TRADE_OFF)
    assert np.array_equal(alone.symbols, found.symbols[index > 0])
    assert not symbol_bits(quantizer, found.symbols, index)[index == 0].any()


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_odd_inputs(quantizer: Quantizer) -> None:
    nothing = quantise(quantizer, np.zeros((0, 3)), np.zeros((0, 3), np.uint8), TRADE_OFF, runs=np.array([0]))
    assert nothing.symbols.shape == nothing.values.shape == (0, 3)
    one = quantise(quantizer, np.array([[2.2]]), np.array([[30]]), TRADE_OFF)
    assert abs(one.values[0, 0] / 256 - 2.2) <= 2 * quantizer.step / 256
    none = quantise(quantizer, np.full(7, 5.0), np.zeros(7, np.uint8), TRADE_OFF, runs=np.array([0, 0, 4, 7, 7]))
    assert not none.symbols.any()
    huge = quantise(quantizer, np.array([1e30, -1e30, 0.0, 1e5]), np.array([1, 63, 63, 63]), TRADE_OFF)
    assert (np.abs(huge.symbols) <= SYMBOL_LIMIT).all()
    assert np.array_equal(np.sign(huge.values), [1, -1, 0, 1])


def test_what_cannot_be_quantised_is_refused() -> None:
    x, i = np.zeros(4), np.ones(4, np.uint8)
    with pytest.raises(ValueError, match="finite"):
        quantise(PLAIN, np.array([0, np.nan, 0, 0]), i)
    with pytest.raises(ValueError, match="shaped"):
        quantise(PLAIN, x, i[:3])
    with pytest.raises(ValueError, match="shaped"):
        quantise(SCALAR, x, i, 0.1, weight=np.ones(3))
    with pytest.raises(ValueError, match=r"0 \.\. 63"):
        quantise(PLAIN, x, np.full(4, 64))
    with pytest.raises(ValueError, match="needs a trade-off"):
        quantise(TRELLIS8, x, i)
    for trade_off in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="trade-off"):
            quantise(SCALAR, x, i, trade_off)
    for runs in ([0, 3], [1, 4], [0, 3, 2, 4], [], [[0, 4]]):
        with pytest.raises(ValueError, match="runs"):
            quantise(TRELLIS8, x, i, 0.1, runs=np.array(runs))
