"""Learned importance of parameters: how much an update of each is worth per bit, over many contents.

Scores are learned once for a network's base weights (`vidcodec.training.importance`) and shipped beside them. The
score of a matrix entry is the sum of its row's and its column's, of a vector's entry its own, of a rate-level table's
entry its column's: what contents have in common is channels, and so there are far fewer scores than entries.
They are integers, and whoever has the same file ranks the entries alike.

A score is the logarithm of a price, in 1/256 octaves: the price per bit at which an update of the entry just pays, for
a video of `pixels` pixels. The gain of an update grows in proportion to the pixels that share it, its bits do not.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from vidcodec.checkpoint import WEIGHTS, sent_parameters
from vidcodec.errors import ModelMismatchError, ModelNotFoundError
from vidcodec.files import replacing
from vidcodec.updates.update import is_matrix

OBJECTIVES = ("gaussian", "laplace")
FORMAT = "vidcodec-importance-1"
SUFFIX = "-importance.safetensors"
UNIT = 256  # scores per octave of price
LEAST = -(1 << 14)  # of rows and columns, and the greatest but for the sign: sums fit 16 bits
# What a decoder needs: the digest of scores learned anew would be another.
AS_ENCODED = (
    "use the version of vidcodec that made it, or put the scores that made it (NAME-importance.safetensors) beside the "
    "weights given with 'weights'"
)


def fingerprint(network: nn.Module) -> bytes:
    """16 bytes naming the parameters that travel, names and values; the same on every machine."""
    h = hashlib.sha256()
    for name, p in sent_parameters(network):
        h.update(f"{name} {tuple(p.shape)} ".encode())
        h.update(p.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    return h.digest()[:16]


def factor_shapes(name: str, shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of a parameter's row scores and column scores, which broadcast to its matrix of output channels x rest."""
    columns = math.prod(shape[1:]) if len(shape) > 1 else shape[0]
    return (shape[0] if is_matrix(name, shape) else 1, 1), (1, columns)


@dataclass(frozen=True, eq=False)
class Importance:
    """Scores of one network.

    base: `fingerprint` of the weights they were learned for. pixels: of the video whose prices they are. factors: by
    objective and parameter, row and column scores, int16, in the shapes of `factor_shapes`.
    """

    base: bytes
    pixels: int
    factors: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]

    def scores(self, objective: str, network: nn.Module) -> dict[str, np.ndarray]:
        """Of every entry of every parameter, int64 in its shape, in the order of `sent_parameters`.

        Raises ModelMismatchError when there are none of that objective.
        """
        if objective not in self.factors:
            raise ModelMismatchError(f"no importance scores of the {objective} objective: learn them again")
        out = {}
        for name, p in sent_parameters(network):
            row, column = self.factors[objective][name]
            rows = p.shape[0] if p.ndim > 1 else 1
            sums = np.broadcast_to(row.astype(np.int64) + column, (rows, p.numel() // rows))
            out[name] = sums.reshape(tuple(p.shape))
        return out

    def digest(self, objective: str) -> bytes:
        """32 bytes naming the scores of an objective."""
        h = hashlib.sha256()
        for name, factors in sorted(self.factors.get(objective, {}).items()):
            h.update(name.encode())
            for f in factors:
                h.update(f.astype("<i2").tobytes())
        return h.digest()

    def worthwhile(self, objective: str, network: nn.Module, pixels: int) -> int:
        """How many entries pay for their bits in a video of so many pixels; at least one."""
        least = -UNIT * math.log2(max(pixels, 1) / self.pixels)
        return max(1, sum(int((s >= least).sum()) for s in self.scores(objective, network).values()))


def save_importance(importance: Importance, path: Path, *, note: str = "") -> None:
    """Write, in place of what was there. Raises OSError."""
    tensors = {
        f"{objective}/{name}/{part}": np.ascontiguousarray(f)
        for objective, factors in importance.factors.items()
        for name, pair in factors.items()
        for part, f in zip(("rows", "columns"), pair, strict=True)
    }
    metadata = {"format": FORMAT, "base": importance.base.hex(), "pixels": str(importance.pixels), "note": note}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata)
        partial.chmod(0o644)


def _importance(file: str, metadata: dict[str, str], tensors: dict[str, np.ndarray], network: nn.Module) -> Importance:
    """Of a file's contents, for the network they were learned for; raises ModelMismatchError where one is missing."""
    factors: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for objective in sorted({key.partition("/")[0] for key in tensors} & set(OBJECTIVES)):
        factors[objective] = {}
        for name, p in sent_parameters(network):
            pair = tuple(tensors.get(f"{objective}/{name}/{part}") for part in ("rows", "columns"))
            for f, shape in zip(pair, factor_shapes(name, tuple(p.shape)), strict=True):
                if f is None or f.dtype != np.int16 or f.shape != shape:
                    raise ModelMismatchError(f"{file} holds no scores of {name}: learn them again")
            factors[objective][name] = pair  # type: ignore[assignment]
    return Importance(bytes.fromhex(metadata["base"]), int(metadata["pixels"]), factors)


@lru_cache(maxsize=8)
def _read(path: Path, _modified: int) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and tensors; ModelMismatchError for another file."""
    try:
        with safe_open(path, framework="np") as f:
            metadata: dict[str, Any] = f.metadata() or {}
            if metadata.get("format") != FORMAT or not int(metadata["pixels"]) > 0:
                raise ModelMismatchError(f"{path.name} holds no importance scores: learn them again")
            return metadata, {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as e:
        raise ModelMismatchError(f"{path} cannot be read as importance scores: {str(e).splitlines()[0]}") from e


def find_importance(network: nn.Module, folder: Path | None = None, *, decoding: bool = False) -> Importance:
    """The scores for a network's base weights, in `folder` or beside the shipped weights.

    decoding: for an update that was made by them; others, learned anew, would not do. Raises ModelNotFoundError when
    there are none, ModelMismatchError when all there are were learned for others.
    """
    base = fingerprint(network).hex()
    paths = [p for place in (folder, WEIGHTS) if place for p in sorted(place.glob(f"*{SUFFIX}"))]
    for path in paths:
        metadata, tensors = _read(path, path.stat().st_mtime_ns)
        if metadata.get("base") == base:
            return _importance(path.name, metadata, tensors, network)
    if not paths:
        raise ModelNotFoundError(
            f"the importance scores that the file was made with are not at hand: {AS_ENCODED}"
            if decoding
            else "no importance scores are at hand: learn them with vidcodec train importance"
        )
    names = ", ".join(sorted({p.name for p in paths}))
    advice = "learn them again with vidcodec train importance, or choose another selection of parameters"
    raise ModelMismatchError(
        f"the importance scores at hand ({names}) were learned for other weights: {AS_ENCODED if decoding else advice}"
    )
