"""What all trainings share: their configuration, their state on disk and their pace.

A trainer derives its configuration from `RunConfig` and keeps its loop in sight:

    run = Run(c, build, checkpoint, resume=resume)
    data = ...
    with run.recorded(lambda network: validate(network, checks)):
        for step, *batch in run.paced(batches(seed=c.seed, start=run.done, ...)):
            loss = ...
            norm = run.step(loss)
    return run.state_path

The run's folder holds `state.pt` (weights, optimiser, average, step, seconds, the network's
configuration), `log.jsonl` (one line per validation) and `config.json`. With data that are
functions of (seed, step, worker) a resumed run continues as the uninterrupted one would have.
Ctrl-C and SIGTERM leave the state of the last complete step behind.
"""

from __future__ import annotations

import copy
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from vidcodec.denormals import flushed_denormals
from vidcodec.errors import TrainingError, first_line
from vidcodec.files import replacing, write_whole
from vidcodec.training.workers import Workers

if TYPE_CHECKING:
    from vidcodec.checkpoint import Format

Network = TypeVar("Network", bound=nn.Module)
Item = TypeVar("Item")

# What loading weights of another network raises.
MISFITS = (KeyError, TypeError, ValueError, RuntimeError, AttributeError)


# ------------------------------------------------------------------------ configuration


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run; a trainer adds its own entries and their checks to it.

    data: folder of pictures. out: the run's folder. steps or minutes ends the run and shapes the learning rate (linear
    warm-up, then constant, a cosine to zero over the last share `decay`); with `minutes` the schedule follows the
    clock, with `steps` it is exactly repeatable. batch: crops per worker and step. crop: their
    side in luma samples. clip: the largest norm of a gradient. ema: how much of the average of
    the weights a step leaves. start: weights to start from, a run's folder, its state.pt or a
    .safetensors checkpoint.

    Entries are of type str, int, float or dict, or one of these or None.
    Raises TrainingError for an entry of the wrong type or out of its range.
    """

    REQUIRED: ClassVar[dict[str, str]] = {"data": "the folder of pictures", "out": "the folder of the run"}

    data: str
    out: str
    steps: int | None = None
    minutes: float | None = None
    batch: int = 8
    crop: int = 192
    lr: float = 1e-3
    warmup: int = 200
    decay: float = 1.0
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 1
    start: str | None = None
    validate_minutes: float = 5.0
    save_minutes: float = 4.0
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
        self.check_above_zero("steps", "minutes", "batch", "lr", "clip", "threads")
        if not 0 < self.decay <= 1:
            raise TrainingError(f"'decay' must be above 0 and at most 1, not {self.decay!r}")
        self.check_not_negative("warmup", "seed", "validate_minutes", "save_minutes")
        if not 0 <= self.ema < 1:
            raise TrainingError(f"'ema' must be from 0 to below 1, not {self.ema!r}")

    def check_above_zero(self, *names: str) -> None:
        """Raise TrainingError for an entry that is neither None nor a finite number above zero."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise TrainingError(f"'{name}' must be above zero, not {value!r}")

    def check_not_negative(self, *names: str) -> None:
        """Raise TrainingError for an entry below zero."""
        for name in names:
            if not getattr(self, name) >= 0:
                raise TrainingError(f"'{name}' must not be negative, not {getattr(self, name)!r}")

    def check_choices(self, **known: Collection[str]) -> None:
        """Raise TrainingError for an entry that is none of those known."""
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise TrainingError(f"'{name}' must be one of {', '.join(choices)}, not {getattr(self, name)!r}")

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The configuration in a JSON file; raises TrainingError when it holds none."""
        try:
            raw = json.loads(Path(path).read_text())
        except (OSError, ValueError, RecursionError) as e:
            raise TrainingError(f"cannot read the training configuration {path}: {e}") from e
        if not isinstance(raw, dict):
            raise TrainingError(f"the training configuration {path} must be a JSON object")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(raw) - known):
            raise TrainingError(f"unknown entries in {path}: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        if missing := [name for name in cls.REQUIRED if name not in raw]:
            meaning = ", ".join(f"'{name}' is {what}" for name, what in cls.REQUIRED.items())
            raise TrainingError(f"{path} must name {' and '.join(repr(m) for m in missing)}: {meaning}")
        return cls(**raw)


@dataclass(frozen=True, kw_only=True)
class PictureRunConfig(RunConfig):
    """A run on photographs.

    model: entries of the network's configuration that differ from its usual ones. holdout: a quarter as many pictures
    are left out of training and validated on, never more than one in five. device: auto, cpu or cuda.

    Raises TrainingError for an entry of the wrong type or out of its range.
    """

    model: dict = field(default_factory=dict)
    holdout: int = 48
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choices(device=("auto", "cpu", "cuda"))
        self.check_not_negative("holdout")


def described(build: Callable[[], Network]) -> Network:
    """The network that 'model' in a configuration describes; raises TrainingError where there is none."""
    try:
        return build()
    except (*MISFITS, IndexError, ZeroDivisionError) as e:
        raise TrainingError(f"'model' in the training configuration describes no network: {first_line(e)}") from e


_TYPES: dict[str, tuple[Any, str]] = {
    "str": (str, "a string"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "dict": (dict, "an object"),
}


def learning_rate(c: RunConfig, step: int, seconds: float) -> float:
    """Linear warm-up, then `lr`, over the last share `decay` of the run's steps or seconds a cosine to zero."""
    progress = step / c.steps if c.steps else seconds / (60 * (c.minutes or 1))
    warm = min(1.0, (step + 1) / max(1, c.warmup))
    falling = 1 + (progress - 1) / c.decay
    return c.lr * warm * 0.5 * (1 + math.cos(math.pi * min(max(falling, 0.0), 1.0)))


