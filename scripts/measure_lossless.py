"""Lossless coding: bits per pixel of ours, plain and adapted, against PNG, WebP, JPEG XL, FFV1 and x265.

    python scripts/measure_lossless.py CLIP... [--kodak FOLDER] [--only rivals|ours]

Kodak's pictures are R'G'B' of 8 bits; clips are 4:2:0 at their own depth, sampled at 2 frames a second, the first 20.
Rates are bytes of whole files, ours with model update and everything, per luma pixel; every file is decoded again and
compared with what was coded, sample by sample. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from _measuring import Point, Results, digest_of, parser, say, show, table
from PIL import Image

from vidcodec.errors import CodecUnavailableError, UnsupportedInputError
from vidcodec.evaluation.clips import find_clips
from vidcodec.evaluation.datasets import default_cache
from vidcodec.evaluation.lossless_rivals import (
    RGB,
    YUV420,
    Ffv1,
    JpegXl,
    LosslessRival,
    Pictures,
    Png,
    WebpLossless,
    X265Lossless,
    cpu_seconds,
    same,
)
from vidcodec.models.checkpoint import WEIGHTS
from vidcodec.video import Sampling, VideoReader, open_writer

NAME = "lossless"
KODAK = "Kodak"
RIVALS: tuple[LosslessRival, ...] = (  # in the order of measuring: the slow ones last
    Png(),
    X265Lossless(),
    Ffv1(),
    JpegXl(7),
    JpegXl(9),
    WebpLossless(),
)
PLAIN = "ours"
OURS: dict[str, tuple[str, ...]] = {  # options of `vidcodec encode --lossless`
    PLAIN: ("--adapt", "none"),
    "ours + biases": ("--update-parameters", "biases"),
    "ours + all parameters": ("--update-parameters", "all"),
    "ours + learned selection": ("--update-parameters", "learned"),
}
ANCHOR, YARDSTICK = JpegXl(7).label, Png()


@dataclass(frozen=True)
class Item:
    """One picture or clip to code. path: a file that holds exactly these samples."""

    set: str
    name: str
    path: Path
    pictures: Pictures


def arguments() -> argparse.Namespace:
    p = parser(__doc__, threads=False)
    p.add_argument("clips", nargs="*", metavar="CLIP", help="videos; results name them by file name")
    p.add_argument("--kodak", default="kodak", metavar="WHERE", help="folder of its PNGs, or the fetched set (default)")
    p.add_argument("--pictures", type=int, default=24, metavar="N", help="of Kodak (default: %(default)s)")
    p.add_argument(
        "--adapted-pictures",
        type=int,
        default=0,
        metavar="N",
        help="of Kodak that are adapted to as well, which takes long (default: %(default)s)",
    )
    p.add_argument("--only", choices=("rivals", "ours"), help="measure and show these alone")
    p.add_argument("--fps", type=Fraction, default=Fraction(2), help="frames per second of clips (default: 2)")
    p.add_argument("--frames", type=int, default=20, metavar="N", help="the first N of them (default: %(default)s)")
    p.add_argument("--max-time", type=float, default=2, metavar="MIN", help="of every adaptation (default: 2)")
    work = default_cache().parent / "measurements" / NAME
    p.add_argument(
        "--work", type=Path, metavar="DIR", default=work, help="for the sampled frames (default: %(default)s)"
    )
    return p.parse_args()


# ----------------------------------------------------------------------------- what is coded


def kodak(args: argparse.Namespace) -> Iterator[Item]:
    """Its pictures, in order."""
    for sequence in islice(find_clips([args.kodak]), args.pictures) if args.pictures else ():
        with Image.open(sequence.path) as picture:
            if picture.mode != "RGB":
                raise SystemExit(f"{sequence.path.name} is {picture.mode}: only R'G'B' of 8 bits is measured here")
            yield Item(KODAK, sequence.path.stem, sequence.path, Pictures.of_rgb(np.asarray(picture)))


def clips(args: argparse.Namespace) -> Iterator[Item]:
    """The sampled frames of each, kept without loss in the work folder."""
    folder = args.work / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    for sequence in find_clips(args.clips) if args.clips else ():
        path = folder / f"{sequence.path.stem}-{digest_of(sequence.path)}-{args.fps.numerator}-{args.frames}.mkv"
        if not path.exists():
            with VideoReader(sequence.path, Sampling(fps=args.fps)) as reader, open_writer(path, reader.format) as out:
                for frame in islice(reader.frames(), args.frames):
                    out.write(frame)
        yield Item(sequence.path.stem, sequence.path.stem, path, read_frames(path))


def read_frames(path: Path) -> Pictures:
    """Every frame of a file."""
    with VideoReader(path, Sampling(fps=None), threads=1) as reader:
        return Pictures.of_frames(reader.frames(), reader.format.bit_depth)


# ---------------------------------------------------------------------------------- measuring


def rated(pictures: Pictures, size: int, **more: Any) -> Point:
    """The figures of a point."""
    height, width = pictures.shape
    return {
        "kind": pictures.kind,
        "depth": pictures.depth,
        "width": width,
        "height": height,
        "frames": len(pictures.planes),
        "bytes": size,
        "bpp": 8 * size / pictures.pixels,
        **more,
    }


def yardstick_seconds(pictures: Pictures, work: Path) -> float:
    """What PNG takes to code the same samples now: times are told as ratios to it."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        return YARDSTICK.code(pictures, Path(folder)).encode_seconds


