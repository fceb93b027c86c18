"""Training of the post-filter: one visible loop.

    vidcodec train filter --config FILE [--resume DIR]

Resumable as the codec's training is: the run folder holds `state.pt`, `log.jsonl` and
`config.json`, data are functions of (seed, step), and Ctrl-C and SIGTERM leave the state of
the last complete step behind. The training pairs are made first, once, from photographs
(`vidcodec.training.filter_data`).
"""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidcodec.errors import TrainingError
from vidcodec.postfilter.network import PROFILES, Filter, freeze_multipliers
from vidcodec.training.codec import load_state, uninterrupted, write_atomically
from vidcodec.training.filter_data import Pairs, prepare_pairs

# In the loss and the reported figure: the usual 6:1:1.
PSNR_WEIGHTS = (0.75, 0.125, 0.125)
FLOOR = (0.25 / 255) ** 2  # of an error in the loss: what is that good needs no filter


@dataclass(frozen=True)
class FilterTrainConfig:
    """One training run.

    data: folder of photographs. pairs: folder of the training pairs; `clips` of them are made
    where there are fewer. out: the run's folder. profile: 'small' or 'base'. steps or minutes
    ends the run and shapes the learning rate, as in `vidcodec.training.codec`. start: the
    folder of a run to take the weights from. crop: in luma samples.

    Raises TrainingError for an entry of the wrong type or out of its range.
    """

    data: str
    pairs: str
    out: str
    profile: str = "base"
    clips: int = 2400
    steps: int | None = None
    minutes: float | None = None
    batch: int = 8
    crop: int = 128
    lr: float = 2e-3
    warmup: int = 100
    clip: float = 0.5
    ema: float = 0.998
    seed: int = 1
    start: str | None = None
    validate_minutes: float = 3.0
    save_minutes: float = 3.0
    threads: int = 1

    def __post_init__(self) -> None:
        for f in fields(self):
            kind, _, optional = str(f.type).partition(" | ")
            types, name = _TYPES[kind]
            value = getattr(self, f.name)
            if (value is not None or not optional) and (isinstance(value, bool) or not isinstance(value, types)):
                raise TrainingError(f"'{f.name}' in the training configuration must be {name}, not {value!r}")
        if (self.steps is None) == (self.minutes is None):
            raise TrainingError("give either steps or minutes in the training configuration")
        if self.profile not in PROFILES:
            raise TrainingError(f"'profile' must be {' or '.join(PROFILES)}, not {self.profile!r}")
        if not 32 <= self.crop <= 256 or self.crop % 2:
            raise TrainingError(f"'crop' must be an even number from 32 to 256, not {self.crop}")
        for name in ("steps", "minutes", "clips", "batch", "lr", "clip", "threads"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise TrainingError(f"'{name}' must be above zero, not {value!r}")
        if not 0 <= self.ema < 1:
            raise TrainingError(f"'ema' must be from 0 to below 1, not {self.ema!r}")

    @classmethod
    def from_file(cls, path: Path) -> FilterTrainConfig:
        try:
            raw = json.loads(Path(path).read_text())
        except (OSError, ValueError, RecursionError) as e:
            raise TrainingError(f"cannot read the training configuration {path}: {e}") from e
        if not isinstance(raw, dict):
            raise TrainingError(f"the training configuration {path} must be a JSON object")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(raw) - known):
            raise TrainingError(f"unknown entries in {path}: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        if missing := [name for name in ("data", "pairs", "out") if name not in raw]:
            raise TrainingError(f"{path} must name {', '.join(repr(m) for m in missing)}")
        return cls(**raw)


_TYPES: dict[str, Any] = {"str": (str, "a string"), "int": (int, "a whole number"), "float": ((int, float), "a number")}


def plane_mse(planes: Tensor, source: Tensor) -> Tensor:
    """(B, 6, ., .) twice to mean squared errors of Y, U, V: (B, 3)."""
    error = (planes - source).square().mean((2, 3))
    return torch.stack([error[:, :4].mean(1), error[:, 4], error[:, 5]], 1)


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


def learning_rate(c: FilterTrainConfig, step: int, seconds: float) -> float:
    """Linear warm-up, cosine to zero."""
    progress = step / c.steps if c.steps else seconds / (60 * (c.minutes or 1))
    return c.lr * min(1.0, (step + 1) / max(1, c.warmup)) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def train_filter(c: FilterTrainConfig, *, resume: bool = False) -> Path:
    """Run (or continue) one training; returns the path of the final state.

    Raises TrainingError when the data or the state to resume cannot be read. On
    KeyboardInterrupt the state is saved first.
    """
    out = Path(c.out)
    state_path = out / "state.pt"
    if state_path.exists() and not resume:
        raise TrainingError(f"{out} already holds a run; give --resume {out} to continue it, or another 'out'")
    torch.set_num_threads(c.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(c.seed)
    cpu = torch.device("cpu")
    network = Filter(PROFILES[c.profile]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze_multipliers(network)
    done, seconds = 0, 0.0
    optimiser = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad], lr=c.lr, betas=(0.9, 0.99), weight_decay=0.0
    )
    try:
        if resume and state_path.exists():
            state = load_state(state_path, cpu)
            network.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            done, seconds = int(state["step"]), float(state["seconds"])
            print(f"resumed at step {done} after {seconds / 60:.1f} min", file=sys.stderr)
        elif c.start:
            network.load_state_dict(load_state(Path(c.start) / "state.pt", cpu)["average"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise TrainingError(f"the saved weights do not fit the profile '{c.profile}': {reason}") from e
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    if resume and state_path.exists():
        average = state["average"]

    prepare_pairs(Path(c.data), Path(c.pairs), c.clips, seed=c.seed)
    pairs = Pairs(Path(c.pairs))
    checks = pairs.checks()
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "config.json", lambda p: p.write_text(json.dumps(asdict(c), indent=1) + "\n"))
    except OSError as e:
        raise TrainingError(f"cannot write to the run's folder {out}: {e.strerror or e}") from e

    def save() -> None:
        state = {
            "model": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average,
            "step": done, "seconds": seconds, "config": {"profile": c.profile, **network.config.to_dict()},
        }  # fmt: skip
        write_atomically(state_path, lambda p: torch.save(state, p))

    def report() -> None:
        averaged = copy.deepcopy(network)
        averaged.load_state_dict(average)
        row = {"step": done, "minutes": round(seconds / 60, 2), "samples": done * c.batch, **validate(averaged, checks)}
        with (out / "log.jsonl").open("a") as f:
            f.write(json.dumps(row) + "\n")
        print(json.dumps(row), file=sys.stderr, flush=True)

    last_save = last_check = time.monotonic()
    shown = 0.0
    try:
        for step, decoded, source, qp in pairs.batches(seed=c.seed, start=done, batch=c.batch, crop=c.crop):
            if (c.steps and step >= c.steps) or (c.minutes and seconds >= 60 * c.minutes):
                break
            begin = time.monotonic()
            decoded, source = (x.contiguous(memory_format=torch.channels_last) for x in (decoded, source))
            with torch.autocast("cpu", torch.bfloat16):
                loss = filter_loss(network, decoded, source, qp)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), c.clip)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(c, step, seconds)
            with uninterrupted(), torch.no_grad():
                if torch.isfinite(norm):
                    optimiser.step()
                decay = min(c.ema, (step + 1) / (step + 10))
                for k, v in network.state_dict().items():
                    average[k].lerp_(v, 1 - decay)
                done, seconds = step + 1, seconds + time.monotonic() - begin
            shown = loss.item() if step == 0 else 0.98 * shown + 0.02 * loss.item()
            if step % 100 == 0:
                print(f"{step:7d} {seconds / 60:7.1f} min  gain {-shown:+.3f} dB  |g| {norm.item():.2f}",
                      file=sys.stderr, flush=True)  # fmt: skip
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
    return state_path


def export_filter(folder: Path, output: Path) -> tuple[int, bytes]:
    """Write the averaged weights of a run as a checkpoint; returns the step and the digest.

    Raises TrainingError when the run cannot be read.
    """
    from vidcodec.postfilter.checkpoint import save_filter  # safetensors: not needed to train

    path = folder / "state.pt"
    if not path.is_file():
        raise TrainingError(f"{folder} holds no training run (no state.pt): give the folder 'out' of its configuration")
    state = load_state(path, torch.device("cpu"))
    try:
        network = Filter(PROFILES[state["config"]["profile"]])
        network.load_state_dict(state["average"])
        step = int(state["step"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise TrainingError(f"{path} cannot be read as the state of a filter's training: {reason}") from e
    return step, save_filter(network, output, note=f"step {step}")
