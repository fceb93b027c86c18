"""A fit makes frames cheaper, goes on where it was stopped, and ends in bytes that give its frames back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vidcodec.families.pocket.codec import FrameDecoder, finish, on_grid
from vidcodec.families.pocket.fit import Fit, FitOptions
from vidcodec.families.pocket.network import PocketConfig, flatten, initial
from vidcodec.families.pocket.update import decode_update

CONFIG = PocketConfig(grids=5, own=8, coarse=4, context=8, hidden=16)
OPTIONS = FitOptions(trade_off=2e-3, rounds=60)


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


def test_a_fit_lowers_the_true_cost_and_its_bytes_decode_to_its_frames() -> None:
    targets, base = moving_edges(2), on_grid(flatten(CONFIG, initial(CONFIG, OPTIONS.trade_off)))
    fit = Fit(targets, OPTIONS, CONFIG, base)
    before = fit.loss(fit.theta)
    assert fit.run()
    assert fit.loss(fit.theta) < 0.3 * before

    coded = finish(fit)
    theta = decode_update(CONFIG, base, coded.network)
    np.testing.assert_array_equal(theta, coded.theta)
    assert fit.loss(theta) < 0.35 * before
    decoder = FrameDecoder(CONFIG, theta, *targets[0].shape[1:])
    for i, payload in enumerate(coded.frames):
        grids = decoder.symbols(payload)
        assert all(np.array_equal(a, b) for a, b in zip(grids, fit.grids(i), strict=True))
        error = float(np.square(decoder.planes(grids) - targets[i])[:4].mean())
        assert error <= float(fit.cost(i, theta).errors[0]) * 1.001


def test_the_same_fit_gives_the_same_bytes() -> None:
    targets, base = moving_edges(1), on_grid(flatten(CONFIG, initial(CONFIG, OPTIONS.trade_off)))
    coded = []
    for _ in range(2):
        fit = Fit(targets, replace(OPTIONS, rounds=10), CONFIG, base)
        fit.run()
        coded.append(finish(fit))
    assert coded[0].network == coded[1].network
    assert coded[0].frames == coded[1].frames


@pytest.mark.parametrize("optimizer", ["soap", "adam"])
def test_a_kept_state_goes_on_to_the_same_end(tmp_path: Path, optimizer: str) -> None:
    targets, options = moving_edges(2), replace(OPTIONS, rounds=12, optimizer=optimizer)
    whole = Fit(targets, options, CONFIG)
    whole.run()
    first = Fit(targets, options, CONFIG)
    for _ in range(11):
        first.step()
    first.save(tmp_path / "state.npz")
    second = Fit(targets, options, CONFIG, store=tmp_path / "symbols.npy")
    second.load(tmp_path / "state.npz")
    second.run()
    np.testing.assert_array_equal(second.theta, whole.theta)
    np.testing.assert_array_equal(second.frames[1].symbols, whole.frames[1].symbols)


def test_a_fit_keeps_its_time() -> None:
    fit = Fit(moving_edges(1), replace(OPTIONS, rounds=10**6), CONFIG)
    assert not fit.run(seconds=0.2)
    assert 0 < fit.visits < 10**5