def measure_rival(item: Item, rival: LosslessRival, work: Path) -> Point:
    """One rival on one item; what it cannot take is a point without a rate."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        try:
            coded = rival.code(item.pictures, Path(folder))
        except UnsupportedInputError as error:
            return {"unsupported": str(error)}
    return rated(
        item.pictures,
        coded.bytes,
        encode_seconds=coded.encode_seconds,
        decode_seconds=coded.decode_seconds,
        yardstick_seconds=yardstick_seconds(item.pictures, work),
    )


def measure_ours(item: Item, options: Sequence[str], work: Path) -> Point:
    """`vidcodec encode --lossless` and `vidcodec decode` as a user runs them, start-up and all."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        coded, shown = Path(folder, "coded.vdc"), Path(folder, "shown.mkv" if item.pictures.kind == YUV420 else "shown")
        start = cpu_seconds()
        told = vidcodec("encode", item.path, "-o", coded, "--lossless", "--fps", "source", *options)
        middle = cpu_seconds()
        vidcodec("decode", coded, "-o", shown)
        end = cpu_seconds()
        if not same(read_back(shown, item.pictures).planes, item.pictures.planes):
            raise RuntimeError(f"{item.name}: {' '.join(options)} is not lossless")
        size = coded.stat().st_size
    return rated(
        item.pictures,
        size,
        bytes_update=told["update_size"],
        chosen=told["chosen"],
        encode_seconds=middle - start,
        decode_seconds=end - middle,
        yardstick_seconds=yardstick_seconds(item.pictures, work),
    )


def read_back(shown: Path, like: Pictures) -> Pictures:
    """What `vidcodec decode` wrote: a folder of one PNG, or a video."""
    if like.kind != RGB:
        return read_frames(shown)
    (file,) = shown.iterdir()
    with Image.open(file) as picture:
        return Pictures.of_rgb(np.asarray(picture))


def vidcodec(*words: object) -> Point:
    """Run a command with one thread; its result event. Raises RuntimeError with its error."""
    command = [sys.executable, "-m", "vidcodec", *map(str, words), "--threads", "1", "--json"]
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **one})
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    result = next((e for e in reversed(events) if e.get("event") == "result"), None)
    if done.returncode or result is None:
        raise RuntimeError(" ".join(done.stderr.strip().splitlines()[-1:]) or f"exit code {done.returncode}")
    return result


