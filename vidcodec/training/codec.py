"""Training of the base model: one visible loop.

    vidcodec train codec --config FILE [--resume DIR]

Resumable: the run folder holds `state.pt` (weights, optimiser, average, step, seconds),
`log.jsonl` (one line per validation) and `config.json`. Data and noise are functions of
(seed, step, worker), so a resumed run continues as the uninterrupted one would have. Ctrl-C
and SIGTERM leave the state of the last complete step behind.

Several GPUs or machines: `torchrun --nproc-per-node N -m vidcodec train codec --config FILE`.
Every worker draws its own batches, gradients are averaged, the first one validates and saves.
"""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from vidcodec.errors import TrainingError
from vidcodec.models.msp import PROFILES, Msp, MspConfig, weighted_mse
from vidcodec.training.data import Planes, batches, load_pictures, planes_to_tensor

CHECK_SIDE = 256
CHECK_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the range of rate levels

Pictures = list[tuple[str, Planes]]


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    steps or minutes ends the run and shapes the learning rate (linear warm-up, cosine
    to zero); with `minutes` the schedule follows the clock, with `steps` it is exactly
    repeatable. profile: small, base or large; model: entries of MspConfig that differ from
    it. batch: crops per worker and step. start: weights to start from, a run's folder, its state.pt or a
    .safetensors checkpoint. holdout: a quarter as many pictures are left out of training
    and validated on, never more than one in five.

    Raises TrainingError for an entry of the wrong type or out of its range.
    """

    data: str
    out: str
    profile: str = "base"
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
        for f in fields(self):
            kind, _, optional = str(f.type).partition(" | ")
            value, types = getattr(self, f.name), _TYPES[kind]
            if (value is not None or not optional) and (isinstance(value, bool) or not isinstance(value, types)):
                raise TrainingError(f"'{f.name}' in the training configuration must be {_NAMES[kind]}, not {value!r}")
        if (self.steps is None) == (self.minutes is None):
            raise TrainingError("give either steps or minutes in the training configuration")
        if self.device not in ("auto", "cpu", "cuda"):
            raise TrainingError(f"'device' must be auto, cpu or cuda, not {self.device!r}")
        if self.profile not in PROFILES:
            raise TrainingError(f"'profile' must be one of {', '.join(PROFILES)}, not {self.profile!r}")
        if self.crop < 64 or self.crop % 16:
            raise TrainingError(f"'crop' must be a multiple of 16 from 64 on, not {self.crop}")
        for name in ("steps", "minutes", "batch", "lr", "clip", "threads"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise TrainingError(f"'{name}' must be above zero, not {value!r}")
        for name in ("warmup", "holdout", "seed", "validate_minutes", "save_minutes"):
            if not getattr(self, name) >= 0:
                raise TrainingError(f"'{name}' must not be negative, not {getattr(self, name)!r}")
        if not 0 <= self.ema < 1:
            raise TrainingError(f"'ema' must be from 0 to below 1, not {self.ema!r}")

    @classmethod
    def from_file(cls, path: Path) -> TrainConfig:
        try:
            raw = json.loads(Path(path).read_text())
        except (OSError, ValueError, RecursionError) as e:
            raise TrainingError(f"cannot read the training configuration {path}: {e}") from e
        if not isinstance(raw, dict):
            raise TrainingError(f"the training configuration {path} must be a JSON object")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(raw) - known):
            raise TrainingError(f"unknown entries in {path}: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        if missing := [name for name in ("data", "out") if name not in raw]:
            raise TrainingError(f"{path} must name {' and '.join(repr(m) for m in missing)}: {_MEANING}")
        return cls(**raw)


_TYPES: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "dict": dict}
_NAMES = {"str": "a string", "int": "a whole number", "float": "a number", "dict": "an object"}
_MEANING = "'data' is the folder of pictures, 'out' the folder of the run"


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
    warm = min(1.0, (step + 1) / max(1, c.warmup))
    return c.lr * warm * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


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


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(path.name + ".part")
    write(partial)
    os.replace(partial, path)


# ------------------------------------------------------------------------ parts of a run


def build_model(profile: str, changes: dict) -> Msp:
    """The network a configuration describes; raises TrainingError where there is none."""
    try:
        return Msp(MspConfig.from_dict({**PROFILES[profile].to_dict(), **changes}))
    except (TypeError, ValueError, KeyError, IndexError, RuntimeError, ZeroDivisionError) as e:
        raise TrainingError(f"'model' in the training configuration describes no network: {_reason(e)}") from e


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """What `train` saved; raises TrainingError for anything else."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        missing = [k for k in ("model", "optimiser", "average", "step", "seconds", "config") if k not in state]
    except Exception as e:  # whatever torch's readers of several formats stumble over
        raise TrainingError(f"{path} cannot be read as the state of a training run: {_reason(e)}") from e
    if missing:
        raise TrainingError(f"{path} is not the state of a training run: it holds no {', '.join(missing)}")
    return state


