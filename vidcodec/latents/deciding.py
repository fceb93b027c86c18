"""What a quantiser decides, as a training step sees it.

Borzechowski et al. 2024 (arXiv 2506.08662) store latents that RDOQ or a trellis has quantised and retrain the decoder
on them. Here the decisions are taken anew in every step, with the network as it stands, by the code that codes files:
decoder, entropy model and, unless it is frozen, encoder train on the symbols they will meet.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vidcodec.entropy.rates import CellCoder, rate_of_symbols, ste_round, symbol_bits
from vidcodec.entropy.scales import MAX_INDEX
from vidcodec.latents.decisions import Decisions
from vidcodec.latents.quantizer import UNIT, Quantizer, states
from vidcodec.latents.tables import rates

UNLIKELY = 9.0  # bits


def deciding(decisions: Sequence[Decisions]) -> CellCoder:
    """Residuals as a quantiser decides them (straight through), charged what its tables charge.

    decisions: one for each picture of the batch, all with one quantiser, or one for all pictures. The gradient towards
    a table index is the slope between neighbouring tables (of unlikely symbols, the smooth rate's), that towards a
    residual the smooth rate's, as in `rate_of_symbols`. Samples of index 0, which no file codes, are zero and free, as
    in files; their gradients are those of rounded ones, so that an index can grow again.
    """
    quantizer = decisions[0].quantizer
    unit, finer = quantizer.spacing, quantizer.finer

    def code(y: Tensor, mean: Tensor, index: Tensor, channels: slice) -> tuple[Tensor, Tensor]:
        residual = y - mean
        exact = index.detach().float().cpu().numpy()
        x = residual.detach().float().cpu().numpy()
        row = np.clip(np.rint(exact), 0, MAX_INDEX).astype(np.uint8)
        low = np.clip(np.floor(exact), 1, MAX_INDEX - 1).astype(np.uint8)
        values, charged, slope = (np.zeros(x.shape, np.float32) for _ in range(3))
        for i in range(len(x)):
            picture = slice(i, i + 1)
            decision = decisions[i % len(decisions)]
            symbols, found = decision.quantise(x[picture], row[picture], channels)
            below, above = neighbouring_bits(quantizer, symbols, row[picture], low[picture])
            values[picture], charged[picture], slope[picture] = found / UNIT, below, above - below

        def tensor(a: np.ndarray) -> Tensor:
            return torch.from_numpy(a).to(y.device)

        coded = tensor(row > 0)
        decided = tensor(values)
        # At the ends of the range the gradient must be able to lead back inside.
        inside = index + (index.clamp(1.0, float(MAX_INDEX)) - index).detach()
        along = tensor(slope) * (inside - tensor(low))
        # Next to its escape a table is too coarse to tell where wider ones are, and beyond the widest there is none.
        far = symbol_bits(decided / unit, index + finer)
        telling = tensor((charged < UNLIKELY) & (quantizer.scale_index(low) < quantizer.scale_index(low + 1)))
        own = tensor(charged) + torch.where(telling, along, far - far.detach())
        smooth = symbol_bits(residual / unit, index.detach() + finer)
        uncoded = rate_of_symbols(residual, ste_round(residual), index, "mixed")
        bits = torch.where(coded, own + smooth - smooth.detach(), uncoded - uncoded.detach())
        return residual + (decided - residual).detach(), bits.sum((1, 2, 3))

    return code


def neighbouring_bits(
    quantizer: Quantizer, symbols: np.ndarray, row: np.ndarray, low: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bits of symbols, coded under indices `row`, by the tables of indices `low` and `low` + 1; float32, same shape."""
    bits = rates(quantizer.kind, quantizer.table_set)
    use = 0 if quantizer.machine is None else quantizer.machine.use[states(quantizer, symbols, row)]
    size = np.minimum(np.abs(symbols), bits.shape[-1] - 1)
    below, above = (bits[use, quantizer.scale_index(low + step), size] for step in (0, 1))
    return below, above
