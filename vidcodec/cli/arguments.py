"""Types of options, options that commands share, and checks of paths before any work."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from vidcodec.errors import InputError, OutputError, UnsupportedInputError
from vidcodec.updates.strategy import Strategy

if TYPE_CHECKING:
    from vidcodec.video import Sampling

SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmg]?)(i?)(b?)\s*", re.ASCII | re.IGNORECASE)
TIME = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d*)?|\.\d+)", re.ASCII)
LARGEST_SIZE = 1 << 50

Fail = argparse.ArgumentTypeError


def frames_per_second(text: str) -> Fraction | None:
    """'2', '0.5', '30000/1001', or 'source' (None) for every frame."""
    if text.lower() == "source":
        return None
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise Fail(f"{text!r} is no frame rate: give frames per second like 2, 0.5 or 30000/1001, or source") from None
    if not 0 < rate <= 100_000:
        raise Fail(f"{text!r}: frames per second must be above zero; for one frame in 10 s give 0.1")
    return rate


def seconds(text: str) -> float:
    """Seconds, or [hh:]mm:ss, with decimals."""
    match = TIME.fullmatch(text.strip())
    if not match:
        raise Fail(f"{text!r} is no time: give seconds like 90 or 12.5, or [hh:]mm:ss like 1:30")
    hours, minutes, rest = match.groups()
    if minutes is not None and not (float(rest) < 60 and (hours is None or int(minutes) < 60)):
        raise Fail(f"{text!r} is no time: minutes and seconds go up to 59")
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(rest)


def duration(text: str) -> float:
    """A time above zero."""
    if not (value := seconds(text)) > 0:
        raise Fail(f"{text!r}: the duration must be above zero")
    return value


def size_in_bytes(text: str) -> int:
    """'3MB' (3 000 000), '1.5MiB' (1 572 864), '500k' or plain bytes."""
    match = SIZE.fullmatch(text)
    if not match or (match[3] and not match[2]):
        raise Fail(f"{text!r} is no size: give bytes, or a number with kB, MB, GB, KiB, MiB or GiB, like 3MB")
    base = 1024 if match[3] else 1000
    size = round(Fraction(match[1]) * base ** " kmg".index(match[2].lower() or " "))
    if not 1 <= size <= LARGEST_SIZE:
        raise Fail(f"{text!r}: the size must be at least one byte" if size < 1 else f"{text!r} is beyond any file")
    return size


def frame_range(text: str) -> tuple[int, int | None]:
    """'A:B', 'A:', ':B' or 'A' to (first, one beyond the last or None)."""
    match = re.fullmatch(r"(\d*)(:?)(\d*)", text.strip(), re.ASCII)
    if not match or not (match[1] or match[3]):
        raise Fail(f"{text!r} is no range of frames: give A:B (A up to, not including B), A:, :B or A; from 0 on")
    first = int(match[1] or 0)
    if not match[2]:
        return first, first + 1
    stop = int(match[3]) if match[3] else None
    if stop is not None and stop <= first:
        raise Fail(f"{text!r} holds no frame: B is one beyond the last")
    return first, stop


def update_parameters(text: str) -> str:
    """A selection as `vidcodec.updates.strategy` reads them; whether a network has it shows later."""
    try:
        Strategy.parse(text)
    except UnsupportedInputError as e:
        raise Fail(str(e)) from None
    return text


def number(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """Type of a number from `low` (or above it) to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise Fail(f"{text!r} is no number") from None
        if not math.isfinite(value) or value < low or value > high or (above and value == low):
            limits = f"above {low:g}" if above else f"{low:g} or more" if math.isinf(high) else f"{low:g} to {high:g}"
            raise Fail(f"must be {limits}, not {text}")
        return value

    return parse


