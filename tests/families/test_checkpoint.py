"""Weights on disk: exact, named by what the decoder uses, and refused when damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from vidcodec.checkpoint import grid_exponent, is_sent, snap_to_grid
from vidcodec.errors import ModelMismatchError, ModelNotFoundError
from vidcodec.families.msp import checkpoint
from vidcodec.families.msp.checkpoint import decoder_digest, load_model, save_model
from vidcodec.families.msp.network import Msp


def test_weights_come_back_exactly(tiny: Msp, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    digest = save_model(tiny, path, note="hello")
    loaded, found = load_model(weights=path)
    assert found == digest == decoder_digest(loaded)
    assert loaded.config == tiny.config
    for (name, a), (_, b) in zip(tiny.named_parameters(), loaded.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert not any(p.requires_grad for p in loaded.parameters())
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_the_order_of_weights_in_memory_does_not_matter(make_tiny: Callable[..., Msp], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    digest = save_model(make_tiny(), path)
    other = make_tiny().to(memory_format=torch.channels_last)
    assert save_model(other, path) == digest
    assert load_model(weights=path)[1] == digest


def test_snapping_moves_weights_by_half_a_step_and_once(make_tiny: Callable[..., Msp]) -> None:
    model = make_tiny(5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.01)
    before = {n: p.clone() for n, p in model.named_parameters()}
    exponents = snap_to_grid(model)
    for name, p in model.named_parameters():
        assert exponents[name] == grid_exponent(before[name])
        assert (p - before[name]).abs().max() <= 0.5001 * 2.0 ** -exponents[name] + 1e-30
        n = p.double() * 2.0 ** exponents[name]
        assert torch.equal(n, n.round())
        assert n.abs().max() <= 2**15
    snapped = {n: p.clone() for n, p in model.named_parameters()}
    snap_to_grid(model)
    assert all(torch.equal(p, snapped[n]) for n, p in model.named_parameters())


def test_digest_covers_the_decoder_and_only_it(make_tiny: Callable[..., Msp]) -> None:
    reference = decoder_digest(make_tiny())
    other = make_tiny()
    for name, p in other.named_parameters():
        before = p.clone()
        p.view(-1)[0] += 0.25
        assert (decoder_digest(other) != reference) == is_sent(other, name), name
        p.copy_(before)
    assert decoder_digest(other) == reference
    assert not is_sent(other, "analysis.stem.weight")
    assert is_sent(other, "synthesis.stem.weight")
    assert decoder_digest(make_tiny(lambda_range=(2e-4, 0.5))) != reference


def test_missing_weights_name_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"nothing\.safetensors"):
        load_model(weights=tmp_path / "nothing.safetensors")
    with pytest.raises(ModelNotFoundError, match="no model named 'nosuch'"):
        load_model("nosuch")


def test_only_what_a_model_can_be_named_is_listed(tiny: Msp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside it lie filters, scores and the lossless mode's network, which no --model names."""
    with pytest.raises(ModelNotFoundError, match="shipped models: msp; "):
        load_model("nosuch")
    monkeypatch.setattr(checkpoint, "WEIGHTS", tmp_path)
    save_model(tiny, tmp_path / "mine.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    save_file({"x": np.zeros(1, np.int16)}, tmp_path / "other.safetensors", {"format": "another"})
    save_file({"x": np.zeros(1, np.int16)}, tmp_path / "bare.safetensors")
    with pytest.raises(ModelNotFoundError, match="shipped models: mine; "):
        load_model("nosuch")


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 4000, b"\x08\0\0\0\0\0\0\0{}      "])
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelMismatchError, match=r"w\.safetensors"):
        load_model(weights=path)


def parts(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, framework="np") as f:
        return {k: f.get_tensor(k) for k in f.keys()}, f.metadata()  # noqa: SIM118


def test_damaged_checkpoints_are_refused(tiny_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    data = tiny_weights.read_bytes()
    tensors, metadata = parts(tiny_weights)

    for cut in (7, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(ModelMismatchError):
            load_model(weights=path)

    name = "synthesis.stem.weight"
    wrong = {**tensors, name: tensors[name] + 1}
    fewer = {k: v for k, v in tensors.items() if k != name}
    reshaped = {**tensors, name: tensors[name][:, :-1].copy()}
    for changed in (wrong, fewer, reshaped):
        save_file(changed, path, metadata)
        with pytest.raises(ModelMismatchError):
            load_model(weights=path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"config": "["},
        {"config": "[]"},
        {"config": '{"nosuch": 1}'},
        {"config": '{"blocks": "x"}'},
        {"config": '{"widths": 3}'},
        {"exponents": "{}"},
        {"exponents": "7"},
        {"digest": "00"},
    ],
    ids=str,
)
def test_wrong_metadata_is_refused(tiny_weights: Path, tmp_path: Path, change: dict[str, str]) -> None:
    tensors, metadata = parts(tiny_weights)
    save_file(tensors, tmp_path / "w.safetensors", {**metadata, **change})
    with pytest.raises(ModelMismatchError):
        load_model(weights=tmp_path / "w.safetensors")


def test_files_without_metadata_are_refused(tiny_weights: Path, tmp_path: Path) -> None:
    tensors, metadata = parts(tiny_weights)
    save_file(tensors, tmp_path / "bare.safetensors")
    kept = {k: v for k, v in metadata.items() if k != "config"}
    save_file(tensors, tmp_path / "less.safetensors", kept)
    for name in ("bare", "less"):
        with pytest.raises(ModelMismatchError):
            load_model(weights=tmp_path / f"{name}.safetensors")
