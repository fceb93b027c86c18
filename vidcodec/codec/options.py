"""What a user can ask of an encode."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from vidcodec.adapt.strategy import Strategy
from vidcodec.codec.presets import DEFAULT_MODEL, LOSSLESS, PRESETS, QUANTIZERS, REFINE
from vidcodec.errors import RateControlError, UnsupportedInputError
from vidcodec.video import Sampling


@dataclass(frozen=True)
class EncodeOptions:
    """All of `vidcodec encode`.

    Give at most one of quality (0..100), target_psnr (dB, PSNR-YUV 6:1:1), target_bpp (bits
    per pixel of the sampled frames, everything included) and target_size (bytes).
    max_minutes bounds adaptation and refinement together. refine, quantizer, steps and refine_steps are the
    preset's where None; refine_steps are per frame. lossless: keep every sample; leaves no choice of rate, model,
    quantiser and refinement. update_parameters is one of `vidcodec.adapt.strategy`; where None,
    those of learned importance if the weights come with scores, else all. work: a folder where finished steps are
    kept until the file is written, for a later run with these options to go on from.
    """

    sampling: Sampling = field(default_factory=Sampling)
    quality: float | None = None
    target_psnr: float | None = None
    target_bpp: float | None = None
    target_size: int | None = None
    preset: str = "medium"
    max_minutes: float = math.inf
    adapt: str = "full"
    update_prior: str = "adaptive"
    update_parameters: str | None = None
    steps: int | None = None
    refine: str | None = None
    refine_steps: int | None = None
    quantizer: str | None = None
    model: str = DEFAULT_MODEL
    weights: Path | None = None
    device: str = "auto"
    seed: int = 0
    lossless: bool = False
    work: Path | None = None

    def __post_init__(self) -> None:
        asked = [v for v in (self.quality, self.target_psnr, self.target_bpp, self.target_size) if v is not None]
        if len(asked) > 1:
            raise RateControlError("give only one of --quality, --target-psnr, --target-bpp and --target-size")
        if self.quality is not None and not 0 <= self.quality <= 100:
            raise RateControlError(f"--quality goes from 0 to 100, not {self.quality:g}")
        for name, value in (("psnr", self.target_psnr), ("bpp", self.target_bpp), ("size", self.target_size)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise RateControlError(f"--target-{name} must be above zero, not {value:g}")
        self._check_lossless()
        if not self.max_minutes > 0:
            raise RateControlError("--max-time must be above zero minutes; without adaptation: --preset fast")
        if self.update_prior == "spike-slab" and self.update_parameters not in (None, "all"):
            raise UnsupportedInputError("--update-prior spike-slab updates all parameters; take another one")
        if self.update_parameters and Strategy.parse(self.update_parameters) != Strategy():
            if self.adapt in ("none", "encoder"):
                raise UnsupportedInputError(
                    f"--adapt {self.adapt} sends no update: for --update-parameters give --adapt full or decoder"
                )
            if not self.finetuning_steps:
                raise UnsupportedInputError(
                    f"--preset {self.preset} does not adapt: for --update-parameters take medium, slow or best"
                    if self.steps is None
                    else "an update takes finetuning steps: give more than 0"
                )
        for option, asked_for, known in (("refine", self.refine, REFINE), ("quantizer", self.quantizer, QUANTIZERS)):
            if asked_for is not None and asked_for not in known:
                raise UnsupportedInputError(f"--{option} is one of {', '.join(known)}, not {asked_for}")

    def _check_lossless(self) -> None:
        if not self.lossless:
            if self.model == LOSSLESS:
                raise UnsupportedInputError("the model of the lossless mode codes without loss only: give --lossless")
            return
        chosen = {
            "--quality": self.quality,
            "--target-psnr": self.target_psnr,
            "--target-bpp": self.target_bpp,
            "--target-size": self.target_size,
            "--refine": self.refine,
            "--quantizer": self.quantizer,
            "--model": None if self.model in (DEFAULT_MODEL, LOSSLESS) else self.model,
            "--adapt encoder": self.adapt if self.adapt == "encoder" else None,
            "--work": self.work,
        }
        for option, value in chosen.items():
            if value is not None:
                raise UnsupportedInputError(f"--lossless leaves nothing to choose with {option}: leave one of them out")

    @property
    def finetuning_steps(self) -> int:
        if self.adapt == "none":
            return 0
        return PRESETS[self.preset].steps if self.steps is None else self.steps
