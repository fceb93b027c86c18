"""One picture of `pocket` to bytes and back."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from vidcodec.families.family import CodedPicture, PlaneCoder
from vidcodec.families.pocket.exact import ExactContext
from vidcodec.families.pocket.fit import Fit, FitOptions
from vidcodec.families.pocket.network import PocketConfig
from vidcodec.families.pocket.workspace import Workspace
from vidcodec.latents.symbols import SymbolLog

Array = np.ndarray


class PocketPictureCodec(PlaneCoder):
    """Codes planes float32 (1, 6, H/2, W/2), H and W even, with a network's parameters at one rate level."""

    def __init__(self, config: PocketConfig, theta: Array, options: FitOptions) -> None:
        """theta: all parameters in a row. options: how the symbols of a picture that comes alone are found."""
        self.config, self.theta, self.options = config, theta, options
        self.exact = ExactContext.of(config, theta)
        self._work: Workspace | None = None

    def encode(self, planes: Tensor) -> CodedPicture:
        """With symbols found for this network; what a fit of many frames found goes to `code`."""
        fit = Fit([planes[0].numpy()], self.options, self.config, self.theta)
        fit.run()
        return self.code(fit.grids(0), planes.shape[2], planes.shape[3])

    def code(self, grids: list[Array], h: int, w: int) -> CodedPicture:
        """Whole-numbered grids of planes (1, 6, h, w), the finest first."""
        payload = self.exact.encode(grids)
        return CodedPicture(payload, _log(grids, payload), lambda: self._planes(grids, h, w))

    def reconstruct(self, payload: bytes, height: int, width: int, reference: None = None) -> CodedPicture:
        """Planes (1, 6, height/2, width/2) and the log of symbols; the caller checks its crc.

        Raises CorruptBitstreamError for a payload that ends before its symbols.
        """
        h, w = height // 2, width // 2
        grids = self.exact.decode(payload, h, w)
        return CodedPicture(payload, _log(grids, payload), lambda: self._planes(grids, h, w))

    def _planes(self, grids: list[Array], h: int, w: int) -> Tensor:
        if self._work is None or (self._work.h, self._work.w) != (h, w):
            self._work = Workspace(self.config, h, w)
        for mine, grid in zip(self._work.grids(self._work.symbols), grids, strict=True):
            mine[:] = grid
        self._work.synthesise(self.theta)
        return torch.from_numpy(np.clip(self._work.planes(), -0.5, 0.5))[None]


def _log(grids: list[Array], payload: bytes) -> SymbolLog:
    """CRC-32 of all symbols, the finest grid first; the bits are those of the payload."""
    crc = 0
    for grid in grids:
        crc = zlib.crc32(np.ascontiguousarray(grid, "<i4").data, crc)
    return SymbolLog(crc, y_bits=8.0 * len(payload))
