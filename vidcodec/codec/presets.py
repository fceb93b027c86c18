"""The names a user may give, and what they stand for. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Finetuning steps; `cost` is what the help says of them."""

    steps: int
    cost: str


PRESETS = {
    "fast": Preset(0, "no adaptation: seconds"),
    "medium": Preset(300, "300 finetuning steps: a few minutes on two cores"),
    "slow": Preset(1500, "1500 steps: a quarter of an hour to half an hour on two cores"),
    "best": Preset(6000, "6000 steps: one to two hours on two cores"),
}
ADAPT = ("none", "encoder", "decoder", "full")
UPDATE_PRIORS = ("adaptive", "spike-slab")
DEFAULT_MODEL = "msp"
DEFAULT_QUALITY = 50.0
