"""The shipped network of the lossless mode: better than a general-purpose picture codec, on grids, small."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from vidcodec.checkpoint import WEIGHTS
from vidcodec.families.lossless.checkpoint import load_lossless
from vidcodec.families.lossless.exact import ExactLossless
from vidcodec.families.lossless.network import Lossless, LosslessConfig
from vidcodec.families.lossless.planes import rgb_to_ycocg

CLIP = Path(__file__).parents[1] / "data" / "car_park.mp4"


@pytest.fixture(scope="module")
def shipped() -> Lossless:
    return load_lossless()[0]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """192x256 of a real frame, with a little sensor noise: R'G'B' (192, 256, 3)."""
    with av.open(str(CLIP)) as container:
        rgb = next(container.decode(video=0)).to_ndarray(format="rgb24")[100:292, 200:456]
    noisy = rgb + np.random.default_rng(0).normal(0, 1.5, (192, 256, 1))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def test_it_is_the_default_network_and_small(shipped: Lossless) -> None:
    assert shipped.config == LosslessConfig()
    assert (WEIGHTS / "lossless.safetensors").stat().st_size < 8_000_000


def test_pictures_take_a_fifth_less_than_as_png(shipped: Lossless, picture: np.ndarray) -> None:
    y, chroma = rgb_to_ycocg(picture, 8)
    payload = ExactLossless(shipped).encode(y, chroma, 8, rgb=True).finish()
    png = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    assert len(payload) < 0.8 * len(png)


def test_flat_pictures_take_next_to_nothing(shipped: Lossless) -> None:
    y, chroma = rgb_to_ycocg(np.full((128, 128, 3), 200, np.uint8), 8)
    assert 8 * len(ExactLossless(shipped).encode(y, chroma, 8, rgb=True).finish()) < 0.15 * 128 * 128
