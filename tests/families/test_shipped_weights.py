"""The shipped checkpoint: one file for the whole rate range, within its promised cost."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vidcodec.families.msp.checkpoint import load_model
from vidcodec.families.msp.network import PROFILES, Msp
from vidcodec.families.msp.pictures import MspPictureCodec
from vidcodec.rate import RateLevel

CLIP = Path(__file__).parents[1] / "data" / "car_park.mp4"


@pytest.fixture(scope="module")
def shipped() -> Msp:
    return load_model()[0]


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """256x256 from the middle of a real frame beside its own left half with film grain: (1, 6, 128, 128)."""
    with av.open(str(CLIP)) as container:
        frame = next(container.decode(video=0)).reformat(format="yuv420p")
    a, w, h = frame.to_ndarray(), frame.width, frame.height
    top, left = (h - 256) // 4 * 2, (w - 256) // 4 * 2
    y = a[top : top + 256, left : left + 256].astype(np.float32)
    y[:, 128:] += np.random.default_rng(0).normal(0, 12, (256, 128))
    chroma = a[h:].reshape(2, h // 2, w // 2)[:, top // 2 : top // 2 + 128, left // 2 : left // 2 + 128]
    planes = np.concatenate([np.stack([y[i::2, j::2] for i in (0, 1) for j in (0, 1)]), chroma])
    return torch.from_numpy(np.clip(planes, 0, 255).astype(np.float32) / 255 - 0.5)[None]


def test_one_checkpoint_covers_the_rate_range(shipped: Msp, picture: torch.Tensor) -> None:
    """Real bytes and real errors grow and fall over the whole range, from 0.05 bits a pixel to 2 and more."""
    rates, errors = [], []
    for level in range(0, 256 * (shipped.config.levels - 1) + 1, 128):
        coded = MspPictureCodec(shipped, RateLevel(level)).encode(picture)
        rates.append(8 * len(coded.payload) / 256**2)
        errors.append(float((coded.show() - picture).square().mean()))
    assert rates == sorted(rates)
    assert errors == sorted(errors, reverse=True)
    assert rates[0] < 0.06
    assert rates[-1] > 2.0


def test_it_is_of_the_first_edition(shipped: Msp) -> None:
    """Until weights of `PROFILES["base"]` ship."""
    assert shipped.config.first_edition
    assert not PROFILES["base"].first_edition
