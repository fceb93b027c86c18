"""What the measurement scripts share: results files, provenance, coding a clip for real, BD figures, tables.

Every script writes results/NAME.json and results/NAME.md. The JSON holds

    runs       who measured: command, commit, machine, versions, date
    points     one entry per measurement, with the number of its run
    summary    what follows from the points; computed anew at every run

A point is named by what was measured (content of the clip, options, content of the weights), never by the commit:
a run that was stopped goes on where it stopped. `--fresh` forgets the points.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import functools
import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from vidcodec.bitstream import BitstreamReader
from vidcodec.codec.decode import decode_video
from vidcodec.codec.encode import encode_video
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.planes import plane_errors
from vidcodec.evaluation import bdrate
from vidcodec.files import write_whole
from vidcodec.models.checkpoint import WEIGHTS, load_model
from vidcodec.video import Frame, Sampling, VideoFormat, VideoReader, yuv_to_rgb

REPOSITORY = Path(__file__).resolve().parent.parent
MODEL = EncodeOptions().model
PLANES = ("y", "u", "v", "rgb")
PLANE_WEIGHTS = (0.5, 0.25, 0.25)  # of Y, U, V in the cost, as the codec has them
Point = dict[str, Any]


def say(text: str) -> None:
    """A line of progress."""
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------ arguments


def parser(doc: str | None, *, threads: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that all scripts have; its help is the script's docstring."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint to measure (default: the shipped model)")
    p.add_argument("--results", type=Path, metavar="DIR", default=REPOSITORY / "results", help="default: results/")
    p.add_argument("--fresh", action="store_true", help="forget the points measured before")
    p.add_argument(
        "--budget",
        type=float,
        default=math.inf,
        metavar="MIN",
        help="begin no new point after so many minutes; a later run goes on (default: no limit)",
    )
    if threads:
        p.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch (default: %(default)s)")
    return p


def numbers(text: str) -> list[float]:
    """'30,60' as numbers."""
    return [float(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    """'none,full' as words."""
    return text.split(",")


def frame_rate(text: str) -> Fraction | None:
    """Frames per second, or 'source' for every frame."""
    return None if text == "source" else Fraction(text)


# ---------------------------------------------------------------------- where figures come from


def digest_of(path: Path) -> str:
    """First 16 hex digits of the sha256 of a file."""
    h = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            h.update(piece)
    return h.hexdigest()[:16]


def weights_digest(weights: Path | None) -> str:
    """Names the whole checkpoint, encoder included."""
    return digest_of(weights or WEIGHTS / f"{MODEL}.safetensors")


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def commit() -> str:
    """The commit measured; '+changes' where library or scripts differ from it."""
    changed = _git("status", "--porcelain", "--", "vidcodec", "scripts")
    return (_git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+changes" if changed else "")


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _plain(argument: str) -> str:
    """A command-line argument without the directories of its paths."""
    name, equals, value = argument.rpartition("=")
    return name + equals + (Path(value).name if "/" in value else value)


def provenance() -> Point:
    """Command, commit, machine, versions, date. No host names, no absolute paths."""
    return {
        "command": " ".join(["python", f"scripts/{Path(sys.argv[0]).name}", *map(_plain, sys.argv[1:])]),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),  # at the start: what else kept the cores busy
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


# --------------------------------------------------------------------------------- results


def write_atomically(path: Path, text: str) -> None:
    """A file of results, complete or not there, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def lock(path: Path) -> IO[str]:
    """Keeps a second process from the same results; held as long as the file given is open. SystemExit when taken."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    file = Path(tempfile.gettempdir(), f"vidcodec-results-{name}.lock").open("w")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SystemExit(f"another process is writing {path.name}: wait for it, or give another --results") from None
    return file


class Results:
    """results/NAME.json and .md: points measured once, kept from run to run.

    about: what is measured, for the reader of the files; may span several lines.
    """

    def __init__(self, name: str, about: str, args: argparse.Namespace) -> None:
        if getattr(args, "threads", None):
            torch.set_num_threads(args.threads)
        self.path: Path = args.results / f"{name}.json"
        self._lock = lock(self.path)
        self.about = " ".join(about.split())
        self.runs: list[Point] = []
        self.points: dict[str, Point] = {}
        if self.path.exists() and not args.fresh:
            found = json.loads(self.path.read_text())
            self.runs, self.points = found["runs"], found["points"]
        self._run = provenance()
        self._end = time.monotonic() + 60 * args.budget
        self.left_out = 0
        self.failures: list[str] = []
        self.asked: list[Point] = []  # the points of this call, in its order

    def point(self, key: Point, measure: Callable[[], Point]) -> Point | None:
        """The point named `key`: as measured before, else measured now. None when the time is up or it failed."""
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        label = ", ".join(f"{k} {v}" for k, v in key.items() if v is not None and not k.endswith("digest"))
        if name in self.points:
            say(f"known:  {label}")
        elif time.monotonic() >= self._end:
            self.left_out += 1
            say(f"no time left for: {label}")
            return None
        else:
            say(f"now:    {label}")
            try:
                figures = measure()
            except Exception as error:  # one point must not cost a night's other ones
                traceback.print_exc()
                self.failures.append(f"{label}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
                return None
            if self._run not in self.runs:
                self.runs.append(self._run)
            self.points[name] = {**key, **figures, "run": self.runs.index(self._run)}
            self._save({})
        self.asked.append(self.points[name])
        return self.points[name]

    def finish(self, summary: Point, markdown: str) -> None:
        """Write both files; exit with 1 where points failed. `markdown`: tables and remarks, without a heading."""
        self._save(summary)
        notes = [f"{self.left_out} points are still missing: run the command again."] if self.left_out else []
        if self.failures:
            notes.append("These points failed:\n\n" + "\n".join(f"- {failure}" for failure in self.failures))
        used = sorted({p["run"] for p in self.asked}) or range(len(self.runs))
        lines = [f"- {describe(self.runs[i])}" for i in used]
        text = "\n\n".join([self.about, markdown.strip(), *notes, "Measured by:", "\n".join(lines)])
        write_atomically(self.path.with_suffix(".md"), text + "\n")
        say(f"wrote {self.path.name} and {self.path.with_suffix('.md').name}")
        print("\n\n".join([markdown.strip(), *notes]))
        if self.failures:
            raise SystemExit(1)

    def _save(self, summary: Point) -> None:
        out: Point = {"about": self.about, "runs": self.runs, "points": self.points}
        out |= {"failures": self.failures, "summary": summary}
        write_atomically(self.path, json.dumps(out, indent=1) + "\n")


def describe(run: Point) -> str:
    """One line on a run."""
    return (
        f"`{run['command']}`, commit {run['commit']}, {run['date']}; {run['cpu']}, {run['cores']} cores, "
        f"{run['threads']} threads, load {run['load']} at the start; Python {run['python']}, torch {run['torch']}, "
        f"numpy {run['numpy']}"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns to the left. None is N/A."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join([":--"] * left + ["--:"] * (len(head) - left)) + "|"]
    lines += ["| " + " | ".join("N/A" if cell is None else str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def show(value: float | None, digits: int = 2, *, sign: bool = False) -> str | None:
    """A number for a table; None stays None (N/A)."""
    if value is None or not math.isfinite(value):
        return None
    return f"{value:{'+' if sign else ''},.{digits}f}"


# -------------------------------------------------------------------------- coding for real


def sampling(fps: Fraction | None, frames: int | None) -> Sampling:
    """`fps` frames a second, at most `frames` of them."""
    if frames is not None and fps is None:
        raise SystemExit("--frames needs a frame rate, not --fps source")
    return Sampling(fps=fps, duration=None if frames is None or fps is None else float(frames / fps))


def psnr(mse: float) -> float:
    """Decibels of an error on the scale of 0 to 1; 100 for a perfect match."""
    return min(100.0, -10 * math.log10(mse)) if mse > 0 else 100.0


def frame_errors(original: Frame, shown: Frame, format: VideoFormat, rgb: np.ndarray | None = None) -> np.ndarray:
    """Mean squared errors of Y, U, V, R'G'B' on the scale of 0 to 1; rgb: the original's, where it is better known."""
    peak = float((1 << format.bit_depth) - 1)
    a = yuv_to_rgb(original, format) if rgb is None else rgb
    b = yuv_to_rgb(shown, format)
    colour = np.square((a.astype(np.float64) - b) / np.iinfo(b.dtype).max).mean()
    return np.array([*(plane_errors(original, shown) / peak**2), colour])


def compare(source: Path, sampled: Sampling, shown: Path, rgb: np.ndarray | None = None) -> list[np.ndarray]:
    """`frame_errors` of every frame of the decoded file `shown`. ValueError unless both have the same frames."""
    with VideoReader(source, sampled) as a, VideoReader(shown, Sampling(fps=None)) as b:
        pairs = zip(a.frames(), b.frames(), strict=True)
        return [frame_errors(x, y, a.format, rgb) for x, y in pairs]


def quality_of(errors: list[np.ndarray]) -> Point:
    """PSNR by plane: errors averaged over frames before the logarithm; `psnr_yuv_frames`: mean of the frames' PSNRs."""

    def figures(mse: np.ndarray) -> dict[str, float]:
        out = {f"psnr_{plane}": psnr(float(e)) for plane, e in zip(PLANES, mse, strict=True)}
        return {**out, "psnr_yuv": (6 * out["psnr_y"] + out["psnr_u"] + out["psnr_v"]) / 8}

    every = [figures(e)["psnr_yuv"] for e in errors]
    return {**figures(np.mean(errors, axis=0)), "psnr_yuv_frames": float(np.mean(every))}


