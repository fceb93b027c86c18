"""What a user can ask of an encode."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from vidcodec.codec.presets import (
    ADAPT,
    DEFAULT_LOSSLESS_MODEL,
    DEFAULT_MODEL,
    PRESETS,
    QUANTIZERS,
    REFINE,
    UPDATE_PRIORS,
)
from vidcodec.errors import RateControlError, UnsupportedInputError
from vidcodec.families import family_of
from vidcodec.updates.strategy import Strategy
from vidcodec.video import Sampling


@dataclass(frozen=True)
class EncodeOptions:
    """All of `vidcodec encode`.

    Give at most one of quality (0..100), target_psnr (dB, PSNR-YUV 6:1:1), target_bpp (bits
    per pixel of the sampled frames, everything included) and target_size (bytes).
    max_minutes bounds adaptation and refinement together. refine, quantizer, steps and refine_steps are the
    preset's where None; refine_steps are per frame. lossless: keep every sample; leaves no choice of rate, quantiser
    and refinement, nor of a model that is not made for it. update_parameters is one of `vidcodec.updates.strategy`;
    where None, low rank for large streams (`vidcodec.codec.steps.paying_strategy`), else those of learned importance if
    the weights come with scores, else all. key_seconds: after so many seconds at the latest comes a frame that refers
    to no other one; 0: none does. segment_minutes: every so many minutes may have a model update of their own; 0: one
    for all frames; steps and targets are then those of every segment. audio: 'copy' keeps the source's audio and
    subtitles, as they are. work: a folder where finished steps are kept until the file is written, for a later run with
    these options to go on from.

    Raises RateControlError, UnsupportedInputError, and ModelNotFoundError for a family that cannot be imported.
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
    key_seconds: float = 0.0
    audio: str = "none"
    segment_minutes: float = 0.0
    work: Path | None = None

    def __post_init__(self) -> None:
        asked = [v for v in (self.quality, self.target_psnr, self.target_bpp, self.target_size) if v is not None]
        if len(asked) > 1:
            raise RateControlError("give only one of 'quality', 'target_psnr', 'target_bpp' and 'target_size'")
        if self.quality is not None and not 0 <= self.quality <= 100:
            raise RateControlError(f"'quality' goes from 0 to 100, not {self.quality:g}")
        for name in ("target_psnr", "target_bpp", "target_size"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise RateControlError(f"'{name}' must be above zero, not {value:g}")
        if not self.key_seconds >= 0:
            raise UnsupportedInputError(f"'key_seconds' must not be negative, not {self.key_seconds:g}")
        if not self.segment_minutes >= 0:
            raise UnsupportedInputError(f"'segment_minutes' must not be negative, not {self.segment_minutes:g}")
        if not self.max_minutes > 0:
            raise RateControlError("'max_minutes' must be above zero; without adaptation: 'preset' fast")
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known and (value is not None or name not in _OPTIONAL):
                raise UnsupportedInputError(f"'{name}' is one of {', '.join(known)}, not {value}")
        for name in ("steps", "refine_steps", "seed"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UnsupportedInputError(f"'{name}' must not be negative, not {value}")
        self._check_lossless()
        self._check_update()

    def _check_update(self) -> None:
        if self.update_prior == "spike-slab" and self.update_parameters not in (None, "all"):
            raise UnsupportedInputError("'update_prior' spike-slab updates all parameters; take another one")
        if not self.update_parameters or Strategy.parse(self.update_parameters) == Strategy():
            return
        if self.adapt in ("none", "encoder"):
            raise UnsupportedInputError(
                f"'adapt' {self.adapt} sends no update: for 'update_parameters' take full or decoder"
            )
        if not self.finetuning_steps:
            raise UnsupportedInputError(
                f"'preset' {self.preset} does not adapt: for 'update_parameters' take medium, slow or best"
                if self.steps is None
                else "an update takes finetuning steps: give more than 0"
            )

    def _check_lossless(self) -> None:
        made_for_it = self.model != DEFAULT_MODEL and family_of(self.model).lossless
        if not self.lossless:
            if made_for_it:
                raise UnsupportedInputError(f"the model '{self.model}' codes without loss only: set 'lossless'")
            return
        chosen = {
            "quality": self.quality,
            "target_psnr": self.target_psnr,
            "target_bpp": self.target_bpp,
            "target_size": self.target_size,
            "refine": self.refine,
            "quantizer": self.quantizer,
            "model": None if made_for_it or self.model == DEFAULT_MODEL else self.model,
            "adapt": self.adapt if self.adapt == "encoder" else None,
        }
        for option, value in chosen.items():
            if value is not None:
                raise UnsupportedInputError(
                    f"'lossless' leaves nothing to choose with '{option}': leave one of them out"
                )

    @property
    def network(self) -> str:
        """The name of the model that codes."""
        return DEFAULT_LOSSLESS_MODEL if self.lossless and self.model == DEFAULT_MODEL else self.model

    @property
    def finetuning_steps(self) -> int:
        if self.adapt == "none":
            return 0
        return PRESETS[self.preset].steps if self.steps is None else self.steps

    @property
    def rounds(self) -> int:
        """Visits to every frame, of families whose symbols are fitted."""
        return PRESETS[self.preset].rounds if self.steps is None else max(1, self.steps)


_CHOICES = {
    "preset": tuple(PRESETS),
    "adapt": ADAPT,
    "update_prior": UPDATE_PRIORS,
    "refine": REFINE,
    "quantizer": QUANTIZERS,
    "audio": ("none", "copy"),
    "device": ("auto", "cpu", "cuda"),
}
_OPTIONAL = ("refine", "quantizer")
