"""A tiny network whose random weights give symbols of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from worker_support import work_here

from vidcodec.checkpoint import snap_to_grid
from vidcodec.families.msp.checkpoint import save_model
from vidcodec.families.msp.network import Msp, MspConfig
from vidcodec.postfilter.checkpoint import save_filter
from vidcodec.postfilter.network import Filter, FilterConfig

TINY = MspConfig(
    widths=(12, 12),
    blocks=(1, 1),
    analysis_blocks=None,
    latent=12,
    hyper=6,
    mean_features=8,
    scale_features=8,
    pass_width=8,
    pass_known=6,
    scale_width=8,
    scale_known=6,
    scales=2,
    levels=3,
)


def tiny_network(seed: int = 0, **changes: object) -> Msp:
    """Random weights on their grids, with wide spreads of gains, means and scale indices."""
    torch.manual_seed(seed)
    model = Msp(replace(TINY, **changes))  # type: ignore[arg-type]
    with torch.no_grad():
        for passes in (*model.pass_scale, *model.pass_mean):
            passes.head.weight.mul_(6)  # type: ignore[union-attr, operator]
            passes.head.bias.normal_(0, 0.5)  # type: ignore[union-attr, operator]
        model.hyper_analysis.head.weight.mul_(40)
        model.z_index.table.add_(torch.randn_like(model.z_index.table))
        model.hyper_scale.bias.table.normal_(0, 0.5)
    snap_to_grid(model)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Msp]:
    """make_tiny(seed, **changes of the configuration)."""
    return tiny_network


@pytest.fixture
def tiny() -> Msp:
    """A fresh tiny network."""
    return tiny_network()


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of `tiny_network()`."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_model(tiny_network(), path)
    return path


@pytest.fixture(scope="session")
def filter_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filter that changes pictures a little: smoothing towards the neighbours, and noise in its weights."""
    torch.manual_seed(4)
    network = Filter(FilterConfig(8, 1))
    with torch.no_grad():
        network.blocks[0].second.weight.normal_(0, 0.05)  # type: ignore[union-attr, operator]
        network.tail.weight.normal_(0, 0.02)
    path = tmp_path_factory.mktemp("filter") / "tiny.safetensors"
    save_filter(network, path)
    return path


@pytest.fixture
def any_threads() -> Iterator[None]:
    """For tests that set torch's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def workers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points of an evaluation are measured in this process."""
    work_here(monkeypatch)
