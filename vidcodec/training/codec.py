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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from vidcodec.errors import TrainingError, first_line
from vidcodec.models.msp import PROFILES, Msp, MspConfig, weighted_mse
from vidcodec.training.data import Planes, batches, load_pictures, planes_to_tensor
from vidcodec.training.run import MISFITS, Run, RunConfig, averaged, learning_rate, uninterrupted
from vidcodec.training.workers import Workers

__all__ = ["TrainConfig", "Workers", "learning_rate", "rd_loss", "split_pictures", "train", "uninterrupted"]

CHECK_SIDE = 256
CHECK_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the range of rate levels

Pictures = list[tuple[str, Planes]]
Picture = TypeVar("Picture")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """One training run of the codec.

    profile: small, base or large; model: entries of MspConfig that differ from it. crop: a
    multiple of 16. holdout: a quarter as many pictures are left out of training and validated
    on, never more than one in five. device: auto, cpu or cuda.

    Raises TrainingError for an entry of the wrong type or out of its range.
    """

    profile: str = "base"
    model: dict = field(default_factory=dict)
    lr: float = 1.2e-3
    holdout: int = 48
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device not in ("auto", "cpu", "cuda"):
            raise TrainingError(f"'device' must be auto, cpu or cuda, not {self.device!r}")
        if self.profile not in PROFILES:
            raise TrainingError(f"'profile' must be one of {', '.join(PROFILES)}, not {self.profile!r}")
        if self.crop < 64 or self.crop % 16:
            raise TrainingError(f"'crop' must be a multiple of 16 from 64 on, not {self.crop}")
        self.check_not_negative("holdout")


def rd_loss(model: Msp, planes: Tensor, level: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The mean of L = (R + lambda * 255^2 * D) / lambda^0.45 over a batch.

    L itself grows about as lambda^0.45 over the rate range; the division gives every
    rate point a like say in the gradient.
    """
    out = model(planes, level)
    pixels = planes.shape[-1] * planes.shape[-2] * 4
    bpp = (out.y_bits + out.z_bits) / pixels
    mse = weighted_mse(out.planes, planes)
    lam = model.rate_lambda(level)
    loss = ((bpp + lam * 255.0**2 * mse) * lam**-0.45).mean()
    return loss, {"bpp": bpp.mean().item(), "z_bpp": (out.z_bits / pixels).mean().item()}


@torch.no_grad()
def validate(model: Msp, pictures: list[Tensor]) -> dict:
    """Mean rate (bits per pixel), PSNR-YUV (6:1:1, dB) and R-D cost of held-out pictures at five levels."""
    table = []
    for level in (share * (model.config.levels - 1) for share in CHECK_LEVELS):
        bpp, psnr, cost = [], [], []
        for x in pictures:
            lv = torch.full((1,), level, device=x.device)
            out = model(x, lv, rate="rounded")
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
    return f"score {figures['score']:+.4f}  bpp/dB {points}"


# ------------------------------------------------------------------------ parts of a run


def build_model(profile: str, changes: dict) -> Msp:
    """The network a configuration describes; raises TrainingError where there is none."""
    try:
        return Msp(MspConfig.from_dict({**PROFILES[profile].to_dict(), **changes}))
    except (*MISFITS, IndexError, ZeroDivisionError) as e:
        raise TrainingError(f"'model' in the training configuration describes no network: {first_line(e)}") from e


def load_checkpoint(path: Path) -> Msp:
    """The network in a .safetensors file."""
    from vidcodec.models.checkpoint import load_model  # safetensors: not needed to train

    return load_model(weights=path)[0]


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
    return planes_to_tensor(
        picture.y[2 * t : 2 * t + side, 2 * s : 2 * s + side], picture.uv[:, t : t + c, s : s + c]
    )[None]  # fmt: skip


# -------------------------------------------------------------------------- the training


def train(c: TrainConfig, *, resume: bool = False) -> Path:
    """Run (or continue) one training; returns the path of the final state.

    Raises TrainingError when the data or the state to resume cannot be read. On
    KeyboardInterrupt the state is saved first.
    """

    def build() -> tuple[Msp, dict[str, Any]]:
        model = build_model(c.profile, c.model)
        return model, model.config.to_dict()

    run = Run(c, build, load_checkpoint, device=c.device, resume=resume)
    model, device = run.network, run.device
    held, kept = split_pictures(load_pictures(Path(c.data), progress=run.workers.first), c.holdout)
    if run.fresh:
        _, planes, _ = next(batches(kept, seed=c.seed, start=0, batch=4 * c.batch, crop=c.crop))
        model.calibrate(planes.to(device))
    checks = [x.to(device, memory_format=torch.channels_last) for x in check_crops(held, kept)]
    source = batches(kept, seed=c.seed, start=run.done, batch=c.batch, crop=c.crop, worker=run.workers.rank)
    with run.recorded(lambda network: validate(network, checks), curve_point):
        for step, planes, rng in run.paced(source):
            planes = planes.to(device, memory_format=torch.channels_last)
            level = torch.from_numpy(rng.uniform(0, model.config.levels - 1, c.batch).astype(np.float32)).to(device)
            with torch.autocast(device.type, torch.bfloat16):
                loss, shown = rd_loss(model, planes, level)
            norm = run.step(loss)
            if step % 100 == 0:
                bpp = f"bpp {shown['bpp']:.3f} (z {shown['z_bpp']:.4f})"
                run.tell(step, f"loss {loss.item():.3f}  {bpp}  |g| {norm:.2f}")
    return run.state_path


def export_codec(state: dict[str, Any], output: Path) -> bytes:
    """Write the averaged weights of a run's state as a checkpoint; returns the decoder's digest.

    Raises TrainingError when the state is not one of this network.
    """
    from vidcodec.models.checkpoint import save_model  # safetensors: not needed to train

    model = averaged(state, lambda config: Msp(MspConfig.from_dict(config)))
    return save_model(model, output, note=f"step {state['step']}")
