"""One picture through the default network and the entropy coder, both ways.

Planes are float32 (1, 6, H/2, W/2) in [-0.5, 0.5], H and W the padded luma size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from vidcodec.families.family import CodedPicture, PlaneCoder
from vidcodec.families.msp import motion
from vidcodec.families.msp.checkpoint import analysis_digest
from vidcodec.families.msp.exact import ExactScales
from vidcodec.families.msp.network import Msp
from vidcodec.families.msp.passes import Cell
from vidcodec.families.msp.prediction import INTER, INTRA, SKIP, Prediction, Reference, code_modes, rounded
from vidcodec.latents.decisions import PLAIN, Decisions
from vidcodec.latents.flags import FlagCoder, reading, writing
from vidcodec.latents.quantizer import SYMBOL_LIMIT, UNIT, magnitudes, reconstruct, symbol_bits
from vidcodec.latents.symbols import SymbolLog, SymbolReader, SymbolWriter
from vidcodec.rate import RateLevel
from vidcodec.updates.objective import autocast

# (cell, means, table indices uint8) -> values in 1/256 of a step, int32, 0 where the index is 0; called cell by cell
Take = Callable[[Cell, Tensor, np.ndarray], np.ndarray]

# Of two ways of coding a picture the one that its latents say costs more by so much is not looked at any further; by so
# much less where what the other costs is known of an earlier picture only.
CLEARLY, UNSURE = 1.15, 0.8
# An error in a picture that others are predicted from weighs so many times.
INHERITED = 3.0
# Bits of flags and context that a block costs at least if it is not skipped.
CODED_BLOCK = 2.0
# Bits of a vector, and of what it does to those around it.
MOVED_BLOCK = 10.0
# Bits that a squared step of error is worth where no weights were measured: the slope of R(D) at fine steps.
STEP_WORTH = 6 / np.log(2)


@dataclass
class Tally:
    """What the blocks of a picture cost: bits of y and errors of the latents in bits, float64 (h, w) each."""

    bits: np.ndarray
    errors: np.ndarray
    side_bits: float = 0.0  # of z and modes

    @classmethod
    def of(cls, y: Tensor) -> Tally:
        """An empty one for latents (1, C, h, w)."""
        return cls(np.zeros(y.shape[-2:]), np.zeros(y.shape[-2:]))

    @property
    def blocks(self) -> np.ndarray:
        return self.bits + INHERITED * self.errors + CODED_BLOCK

    @property
    def cost(self) -> float:
        return float((self.bits + INHERITED * self.errors).sum()) + self.side_bits


class MspPictureCodec(PlaneCoder):
    """The default network at one rate level.

    decisions: the quantiser, and for encoding how its symbols are decided. shipped: the network whose analysis decoders
    have, for what moved; None: this one.
    """

    def __init__(self, model: Msp, level: RateLevel, decisions: Decisions = PLAIN, shipped: Msp | None = None) -> None:
        self.model, self.decisions, self.shipped = model, decisions, shipped or model
        self.device = model.gain.table.device
        self.level = level.tensor(self.device)
        self.scales = ExactScales(model, level)
        self.worth = model.trade_off(level).worth

    @property
    def chain_extra(self) -> bytes:
        """A digest of what moved pictures are analysed with."""
        return analysis_digest(self.shipped)

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
    def encode_after(self, planes: Tensor, reference: Reference | None) -> list[CodedPicture]:
        """Predicted from a reference, as a key picture, or both where neither clearly costs less; None: a key picture.

        Pictures to come will be predicted from this one, so errors weigh `INHERITED` times.
        """
        y, z = self.latents(planes)
        if reference is None:
            return [self._key(y, z)]
        known = reference.alone_at(self.level)
        none = np.zeros((2, *reference.modes.shape), np.int64)
        base = self._base(reference, none)
        skipped = self._skipped(y, base)
        if (skipped <= CODED_BLOCK).all():
            return [self._all_skipped(Prediction(base, np.full_like(reference.modes, SKIP), none, reference, known))]
        vectors = motion.search(planes, reference.show(), self.worth)
        moved = self._expected(y, self._base(reference, vectors)) + MOVED_BLOCK < self._expected(y, base)
        vectors = np.where(moved, vectors, 0)
        base = self._base(reference, vectors)
        skipped = self._skipped(y, base)

        def predicted(alone: np.ndarray) -> tuple[float, CodedPicture]:
            modes = np.stack([skipped, inter.blocks, alone]).argmin(0).astype(np.uint8)  # SKIP, INTER, INTRA
            own = np.where(modes == INTRA, 0, vectors)
            there = base if np.array_equal(own, vectors) else self._base(reference, own)
            tally = Tally.of(y)
            picture = self._encode_residual(y, Prediction(there, modes, own, reference, alone), tally)
            return tally.cost + float(skipped[modes == SKIP].sum()), picture

        inter = Tally.of(y)
        everywhere = np.full_like(reference.modes, INTER)
        self._encode_residual(y, Prediction(base, everywhere, vectors, reference), inter)
        # What blocks cost without a reference is about what they cost last time: good enough where that is much more.
        if known is not None:
            cost, picture = predicted(known)
            if CLEARLY * cost < UNSURE * float(known.sum()):
                return [picture]
        key = self._key(y, z)
        cost, picture = predicted(key.left.alone)
        alone = float(key.left.alone.sum())
        return [way for own, other, way in ((cost, alone, picture), (alone, cost, key)) if own <= CLEARLY * other]

    def _base(self, reference: Reference, vectors: np.ndarray) -> Tensor:
        """What blocks are predicted from, in steps: (1, C, h, w)."""
        base = reference.at(self.model, self.level)
        if vectors.any():
            part = motion.part_of(vectors)
            moved = rounded(self.shipped.analyse(motion.move(reference.show(), vectors, part), self.level))
            there = torch.from_numpy(vectors.any(0)[part]).to(self.device)
            base[..., part[0], part[1]] = torch.where(there, moved, base[..., part[0], part[1]])
        return base

    def _errors(self, y: Tensor, base: Tensor) -> Tensor:
        """What errors of latents cost if they stay, in bits: float64 (C, h, w)."""
        return INHERITED * ((y - base).square() * self._weight())[0].double()

    def _skipped(self, y: Tensor, base: Tensor) -> np.ndarray:
        """What it costs, in bits, to leave blocks as they are predicted: float64 (h, w)."""
        return self._errors(y, base).sum(0).cpu().numpy()

    def _expected(self, y: Tensor, base: Tensor) -> np.ndarray:
        """About what blocks cost, left as predicted or coded, as of Gaussian latents: float64 (h, w)."""
        errors = self._errors(y, base)
        coded = torch.log2(1 + 2 * np.log(2) * errors).sum(0) / 2 + CODED_BLOCK
        return torch.minimum(coded, errors.sum(0)).cpu().numpy()

    def _key(self, y: Tensor, z: Tensor) -> CodedPicture:
        """Coded by itself, with note of what its blocks cost."""
        tally = Tally.of(y)
        picture = self.encode_latents(y, z, tally=tally)
        blocks = tally.blocks + tally.side_bits / tally.bits.size
        return picture._replace(left=picture.left._replace(alone=blocks))

    def _encode_residual(self, y: Tensor, prediction: Prediction, tally: Tally) -> CodedPicture:
        residual = (y - prediction.predicted) * prediction.coded
        with autocast(self.device):
            z = self.model.hyper_analysis(residual)
        return self.encode_latents(residual, z, prediction, tally)

    def _weight(self) -> Tensor:
        """Bits that a squared step of error is worth, by channel: (1, C, 1, 1) or one number."""
        weight = self.decisions.weight
        values = np.array([STEP_WORTH]) if weight is None else weight
        return torch.from_numpy(values).to(self.device)[None, :, None, None]

    @torch.no_grad()
    def encode_latents(
        self, y: Tensor, z: Tensor, prediction: Prediction | None = None, tally: Tally | None = None
    ) -> CodedPicture:
        """Quantise and code gained latents y (1, C, h, w) and hyper-latents z.

        prediction: of which y is what is left to code. tally: takes note of what blocks cost.
        """
        writer = SymbolWriter()
        quantizer = self.decisions.quantizer
        if prediction and prediction.empty:
            return self._all_skipped(prediction)
        if prediction:
            self._code_side(writing(writer), prediction.modes, prediction.vectors, prediction.reference)
        index, coded = self._z_tables((z.shape[-2], z.shape[-1]), prediction)
        z_hat = torch.round(z).clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT) * coded
        writer.put(z_hat, index, coded, of_z=True)
        if tally:
            tally.side_bits += writer.log.z_bits
            weight = self._weight()

        def take(cell: Cell, mean: Tensor, index: np.ndarray) -> np.ndarray:
            residual = y[(slice(None), cell.group, *cell.site)] - mean
            symbols, values = self.decisions.quantise(residual.cpu().numpy(), index, cell.group)
            writer.put_quantised(quantizer, symbols, index)
            if tally:
                error = (residual - torch.from_numpy(values).to(self.device) / UNIT).square()
                part = weight if weight.shape[1] == 1 else weight[:, cell.group]
                tally.errors[cell.site] += (error * part).sum(1)[0].cpu().numpy()
                tally.bits[cell.site] += symbol_bits(quantizer, symbols, index).sum(1)[0]
            return values

        y_hat = self.run_passes(z_hat, (y.shape[-2], y.shape[-1]), take, prediction)
        return self._coded(writer.coder.finish(), writer.log, y_hat, prediction)

    @staticmethod
    def _code_side(
        code: FlagCoder, modes: np.ndarray, vectors: np.ndarray, reference: Reference
    ) -> tuple[np.ndarray, np.ndarray]:
        """Modes and vectors of a predicted picture through a coder."""
        modes = code_modes(code, modes, reference.modes)
        return modes, motion.code_vectors(code, vectors, modes, reference.moved)

    def _coded(self, payload: bytes, log: SymbolLog, coded: Tensor, prediction: Prediction | None) -> CodedPicture:
        """A picture whose latents were coded so, with what it leaves to later ones."""
        if prediction is None:
            latents, modes, alone = coded, np.full(coded.shape[-2:], INTRA, np.uint8), None
            moved = np.zeros(modes.shape, bool)
        else:
            latents, modes, alone = coded + prediction.predicted, prediction.modes, prediction.alone
            moved = prediction.vectors.any(0)
        show = cache(lambda: self.synthesise(latents))
        left = Reference(latents, self.level, show, modes, moved, alone)
        return CodedPicture(payload, log, show, left, prediction is not None)

    def _all_skipped(self, prediction: Prediction) -> CodedPicture:
        """A picture without a symbol: it takes no bytes at all."""
        return self._coded(b"", SymbolLog(), torch.zeros_like(prediction.base), prediction)

    @torch.no_grad()
    def reconstruct(self, payload: bytes, height: int, width: int, reference: Reference | None = None) -> CodedPicture:
        """What `encode` or, with its reference, `encode_after` coded; the caller checks the log's crc.

        Raises CorruptBitstreamError for a payload that ends before its symbols.
        """
        size = (height // 16, width // 16)
        reader = SymbolReader(payload)
        prediction = None
        if reference:
            modes, vectors = np.full(size, SKIP, np.uint8), np.zeros((2, *size), np.int64)
            if payload:
                modes, vectors = self._code_side(reading(reader), modes, vectors, reference)
            prediction = Prediction(self._base(reference, vectors), modes, vectors, reference)
            if prediction.empty:
                return self._all_skipped(prediction)
        index, coded = self._z_tables((-(-size[0] // 4), -(-size[1] // 4)), prediction)
        z_hat = reader.get(index, coded, of_z=True)
        quantizer = self.decisions.quantizer

        def take(cell: Cell, mean: Tensor, index: np.ndarray) -> np.ndarray:
            return reconstruct(quantizer, reader.get_quantised(quantizer, index), index)

        return self._coded(payload, reader.log, self.run_passes(z_hat, size, take, prediction), prediction)

    def _z_tables(self, size: tuple[int, int], prediction: Prediction | None) -> tuple[Tensor, Tensor]:
        """Table indices of hyper-latents (1, Z, zh, zw), and which of them are coded."""
        index = self.scales.z_index.expand(1, self.model.config.hyper, *size)
        return index, index > 0 if prediction is None else (index > 0) & prediction.coded_hyper(size)

    @torch.no_grad()
    def synthesise(self, y_hat: Tensor) -> Tensor:
        """Decoded latents (1, C, h, w) to planes (1, 6, 8h, 8w)."""
        return self.model.synthesise(y_hat, self.level)

    def run_passes(
        self, z_hat: Tensor, size: tuple[int, int], take: Take, prediction: Prediction | None = None
    ) -> Tensor:
        """The passes in order; `take` gives the values of each one's cells. Returns y_hat (1, C, h, w).

        prediction: blocks that it skips are not coded, and 0.
        """
        model, scales = self.model, self.scales
        # Encoder and decoder must run the same kernels, and libraries choose theirs by the layout in memory.
        z_hat = z_hat.clone(memory_format=torch.contiguous_format)
        mean_features = model.hyper_mean(z_hat, self.level, size)
        scale_features = scales.features(z_hat, size)
        channels = model.config.latent
        y_hat = torch.zeros(1, channels, *size, device=self.device)
        known = torch.zeros(1, channels, *size, device=self.device, dtype=torch.float64)
        there = prediction.coded if prediction else None
        for k, coded in enumerate(model.schedule):
            grid = (..., *coded.grid)
            indices = scales.pass_index(k, scale_features[grid], known[grid])
            means = model.pass_mean[k](mean_features[grid], y_hat[grid])
            for cell, mean, index in zip(coded.cells(channels), means, indices, strict=True):
                site = (slice(None), cell.group, *cell.site)
                if there is not None:
                    mean, index = mean * there[(..., *cell.site)], index * there[(..., *cell.site)]
                values = take(cell, mean, index.cpu().numpy().astype(np.uint8))
                y_hat[site] = torch.from_numpy(values).to(self.device).float() / UNIT + mean
                known[site] = torch.from_numpy(magnitudes(values)).to(self.device).double()
        return y_hat
