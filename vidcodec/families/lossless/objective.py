"""The lossless codec as adaptation sees it: bits alone, no error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vidcodec.families.lossless.planes import PlaneBatch
from vidcodec.updates.objective import Outcome, fisher_probe


class LosslessObjective:
    """Bits per pixel of all planes. Batches are `PlaneBatch`; hard or not makes no difference: nothing is rounded."""

    worth = 0.0

    def outcome(self, network: nn.Module, parameters: dict[str, Tensor], batch: Any, *, hard: bool) -> Outcome:
        """Run the network with some of its parameters replaced."""
        assert isinstance(batch, PlaneBatch)
        bits = torch.cat(functional_call(network, parameters, (batch,))).sum()
        return Outcome(bits, bits.new_zeros(()), batch.y.numel())

    def probe(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        """A random scalar whose squared gradient is, on average, the curvature of the rate."""
        assert isinstance(batch, PlaneBatch)
        return fisher_probe(torch.cat(network(batch)), batch.y.numel(), generator)
