"""Training of the base model: one visible loop.

    vidcodec train codec --config FILE [--resume DIR]

Resumable: the run folder holds `state.pt` (weights, optimiser, average, step, seconds),
`log.jsonl` (one line per validation) and `config.json`. Data and noise are functions of
(seed, step), so a resumed run continues as the uninterrupted one would have.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidcodec.errors import TrainingError
from vidcodec.models.msp import Msp, MspConfig
from vidcodec.training.data import batches, load_pictures, planes_to_tensor

# Weights of the planes' mean squared errors in D (Y, U, V).
PLANE_WEIGHTS = (0.5, 0.25, 0.25)


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    steps or minutes ends the run and shapes the learning rate (linear warm-up, cosine
    to zero); with `minutes` the schedule follows the clock, with `steps` it is exactly
    repeatable. start: a checkpoint (safetensors or run folder) to start from.
    """

    data: str
    out: str
    model: dict = field(default_factory=dict)
    steps: int | None = None
    minutes: float | None = None
    batch: int = 8
    crop: int = 192
    lr: float = 1.2e-3
    warmup: int = 200
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 1
    start: str | None = None
    validate_minutes: float = 5.0
    save_minutes: float = 4.0
    holdout: int = 48
    threads: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise TrainingError("give either steps or minutes in the training configuration")

    @classmethod
    def from_file(cls, path: Path) -> TrainConfig:
        try:
            raw = json.loads(Path(path).read_text())
        except (OSError, ValueError) as e:
            raise TrainingError(f"cannot read the training configuration {path}: {e}") from e
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(raw) - known):
            raise TrainingError(f"unknown entries in {path}: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return cls(**raw)


def weighted_mse(x: Tensor, target: Tensor) -> Tensor:
    """Per-picture D: plane-weighted mean squared error of (B, 6, h, w) planes -> (B,)."""
    error = (x - target).square().mean((2, 3))  # (B, 6)
    wy, wu, wv = PLANE_WEIGHTS
    return wy * error[:, :4].mean(1) + wu * error[:, 4] + wv * error[:, 5]


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


def learning_rate(c: TrainConfig, step: int, seconds: float) -> float:
    progress = step / c.steps if c.steps else seconds / (60 * (c.minutes or 1))
    warm = min(1.0, (step + 1) / c.warmup)
    return c.lr * warm * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


@torch.no_grad()
def validate(model: Msp, pictures: list[Tensor]) -> dict:
    """Mean rate (bits per pixel) and PSNR-YUV (6:1:1, dB) of held-out pictures at 4 levels."""
    table = []
    top = model.config.levels - 1
    for level in (0.1 * top, 0.37 * top, 0.63 * top, 0.9 * top):
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


def write_atomically(path: Path, write) -> None:  # type: ignore[no-untyped-def]
    partial = path.with_name(path.name + ".part")
    write(partial)
    os.replace(partial, path)


def train(c: TrainConfig, *, resume: bool = False) -> Path:
    """Run (or continue) one training; returns the path of the final state.

    Raises TrainingError when the data or the state to resume cannot be read.
    """
    out = Path(c.out)
    out.mkdir(parents=True, exist_ok=True)
    state_path = out / "state.pt"
    if state_path.exists() and not resume:
        raise TrainingError(f"{out} already holds a run; give --resume {out} to continue it, or another 'out'")
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if c.device == "auto" else c.device)
    if device.type == "cpu":
        torch.set_num_threads(c.threads)
        torch.set_flush_denormal(True)
    torch.manual_seed(c.seed)
    model = Msp(MspConfig.from_dict(c.model)).to(device, memory_format=torch.channels_last)
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=c.lr, betas=(0.9, 0.99), weight_decay=0.0)
    start, seconds = 0, 0.0
    if resume and state_path.exists():
        state = torch.load(state_path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, start, seconds = state["average"], state["step"], state["seconds"]
        print(f"resumed at step {start} after {seconds / 60:.1f} min", file=sys.stderr)
    elif c.start:
        state = torch.load(c.start, map_location=device, weights_only=True)
        model.load_state_dict(state["average"])
        average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    write_atomically(out / "config.json", lambda p: p.write_text(json.dumps(asdict(c), indent=1) + "\n"))

    pictures = load_pictures(Path(c.data))
    stride = max(1, len(pictures) // max(1, c.holdout // 4))
    held = pictures[::stride]
    kept = [p for i, p in enumerate(pictures) if i % stride]
    checks = []
    for _, p in held:
        h, w = p.y.shape
        if min(h, w) >= 256:
            t, s = (h - 256) // 4 * 2, (w - 256) // 4 * 2
            x = planes_to_tensor(p.y[t : t + 256, s : s + 256], p.uv[:, t // 2 : t // 2 + 128, s // 2 : s // 2 + 128])
            checks.append(x[None].to(device, memory_format=torch.channels_last))

    def save(step: int) -> None:
        state = {
            "model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average,
            "step": step, "seconds": seconds, "config": MspConfig.from_dict(c.model).to_dict(),
        }  # fmt: skip
        write_atomically(state_path, lambda p: torch.save(state, p))

    def report(step: int) -> None:
        current = {k: v.clone() for k, v in model.state_dict().items()}
        model.load_state_dict(average)
        row = {"step": step, "minutes": round(seconds / 60, 2), "samples": step * c.batch, **validate(model, checks)}
        model.load_state_dict(current)
        with (out / "log.jsonl").open("a") as f:
            f.write(json.dumps(row) + "\n")
        points = "  ".join(f"{b:.3f}/{d:.2f}" for b, d, _ in row["points"])
        print(f"{step:7d} {seconds / 60:7.1f} min  score {row['score']:+.4f}  bpp/dB {points}", file=sys.stderr)

    autocast = torch.autocast(device.type, torch.bfloat16) if c.crop else nullcontext()
    step, last_save, last_check = start, time.monotonic(), time.monotonic()
    for step, planes, rng in batches(kept, seed=c.seed, start=start, batch=c.batch, crop=c.crop):
        if (c.steps and step >= c.steps) or (c.minutes and seconds >= 60 * c.minutes):
            break
        begin = time.monotonic()
        torch.manual_seed(c.seed * 1_000_003 + step)
        planes = planes.to(device, memory_format=torch.channels_last)
        level = torch.from_numpy(rng.uniform(0, model.config.levels - 1, c.batch).astype(np.float32)).to(device)
        with autocast:
            loss, shown = rd_loss(model, planes, level)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), c.clip)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(c, step, seconds)
        if torch.isfinite(norm):
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        decay = min(c.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for k, v in model.state_dict().items():
                average[k].lerp_(v, 1 - decay)
        seconds += time.monotonic() - begin
        if step % 100 == 0:
            print(f"{step:7d} {seconds / 60:7.1f} min  loss {loss.item():.3f}  bpp {shown['bpp']:.3f} "
                  f"(z {shown['z_bpp']:.4f})  |g| {norm.item():.2f}", file=sys.stderr)  # fmt: skip
        if time.monotonic() - last_check > 60 * c.validate_minutes:
            report(step + 1)
            last_check = time.monotonic()
        if time.monotonic() - last_save > 60 * c.save_minutes:
            save(step + 1)
            last_save = time.monotonic()
    save(step)
    report(step)
    return state_path
