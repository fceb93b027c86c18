"""The names a user may give, and what they stand for. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Finetuning steps, how latents are refined and with how many steps, quantiser; `cost` is what the help says.

    rounds: visits to every frame, of families whose symbols are fitted.
    """

    steps: int
    refine: str
    refine_steps: int
    quantizer: str
    rounds: int
    cost: str


# Per minute, RDOQ or the trellis gains most, then the greedy search, then finetuning; in equal time annealing gains
# less than the greedy search (results/refinement.md). Only 'best' spends time on it as well, several times as much.
PRESETS = {
    "fast": Preset(0, "none", 0, "trellis", 150, "trellis, no adaptation: seconds"),
    "medium": Preset(
        300, "lof", 8, "trellis", 500, "300 finetuning steps, 8 of refinement a frame: minutes on two cores"
    ),
    "slow": Preset(
        1500, "lof", 16, "trellis", 1500, "1500 and 16 steps: a quarter of an hour to half an hour on two cores"
    ),
    "best": Preset(
        6000, "best", 32, "trellis", 4000, "6000 and 32 steps, annealing besides: hours; limit with --max-time"
    ),
}
ADAPT = ("none", "encoder", "decoder", "full")
REFINE = ("none", "lof", "sga", "best")
QUANTIZERS = ("uniform", "rdoq", "trellis4", "trellis")
# The last two leave something out, to show what it is worth.
UPDATE_PRIORS = ("adaptive", "spike-slab", "no-rate", "no-quantisation")
DEFAULT_MODEL = "msp"
DEFAULT_LOSSLESS_MODEL = "lossless"
DEFAULT_QUALITY = 50.0
