"""Base filters: their sizes, their files, and that what ships improves pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from filter_support import write_clip

from vidcodec.checkpoint import WEIGHTS
from vidcodec.errors import ModelMismatchError, ModelNotFoundError
from vidcodec.postfilter.checkpoint import load_filter, save_filter
from vidcodec.postfilter.encode import FilterEncodeOptions, filter_encode
from vidcodec.postfilter.network import PROFILES, Filter
from vidcodec.postfilter.quantiser import level_of_qp, qp_of_av1

LIMITS = {"small": 5000, "base": 20000}
SHIPPED = [profile for profile in PROFILES if (WEIGHTS / f"filter-{profile}.safetensors").is_file()]


@pytest.mark.parametrize("profile", list(PROFILES))
def test_profiles_keep_their_budget(profile: str) -> None:
    weights = [p for name, p in Filter(PROFILES[profile]).named_parameters() if name.endswith("weight")]
    multiplications = sum(p.numel() for p in weights) / 4  # per luma sample
    assert 0.5 * LIMITS[profile] < multiplications <= LIMITS[profile]


def test_fresh_filter_changes_nothing() -> None:
    x = torch.rand(1, 6, 8, 10) - 0.5
    assert torch.equal(Filter(PROFILES["small"])(x, torch.tensor([30.0])), x)


def test_weights_come_back_exactly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Filter(PROFILES["small"])
    with torch.no_grad():
        network.tail.weight.normal_()
    digest = save_filter(network, tmp_path / "f.safetensors")
    loaded, again = load_filter(weights=tmp_path / "f.safetensors")
    assert again == digest
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), loaded.parameters(), strict=True))
    assert (tmp_path / "f.safetensors").stat().st_size < 1_000_000


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign"])
def test_damaged_weights_are_refused(damage: str, filter_weights: Path, tmp_path: Path) -> None:
    data = bytearray(filter_weights.read_bytes())
    if damage == "flipped":
        data[-9] ^= 0x40
    path = tmp_path / "f.safetensors"
    path.write_bytes({"cut": data[:-40], "flipped": data, "foreign": b"nothing of the kind"}[damage])
    with pytest.raises(ModelMismatchError):
        load_filter(weights=path)


def test_missing_weights_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="'weights'"):
        load_filter(weights=tmp_path / "none.safetensors")


@pytest.mark.parametrize("profile", SHIPPED)
def test_shipped_filters_improve_pictures(profile: str, tmp_path: Path) -> None:
    network, _ = load_filter(profile)
    assert network.config == PROFILES[profile]
    clip = write_clip(tmp_path / "clip.mkv", 4)
    result = filter_encode(
        clip, tmp_path / "out.mkv", FilterEncodeOptions(codec="x264", qp=38, profile=profile, finetune=None)
    )
    assert np.subtract(result.psnr["base"], result.psnr["off"])[0] > 0


def test_av1_levels_map_to_rising_qps_and_back() -> None:
    qps = [qp_of_av1(level) for level in range(1, 64)]
    assert qps == sorted(qps)
    assert 26 < qp_of_av1(32) < 31
    assert all(abs(level_of_qp(qp) - level) <= 1 for level, qp in enumerate(qps, 1) if qp < 51)
