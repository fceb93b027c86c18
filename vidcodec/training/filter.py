"""Training of the post-filter: one visible loop.

    vidcodec train filter --config FILE [--resume DIR]

See `vidcodec.training.run` for how a run is kept and resumed. The training pairs are made
first, once, from photographs (`vidcodec.training.filter_data`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from vidcodec.errors import TrainingError
from vidcodec.postfilter.network import PROFILES, Filter, freeze_multipliers
from vidcodec.rate import plane_mse
from vidcodec.training.filter_data import Pairs, prepare_pairs
from vidcodec.training.run import Run, RunConfig

if TYPE_CHECKING:
    from vidcodec.checkpoint import Format

# In the loss and the reported figure: the usual 6:1:1.
PSNR_WEIGHTS = (0.75, 0.125, 0.125)
FLOOR = (0.25 / 255) ** 2  # of an error in the loss: what is that good needs no filter


@dataclass(frozen=True, kw_only=True)
class FilterTrainConfig(RunConfig):
    """One training run of the post-filter.

    pairs: folder of the training pairs; `clips` of them are made where there are fewer.
    profile: 'small' or 'base'.

    Raises TrainingError for an entry of the wrong type or out of its range.
    """

    REQUIRED: ClassVar[dict[str, str]] = {**RunConfig.REQUIRED, "pairs": "the folder of the training pairs"}

    pairs: str
    profile: str = "base"
    clips: int = 2400
    crop: int = 128
    lr: float = 2e-3
    warmup: int = 100
    clip: float = 0.5
    validate_minutes: float = 3.0
    save_minutes: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choices(profile=PROFILES)
        if not 32 <= self.crop <= 256 or self.crop % 2:
            raise TrainingError(f"'crop' must be an even number from 32 to 256, not {self.crop}")
        self.check_above_zero("clips")


def filter_loss(network: Filter, decoded: Tensor, source: Tensor, qp: Tensor) -> Tensor:
    """Minus the mean gain in PSNR-YUV (6:1:1), dB: every quality has the same say in the gradient."""
    weights = torch.tensor(PSNR_WEIGHTS, device=decoded.device)
    before, after = (plane_mse(x, source) + FLOOR for x in (decoded, network(decoded, qp)))
    return (10 * torch.log10(after / before) * weights).sum(1).mean()


@torch.no_grad()
def validate(network: Filter, checks: list[tuple[Tensor, Tensor, Tensor]]) -> dict[str, float]:
    """Mean gain in PSNR of Y, U, V over held-out pictures in dB, rounded to 8 bit, and over those above QP 32."""
    gains, qps = [], []
    for decoded, source, qp in checks:
        filtered = (network(decoded, qp).clamp(-0.5, 0.5) * 255).round() / 255
        before, after = (plane_mse(x, source).clamp_min(1e-7) for x in (decoded, filtered))
        gains.append(10 * torch.log10(before / after))
        qps.append(qp)
    gain, high = torch.cat(gains), torch.cat(qps) > 32
    names = ("gain_y", "gain_u", "gain_v")
    out = {n: float(v) for n, v in zip(names, gain.mean(0), strict=True)}
    return {k: round(v, 4) for k, v in {**out, "gain_y_high_qp": float(gain[high, 0].mean())}.items()}


def checkpoint() -> Format[Filter]:
    """What this network's weights are kept in."""
    from vidcodec.postfilter.checkpoint import FILTER  # safetensors: not needed to train

    return FILTER


def train_filter(c: FilterTrainConfig, *, resume: bool = False) -> Path:
    """Run (or continue) one training; returns the path of the final state.

    Raises TrainingError when the data or the state to resume cannot be read. On
    KeyboardInterrupt the state is saved first.
    """

    def build() -> tuple[Filter, dict[str, Any]]:
        network = Filter(PROFILES[c.profile])
        freeze_multipliers(network)
        return network, network.config.to_dict()

    run = Run(c, build, checkpoint, resume=resume)
    prepare_pairs(Path(c.data), Path(c.pairs), c.clips, seed=c.seed)
    pairs = Pairs(Path(c.pairs))
    checks = pairs.checks()
    shown = 0.0
    with run.recorded(lambda network: validate(network, checks)):
        for step, decoded, source, qp in run.paced(
            pairs.batches(seed=c.seed, start=run.done, batch=c.batch, crop=c.crop)
        ):
            decoded, source = (x.contiguous(memory_format=torch.channels_last) for x in (decoded, source))
            with torch.autocast("cpu", torch.bfloat16):
                loss = filter_loss(run.network, decoded, source, qp)
            norm = run.step(loss)
            shown = loss.item() if step == 0 else 0.98 * shown + 0.02 * loss.item()
            if step % 100 == 0:
                run.tell(step, f"gain {-shown:+.3f} dB  |g| {norm:.2f}")
    return run.state_path
