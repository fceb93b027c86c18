"""One picture through the default network and the entropy coder, both ways.

Planes are float32 (1, 6, H/2, W/2) in [-0.5, 0.5], H and W the padded luma size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vidcodec.families.family import CodedPicture, PlaneCoder
from vidcodec.families.msp.exact import ExactScales
from vidcodec.families.msp.network import Msp
from vidcodec.families.msp.passes import Cell
from vidcodec.latents.decisions import PLAIN, Decisions
from vidcodec.latents.quantizer import SYMBOL_LIMIT, UNIT, magnitudes, reconstruct
from vidcodec.latents.symbols import SymbolLog, SymbolReader, SymbolWriter
from vidcodec.rate import RateLevel
from vidcodec.updates.objective import autocast

# (cell, means, table indices uint8) -> values in 1/256 of a step, int32, 0 where the index is 0; called cell by cell
Take = Callable[[Cell, Tensor, np.ndarray], np.ndarray]


class MspPictureCodec(PlaneCoder):
    """The default network at one rate level.

    decisions: the quantiser, and for encoding how its symbols are decided.
    """

    def __init__(self, model: Msp, level: RateLevel, decisions: Decisions = PLAIN) -> None:
        self.model, self.decisions = model, decisions
        self.device = model.gain.table.device
        self.level = level.tensor(self.device)
        self.scales = ExactScales(model, level)

    @torch.no_grad()
    def encode(self, planes: Tensor) -> CodedPicture:
        """planes: (1, 6, H/2, W/2), H and W multiples of 16."""
        return self.encode_latents(*self.latents(planes))

    @torch.no_grad()
    def latents(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Gained latents y (1, C, h, w) and hyper-latents z. As training sees them: where the processor has it, the
        layers whose last bits do not matter run in bfloat16.
        """
        with autocast(self.device):
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
        return CodedPicture(writer.coder.finish(), writer.log, lambda: self.synthesise(y_hat))

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
        return self.synthesise(y_hat), reader.log

    @torch.no_grad()
    def synthesise(self, y_hat: Tensor) -> Tensor:
        """Decoded latents (1, C, h, w) to planes (1, 6, 8h, 8w)."""
        return self.model.synthesise(y_hat, self.level)

    def run_passes(self, z_hat: Tensor, size: tuple[int, int], take: Take) -> Tensor:
        """The passes in order; `take` gives the values of each one's cells. Returns y_hat (1, C, h, w)."""
        model, scales = self.model, self.scales
        # Encoder and decoder must run the same kernels, and libraries choose theirs by the layout in memory.
        z_hat = z_hat.clone(memory_format=torch.contiguous_format)
        mean_features = model.hyper_mean(z_hat, self.level, size)
        scale_features = scales.features(z_hat, size)
        channels = model.config.latent
        y_hat = torch.zeros(1, channels, *size, device=self.device)
        known = torch.zeros(1, channels, *size, device=self.device, dtype=torch.float64)
        for k, coded in enumerate(model.schedule):
            grid = (..., *coded.grid)
            indices = scales.pass_index(k, scale_features[grid], known[grid])
            means = model.pass_mean[k](mean_features[grid], y_hat[grid])
            for cell, mean, index in zip(coded.cells(channels), means, indices, strict=True):
                site = (slice(None), cell.group, *cell.site)
                values = take(cell, mean, index.cpu().numpy().astype(np.uint8))
                y_hat[site] = torch.from_numpy(values).to(self.device).float() / UNIT + mean
                known[site] = torch.from_numpy(magnitudes(values)).to(self.device).double()
        return y_hat
