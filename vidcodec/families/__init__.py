"""The families of networks, one line each; see `vidcodec.families.family`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from vidcodec.errors import ModelMismatchError, ModelNotFoundError

if TYPE_CHECKING:
    import torch

    from vidcodec.families.family import Family

# What a model's name begins with, before a colon or in all: where the family lies. Imported when asked for.
FAMILIES = {
    "msp": "vidcodec.families.msp.family:MspFamily",
    "lossless": "vidcodec.families.lossless.family:LosslessFamily",
    "pocket": "vidcodec.families.pocket.family:PocketFamily",
    "compressai": "vidcodec.families.compressai.family:CompressAIFamily",
}


@cache
def known_families() -> dict[str, str]:
    """Ours, and those that installed packages name under the entry points `vidcodec.families`."""
    return {**{e.name: e.value for e in entry_points(group="vidcodec.families")}, **FAMILIES}


def family_of(name: str) -> type[Family]:
    """The family of a model's name; msp for a name without one, whose weights may be at hand.

    Raises ModelNotFoundError when there is none.
    """
    known = known_families()
    where, _, what = known.get(name.partition(":")[0], FAMILIES["msp"]).partition(":")
    try:
        found: type[Family] = getattr(import_module(where), what)
    except (ImportError, AttributeError) as error:
        raise ModelNotFoundError(f"the family of '{name}' cannot be imported: {error}") from error
    return found


def load_family(name: str, weights: Path | None, device: torch.device) -> Family:
    """A network by name; raises ModelNotFoundError or ModelMismatchError."""
    return family_of(name).load(name, weights, device)


def load_for_stream(name: str, digest: bytes, weights: Path | None, device: torch.device) -> Family:
    """The network a stream names; raises ModelMismatchError when the weights at hand are others."""
    family = load_family(name, weights, device)
    if family.digest != digest:
        raise ModelMismatchError(
            f"the file was made with weights {digest.hex()} of '{name}', here are {family.digest.hex()}; "
            "give the right ones with 'weights', or use the version of vidcodec that made the file"
        )
    return family
