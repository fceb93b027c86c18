"""Base filters on disk: 16-bit integers on binary grids, in safetensors, as the codec's networks are."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vidcodec.errors import ModelMismatchError, ModelNotFoundError
from vidcodec.models.checkpoint import WEIGHTS, grid_exponent
from vidcodec.postfilter.network import PROFILES, Filter, FilterConfig

FORMAT = "vidcodec-filter-1"
DIGEST_BYTES = 4  # in a stream: enough to tell the filters of this world apart, and it travels with every video


def filter_digest(network: Filter) -> bytes:
    """32 bytes naming a filter's weights and shape, the same on every machine."""
    h = hashlib.sha256(json.dumps(network.config.to_dict(), sort_keys=True).encode())
    for name, p in sorted(network.named_parameters()):
        h.update(name.encode())
        h.update(p.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    return h.digest()


def save_filter(network: Filter, path: Path, *, note: str = "") -> bytes:
    """Round every parameter to its 16-bit grid, in place, and write; returns the digest."""
    tensors, exponents = {}, {}
    with torch.no_grad():
        for name, p in network.named_parameters():
            f = grid_exponent(p)
            n = (p * 2.0**f).round().clamp(-32768, 32767)
            p.copy_(n * 2.0**-f + 0.0)  # + 0.0: no minus zero
            tensors[name], exponents[name] = n.contiguous().numpy().astype(np.int16), f
    digest = filter_digest(network)
    metadata = {
        "format": FORMAT, "config": json.dumps(network.config.to_dict()), "exponents": json.dumps(exponents),
        "digest": digest.hex(), "note": note,
    }  # fmt: skip
    partial = path.with_name(path.name + ".part")
    save_file(tensors, partial, metadata)
    partial.chmod(0o644)
    os.replace(partial, path)
    return digest


def load_filter(profile: str = "base", weights: Path | None = None) -> tuple[Filter, bytes]:
    """A base filter in eval mode and its digest, by profile or from a file.

    Raises ModelNotFoundError when there are no such weights, ModelMismatchError when the
    file is not a filter's checkpoint.
    """
    path = Path(weights) if weights else WEIGHTS / f"filter-{profile}.safetensors"
    if not path.is_file():
        where = f"no weights file {path}" if weights else f"no filter of profile '{profile}'"
        raise ModelNotFoundError(f"{where}; profiles: {', '.join(PROFILES)}; another filter goes with --weights FILE")
    try:
        with safe_open(path, framework="np") as f:
            metadata = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise ModelMismatchError(f"{path} is not a filter's checkpoint (format {metadata.get('format')!r})")
        network = Filter(FilterConfig(**json.loads(metadata["config"])))
        exponents = json.loads(metadata["exponents"])
        network.load_state_dict(
            {k: torch.from_numpy(v.astype(np.float32)) * 2.0 ** -exponents[k] for k, v in tensors.items()}
        )
    except (
        SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, OverflowError
    ) as e:  # fmt: skip
        reason = str(e).splitlines()[0]
        raise ModelMismatchError(f"{path} cannot be read as a filter's checkpoint: {reason}") from e
    digest = filter_digest(network)
    if digest.hex() != metadata.get("digest"):
        raise ModelMismatchError(f"{path} is damaged: its weights do not match the digest stored beside them")
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False), digest