@functools.lru_cache(maxsize=2)
def _network(weights: Path | None) -> Any:
    return load_model(MODEL, weights)[0]


def lambda_of(level: int, weights: Path | None) -> float:
    """The trade-off 255^2 lambda at a rate level in 1/256 steps."""
    return float(_network(weights).rate_lambda(torch.tensor(level / 256))) * 255.0**2


def _ticker() -> Callable[[str, float, dict[str, Any]], None]:
    """Progress of an encode, a line every half minute."""
    last = time.monotonic()

    def tick(stage: str, share: float, _figures: dict[str, Any]) -> None:
        nonlocal last
        if time.monotonic() - last > 30:
            last = time.monotonic()
            say(f"        {stage} {100 * share:.0f} %")

    return tick


def code_clip(clip: Path, options: EncodeOptions, *, keep: Path | None = None, rgb: np.ndarray | None = None) -> Point:
    """Encode, verify, decode to a lossless file, read that back and compare it with the source.

    keep: where to leave the .vdc file. Times: encode_seconds is `encode_video`, decode_seconds `decode_video` to
    FFV1, each with loading the model. J is the cost of the file as written, all its bytes, in bits per pixel.
    Raises ValueError where the file does not decode to what was coded.
    """
    with tempfile.TemporaryDirectory(prefix="vidcodec-") as folder:
        coded, shown = Path(folder, "coded.vdc"), Path(folder, "shown.mkv")
        start = time.perf_counter()
        result = encode_video(clip, coded, options, _ticker())
        middle = time.perf_counter()
        decoded = decode_video(coded, shown, weights=options.weights, device=options.device)
        end = time.perf_counter()
        with BitstreamReader(coded, strict=True) as reader:
            header, streams = reader.header, reader.sizes["frames"]
        if decoded.frames != decoded.expected or decoded.problems:
            raise ValueError(f"{clip.name}: {decoded.frames} of {decoded.expected} frames decode: {decoded.problems}")
        errors = compare(clip, options.sampling, shown, rgb)
        size = coded.stat().st_size
        if keep:
            keep.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(coded, keep)
    weighted = float(np.mean(errors, axis=0)[:3] @ PLANE_WEIGHTS)
    pixels = header.width * header.height * header.frame_count
    return {
        "frames": header.frame_count,
        "width": header.width,
        "height": header.height,
        "chosen": result.chosen,
        "level": header.level,
        "bytes": size,
        "bytes_update": result.update_size,
        "bytes_z": round(result.z_size),
        "bytes_y": round(result.y_size),
        "bytes_rest": size - streams - result.update_size,
        "bpp": 8 * size / pixels,
        **quality_of(errors),
        "J": 8 * size / pixels + lambda_of(header.level, options.weights) * weighted,
        "encode_seconds": middle - start,
        "decode_seconds": end - middle,
        "stages": result.seconds,
        "candidates": result.costs,
        "curve": result.curve,
        "notes": result.notes,
    }


