"""Which quantiser suits given latents."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np

from vidcodec.latents.quantizer import MAX_SHIFT, MIN_SHIFT, Quantizer, quantise, symbol_bits
from vidcodec.latents.tables import QUANTISERS, SETS

# Where the search for a step begins: about right at high rate and the matching trade-off.
FIRST_SHIFT = {"scalar": 0, "trellis4": 3, "trellis8": 3}


def cost_of(
    quantizer: Quantizer, residual: np.ndarray, index: np.ndarray, trade_off: float, weight: np.ndarray | None = None
) -> float:
    """Mean of  weight (residual - value)^2 + trade_off bits  over all samples, decided by `quantise`."""
    symbols, values = quantise(quantizer, residual, index, trade_off, weight=weight)
    error = np.square(residual - values / 256.0)
    bits = symbol_bits(quantizer, symbols, index).sum()
    return float(((error if weight is None else weight * error).sum() + trade_off * bits) / max(residual.size, 1))


def choose_quantizer(
    residual: np.ndarray,
    index: np.ndarray,
    trade_off: float,
    *,
    kinds: Iterable[str] = tuple(QUANTISERS),
    table_sets: Iterable[int] = range(SETS),
    weight: np.ndarray | None = None,
    shifts: range = range(MIN_SHIFT, MAX_SHIFT + 1),
) -> Quantizer:
    """The quantiser of least cost among kinds, table sets and steps; arguments as of `quantise`.

    Steps are searched downhill from a good guess. What the symbols do to later passes of a codec is not seen here: a
    few candidates of `table_sets` and `shifts` are better compared by coding pictures. Raises as `quantise`.
    """
    found: list[tuple[float, Quantizer]] = []
    for kind in kinds:
        for table_set in table_sets:

            @cache
            def cost(shift: int, kind: str = kind, table_set: int = table_set) -> float:
                return cost_of(Quantizer(kind, table_set, shift), residual, index, trade_off, weight)

            shift = min(max(FIRST_SHIFT[kind], shifts[0]), shifts[-1])
            while (lowest := min((s for s in (shift, shift - 1, shift + 1) if s in shifts), key=cost)) != shift:
                shift = lowest
            found.append((cost(shift), Quantizer(kind, table_set, shift)))
    return min(found, key=lambda f: f[0])[1]
