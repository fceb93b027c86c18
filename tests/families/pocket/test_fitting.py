"""A fit makes frames cheaper, goes on where it was stopped, and keeps its time."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from vidcodec.families.pocket.fit import LEAST_ROUNDS, Fit, FitOptions
from vidcodec.families.pocket.network import PocketConfig, flatten, initial

CONFIG = PocketConfig(grids=5, own=8, coarse=4, context=8, hidden=16)
OPTIONS = FitOptions(trade_off=2e-3, rounds=60)
BASE = flatten(CONFIG, initial(CONFIG, OPTIONS.trade_off))


def moving_edges(frames: int, h: int = 24, w: int = 33) -> list[np.ndarray]:
    """Planes of a clip: a bright disc on a slope moves to the right."""
    y, x = np.mgrid[: 2 * h, : 2 * w]
    out = []
    for k in range(frames):
        luma = 0.3 * (np.hypot(y - h, x - w / 2 - 3 * k) < 12) + y / (8 * h) - 0.3
        phases = [luma[a::2, b::2] for a in (0, 1) for b in (0, 1)]
        chroma = [phases[0] * 0.5, -phases[0] * 0.3]
        out.append(np.stack(phases + chroma).astype(np.float32))
    return out


def test_a_fit_lowers_the_true_cost() -> None:
    fit = Fit(moving_edges(2), OPTIONS, CONFIG, BASE)
    before = fit.loss(fit.theta)
    assert fit.run()
    assert fit.loss(fit.theta) < 0.3 * before


def test_a_network_that_nobody_pays_for_stays() -> None:
    fit = Fit(moving_edges(1), replace(OPTIONS, shared=0), CONFIG, BASE)
    before = fit.loss(fit.theta)
    assert fit.run()
    np.testing.assert_array_equal(fit.theta, BASE)
    assert fit.loss(fit.theta) < 0.6 * before


def test_a_kept_state_goes_on_to_the_same_end() -> None:
    targets, options = moving_edges(2), replace(OPTIONS, rounds=12)
    whole = Fit(targets, options, CONFIG, BASE)
    assert whole.run()
    first = Fit(targets, options, CONFIG, BASE)
    for _ in range(11):
        first.step()
    second = Fit(targets, options, CONFIG, BASE)
    second.load(first.state())
    for fit in (first, second):
        assert fit.run()
        np.testing.assert_array_equal(fit.theta, whole.theta)
        np.testing.assert_array_equal(fit.states, whole.states)


def test_a_fit_keeps_its_time_and_pauses() -> None:
    fit = Fit(moving_edges(1), replace(OPTIONS, rounds=10**6), CONFIG, BASE)
    assert not fit.run(pause=0.05)
    start = time.monotonic()
    assert fit.run(seconds=0.3)
    assert time.monotonic() - start < 5
    assert LEAST_ROUNDS <= fit.visits < 10**5


def test_however_little_time_there_is_frames_are_visited() -> None:
    fit = Fit(moving_edges(2), OPTIONS, CONFIG, BASE)
    assert fit.run(seconds=1e-6)
    assert fit.visits == 2 * LEAST_ROUNDS
