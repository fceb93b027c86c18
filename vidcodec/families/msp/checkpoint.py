"""Weights of the default network on disk; see `vidcodec.checkpoint` for the format."""

from __future__ import annotations

from pathlib import Path

from vidcodec.checkpoint import (
    WEIGHTS,
    Format,
    kind_of,
    read_checkpoint,
    sent_parameters,
    weights_digest,
    write_checkpoint,
)
from vidcodec.errors import ModelNotFoundError
from vidcodec.families.msp.network import Msp, MspConfig


def decoder_digest(model: Msp) -> bytes:
    """16 bytes naming the decoder's weights and shape, the same on every machine."""
    return weights_digest(model.config.to_dict(), sent_parameters(model))[:16]


def analysis_digest(model: Msp) -> bytes:
    """8 bytes naming the weights that give the latents of what moved."""
    used = ((n, p) for n, p in model.named_parameters() if n.startswith(("analysis.", "gain.")))
    return weights_digest({}, used)[:8]


MSP = Format("vidcodec-msp-2", "a vidcodec checkpoint", lambda c: Msp(MspConfig.from_dict(c)), decoder_digest)


def save_model(model: Msp, path: Path, *, note: str = "") -> bytes:
    """Snap to the 16-bit grid and write; returns the decoder digest."""
    return write_checkpoint(MSP, model, model.config.to_dict(), path, note=note)


def load_model(name: str = "msp", weights: Path | None = None) -> tuple[Msp, bytes]:
    """A network in eval mode and its decoder digest, by shipped name or weights file.

    Raises ModelNotFoundError when there are no such weights, ModelMismatchError when the
    file is not a checkpoint of this network.
    """
    path = Path(weights) if weights else WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in WEIGHTS.glob("*.safetensors") if kind_of(p) == MSP.name)) or "none"
        where = f"no weights file {path}" if weights else f"no model named '{name}'"
        raise ModelNotFoundError(f"{where}; shipped models: {shipped}; another one's weights go with 'weights'")
    return read_checkpoint(MSP, path)
