"""Subnormal floats: flushed while networks train, as before afterwards."""

from __future__ import annotations

import pytest
import torch

from vidcodec.denormals import flushed_denormals


def flushed() -> bool:
    return float(torch.tensor([1e-40]).mul(1.0)) == 0.0


@pytest.mark.parametrize("before", [False, True])
def test_they_are_flushed_within_and_as_before_afterwards(before: bool) -> None:
    if not torch.set_flush_denormal(before):
        pytest.skip("this processor cannot flush them")
    seen = []

    def work() -> None:
        with flushed_denormals():
            seen.append(flushed())
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert [*seen, flushed()] == [True, before]
    finally:
        torch.set_flush_denormal(False)
