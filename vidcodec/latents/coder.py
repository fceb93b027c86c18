"""Symbols of quantisers to bytes and back.

On top of `vidcodec.entropy.rans`, under the quantisers' tables: symbols of a trellis are each coded under the quantiser
that the symbols before them lead to.
"""

from __future__ import annotations

import numpy as np

from vidcodec.entropy.bank import FAMILY_SIZE
from vidcodec.entropy.rans import RansDecoder, RansEncoder
from vidcodec.latents.quantizer import Quantizer, coded_runs, states
from vidcodec.latents.tables import tables


class SymbolEncoder(RansEncoder):
    """A `RansEncoder` that knows quantisers; table numbers are those of `vidcodec.latents.tables`."""

    def __init__(self) -> None:
        super().__init__(tables())

    def put_quantised(
        self, quantizer: Quantizer, symbols: np.ndarray, index: np.ndarray, runs: np.ndarray | None = None
    ) -> None:
        """Append the symbols of `quantise` (any shape) where their index is not 0, runs as given there.

        Raises ValueError for symbols beyond +-32767, shapes, indices or runs that do not fit.
        """
        table = quantizer.table(index, states(quantizer, symbols, index, runs))[index > 0]
        self.put(symbols[index > 0], table, dependent=quantizer.machine is not None)


class SymbolDecoder(RansDecoder):
    """Reads what `SymbolEncoder` wrote, as `RansDecoder` does."""

    def __init__(self, payload: bytes) -> None:
        """Raises CorruptBitstreamError for bytes that no encoder ends with."""
        super().__init__(payload, tables())

    def get_quantised(self, quantizer: Quantizer, index: np.ndarray, runs: np.ndarray | None = None) -> np.ndarray:
        """The next symbols of a quantiser, int32, shaped like `index`, 0 where that is 0.

        Raises ValueError for runs that do not fit.
        """
        out = np.zeros(index.shape, np.int32)
        table = quantizer.table(index)[index > 0]
        if quantizer.machine is None:
            out[index > 0] = self.get(table)
        else:
            out[index > 0] = self.get_dependent(table, FAMILY_SIZE, coded_runs(index, runs)[1], *quantizer.machine)
        return out