def coding_key(clip: Path, options: EncodeOptions, frames: int | None) -> Point:
    """Names a point of `code_clip`."""
    fps = options.sampling.rate
    return {
        "clip": clip.name,
        "clip_digest": digest_of(clip),
        "weights_digest": weights_digest(options.weights),
        "adapt": options.adapt,
        "preset": options.preset,
        "refine": options.refine,
        "quantizer": options.quantizer,
        "refine_steps": options.refine_steps,
        "quality": options.quality,
        "fps": None if fps is None else str(fps),
        "max_frames": frames,
        "steps": options.finetuning_steps,
        "max_minutes": None if math.isinf(options.max_minutes) or options.adapt == "none" else options.max_minutes,
        "seed": options.seed,
        "update_prior": options.update_prior if options.adapt != "none" else None,
        "update_parameters": options.update_parameters,
    }


def add_coding_options(p: argparse.ArgumentParser, *, fps: str = "2") -> None:
    """Options of scripts that code clips."""
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="videos; results name them by file name")
    p.add_argument("--fps", type=frame_rate, default=frame_rate(fps), help=f"frames per second, or source ({fps})")
    p.add_argument("--preset", default="medium", help="of the adaptation (default: %(default)s)")
    p.add_argument("--steps", type=int, help="adaptation steps, instead of the preset's")
    p.add_argument("--max-time", type=float, default=math.inf, metavar="MIN", help="limit of each adaptation")
    p.add_argument("--keep", type=Path, metavar="DIR", help="leave the .vdc files there")


