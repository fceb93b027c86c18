"""Network weights on disk: 16-bit integers on binary grids, in safetensors.

Every tensor is stored as int16 with its own exponent f: value = integer * 2^-f. So base
weights lie on exact grids, and adding an update (itself on a grid of 2^-k) gives the same
float32 numbers on every machine (see `vidcodec.updates.update`).

What every network's checkpoints have in common. The digest that names a model in a stream covers what the
decoder uses, and only that: analysis networks may be retrained without making old files unreadable.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

from vidcodec.errors import ModelMismatchError, ModelNotFoundError, first_line
from vidcodec.files import replacing
from vidcodec.version import PACKAGE

WEIGHTS = PACKAGE / "weights"
MAX_EXPONENT = 20

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Format(Generic[Network]):
    """One network's kind of checkpoint.

    name: what the file says it is. title: what messages call it. build: the network of a
    configuration. digest: the bytes that name a network's weights.
    """

    name: str
    title: str
    build: Callable[[dict[str, Any]], Network]
    digest: Callable[[Network], bytes]


def grid_exponent(x: Tensor) -> int:
    """The largest f <= 20 with |x| * 2^f < 2^15 for all of x."""
    top = float(x.abs().max()) if x.numel() else 0.0
    if top == 0:
        return MAX_EXPONENT
    return min(MAX_EXPONENT, 14 - math.floor(math.log2(top)))


def snap_to_grid(network: nn.Module) -> dict[str, int]:
    """Round every parameter to 16 bits in place; returns the exponents by name."""
    exponents = {}
    with torch.no_grad():
        for name, p in network.named_parameters():
            f = grid_exponent(p)
            p.copy_((p * 2.0**f).round().clamp(-32768, 32767) * 2.0**-f + 0.0)  # + 0.0: no minus zero
            exponents[name] = f
    return exponents


def is_sent(network: nn.Module, name: str) -> bool:
    """Whether the decoder uses a parameter: those an update may change.

    A network with an encoder's half names the beginnings of its parameters' names: `encoder_only`.
    """
    return not name.startswith(getattr(network, "encoder_only", ()))


def sent_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters an update may change, in the order the stream lists them."""
    encoder_only: tuple[str, ...] = getattr(network, "encoder_only", ())
    return ((n, p) for n, p in sorted(network.named_parameters()) if not n.startswith(encoder_only))


def weights_digest(config: dict[str, Any], parameters: Iterable[tuple[str, Tensor]]) -> bytes:
    """32 bytes naming a network's shape and named parameters, the same on every machine."""
    h = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, p in sorted(parameters, key=lambda named: named[0]):
        h.update(name.encode())
        h.update(p.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    return h.digest()


def write_checkpoint(
    kind: Format[Network], network: Network, config: dict[str, Any], path: Path, *, note: str = ""
) -> bytes:
    """Snap to the 16-bit grid, in place, and write; returns the digest. config: what `kind.build` takes."""
    exponents = snap_to_grid(network)
    tensors = {
        n: np.rint(p.detach().cpu().contiguous().numpy().astype(np.float64) * 2.0 ** exponents[n]).astype(np.int16)
        for n, p in network.named_parameters()
    }
    digest = kind.digest(network)
    metadata = {
        "format": kind.name,
        "config": json.dumps(config),
        "exponents": json.dumps(exponents),
        "digest": digest.hex(),
        "note": note,
    }
    with replacing(path) as partial:
        save_file(tensors, partial, metadata)
        partial.chmod(0o644)
    return digest


def weights_file(weights: Path | None, name: str, missing: str, hint: str) -> Path:
    """A file of weights, or without one that of the weights shipped under a name.

    Raises ModelNotFoundError where it is not there, which says so, or `missing` of shipped ones, and then `hint`.
    """
    path = Path(weights) if weights else WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        raise ModelNotFoundError((f"no weights file {path}" if weights else missing) + hint)
    return path


def read_checkpoint(kind: Format[Network], path: Path) -> tuple[Network, bytes]:
    """The network in a file, in eval mode, and its digest.

    Raises ModelMismatchError when the file is damaged or no checkpoint of this kind.
    """
    try:
        with safe_open(path, framework="np") as f:
            metadata = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
        if metadata.get("format") != kind.name:
            raise ModelMismatchError(f"{path} is not {kind.title} (format {metadata.get('format')!r})")
        network = kind.build(json.loads(metadata["config"]))
        exponents = json.loads(metadata["exponents"])
        state = {k: torch.from_numpy(v.astype(np.float32)) * 2.0 ** -exponents[k] for k, v in tensors.items()}
        network.load_state_dict(state)
    except (
        SafetensorError,
        OSError,
        KeyError,
        ValueError,
        TypeError,
        RuntimeError,
        AttributeError,
        OverflowError,
    ) as e:
        raise ModelMismatchError(f"{path} cannot be read as {kind.title}: {first_line(e)}") from e
    digest = kind.digest(network)
    if digest.hex() != metadata.get("digest"):
        raise ModelMismatchError(f"{path} is damaged: its weights do not match the digest stored beside them")
    return network.eval().requires_grad_(False), digest


def kind_of(path: Path) -> str:
    """What a file of weights says it is; nothing where it cannot be read."""
    try:
        with safe_open(path, framework="np") as f:
            return (f.metadata() or {}).get("format", "")
    except (SafetensorError, OSError):
        return ""
