"""Training of the base model: one visible loop.

    vidcodec train codec --config FILE [--resume DIR]

Data and noise are functions of (seed, step, worker); see `vidcodec.training.run` for how a
run is kept and resumed.

Several GPUs or machines: `torchrun --nproc-per-node N -m vidcodec train codec --config FILE`.
Every worker draws its own batches, gradients are averaged, the first one validates and saves.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from vidcodec.entropy.rates import CellCoder
from vidcodec.errors import TrainingError
from vidcodec.families.msp.network import PROFILES, Msp, MspConfig, MspOutput
from vidcodec.rate import weighted_mse
from vidcodec.training.data import Planes, batches, load_pictures, planes_to_tensor
from vidcodec.training.run import PictureRunConfig, Run, described, learning_rate, uninterrupted
from vidcodec.training.workers import Workers

if TYPE_CHECKING:
    from vidcodec.checkpoint import Format

__all__ = ["TrainConfig", "Workers", "learning_rate", "rd_loss", "split_pictures", "train", "uninterrupted"]

CHECK_SIDE = 256
CHECK_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the range of rate levels

MIDDLE = (0.06, 0.72)  # of the range of rate levels
QUANTIZERS = ("uniform", "rdoq", "trellis", "mixed")
TRAINS = ("all", "decoder")

Pictures = list[tuple[str, Planes]]
Picture = TypeVar("Picture")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(PictureRunConfig):
    """One training run of the codec.

    profile: small, base or large, from which `model` differs. crop: a multiple of 16. middle: share of the crops whose
    rate level is from the middle of the range, the rest from all of it. quantizer: uniform, or
    what else decides the symbols in training (rdoq, trellis, mixed; needs numba): a step then sees
    what that quantiser does to it. trains: all, or decoder, which leaves the encoder as it is.

    Raises TrainingError for an entry of the wrong type or out of its range.
    """

    profile: str = "base"
    lr: float = 1.2e-3
    middle: float = 0.0
    quantizer: str = "uniform"
    trains: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choices(profile=PROFILES, quantizer=QUANTIZERS, trains=TRAINS)
        if self.crop < 64 or self.crop % 16:
            raise TrainingError(f"'crop' must be a multiple of 16 from 64 on, not {self.crop}")
        if not 0 <= self.middle <= 1:
            raise TrainingError(f"'middle' must be from 0 to 1, not {self.middle!r}")


def draw_levels(rng: np.random.Generator, count: int, levels: int, middle: float) -> np.ndarray:
    """Rate levels (count,) float32: a share of `middle` from the middle of the range, the rest from all of it."""
    whole = rng.uniform(0, levels - 1, count)
    if middle > 0:
        inner = rng.uniform(*MIDDLE, count) * (levels - 1)
        whole = np.where(rng.random(count) < middle, inner, whole)
    return whole.astype(np.float32)


def rd_loss(
    model: Msp, planes: Tensor, level: Tensor, code: CellCoder | None = None
) -> tuple[Tensor, dict[str, float]]:
    """The mean of L = (R + lambda * 255^2 * D) / lambda^0.45 over a batch.

    L itself grows about as lambda^0.45 over the rate range; the division gives every
    rate point a like say in the gradient. code: decides the symbols of y, instead of rounding.
    """
    out = model(planes, level, code=code)
    pixels = planes.shape[-1] * planes.shape[-2] * 4
    shown = {"bpp": (out.y_bits + out.z_bits) / pixels, "z_bpp": out.z_bits / pixels}
    return rd_cost(out, planes, model.rate_lambda(level)), {k: v.mean().item() for k, v in shown.items()}


def rd_cost(out: MspOutput, planes: Tensor, lam: Tensor) -> Tensor:
    """The loss of `rd_loss` for what a network made of planes at trade-offs lam (B,)."""
    bpp = (out.y_bits + out.z_bits) / (planes.shape[-1] * planes.shape[-2] * 4)
    return ((bpp + lam * 255.0**2 * weighted_mse(out.planes, planes)) * lam**-0.45).mean()


@torch.no_grad()
def validate(model: Msp, pictures: list[Tensor], coder: Callable[[Tensor], CellCoder | None] | None = None) -> dict:
    """Mean rate (bits per pixel), PSNR-YUV (6:1:1, dB) and R-D cost of held-out pictures at five levels.

    coder: what decides the symbols of y at a level (1,); rounding without.
    """
    table = []
    for level in (share * (model.config.levels - 1) for share in CHECK_LEVELS):
        bpp, psnr, cost = [], [], []
        for x in pictures:
            lv = torch.full((1,), level, device=x.device)
            out = model(x, lv, rate="rounded", code=coder(lv) if coder else None)
            pixels = x.shape[-1] * x.shape[-2] * 4
            decoded = (out.planes.clamp(-0.5, 0.5) * 255).round() / 255
            e = (decoded - x).square().mean((0, 2, 3)).clamp_min(1e-7)
            y, u, v = (-10 * math.log10(m.item()) for m in (e[:4].mean(), e[4], e[5]))
            rate = ((out.y_bits + out.z_bits) / pixels).item()
            bpp.append(rate)
            psnr.append((6 * y + u + v) / 8)
            cost.append(rate + (model.rate_lambda(lv) * 255.0**2 * weighted_mse(out.planes, x)).item())
        table.append([round(float(np.mean(v)), 5) for v in (bpp, psnr, cost)])
    # One figure for curves: mean log2 of the R-D cost; 0.1 is about 7 % of rate.
    return {"points": table, "score": float(np.mean([math.log2(t[2]) for t in table]))}


def curve_point(figures: dict) -> str:
    """What `validate` found, as progress."""
    points = "  ".join(f"{bpp:.3f}/{psnr:.2f}" for bpp, psnr, _ in figures["points"])
    decided = f"  decided {figures['decided']['score']:+.4f}" if "decided" in figures else ""
    return f"score {figures['score']:+.4f}{decided}  bpp/dB {points}"


# ------------------------------------------------------------------------ parts of a run


def build_model(profile: str, changes: dict) -> Msp:
    """The network a configuration describes; raises TrainingError where there is none."""
    return described(lambda: Msp(MspConfig.from_dict({**PROFILES[profile].to_dict(), **changes})))


def checkpoint() -> Format[Msp]:
    """What this network's weights are kept in."""
    from vidcodec.families.msp.checkpoint import MSP  # safetensors: not needed to train

    return MSP