def start_weights(start: Path, device: torch.device) -> dict[str, Tensor]:
    """The weights another training begins with: a run's average, or a checkpoint's."""
    if start.suffix == ".safetensors":
        from vidcodec.models.checkpoint import load_model

        return load_model(weights=start)[0].state_dict()
    path = start / "state.pt" if start.is_dir() else start
    if not path.is_file():
        raise TrainingError(f"no weights to start from at {path}; 'start' is a run's folder, state.pt or .safetensors")
    return load_state(path, device)["average"]


def split_pictures(pictures: Pictures, holdout: int) -> tuple[Pictures, Pictures]:
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


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C, SIGTERM and SIGHUP back until the block is complete, where they have handlers in Python."""
    held: list[tuple[int, Any]] = []
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and callable(signal.getsignal(number)):
                previous[number] = signal.signal(number, lambda n, frame: held.append((n, frame)))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    for number, frame in held:
        previous[number](number, frame)


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# ------------------------------------------------------------------------ several workers


class Workers:
    """The processes of a `torchrun`, or this one alone."""

    def __init__(self, device: str) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
        local = int(os.environ.get("LOCAL_RANK", "0")) % max(1, torch.cuda.device_count() if cuda else 1)
        self.device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if self.count > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if cuda else "gloo")

    @property
    def first(self) -> bool:
        return self.rank == 0

    def average_gradients(self, parameters: list[Tensor]) -> None:
        """Replace every gradient by its mean over the workers."""
        grads = [p.grad for p in parameters if p.grad is not None]
        if self.count == 1 or not grads:
            return
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        flat /= self.count
        for g, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            g.copy_(part.view_as(g))

    def agree(self, value: float) -> float:
        """The first worker's value."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return float(shared)

    def close(self) -> None:
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()


# -------------------------------------------------------------------------- the training


