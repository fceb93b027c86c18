"""What adaptation asks of a network: one objective, whichever codec it is of.

Finetuning (`vidcodec.updates.finetune`) and importance learning (`vidcodec.training.importance`) lower

    L = R + worth * E + M / N        [bits per pixel]

R: bits of the symbols, E: error, `worth`: bits per pixel that an error of 1 is worth, M: bits of the model update, N:
pixels of the video. A lossy codec has R and E, a filter behind a codec E alone, a lossless codec R alone. Batches are
their own affair and the objective's: nothing in between looks inside them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn


class Batches(Protocol):
    """Where finetuning gets its batches."""

    pixels: int  # of the whole video, all frames together

    def crops(self, rng: np.random.Generator, count: int) -> Any: ...  # a batch of `count` random crops

    def checks(self) -> list[Any]: ...  # fixed batches for measuring


class Crops(Batches, Protocol):
    """Batches that say how large they should be."""

    batch: int  # crops of one step


class Outcome(NamedTuple):
    """Of one batch."""

    bits: Tensor  # all symbols together, a scalar; zero where none are coded
    error: Tensor  # mean over the batch, a scalar; zero where nothing is lost
    pixels: int


class Objective(Protocol):
    """R and E of a network, differentiable in its parameters."""

    worth: float

    def outcome(self, network: nn.Module, parameters: dict[str, Tensor], batch: Any, *, hard: bool) -> Outcome:
        """Run the network with some of its parameters replaced; hard: rates of symbols as a coder charges them."""
        ...

    def probe(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        """A random scalar; the square of its gradient is, on average, the curvature of R + worth * E.

        In bits per pixel; see `vidcodec.updates.curvature`. `fisher_probe` gives one from the bits of symbols alone.
        """
        ...


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the processor has it, else no change: for learning, whose course may differ between machines."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda" or has_bfloat16())


def has_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 on this processor; False where this torch cannot tell.

    torch says it through no public call: `torch.backends.mkldnn` knows only whether there is oneDNN at all.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # another version of torch
        return False


def signs(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random signs in the shape of x."""
    return (torch.randint(0, 2, x.shape, generator=generator).to(x.device) * 2 - 1).to(x.dtype)


def fisher_probe(bits: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """A probe from the bits of every symbol, any shape: the curvature of their sum per pixel.

    The curvature of an expected code length is its Fisher information, the mean square of its gradient: in bits,
    ln 2 * sum_i (d bits_i / d w)^2. The symbols that occurred stand for those expected.
    """
    return (bits * signs(bits, generator)).sum() * math.sqrt(math.log(2) / pixels)
