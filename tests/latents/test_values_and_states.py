"""What symbols mean: points of the two quantisers, states, the header's byte, what the scale path sees."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from quantize_support import QUANTIZERS, TRADE_OFF, TRELLISES, latents

from vidcodec.entropy.bank import bank
from vidcodec.entropy.scales import LOG_STEP
from vidcodec.errors import UnsupportedVersionError
from vidcodec.latents.quantizer import (
    MACHINES,
    MAX_SHIFT,
    MIN_SHIFT,
    STEPS,
    Quantizer,
    magnitudes,
    quantise,
    reconstruct,
    states,
)


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_encoder_and_decoder_agree_on_values(quantizer: Quantizer) -> None:
    residual, index = latents(4000)
    residual, index, runs = residual.reshape(8, 500), index.reshape(8, 500), np.arange(0, 4001, 50)
    symbols, values = quantise(quantizer, residual, index, TRADE_OFF, runs=runs)
    assert values.dtype == symbols.dtype == np.int32
    assert np.array_equal(reconstruct(quantizer, symbols.copy(), index.astype(np.int64), runs), values)
    assert not (values % quantizer.step).any()
    assert np.array_equal((values / 256).astype(np.float32) * 256, values)  # exact in single precision


@pytest.mark.parametrize("quantizer", TRELLISES)
def test_states_and_points_follow_the_machine(quantizer: Quantizer) -> None:
    rng = np.random.default_rng(1)
    symbols = rng.integers(-5, 6, 400).astype(np.int32)
    index = rng.integers(0, 4, 400)
    symbols[index == 0] = 0
    runs = np.array([0, 100, 101, 101, 333, 400])
    walked, points = states(quantizer, symbols, index, runs), reconstruct(quantizer, symbols, index, runs)
    machine = MACHINES[quantizer.kind]
    for first, last in itertools.pairwise(runs):
        state = machine.start
        for t in range(first, last):
            if index[t] == 0:
                continue
            k = int(symbols[t])
            assert walked[t] == state
            point = 2 * k if machine.use[state] == 0 else 2 * k - (k > 0) + (k < 0)
            assert points[t] == point * quantizer.step
            state = int(machine.next_state[state, k & 1])


@pytest.mark.parametrize("kind", MACHINES)
def test_machines_are_trellises(kind: str) -> None:
    next_state, use, start = MACHINES[kind]
    states_of = len(use)
    assert sorted(next_state.ravel().tolist()) == sorted(2 * list(range(states_of)))  # two ways into every state
    assert (next_state[:, 0] != next_state[:, 1]).all()
    assert use.sum() == states_of // 2
    assert use[start] == 1


def test_a_quantizer_is_one_byte() -> None:
    assert Quantizer().code == 0
    shifts = range(MIN_SHIFT, MAX_SHIFT + 1)
    every = [Quantizer(k, t, s) for k in ("scalar", *MACHINES) for t in range(4) for s in shifts]
    assert len({q.code for q in every}) == len(every) == 192
    for quantizer in every:
        assert 0 <= quantizer.code < 256
        assert Quantizer.from_code(quantizer.code) == quantizer
    for code in (192, 255, 256, 10**6, -1):
        with pytest.raises(UnsupportedVersionError, match="update vidcodec"):
            Quantizer.from_code(code)
    for wrong in (("wavelet", 0, 0), ("scalar", 4, 0), ("scalar", -1, 0), ("trellis8", 0, 12), ("trellis8", 0, -5)):
        with pytest.raises(ValueError, match="must be"):
            Quantizer(*wrong)


def test_a_shift_keeps_the_deviation_a_table_stands_for() -> None:
    for shift in range(MIN_SHIFT, MAX_SHIFT + 1):
        assert Quantizer(shift=shift).step == STEPS[shift - MIN_SHIFT] == round(256 * math.exp(-LOG_STEP * shift))
    index = np.array([0, 1, 30, 63], np.uint8)
    assert Quantizer(shift=5).scale_index(index).tolist() == [5, 6, 35, 63]
    assert Quantizer(shift=-4).scale_index(index).tolist() == [0, 0, 26, 59]


def test_the_scale_path_sees_whole_steps_as_before_and_rises_between() -> None:
    table = bank().log_magnitude
    assert np.array_equal(magnitudes(256 * np.arange(-1023, 1024)), table[np.abs(np.arange(-1023, 1024))])
    assert (magnitudes(np.array([2**30, -(2**30), 256 * 1024])) == table[-1]).all()
    rising = magnitudes(np.arange(0, 256 * 1023))
    assert (np.diff(rising) >= 0).all()
    exact = 256 * np.log2(1 + np.arange(256 * 1023) / 256)
    assert np.abs(rising - exact).max() < 23  # a chord of the logarithm, furthest off between 0 and 1
