"""What adapting the filter lowers: the error of its pictures, in bits of the video they belong to.

Rate and error have one currency, bits of the video itself. Over their usual range codecs
halve the squared error where they double the rate, D ~ 1 / R, so that an error lower by the
part x is worth x R bits. With R the bits of the video, D_p and D0_p the squared errors of
plane p with and without the filter, and M the bits of the update, finetuning minimises

    J = R * sum_p w_p D_p / D0_p + M,    w = 6:1:1 over Y, U, V.

The finetuner's cost (`vidcodec.updates.finetune`) is J / R: it counts per bit of the video, not per pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from vidcodec.postfilter.planes import to_tensor
from vidcodec.updates.objective import Outcome, autocast, signs

PLANE_WEIGHTS = (0.75, 0.125, 0.125)
CHECK_PIXELS = 1_500_000

Batch = tuple[Tensor, Tensor, Tensor]  # decoded (B, 6, ., .), source like it, qp (B,)


@dataclass(frozen=True)
class Sample:
    """A picture to learn from: decoded and source planes (6, h, w) and its frame type (0 I, 1 P, 2 B).

    What has a QP of its own is of a type of its own.
    """

    decoded: np.ndarray
    source: np.ndarray
    type: int


class FilterCrops:
    """Samples of one stretch of video, as finetuning draws them. Shared by the bits of the video: its `pixels`.

    qp: by frame type. crop: luma samples of a crop's side.
    """

    def __init__(self, samples: list[Sample], depth: int, qp: Sequence[float], bits: float, crop: int) -> None:
        self.samples, self.depth, self.qp, self.crop = samples, depth, qp, crop
        self.pixels = max(1, round(bits))

    def crops(self, rng: np.random.Generator, count: int) -> Batch:
        """Random crops of random samples."""
        pairs, qps = [], []
        for i in rng.integers(len(self.samples), size=count):
            s = self.samples[i]
            h, w = (min(self.crop // 2, side) for side in s.decoded.shape[1:])
            top, left = (int(rng.integers(0, a - b + 1)) for a, b in zip(s.decoded.shape[1:], (h, w), strict=True))
            pairs.append(np.stack([a[:, top : top + h, left : left + w] for a in (s.decoded, s.source)]))
            qps.append(self.qp[s.type])
        x = to_tensor(np.stack(pairs), self.depth)
        decoded, source = (x[:, k].contiguous(memory_format=torch.channels_last) for k in (0, 1))
        return decoded, source, torch.tensor(qps)

    def checks(self) -> list[Batch]:
        """Samples spread over the stretch, for measuring."""
        size = self.samples[0].decoded[:4].size
        count = max(1, min(len(self.samples), CHECK_PIXELS // size))
        picked = (self.samples[i * len(self.samples) // count] for i in range(count))
        return [
            (
                to_tensor(s.decoded, self.depth)[None],
                to_tensor(s.source, self.depth)[None],
                torch.tensor([self.qp[s.type]]),
            )
            for s in picked
        ]


class FilterObjective:
    """sum_p price_p D_p: bits that the filtered picture's squared errors (samples in [0, 1]) of Y, U, V are worth.

    price: (3,), R w_p / D0_p. bits: R. No symbols are coded; L is counted per bit of the video.
    """

    def __init__(self, price: Tensor, bits: float) -> None:
        self.price, self.worth = price, 1.0 / bits

    @classmethod
    def of(cls, error: np.ndarray, depth: int, bits: float) -> FilterObjective:
        """error: D0, mean squared errors of Y, U, V without the filter, code values squared."""
        unit = float((1 << depth) - 1) ** 2
        share = torch.tensor(PLANE_WEIGHTS) / torch.from_numpy(np.maximum(error, 1e-3) / unit).float()
        return cls(bits * share, bits)

    def outcome(self, network: nn.Module, parameters: dict[str, Tensor], batch: Batch, *, hard: bool) -> Outcome:
        """hard: in full precision, as the decoder filters; there are no symbols."""
        decoded, source, qp = batch
        device = decoded.device
        with torch.autocast(device.type, enabled=False) if hard else autocast(device):
            out = functional_call(network, parameters, (decoded, qp))
        error = (out - source).square().mean((0, 2, 3))  # (6,)
        bits = (torch.stack([error[:4].mean(), error[4], error[5]]) * self.price).sum()
        return Outcome(bits.new_zeros(()), bits, decoded[:, :4].numel())

    def probe(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Samples, each weighted by the root of what its squared error costs."""
        decoded, _, qp = batch
        out = network(decoded, qp)
        b, _, h, w = out.shape
        y, u, v = (2 * self.worth * self.price / (b * h * w)).tolist()
        weights = torch.tensor([y / 4] * 4 + [u, v]).sqrt()[None, :, None, None]
        return (out * weights * signs(out, generator)).sum()