def whole(low: int, high: int) -> Callable[[str], int]:
    """Type of a whole number within [low, high]."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII) or not low <= int(text) <= high:
            raise Fail(f"must be a whole number from {low} to {high}, not {text!r}")
        return int(text)

    return parse


# ----------------------------------------------------------------------- shared options


NDJSON = "print NDJSON on stdout: progress events, at last one result event"


def add_overwrite(parser: argparse.ArgumentParser, what: str = "OUT where it exists") -> None:
    """--overwrite, with what it replaces."""
    parser.add_argument("--overwrite", "-y", action="store_true", help=f"replace {what}")


def add_fps(parser: argparse._ActionsContainer, default: str = "2") -> None:
    """--fps."""
    parser.add_argument(
        "--fps",
        type=frames_per_second,
        default=frames_per_second(default),
        metavar="RATE",
        help=f"frames per second to take, like 2, 0.5 or 30000/1001; source: every frame (default: {default})",
    )


def add_sampling(parser: argparse.ArgumentParser, default: str = "2") -> argparse._ArgumentGroup:
    """The options that say which frames are taken; see `sampling_of`. Returns their group."""
    which = parser.add_argument_group("which frames")
    rate = which.add_mutually_exclusive_group()
    add_fps(rate, default)
    rate.add_argument("--keyframes", action="store_true", help="take the source's own key frames instead")
    which.add_argument("--start", type=seconds, default=0.0, metavar="TIME", help="begin here: seconds or [hh:]mm:ss")
    which.add_argument("--duration", type=duration, metavar="TIME", help="end so much later (default: at the end)")
    return which


def sampling_of(args: argparse.Namespace) -> Sampling:
    """What the options of `add_sampling` say."""
    from vidcodec.video import Sampling

    return Sampling(args.fps, args.keyframes, args.start, args.duration)


def add_seed(parser: argparse._ActionsContainer, of: str = "of the random choices") -> None:
    """--seed."""
    parser.add_argument(
        "--seed", type=whole(0, (1 << 31) - 1), default=0, metavar="N", help=f"{of} (default: %(default)s)"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """--threads."""
    parser.add_argument(
        "--threads", type=whole(1, 1024), metavar="N", help="CPU threads to compute with (default: one per core)"
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--weights, --device and --threads."""
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="the model's weights from this file (.safetensors) instead of the shipped ones",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to compute; auto: a CUDA device where there is one (default: %(default)s)",
    )
    add_threads(parser)


def add_general_options(parser: argparse.ArgumentParser, *, json: str = "") -> None:
    """--json, with `json` saying what it prints, and --debug."""
    if json:
        parser.add_argument("--json", action="store_true", help=json)
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """--ray."""
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run on this Ray cluster ('auto': the one this machine belongs to), whose nodes have vidcodec and the "
        "same paths (pip install 'vidcodec[ray]'; see docs/clusters.md)",
    )


def use_threads(count: int | None) -> None:
    """Set the CPU threads of torch; None leaves them."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


# ----------------------------------------------------------------------------- paths


def check_input(path: Path) -> None:
    """Raise InputError for what is clearly no file, before anything slow begins."""
    if path.is_dir():
        raise InputError(f"{path} is a directory: give one file")
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name")


def check_input_folder(path: Path) -> None:
    """Raise InputError for what is clearly no folder, before anything slow begins."""
    if not path.is_dir():
        raise InputError(f"{path} is no directory: give the folder of the pictures")


def check_output(path: Path, *, overwrite: bool, source: Path | None = None, suffix: str | None = None) -> None:
    """Raise OutputError for a target that could not be written in the end, before any work.

    source: a file that must not be overwritten. suffix: the one the name must have.
    """
    if path.is_dir():
        name = source.with_suffix(suffix).name if source and suffix else f"NAME{suffix or ''}"
        raise OutputError(f"{path} is a directory: name the file in it, like {path / name}")
    check_directory(path.parent)
    if path.exists() and not path.is_file():
        return  # a device or a pipe, and the user knows
    if source is not None and path.exists() and os.path.samefile(path, source):
        raise OutputError(f"{path} is the input itself: give the output another name")
    if suffix and path.suffix.lower() != suffix:
        raise OutputError(f"{path} does not end in {suffix}: write {path.with_suffix(suffix)}")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already: give --overwrite to replace it, or another name")


def check_directory(path: Path) -> None:
    """Raise OutputError unless files can be made in a directory."""
    if not path.is_dir():
        raise OutputError(f"the directory {path} does not exist: create it first")
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(f"the directory {path} may not be written to: choose another with -o")