def split_pictures(pictures: list[Picture], holdout: int) -> tuple[list[Picture], list[Picture]]:
    """(held out, kept for training): about holdout / 4 are held out, never more than one in five."""
    if not holdout or len(pictures) < 5:
        return [], pictures
    stride = max(5, len(pictures) // max(1, holdout // 4))
    return pictures[::stride], [p for i, p in enumerate(pictures) if i % stride]


def check_crops(held: Pictures, kept: Pictures) -> list[Tensor]:
    """The middles of the held-out pictures, 256x256; with none of that size, of training pictures instead."""
    checks = [middle(p, CHECK_SIDE) for _, p in held if min(p.y.shape) >= CHECK_SIDE]
    if not checks:
        print("validation: no picture of 256 pixels is held out, training pictures stand in", file=sys.stderr)
        checks = [middle(p, min(CHECK_SIDE, min(p.y.shape) // 16 * 16)) for _, p in kept[:8]]
    return checks


def middle(picture: Planes, side: int) -> Tensor:
    """The square in the middle of a picture, as the model's input: (1, 6, side/2, side/2)."""
    h, w = picture.y.shape
    t, s, c = (h - side) // 4, (w - side) // 4, side // 2  # in chroma samples
    return planes_to_tensor(picture.y[2 * t : 2 * t + side, 2 * s : 2 * s + side], picture.uv[:, t : t + c, s : s + c])[
        None
    ]


# -------------------------------------------------------------------------- the training


def train(c: TrainConfig, *, resume: bool = False) -> Path:
    """Run (or continue) one training; returns the path of the final state.

    Raises TrainingError when the data or the state to resume cannot be read. On
    KeyboardInterrupt the state is saved first.
    """

    def build() -> tuple[Msp, dict[str, Any]]:
        model = build_model(c.profile, c.model)
        if c.trains == "decoder":
            from vidcodec.checkpoint import is_sent  # safetensors: not needed to train

            for name, p in model.named_parameters():
                p.requires_grad_(is_sent(model, name))
        return model, model.config.to_dict()

    run = Run(c, build, checkpoint, device=c.device, resume=resume)
    model, device = run.network, run.device
    held, kept = split_pictures(load_pictures(Path(c.data), progress=run.workers.first), c.holdout)
    if run.fresh:
        _, planes, _ = next(batches(kept, seed=c.seed, start=0, batch=4 * c.batch, crop=c.crop))
        model.calibrate(planes.to(device))
    checks = [x.to(device, memory_format=torch.channels_last) for x in check_crops(held, kept)]
    source = batches(kept, seed=c.seed, start=run.done, batch=c.batch, crop=c.crop, worker=run.workers.rank)
    decided = None
    if c.quantizer != "uniform":
        from vidcodec.training.deciding import Decided  # numba: not needed to train with rounding

        _, planes, _ = next(batches(kept, seed=c.seed, start=0, batch=c.batch, crop=c.crop))
        decided = Decided(c.quantizer, run, [x[None].to(device) for x in planes])

    def check(network: Msp) -> dict:
        plain = validate(network, checks)
        return {**plain, "decided": validate(network, checks, decided.checking)} if decided else plain

    with run.recorded(check, curve_point):
        for step, planes, rng in run.paced(source):
            planes = planes.to(device, memory_format=torch.channels_last)
            level = torch.from_numpy(draw_levels(rng, c.batch, model.config.levels, c.middle)).to(device)
            code = decided.training(step, rng, level) if decided else None
            with torch.autocast(device.type, torch.bfloat16):
                loss, shown = rd_loss(model, planes, level, code)
            norm = run.step(loss)
            if step % 100 == 0:
                bpp = f"bpp {shown['bpp']:.3f} (z {shown['z_bpp']:.4f})"
                run.tell(step, f"loss {loss.item():.3f}  {bpp}  |g| {norm:.2f}")
    return run.state_path