# -------------------------------------------------------------------------------- state


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """What a run saved; raises TrainingError for anything else."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        missing = [name for name, kind in _STATE.items() if not isinstance(state.get(name), kind)]
    except Exception as e:  # whatever torch's readers of several formats stumble over
        raise TrainingError(f"{path} cannot be read as the state of a training run: {first_line(e)}") from e
    if missing:
        raise TrainingError(f"{path} is not the state of a training run: it holds no {', '.join(missing)}")
    return state


_STATE: dict[str, type] = {
    "model": dict,
    "optimiser": dict,
    "average": dict,
    "step": int,
    "seconds": float,
    "config": dict,
}


def load_run(folder: Path) -> dict[str, Any]:
    """The state in a run's folder, on the CPU; raises TrainingError where there is none."""
    path = folder / "state.pt"
    if not path.is_file():
        raise TrainingError(f"{folder} holds no training run (no state.pt): give the folder 'out' of its configuration")
    return load_state(path, torch.device("cpu"))


def export_weights(state: dict[str, Any], kind: Format[Any], output: Path) -> bytes:
    """Write the averaged weights of a run's state as a checkpoint; returns its digest.

    Raises TrainingError when the state is not one of such a network.
    """
    from vidcodec.checkpoint import write_checkpoint  # safetensors: not needed to train

    try:
        network = kind.build(state["config"])
        network.load_state_dict(state["average"])
    except MISFITS as e:
        raise TrainingError(f"the run's averaged weights do not fit its network: {first_line(e)}") from e
    return write_checkpoint(kind, network, state["config"], output, note=f"step {state['step']}")


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C, SIGTERM and SIGHUP back until the block is complete, where they have handlers in Python."""
    held: list[tuple[int, Any]] = []
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if callable(signal.getsignal(each)):
                previous[each] = signal.signal(each, lambda n, frame: held.append((n, frame)))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    for number, frame in held:
        previous[number](number, frame)


# -------------------------------------------------------------------------------- a run


class Run(Generic[Network]):
    """One training on its way: a network, its optimiser (AdamW), the average of its weights, its time.

    c: the configuration. build: makes the network, and says what configuration goes into the
    state; called once, torch seeded. checkpoint: gives the kind of .safetensors file that `start`
    may name. device: auto, cpu or cuda. resume: go on with the state in `c.out`, where there is one.

    done: complete steps. seconds: what they took; drawing batches, checks and saves do not count.
    kept: tensors of the trainer's own that the state holds too.

    Raises TrainingError for a folder that holds a run already, for weights or a state that
    cannot be read or do not fit, and where there is no such device.
    """

    def __init__(
        self,
        c: RunConfig,
        build: Callable[[], tuple[Network, dict[str, Any]]],
        checkpoint: Callable[[], Format[Network]],
        *,
        device: str = "cpu",
        resume: bool = False,
    ) -> None:
        self.c, self.folder = c, Path(c.out)
        self.state_path = self.folder / "state.pt"
        resume = resume and self.state_path.exists()
        if self.state_path.exists() and not resume:
            raise TrainingError(f"{c.out} already holds a run: resume it, or give another 'out'")
        if device == "cuda" and not torch.cuda.is_available():
            raise TrainingError("no CUDA device here; use device cpu")
        self.workers = Workers(device)
        self.device = self.workers.device
        if self.device.type == "cpu":
            torch.set_num_threads(c.threads)
        torch.manual_seed(c.seed)
        network, self.config = build()
        self.network: Network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=c.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        self.done, self.seconds = 0, 0.0
        self.kept: dict[str, Tensor] = {}
        if c.start and not resume:
            self._start(Path(c.start), checkpoint)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        if resume:
            self._resume()

    @property
    def fresh(self) -> bool:
        """Whether the network is as `build` made it."""
        return not self.done and not self.c.start

    # ----------------------------------------------------------------------- its loop

    @contextmanager
    def recorded(
        self, validate: Callable[[Network], dict[str, Any]], said: Callable[[dict[str, Any]], str] = json.dumps
    ) -> Iterator[None]:
        """Keep the run on disk around its loop: folder and configuration before, state and last check after.

        validate: the figures of the averaged network, one line of `log.jsonl`. said: these
        figures as progress. On KeyboardInterrupt the state is saved, and the interrupt goes on.
        Raises TrainingError when the folder cannot be written.
        """
        self._validate, self._said = validate, said
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.workers.first:
                write_whole(self.folder / "config.json", json.dumps(asdict(self.c), indent=1) + "\n")
        except OSError as e:
            raise TrainingError(f"cannot write to the run's folder {self.folder}: {e.strerror or e}") from e
        with flushed_denormals():
            try:
                yield
            except KeyboardInterrupt:
                self._save()
                print(f"stopped after step {self.done}; the state is saved", file=sys.stderr)
                raise
            self._save()
            self._check()
        self.workers.close()

    def paced(self, source: Iterator[Item]) -> Iterator[Item]:
        """The batches of a source that begins at step `done`, until the run's end; checks and saves when due.

        torch's own randomness within a step becomes a function of (seed, step, worker).
        To be used inside `recorded`, with one call of `step` per batch.
        """
        c, last_save = self.c, time.monotonic()
        last_check = last_save
        for item in source:
            self.seconds = self.workers.agree(self.seconds)
            if (c.steps and self.done >= c.steps) or (c.minutes and self.seconds >= 60 * c.minutes):
                break
            self._begin = time.monotonic()
            torch.manual_seed((c.seed * 1_000_003 + self.done) * self.workers.count + self.workers.rank)
            yield item
            if time.monotonic() - last_check > 60 * c.validate_minutes:
                self._check()
                last_check = time.monotonic()
            if time.monotonic() - last_save > 60 * c.save_minutes:
                self._save()
                last_save = time.monotonic()

    def step(self, loss: Tensor) -> float:
        """One step down the gradient of a loss, averaged over the workers; returns the gradient's norm.

        A gradient that is not finite changes nothing. Signals wait until the step is complete.
        """
        c = self.c
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.workers.average_gradients(list(self.parameters))
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, c.clip))
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(c, self.done, self.seconds)
        with uninterrupted(), torch.no_grad():
            if math.isfinite(norm):
                self.optimiser.step()
            decay = min(c.ema, (self.done + 1) / (self.done + 10))
            torch._foreach_lerp_(list(self.average.values()), list(self.network.state_dict().values()), 1 - decay)
            self.done, self.seconds = self.done + 1, self.seconds + time.monotonic() - self._begin
        return norm

    def tell(self, step: int, text: str) -> None:
        """A line of progress, from the first worker."""
        if self.workers.first:
            print(f"{step:7d} {self.seconds / 60:7.1f} min  {text}", file=sys.stderr, flush=True)

    # --------------------------------------------------------------------- its state

    def _start(self, start: Path, checkpoint: Callable[[], Format[Network]]) -> None:
        """Take the weights of another run's average, or of a checkpoint."""
        path = start / "state.pt" if start.is_dir() else start
        if not path.is_file():
            raise TrainingError(
                f"no weights to start from at {path}; 'start' is a run's folder, state.pt or .safetensors"
            )
        if path.suffix == ".safetensors":
            from vidcodec.checkpoint import read_checkpoint  # safetensors: not needed to train

            weights = read_checkpoint(checkpoint(), path)[0].state_dict()
        else:
            weights = load_state(path, self.device)["average"]
        try:
            self.network.load_state_dict(weights)
        except MISFITS as e:
            raise TrainingError(f"the weights of {start} do not fit the network to train: {first_line(e)}") from e

    def _resume(self) -> None:
        """Take over the state in the run's folder."""
        state = load_state(self.state_path, self.device)
        try:
            if state["config"] != self.config:
                raise ValueError("its network has another shape than the one to train")
            self.network.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.average = {k: state["average"][k] for k in self.average}
            self.done, self.seconds = int(state["step"]), float(state["seconds"])
            self.kept = dict(state.get("kept", {}))
        except MISFITS as e:
            raise TrainingError(f"{self.state_path} does not fit the configuration: {first_line(e)}") from e
        print(f"resumed at step {self.done} after {self.seconds / 60:.1f} min", file=sys.stderr)

    def _save(self) -> None:
        if not self.workers.first:
            return
        state = {
            "model": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "step": self.done,
            "seconds": self.seconds,
            "config": self.config,
            "kept": self.kept,
        }
        with replacing(self.state_path) as partial:
            torch.save(state, partial)

    def _check(self) -> None:
        """Validate the averaged network; the figures go to the log and to stderr."""
        if not self.workers.first:
            return
        averaged = copy.deepcopy(self.network)
        averaged.load_state_dict(self.average)
        figures = self._validate(averaged)
        samples = self.done * self.c.batch * self.workers.count
        row = {"step": self.done, "minutes": round(self.seconds / 60, 2), "samples": samples, **figures}
        with (self.folder / "log.jsonl").open("a") as f:
            f.write(json.dumps(row) + "\n")
        self.tell(self.done, self._said(figures))
