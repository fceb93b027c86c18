"""Network weights on disk: 16-bit integers on binary grids, in safetensors.

Every tensor is stored as int16 with its own exponent f: value = integer * 2^-f. So base
weights lie on exact grids, and adding an update (itself on a grid of 2^-k) gives the same
float32 numbers on every machine (see `vidcodec.adapt.update`).

The digest that names a model in a stream covers what the decoder uses, and only that:
analysis networks may be retrained without making old files unreadable.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from vidcodec.errors import ModelMismatchError, ModelNotFoundError
from vidcodec.models.msp import Msp, MspConfig

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
MAX_EXPONENT = 20
ENCODER_ONLY = ("analysis.", "hyper_analysis.", "gain.")


def is_sent(name: str) -> bool:
    """Whether the decoder uses a parameter: those an update may change."""
    return not name.startswith(ENCODER_ONLY)


def grid_exponent(x: Tensor) -> int:
    """The largest f <= 20 with |x| * 2^f < 2^15 for all of x."""
    top = float(x.abs().max()) if x.numel() else 0.0
    if top == 0:
        return MAX_EXPONENT
    return min(MAX_EXPONENT, 14 - math.floor(math.log2(top)))


def snap_to_grid(model: Msp) -> dict[str, int]:
    """Round every parameter to 16 bits in place; returns the exponents by name."""
    exponents = {}
    with torch.no_grad():
        for name, p in model.named_parameters():
            f = grid_exponent(p)
            p.copy_((p * 2.0**f).round().clamp(-32768, 32767) * 2.0**-f + 0.0)  # + 0.0: no minus zero
            exponents[name] = f
    return exponents


def decoder_digest(model: Msp) -> bytes:
    """16 bytes naming the decoder's weights and shape, the same on every machine."""
    h = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    for name, p in sorted(model.named_parameters()):
        if is_sent(name):
            h.update(name.encode())
            h.update(p.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    return h.digest()[:16]


def save_model(model: Msp, path: Path, *, note: str = "") -> bytes:
    """Snap to the 16-bit grid and write; returns the decoder digest."""
    exponents = snap_to_grid(model)
    tensors = {
        n: np.rint(p.detach().cpu().numpy().astype(np.float64) * 2.0 ** exponents[n]).astype(np.int16)
        for n, p in model.named_parameters()
    }
    digest = decoder_digest(model)
    metadata = {
        "format": "vidcodec-msp-2",
        "config": json.dumps(model.config.to_dict()),
        "exponents": json.dumps(exponents),
        "digest": digest.hex(),
        "note": note,
    }
    partial = path.with_name(path.name + ".part")
    save_file(tensors, partial, metadata)
    partial.chmod(0o644)
    os.replace(partial, path)
    return digest


def load_model(name: str = "msp", weights: Path | None = None) -> tuple[Msp, bytes]:
    """A network in eval mode and its decoder digest, by shipped name or weights file.

    Raises ModelNotFoundError when there are no such weights, ModelMismatchError when the
    file is not a checkpoint of this network.
    """
    path = Path(weights) if weights else WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))) or "none"
        where = f"no weights file {path}" if weights else f"no model named '{name}'"
        raise ModelNotFoundError(f"{where}; shipped models: {shipped}; another one's weights go with --weights FILE")
    try:
        with safe_open(path, framework="np") as f:
            metadata = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
        if metadata.get("format") != "vidcodec-msp-2":
            raise ModelMismatchError(f"{path} is not a vidcodec checkpoint (format {metadata.get('format')!r})")
        config = MspConfig.from_dict(json.loads(metadata["config"]))
        exponents = json.loads(metadata["exponents"])
        model = Msp(config)
        state = {k: torch.from_numpy(v.astype(np.float32)) * 2.0 ** -exponents[k] for k, v in tensors.items()}
        model.load_state_dict(state)
    except (
        SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, OverflowError
    ) as e:  # fmt: skip
        reason = str(e).splitlines()[0]
        raise ModelMismatchError(f"{path} cannot be read as a vidcodec checkpoint: {reason}") from e
    digest = decoder_digest(model)
    if digest.hex() != metadata.get("digest"):
        raise ModelMismatchError(f"{path} is damaged: its weights do not match the digest stored beside them")
    return model.eval().requires_grad_(False), digest
