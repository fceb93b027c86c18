"""Bjontegaard figures of curves whose distance is known."""

from __future__ import annotations

import pytest

from vidcodec.evaluation.bdrate import bd, compare, overlap, rising
from vidcodec.evaluation.results import Point

CURVE = [(0.1, 30.0), (0.2, 33.0), (0.4, 36.0), (0.8, 39.0), (1.6, 42.0)]


def scaled(factor: float, gain: float = 0.0) -> list[tuple[float, float]]:
    return [(rate * factor, quality + gain) for rate, quality in CURVE]


def points(codec: str, curve: list[tuple[float, float]], clip: str = "clip") -> list[Point]:
    return [
        Point(
            key=f"{codec}{k}",
            clip=clip,
            codec=codec,
            rate_point=k,
            bytes=int(1000 * rate),
            file_bytes=0,
            bpp=rate,
            quality={"psnr_yuv": quality},
        )
        for k, (rate, quality) in enumerate(curve)
    ]


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.3])
def test_a_constant_share_of_the_rate_is_found(factor: float) -> None:
    found = bd(CURVE, scaled(factor))
    assert found.rate == pytest.approx(100 * (factor - 1), abs=1e-6)
    assert found.note == ""


def test_a_constant_gain_is_found() -> None:
    assert bd(CURVE, scaled(1, 0.75)).psnr == pytest.approx(0.75, abs=1e-6)


def test_half_the_bits_are_three_decibels_on_this_curve() -> None:
    assert bd(CURVE, scaled(0.5)).psnr == pytest.approx(3, abs=1e-6)


def test_the_order_of_points_does_not_matter() -> None:
    assert bd(CURVE[::-1], scaled(0.8)[::-1]) == bd(CURVE, scaled(0.8))


def test_curves_apart_are_not_available() -> None:
    found = bd(CURVE, scaled(0.5, 9))
    assert found.rate is None
    assert "share 25 %" in found.note


def test_rates_apart_leave_the_rate_figure() -> None:
    found = bd(CURVE, scaled(0.125))
    assert found.rate == pytest.approx(-87.5)
    assert found.psnr is None


def test_three_points_are_too_few() -> None:
    found = bd(CURVE[:3], CURVE)
    assert (found.rate, found.psnr) == (None, None)
    assert "anchor has 3" in found.note


def test_no_points_are_too_few() -> None:
    assert bd([], CURVE).rate is None


def test_points_that_cost_more_for_less_are_left_out_and_told() -> None:
    found = bd(CURVE, [*scaled(0.5), (0.6, 38.0)])
    assert found.rate == pytest.approx(-50, abs=1e-6)
    assert found.note.startswith("test: 1 of 6 points")


def test_rising_keeps_the_upper_points() -> None:
    assert rising([(2, 31), (1, 30), (3, 31), (4, 29), (5, 35), (5, 36)]) == ([(1, 30), (2, 31), (5, 35)], 3)


def test_overlap_is_a_part_of_the_shorter_range() -> None:
    import numpy as np

    assert overlap(np.array([0, 10]), np.array([5, 9])) == 1
    assert overlap(np.array([0, 10]), np.array([8, 12])) == 0.5
    assert overlap(np.array([0, 1]), np.array([2, 3])) == 0


def test_means_are_over_clips_that_have_a_figure() -> None:
    every = points("a", CURVE, "one") + points("b", scaled(0.5), "one") + points("a", CURVE, "two")
    every += points("b", scaled(0.7), "two") + points("a", CURVE, "three") + points("b", scaled(0.5, 20), "three")
    found = {c.clip: c for c in compare(every, "a")}
    assert found["one"].bd_rate == pytest.approx(-50)
    assert found["three"].bd_rate is None
    mean = found[None]
    assert mean.bd_rate == pytest.approx(-40)
    assert mean.clips[0] == 2
    assert {c.codec for c in compare(every, "a")} == {"b"}
