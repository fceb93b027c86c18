"""Whether learning may use bfloat16, whatever torch has to say of the processor."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from vidcodec.updates.objective import autocast, has_bfloat16

CPU = torch.device("cpu")


@pytest.mark.parametrize("there", [False, True])
def test_it_is_what_onednn_says(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(_is_mkldnn_bf16_supported=lambda: there))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert has_bfloat16() == there
    with autocast(CPU):
        assert torch.is_autocast_enabled("cpu") == there


def test_a_torch_without_the_call_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert not has_bfloat16()
    with autocast(CPU):
        assert not torch.is_autocast_enabled("cpu")


def test_a_torch_without_onednn_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(_is_mkldnn_bf16_supported=lambda: 1 / 0))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_bfloat16()