def train(c: TrainConfig, *, resume: bool = False) -> Path:
    """Run (or continue) one training; returns the path of the final state.

    Raises TrainingError when the data or the state to resume cannot be read. On
    KeyboardInterrupt the state is saved first.
    """
    out = Path(c.out)
    state_path = out / "state.pt"
    if state_path.exists() and not resume:
        raise TrainingError(f"{out} already holds a run; give --resume {out} to continue it, or another 'out'")
    if c.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("no CUDA device here; use device cpu")
    workers = Workers(c.device)
    device = workers.device
    if device.type == "cpu":
        torch.set_num_threads(c.threads)
        torch.set_flush_denormal(True)
    torch.manual_seed(c.seed)
    model = build_model(c.profile, c.model).to(device).to(memory_format=torch.channels_last)
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=c.lr, betas=(0.9, 0.99), weight_decay=0.0)
    done, seconds = 0, 0.0
    if resume and state_path.exists():
        state = load_state(state_path, device)
        try:
            if MspConfig.from_dict(state["config"]) != model.config:
                raise ValueError("its network has another shape than 'model' in the configuration")
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            average = {k: state["average"][k] for k in average}
            done, seconds = int(state["step"]), float(state["seconds"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as e:
            raise TrainingError(f"{state_path} does not fit the configuration: {_reason(e)}") from e
        print(f"resumed at step {done} after {seconds / 60:.1f} min", file=sys.stderr)
    elif c.start:
        try:
            model.load_state_dict(start_weights(Path(c.start), device))
        except (TypeError, RuntimeError, AttributeError) as e:
            raise TrainingError(f"the weights of {c.start} do not fit 'model': {_reason(e)}") from e
        average = {k: v.detach().clone() for k, v in model.state_dict().items()}

    held, kept = split_pictures(load_pictures(Path(c.data), progress=workers.first), c.holdout)
    if not done and not c.start:
        _, planes, _ = next(batches(kept, seed=c.seed, start=0, batch=4 * c.batch, crop=c.crop))
        model.calibrate(planes.to(device))
    checks = [x.to(device, memory_format=torch.channels_last) for x in check_crops(held, kept)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        if workers.first:
            write_atomically(out / "config.json", lambda p: p.write_text(json.dumps(asdict(c), indent=1) + "\n"))
    except OSError as e:
        raise TrainingError(f"cannot write to the run's folder {out}: {e.strerror or e}") from e

    def save() -> None:
        if not workers.first:
            return
        state = {
            "model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average,
            "step": done, "seconds": seconds, "config": model.config.to_dict(),
        }  # fmt: skip
        write_atomically(state_path, lambda p: torch.save(state, p))

    def report() -> None:
        if not workers.first:
            return
        averaged = copy.deepcopy(model)
        averaged.load_state_dict(average)
        row = {"step": done, "minutes": round(seconds / 60, 2), "samples": done * c.batch * workers.count,
               **validate(averaged, checks)}  # fmt: skip
        with (out / "log.jsonl").open("a") as f:
            f.write(json.dumps(row) + "\n")
        points = "  ".join(f"{b:.3f}/{d:.2f}" for b, d, _ in row["points"])
        print(f"{done:7d} {seconds / 60:7.1f} min  score {row['score']:+.4f}  bpp/dB {points}", file=sys.stderr)

    last_save = last_check = time.monotonic()
    source = batches(kept, seed=c.seed, start=done, batch=c.batch, crop=c.crop, worker=workers.rank)
    try:
        for step, planes, rng in source:
            seconds = workers.agree(seconds)
            if (c.steps and step >= c.steps) or (c.minutes and seconds >= 60 * c.minutes):
                break
            begin = time.monotonic()
            torch.manual_seed((c.seed * 1_000_003 + step) * workers.count + workers.rank)
            planes = planes.to(device, memory_format=torch.channels_last)
            level = torch.from_numpy(rng.uniform(0, model.config.levels - 1, c.batch).astype(np.float32)).to(device)
            with torch.autocast(device.type, torch.bfloat16):
                loss, shown = rd_loss(model, planes, level)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            workers.average_gradients(list(model.parameters()))
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), c.clip)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(c, step, seconds)
            with uninterrupted(), torch.no_grad():
                if torch.isfinite(norm):
                    optimiser.step()
                decay = min(c.ema, (step + 1) / (step + 10))
                for k, v in model.state_dict().items():
                    average[k].lerp_(v, 1 - decay)
                done, seconds = step + 1, seconds + time.monotonic() - begin
            if step % 100 == 0 and workers.first:
                print(f"{step:7d} {seconds / 60:7.1f} min  loss {loss.item():.3f}  bpp {shown['bpp']:.3f} "
                      f"(z {shown['z_bpp']:.4f})  |g| {norm.item():.2f}", file=sys.stderr)  # fmt: skip
            if time.monotonic() - last_check > 60 * c.validate_minutes:
                report()
                last_check = time.monotonic()
            if time.monotonic() - last_save > 60 * c.save_minutes:
                save()
                last_save = time.monotonic()
    except KeyboardInterrupt:
        save()
        print(f"stopped after step {done}; the state is saved", file=sys.stderr)
        raise
    save()
    report()
    workers.close()
    return state_path
