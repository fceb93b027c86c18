"""What a user can ask of an encode."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from vidcodec.codec.presets import DEFAULT_MODEL, PRESETS, QUANTIZERS, REFINE
from vidcodec.errors import RateControlError, UnsupportedInputError
from vidcodec.video import Sampling


@dataclass(frozen=True)
class EncodeOptions:
    """All of `vidcodec encode`.

    Give at most one of quality (0..100), target_psnr (dB, PSNR-YUV 6:1:1), target_bpp (bits
    per pixel of the sampled frames, everything included) and target_size (bytes).
    max_minutes bounds adaptation and refinement together. refine, quantizer, steps and refine_steps are the
    preset's where None; refine_steps are per frame.
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
    steps: int | None = None
    refine: str | None = None
    refine_steps: int | None = None
    quantizer: str | None = None
    model: str = DEFAULT_MODEL
    weights: Path | None = None
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        asked = [v for v in (self.quality, self.target_psnr, self.target_bpp, self.target_size) if v is not None]
        if len(asked) > 1:
            raise RateControlError("give only one of --quality, --target-psnr, --target-bpp and --target-size")
        if self.quality is not None and not 0 <= self.quality <= 100:
            raise RateControlError(f"--quality goes from 0 to 100, not {self.quality:g}")
        for name, value in (("psnr", self.target_psnr), ("bpp", self.target_bpp), ("size", self.target_size)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise RateControlError(f"--target-{name} must be above zero, not {value:g}")
        if not self.max_minutes > 0:
            raise RateControlError("--max-time must be above zero minutes; without adaptation: --preset fast")
        for option, asked_for, known in (("refine", self.refine, REFINE), ("quantizer", self.quantizer, QUANTIZERS)):
            if asked_for is not None and asked_for not in known:
                raise UnsupportedInputError(f"--{option} is one of {', '.join(known)}, not {asked_for}")

    @property
    def finetuning_steps(self) -> int:
        if self.adapt == "none":
            return 0
        return PRESETS[self.preset].steps if self.steps is None else self.steps
