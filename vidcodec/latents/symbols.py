"""Symbols of hyper-latents and latents to bytes and back, with a log of them for checksums and reports.

Symbols of z are integers carried in tensors; those of y are numpy arrays, as quantisers want them.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidcodec.entropy.bank import bank
from vidcodec.latents.coder import SymbolDecoder, SymbolEncoder
from vidcodec.latents.quantizer import Quantizer, symbol_bits
from vidcodec.latents.tables import tables


@dataclass
class SymbolLog:
    """What was coded, in coding order: for the checksum and for reporting.

    Only symbols that travelled are logged; a sample whose table index is 0 is zero by rule.
    """

    crc: int = 0
    z_bits: float = 0.0
    y_bits: float = 0.0

    def add(self, symbols: np.ndarray, index: np.ndarray, bits: float, *, of_z: bool) -> None:
        self.crc = zlib.crc32(symbols.astype("<i4").tobytes(), self.crc)
        self.crc = zlib.crc32(index.astype(np.uint8).tobytes(), self.crc)
        if of_z:
            self.z_bits += bits
        else:
            self.y_bits += bits

    def add_quantised(self, quantizer: Quantizer, symbols: np.ndarray, index: np.ndarray) -> None:
        """Symbols of y as `quantise` gives them."""
        bits = float(symbol_bits(quantizer, symbols, index).sum())
        self.add(symbols[index > 0], index[index > 0], bits, of_z=False)


class SymbolWriter:
    """Symbols to bytes; `log` takes note of them."""

    def __init__(self) -> None:
        self.coder, self.log = SymbolEncoder(), SymbolLog()

    def put(self, q: Tensor, index: Tensor, mask: Tensor, *, of_z: bool) -> None:
        """Code q where the mask holds, each under its table index; tensors of one shape."""
        symbols = q[mask].cpu().numpy().astype(np.int32)
        tables = index[mask].cpu().numpy().astype(np.int32)
        self.coder.put(symbols, tables)
        self.log.add(symbols, tables, bank().symbol_bits(symbols, tables), of_z=of_z)

    def put_quantised(self, quantizer: Quantizer, symbols: np.ndarray, index: np.ndarray) -> None:
        """Code a cell of y, as `quantise` gives it."""
        self.coder.put_quantised(quantizer, symbols, index)
        self.log.add_quantised(quantizer, symbols, index)

    def put_flags(self, flags: np.ndarray, table: np.ndarray) -> None:
        """Code flags, 0 or 1, each under its table of `Tables.flag_table`; side information, like z."""
        self.coder.put(flags, table)
        self.log.add(flags, table, float(tables().symbol_bits(flags, table).sum()), of_z=True)


class SymbolReader:
    """What `SymbolWriter` wrote. Raises CorruptBitstreamError where the payload ends before its symbols."""

    def __init__(self, payload: bytes) -> None:
        self.coder, self.log = SymbolDecoder(payload), SymbolLog()

    def get(self, index: Tensor, mask: Tensor, *, of_z: bool) -> Tensor:
        """Float32 symbols shaped like index, 0 outside the mask."""
        tables = index[mask].cpu().numpy().astype(np.int32)
        symbols = self.coder.get(tables)
        self.log.add(symbols, tables, bank().symbol_bits(symbols, tables), of_z=of_z)
        q = torch.zeros(index.shape, device=index.device)
        q[mask] = torch.from_numpy(symbols.astype(np.float32)).to(index.device)
        return q

    def get_flags(self, table: np.ndarray) -> np.ndarray:
        """Flags, int32, one for each table; what a damaged payload gives may be something else."""
        flags = self.coder.get(table)
        self.log.add(flags, table, float(tables().symbol_bits(flags, table).sum()), of_z=True)
        return flags

    def get_quantised(self, quantizer: Quantizer, index: np.ndarray) -> np.ndarray:
        """Symbols of a cell of y, int32, shaped like index."""
        symbols = self.coder.get_quantised(quantizer, index)
        self.log.add_quantised(quantizer, symbols, index)
        return symbols
