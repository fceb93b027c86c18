"""PSNR, SSIM, MS-SSIM and XPSNR against what is known of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytorch_msssim import ms_ssim as reference_ms_ssim

from vidcodec.evaluation import metrics
from vidcodec.evaluation.metrics import measure, ms_ssim, psnr_figures, scales_of, squared_errors, ssim
from vidcodec.video import ColourTags, Frame, VideoFormat

MakeFrames = Callable[..., list[Frame]]


def noisy(frames: list[Frame], spread: float, seed: int = 5) -> list[Frame]:
    """The frames with Gaussian noise on all planes."""
    rng = np.random.default_rng(seed)

    def add(plane: np.ndarray) -> np.ndarray:
        return np.clip(plane + rng.normal(0, spread, plane.shape), 0, 255).astype(np.uint8)

    return [Frame(add(f.y), add(f.uv), f.pts) for f in frames]


def test_psnr_averages_both_ways() -> None:
    errors = [np.array([1.0, 4.0, 4.0, 1.0]), np.array([100.0, 4.0, 4.0, 100.0])]
    figures = psnr_figures(errors)
    assert figures["psnr_y"] == pytest.approx(10 * math.log10(255**2 / 50.5))
    assert figures["psnr_y_frame_mean"] == pytest.approx(10 * math.log10(255**2) - 10)
    assert figures["psnr_u"] == figures["psnr_u_frame_mean"] == pytest.approx(10 * math.log10(255**2 / 4))
    for mean in ("", "_frame_mean"):
        y, u, v = (figures[f"psnr_{k}{mean}"] or 0 for k in "yuv")
        assert figures[f"psnr_yuv{mean}"] == pytest.approx((6 * y + u + v) / 8)


def test_errors_are_those_of_each_plane(make_frames: MakeFrames) -> None:
    (a,) = make_frames(1)
    b = Frame(a.y + np.uint8(2), np.stack([a.uv[0], a.uv[1] + np.uint8(3)]), 0)
    y, u, v, rgb = squared_errors(a, b, VideoFormat(96, 80))
    assert (y, u, v) == (4, 0, 9)
    assert rgb > 0


def test_a_matrix_without_rgb_gives_the_rest(make_frames: MakeFrames) -> None:
    frames = make_frames(2)
    odd = VideoFormat(96, 80, colour=ColourTags(matrix=8))  # YCgCo
    quality = measure(frames, noisy(frames, 4), odd).quality
    assert quality["psnr_rgb"] is None
    assert quality["psnr_rgb_frame_mean"] is None
    assert quality["psnr_y"] == pytest.approx(36, abs=1)


def test_identical_frames_are_perfect(make_frames: MakeFrames) -> None:
    frames = make_frames(2, (192, 180))
    found = measure(frames, frames, VideoFormat(192, 180))
    assert found.notes == []
    assert all(found.quality[k] == 100 for k in ("psnr_y", "psnr_yuv", "psnr_rgb", "psnr_yuv_frame_mean", "xpsnr_y"))
    assert found.quality["ms_ssim_y"] == pytest.approx(1)
    assert found.quality["ssim_y"] == pytest.approx(1)
    assert found.frame_psnr == {"y": [100, 100], "yuv": [100, 100]}


@pytest.mark.parametrize("spread", [3, 20])
def test_ms_ssim_is_that_of_an_independent_implementation(make_frames: MakeFrames, spread: float) -> None:
    (a,) = make_frames(1, (208, 192))
    (b,) = noisy([a], spread)
    x, y = (torch.from_numpy(f.y.astype(np.float64))[None, None] for f in (a, b))
    assert ms_ssim(a.y, b.y) == pytest.approx(float(reference_ms_ssim(x, y, data_range=255)), abs=1e-5)


@pytest.mark.parametrize(("side", "scales"), [(10, 0), (11, 1), (21, 1), (22, 2), (175, 4), (176, 5), (4000, 5)])
def test_small_pictures_have_fewer_scales(side: int, scales: int) -> None:
    assert scales_of(side, 5000) == scales_of(5000, side) == scales


def test_small_pictures_have_an_ms_ssim_and_a_note(make_frames: MakeFrames) -> None:
    frames = make_frames(1, (64, 48))
    values = [measure(frames, noisy(frames, s), VideoFormat(64, 48)) for s in (2, 10, 40)]
    figures = [v.quality["ms_ssim_y"] or 0 for v in values]
    assert 1 > figures[0] > figures[1] > figures[2] > 0
    assert "3 of 5 scales" in values[0].notes[0]


def test_pictures_below_the_window_have_none(make_frames: MakeFrames) -> None:
    frames = make_frames(1, (9, 9))
    found = measure(frames, noisy(frames, 4), VideoFormat(9, 9))
    assert found.quality["ms_ssim_y"] is None
    assert found.quality["ssim_y"] is None
    assert len(found.notes) >= 2
    with pytest.raises(ValueError, match="9x9"):
        ms_ssim(frames[0].y, frames[0].y)


def test_ssim_falls_with_noise(make_frames: MakeFrames) -> None:
    (a,) = make_frames(1)
    values = [ssim(a.y, noisy([a], spread)[0].y) or 0 for spread in (1, 5, 25)]
    assert 1 > values[0] > values[1] > values[2] > 0


def test_xpsnr_falls_with_noise(make_frames: MakeFrames) -> None:
    frames = make_frames(3)
    values = [measure(frames, noisy(frames, s), VideoFormat(96, 80)).quality["xpsnr_y"] or 0 for s in (2, 8)]
    assert 60 > values[0] > values[1] + 6 > 20


def test_without_the_filter_xpsnr_is_null_with_a_note(make_frames: MakeFrames, monkeypatch: pytest.MonkeyPatch) -> None:
    import av.filter

    monkeypatch.setattr(av.filter, "filters_available", {"psnr"})
    frames = make_frames(1)
    found = metrics.measure(frames, noisy(frames, 3), VideoFormat(96, 80))
    assert found.quality["xpsnr_y"] is None
    assert any("no XPSNR" in note for note in found.notes)


def test_different_numbers_of_frames_are_refused(make_frames: MakeFrames) -> None:
    frames = make_frames(3)
    with pytest.raises(ValueError, match="zip"):
        measure(frames, frames[:2], VideoFormat(96, 80))