def weights_digest(weights: Path | None) -> str:
    """Of the file given, else of all shipped ones that are for this."""
    files = [weights] if weights else sorted(WEIGHTS.glob(f"*{NAME}*"))
    return " ".join(digest_of(file) for file in files)


def runnable(rivals: Iterable[LosslessRival]) -> list[LosslessRival]:
    """Those that are installed; the others are told."""
    there = []
    for rival in rivals:
        try:
            rival.check()
        except CodecUnavailableError as error:
            say(str(error))
        else:
            there.append(rival)
    return there


Column = tuple[Point, Callable[[Item], Point]]  # what names its points besides the samples, and how to measure one


def options_of(name: str, args: argparse.Namespace) -> list[str]:
    """Those of `vidcodec encode --lossless` for one of our columns: every adaptation has the same time."""
    return [*OURS[name], *([] if name == PLAIN else ["--max-time", f"{args.max_time:g}"])]


def columns(args: argparse.Namespace) -> dict[str, Column]:
    """By name, ours first."""
    out: dict[str, Column] = {}
    for name in OURS if args.only != "rivals" else ():
        words = options_of(name, args)
        key = {"options": " ".join(words), "weights_digest": weights_digest(args.weights)}
        words += ["--weights", str(args.weights)] if args.weights else []
        out[name] = key, partial(measure_ours, options=words, work=args.work)
    for rival in runnable(RIVALS) if args.only != "ours" else ():
        settings = json.dumps(rival.settings(), sort_keys=True)
        key = {"settings_digest": hashlib.sha256(settings.encode()).hexdigest()[:16]}
        out[rival.label] = key, partial(measure_rival, rival=rival, work=args.work)
    return out


def measure(args: argparse.Namespace, results: Results, there: dict[str, Column]) -> dict[str, dict[str, Point]]:
    """Points by item and column; an item's name is 'set/name'."""
    pictures, videos = list(kodak(args)), list(clips(args))
    out: dict[str, dict[str, Point]] = {f"{item.set}/{item.name}": {} for item in (*pictures, *videos)}
    for name, (key, how) in there.items():
        adapted = name in OURS and name != PLAIN
        for item in (*(pictures[: args.adapted_pictures] if adapted else pictures), *videos):
            whole = {"codec": name, "item": item.name, "samples_digest": item.pictures.digest, **key}
            if point := results.point(whole, partial(how, item)):
                out[f"{item.set}/{item.name}"][name] = point
    return out


# ------------------------------------------------------------------------------------- tables


Items = dict[str, dict[str, Point]]


def groups(points: Items, adapted: int) -> dict[str, list[dict[str, Point]]]:
    """Rows of the tables: Kodak as a whole, its pictures that are adapted to, every clip."""
    pictures = [found for item, found in points.items() if item.startswith(f"{KODAK}/")]
    out = {f"{KODAK}, {len(pictures)} pictures": pictures, f"{KODAK}, first {adapted}": pictures[:adapted]}
    out |= {item.partition("/")[2]: [found] for item, found in points.items() if not item.startswith(f"{KODAK}/")}
    return {name: row for name, row in out.items() if row}


def bpp(row: list[dict[str, Point]], column: str) -> float | None:
    """Bits per pixel over all items of a row; None unless the column has them all."""
    found = [p for items in row if (p := items.get(column)) and "bytes" in p]
    pixels = sum(p["width"] * p["height"] * p["frames"] for p in found)
    return 8 * sum(p["bytes"] for p in found) / pixels if len(found) == len(row) else None


def per_cent(value: float | None, of: float | None) -> str | None:
    """How much larger than `of`."""
    return None if value is None or of is None else f"{100 * (value / of - 1):+.1f} %"


def time_ratio(points: Items, column: str, what: str) -> float | None:
    """Processor time over PNG's encoding of the same samples, summed over all items of the column."""
    found = [p for items in points.values() if (p := items.get(column)) and what in p]
    return sum(p[what] for p in found) / sum(p["yardstick_seconds"] for p in found) if found else None


