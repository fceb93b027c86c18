"""Turning the base filter towards one video: `vidcodec.updates.finetune` on its pictures, in bits of the video.

`objective` says what is lowered. The reference of Lam et al. (`sparse`) takes the same samples and the same cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidcodec.postfilter.network import Filter
from vidcodec.postfilter.objective import FilterCrops, FilterObjective, Sample
from vidcodec.postfilter.sparse import SparseConfig, SparseFinetuner
from vidcodec.updates.finetune import FinetuneConfig, Finetuned, Finetuner
from vidcodec.updates.prior import AdaptivePrior
from vidcodec.updates.selection import select
from vidcodec.updates.strategy import Strategy


@dataclass(frozen=True)
class FilterFinetuneConfig(FinetuneConfig):
    """How the filter is adapted: `FinetuneConfig` with what suits a small network without latents.

    strategy: which numbers may change, as `vidcodec.updates.strategy` reads it; importance scores are looked for in
    `folder` as well as beside the shipped weights. crop: luma samples a side, `batch` of them a step. sparse: how the
    reference (`vidcodec.postfilter.sparse`) learns, instead of the priced update.

    Raises UnsupportedInputError for a strategy that there is not.
    """

    scope: str = "decoder"
    steps: int = 150
    batch: int = 8
    matrix_lr: float = 0.02
    dither: float = 0.0
    vector_share: float = 0.0
    latent_share: float = 0.0
    measure_every: float = 0.15
    patience: int = 5
    strategy: str = "multipliers"
    folder: Path | None = None
    crop: int = 128
    sparse: SparseConfig | None = None

    def __post_init__(self) -> None:
        strategy = Strategy.parse(self.strategy, self.seed)
        if self.sparse:
            self.sparse.check(strategy)


def finetune_filter(
    base: Filter,
    samples: list[Sample],
    depth: int,
    qp: tuple[float, float, float],
    bits: float,
    error: np.ndarray,
    config: FilterFinetuneConfig,
    progress: Callable[[float, dict[str, Any]], None] = lambda *_: None,
) -> Finetuned:
    """Adapt one base filter to one stretch of video; the best measured state counts, no update where none pays.

    samples: pictures to learn from. depth: bits per sample. qp: of I, P, B pictures.
    bits: R, of the stretch. error: D0, mean squared errors of Y, U, V without the filter, code values squared.
    The curve and what `progress` is told are J in bits of the video ('cost') and the update's.
    """
    crops = FilterCrops(samples, depth, qp, bits, config.crop)
    objective = FilterObjective.of(error, depth, bits)
    strategy = Strategy.parse(config.strategy, config.seed)
    selection = select(strategy, base, pixels=crops.pixels, folder=config.folder)
    tuner: Finetuner | SparseFinetuner
    if config.sparse:
        tuner = SparseFinetuner(base, objective, crops, config, config.sparse, selection)
    else:
        tuner = Finetuner(base, objective, crops, AdaptivePrior(), config, selection)

    def report(share: float, row: dict[str, Any]) -> None:
        progress(share, {"cost": row["cost"] * bits, "update_bits": row["update_bits"]})

    done = tuner.run(report)
    curve = [{"step": r["step"], "cost": r["cost"] * bits, "bytes": round(r["update_bits"] / 8)} for r in done.curve]
    return replace(done, curve=curve)
