"""One picture through the network and the entropy coder, both ways.

`PictureCodec` is what the video pipeline sees of a model. `MspPictureCodec` serves the
default network; `vidcodec.codec.compressai_pictures` serves CompressAI's.

Tensors here are float32 planes (1, 6, H/2, W/2) in [-0.5, 0.5], H and W the padded luma
size. Symbols of z are integers carried in tensors; those of y are numpy arrays, as quantisers want them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vidcodec.adapt.decisions import PLAIN, Decisions
from vidcodec.entropy.bank import bank
from vidcodec.errors import CorruptBitstreamError
from vidcodec.models.msp import Msp
from vidcodec.models.msp_exact import ExactScales
from vidcodec.models.msp_passes import Cell
from vidcodec.quantize.coder import SymbolDecoder, SymbolEncoder
from vidcodec.quantize.quantizer import SYMBOL_LIMIT, UNIT, Quantizer, magnitudes, reconstruct, symbol_bits


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

    def get_quantised(self, quantizer: Quantizer, index: np.ndarray) -> np.ndarray:
        """Symbols of a cell of y, int32, shaped like index."""
        symbols = self.coder.get_quantised(quantizer, index)
        self.log.add_quantised(quantizer, symbols, index)
        return symbols


@dataclass
class CodedPicture:
    """One coded picture: its bytes, the checksum of its symbols, and the decoder's result."""

    payload: bytes
    log: SymbolLog
    planes: Tensor


class PictureCodec(Protocol):
    """Codes padded planes; the same object, or an equal one elsewhere, decodes them."""

    multiple: int

    def encode(self, planes: Tensor) -> CodedPicture: ...

    def decode(self, payload: bytes, height: int, width: int) -> tuple[Tensor, SymbolLog]: ...


# (cell, means, table indices uint8) -> values in 1/256 of a step, int32, 0 where the index is 0; called cell by cell
Take = Callable[[Cell, Tensor, np.ndarray], np.ndarray]


class MspPictureCodec:
    """The default network at one rate level (in 1/256 steps).

    decisions: the quantiser, and for encoding how its symbols are decided.
    """

    multiple = 16

    def __init__(self, model: Msp, level: int, decisions: Decisions = PLAIN) -> None:
        self.model, self.decisions = model, decisions
        self.device = model.gain.table.device
        self.level = torch.full((1,), level / 256, device=self.device)
        self.scales = ExactScales(model, level)

    @torch.no_grad()
    def encode(self, planes: Tensor) -> CodedPicture:
        """planes: (1, 6, H/2, W/2), H and W multiples of 16."""
        return self.encode_latents(*self.latents(planes))

    @torch.no_grad()
    def latents(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Gained latents y (1, C, h, w) and hyper-latents z."""
        y = self.model.analyse(planes.to(self.device), self.level)
        return y, self.model.hyper_analysis(y)

    @torch.no_grad()
    def encode_latents(self, y: Tensor, z: Tensor) -> CodedPicture:
        """Quantise and code gained latents y (1, C, h, w) and hyper-latents z."""
        writer = SymbolWriter()
        index = self.scales.z_index.expand_as(z)
        coded = index > 0
        z_hat = torch.round(z).clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT) * coded
        writer.put(z_hat, index, coded, of_z=True)

        def take(cell: Cell, mean: Tensor, index: np.ndarray) -> np.ndarray:
            residual = y[(slice(None), cell.group, *cell.site)] - mean
            symbols, values = self.decisions.quantise(residual.cpu().numpy(), index, cell.group)
            writer.put_quantised(self.decisions.quantizer, symbols, index)
            return values

        y_hat = self.run_passes(z_hat, (y.shape[-2], y.shape[-1]), take)
        return CodedPicture(writer.coder.finish(), writer.log, self.model.synthesise(y_hat, self.level))

    @torch.no_grad()
    def decode(self, payload: bytes, height: int, width: int) -> tuple[Tensor, SymbolLog]:
        """Planes (1, 6, height/2, width/2) and the log of symbols; the caller checks its crc.

        Raises CorruptBitstreamError for a payload that ends before its symbols.
        """
        size = (height // 16, width // 16)
        reader = SymbolReader(payload)
        index = self.scales.z_index.expand(1, self.model.config.hyper, -(-size[0] // 4), -(-size[1] // 4))
        z_hat = reader.get(index, index > 0, of_z=True)
        quantizer = self.decisions.quantizer

        def take(cell: Cell, mean: Tensor, index: np.ndarray) -> np.ndarray:
            return reconstruct(quantizer, reader.get_quantised(quantizer, index), index)

        y_hat = self.run_passes(z_hat, size, take)
        return self.model.synthesise(y_hat, self.level), reader.log

    def run_passes(self, z_hat: Tensor, size: tuple[int, int], take: Take) -> Tensor:
        """The passes in order; `take` gives the values of each one's cells. Returns y_hat (1, C, h, w)."""
        model, scales = self.model, self.scales
        mean_features = model.hyper_mean(z_hat, self.level, size)
        scale_features = scales.features(z_hat, size)
        channels = model.config.latent
        y_hat = torch.zeros(1, channels, *size, device=self.device)
        known = torch.zeros(1, channels, *size, device=self.device, dtype=torch.float64)
        for k, step in enumerate(model.schedule):
            grid = (..., *step.grid)
            indices = scales.pass_index(k, scale_features[grid], known[grid])
            means = model.pass_mean[k](mean_features[grid], y_hat[grid])
            for cell, mean, index in zip(step.cells(channels), means, indices, strict=True):
                site = (slice(None), cell.group, *cell.site)
                values = take(cell, mean, index.cpu().numpy().astype(np.uint8))
                y_hat[site] = torch.from_numpy(values).to(self.device).float() / UNIT + mean
                known[site] = torch.from_numpy(magnitudes(values)).to(self.device).double()
        return y_hat


def check_symbols(log: SymbolLog, expected: int, what: str) -> None:
    """Raise CorruptBitstreamError unless the decoded symbols are those that were coded."""
    if log.crc != expected:
        raise CorruptBitstreamError(
            f"{what}: the decoded symbols do not match their checksum; payload or model differ from the encoder's"
        )