def adaptation_rows(rows: dict[str, list[dict[str, Point]]], names: Iterable[str]) -> list[list[str | None]]:
    """What each adaptation gains over none, update included."""
    out = []
    for (name, row), column in ((r, c) for r in rows.items() for c in names if c in OURS and c != PLAIN):
        plain, adapted = bpp(row, PLAIN), bpp(row, column)
        if plain is not None and adapted is not None:
            update = sum(items[column]["bytes_update"] for items in row)
            out.append([name, column, show(adapted - plain, 4, sign=True), per_cent(adapted, plain), show(update, 0)])
    return out


REMARKS = (
    "Bits per pixel: whole files, ours with the model update, over luma pixels. Kodak's sources are PNGs of R'G'B' "
    "with 8 bits a sample, coded as they are; clips are 4:2:0, 1.5 samples a pixel. PNG, WebP and JPEG XL's programs "
    "take no 4:2:0: the three planes of every frame are three grey files, added up. FFV1 and x265 are all-intra, one "
    "file a clip. x265 codes R'G'B' as 4:4:4 without a transform of colour. N/A: not measured, or the codec does not "
    "take it. Every file was decoded again and is identical, sample by sample."
)
TIMES = (
    "Processor time over what PNG took to encode the same samples beside it in the same run (PNG tries three "
    "strategies of zlib). Ours: the command line as it is, with the start of Python and the loading of the model."
)


def markdown(points: Items, args: argparse.Namespace, names: list[str]) -> str:
    """All tables."""
    rows = groups(points, args.adapted_pictures)
    rates = {name: {c: bpp(row, c) for c in names} for name, row in rows.items()}
    parts = [
        "## Bits per pixel",
        table(["", *names], [[n, *(show(r[c], 3) for c in names)] for n, r in rates.items()]),
        REMARKS,
    ]
    if ANCHOR in names:
        against = [[n, *(per_cent(r[c], r[ANCHOR]) for c in names)] for n, r in rates.items()]
        parts += [f"## Bytes against {ANCHOR}", table(["", *names], against)]
    if gains := adaptation_rows(rows, names):
        head = ("", "adapted", "bits per pixel", "bytes", "bytes of update")
        parts += ["## Gain of adapting, update included", table(head, gains, left=2)]
    kinds = {
        "Kodak": {k: v for k, v in points.items() if k.startswith(f"{KODAK}/")},
        "clips": {k: v for k, v in points.items() if not k.startswith(f"{KODAK}/")},
    }
    steps = [(kind, step) for kind in kinds for step in ("encode", "decode")]
    head = ("", *(f"{kind}, {step}" for kind, step in steps))
    cells = [[c, *(show(time_ratio(kinds[kind], c, f"{step}_seconds")) for kind, step in steps)] for c in names]
    parts += ["## Times", table(head, cells), TIMES]
    pictures = [[k.partition("/")[2], *(show(bpp([v], c), 3) for c in names)] for k, v in kinds["Kodak"].items()]
    parts += ["## Kodak, picture by picture", table(["", *names], pictures)] if pictures else []
    used = {rival.label: rival.settings() for rival in RIVALS if rival.label in names}
    used |= {c: {"command": " ".join(["vidcodec encode --lossless", *options_of(c, args)])} for c in names if c in OURS}
    parts += ["## Settings", "\n".join(f"- {c}: `{json.dumps(settings)}`" for c, settings in used.items())]
    return "\n\n".join(parts)


def main() -> None:
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    results = Results(NAME, __doc__.partition("\n\n")[0], args)
    there = columns(args)
    points = measure(args, results, there)
    rows = groups(points, args.adapted_pictures)
    summary = {name: {column: bpp(row, column) for column in there} for name, row in rows.items()}
    results.finish({"bpp": summary}, markdown(points, args, list(there)))


if __name__ == "__main__":
    main()