def code_point(
    results: Results, args: argparse.Namespace, clip: Path, quality: float, adapt: str, frames: int | None
) -> Point | None:
    """One clip coded one way, measured now or before."""
    options = EncodeOptions(
        sampling=sampling(args.fps, frames),
        quality=quality,
        adapt=adapt,
        preset=args.preset,
        steps=args.steps,
        max_minutes=args.max_time,
        weights=args.weights,
        device="cpu",
    )
    length = "" if frames is None else f".{frames}f"
    keep = args.keep / f"{clip.stem}{length}.q{quality:g}.{adapt}.vdc" if args.keep else None
    return results.point(coding_key(clip, options, frames), lambda: code_clip(clip, options, keep=keep))


# ------------------------------------------------------------------------------ BD figures


def bd(anchor: Iterable[Point], test: Iterable[Point], quality: str = "psnr_yuv") -> Point:
    """Mean differences of `test` to `anchor`: rate in per cent at equal quality, quality in dB at equal rate.

    Akima from 4 points a curve on, else PCHIP (a straight line between two points). None (N/A) where the curves share
    less than half of the shorter one's range; the overlap stands beside.
    """

    def curve(points: Iterable[Point]) -> list[tuple[float, float]]:
        return [(p["bpp"], p[quality]) for p in points if p.get(quality) is not None]

    found = bdrate.bd(curve(anchor), curve(test), min_points=2)
    out: Point = {"bd_rate": found.rate, "bd_psnr": found.psnr, "metric": quality, "points": list(found.points)}
    if not found.method:
        return {**out, "method": "none: fewer than two points"}
    return {**out, "method": found.method, "overlap_psnr": found.shared[0], "overlap_rate": found.shared[1]}


def rival_points(anchors: Point, clip: Path, codec: str, frames: int) -> list[Point]:
    """Measured points of a rival on the same frames of a clip; none where it was measured on other frames."""
    entry = anchors.get(clip.stem)
    if not entry or entry["frames"] != frames:
        return []
    return entry["codecs"].get(codec, [])


def methods_of(figures: Iterable[Point]) -> str:
    """The interpolations behind BD figures, in words."""
    used = {f["method"] for f in figures if f["bd_rate"] is not None or f["bd_psnr"] is not None}
    words = {"akima": "Akima", "pchip": "PCHIP (curves of 2 or 3 points; a straight line between two)"}
    return " and ".join(words[m] for m in sorted(used)) or "none possible"


def bd_cell(figures: Point) -> str | None:
    """'-12.3 % / +0.61 dB' for a table."""
    rate, gain = show(figures["bd_rate"], 1, sign=True), show(figures["bd_psnr"], 2, sign=True)
    if rate is None and gain is None:
        return None
    return f"{rate or 'N/A'} % / {gain or 'N/A'} dB" if rate else f"N/A / {gain} dB"


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of what is there; None for nothing."""
    there = [v for v in values if v is not None]
    return float(np.mean(there)) if there else None
