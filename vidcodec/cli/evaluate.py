"""vidcodec evaluate: clips x codecs x rate points, measured on files that were written and decoded again."""

from __future__ import annotations

import argparse
import shlex
import sys
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcodec.cli import console
from vidcodec.cli.arguments import Fail, add_cluster, add_fps, add_general_options, whole
from vidcodec.cli.progress import clock
from vidcodec.errors import InputError, OutputError

if TYPE_CHECKING:
    from vidcodec.evaluation.results import Failure, Point, Results
    from vidcodec.evaluation.runner import State

CODECS = "vidcodec:adapt=none,x264:intra,x265:intra,x265:inter,svtav1:intra,svtav1:inter"
METRICS = ("psnr_yuv", "psnr_y", "psnr_rgb", "ms_ssim_y", "ssim_y", "xpsnr_y")
NEEDED = ("bjontegaard", "jinja2", "matplotlib", "skimage")
EPILOG = """\
codecs (separated by commas, each with its options after a colon):
  x264 x265 svtav1 vp9 vvenc    :intra (every picture a key frame) or :inter, preset=WORD
  jpeg webp                     one file a picture
  vidcodec                      the options of encode: vidcodec:adapt=none,preset=fast,steps=100,weights=FILE
  compressai                    :mbt2018-mean or :bmshj2018-hyperprior, the same options (not adapted unless asked)
  filter                        ours behind a codec: codec=x265,preset=WORD,strategy=none, base or multipliers
  lossless ones                 vidcodec:lossless=1 png webp:lossless jxl:effort=7 ffv1 x265:lossless
  points:FILE.json#NAME         points measured elsewhere, on the same frames
  every one takes rates=22/27/32/37 (its own rate points) and name=TEXT

examples:
  vidcodec evaluate clip.mkv --codecs vidcodec:adapt=none,x265:intra,x265:inter --rates 22,27,32,37
  vidcodec evaluate xiph-cif --codecs vidcodec,vidcodec:adapt=none,x265:intra --frames 20 --report page
  vidcodec evaluate clips/ --codecs x264:intra,webp,jpeg --points 6 --anchor x264:intra
  vidcodec evaluate kodak/ --codecs vidcodec:lossless=1,adapt=none,png,jxl --exact --anchor jxl

Bits of ours and of picture codecs are whole files, of the others bare packets. Lossless codecs are compared by bytes;
what does not come back sample by sample is a failed point. A stopped run goes on where it was: finished points lie in
--out and are measured again only when what they depend on has changed. The exit code is 1 when a point failed.
"""


def add_parser(subparsers: Any) -> None:
    """The options of `vidcodec evaluate`."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure codecs on sequences: curves, BD-rates, a report",
        epilog=EPILOG,
        description="Give the same sampled frames to every codec, at several rates, and measure size, quality, time "
        "and memory on the files written.",
    )
    parser.add_argument(
        "clips",
        nargs="+",
        metavar="CLIP",
        help="a video or picture, a folder of them, or a set or sequence that vidcodec fetch brought",
    )
    parser.add_argument("--codecs", default=CODECS, metavar="LIST", help="see below (default: %(default)s)")
    which = parser.add_argument_group("which frames")
    add_fps(which)
    which.add_argument("--frames", type=whole(1, 1 << 30), metavar="N", help="only the first N of them")
    which.add_argument(
        "--exact", action="store_true", help="keep 10 bits and RGB, for lossless codecs (default: all get 8-bit 4:2:0)"
    )
    rate = parser.add_argument_group("rate points")
    rate.add_argument(
        "--points",
        type=whole(1, 50),
        default=4,
        metavar="N",
        help="rate points for each codec, over the usual part of its scale (default: %(default)s)",
    )
    rate.add_argument(
        "--rates",
        type=quantisers,
        metavar="QP,QP",
        help="quantisers as H.264 and HEVC count them, for all codecs that have one (AV1 and VP9 get 2 QP - 24)",
    )
    rate.add_argument(
        "--anchor", metavar="CODEC", help="what BD-rates compare with (default: x265:intra, or the first rival)"
    )
    rate.add_argument("--metric", choices=METRICS, default=METRICS[0], help="of BD-rates (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("vidcodec-results"),
        metavar="DIR",
        help="where points, coded files, results.json and results.csv go (default: %(default)s)",
    )
    parser.add_argument("--report", type=Path, metavar="DIR", help="write a page to look at there")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="of fetched sets (default: as vidcodec fetch has it)")
    parser.add_argument("--jobs", type=whole(1, 1024), metavar="N", help="points at a time (default: one per core)")
    parser.add_argument(
        "--threads",
        type=whole(1, 1024),
        default=1,
        metavar="N",
        help="of each point, where the codec can use them; the conventional ones use one (default: %(default)s)",
    )
    add_cluster(parser)
    add_general_options(parser, json="print NDJSON on stdout: an event per point, at last one result event")
    parser.set_defaults(run=run, parser=parser, interrupted="finished points are kept: run it again to go on")


def quantisers(text: str) -> list[float]:
    """'22,27,32,37'."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise Fail(f"{text!r} are no quantisers: give numbers like 22,27,32,37") from None
    if not all(0 <= value <= 51 for value in values):
        raise Fail(f"{text!r}: quantisers go from 0 to 51")
    return values


def run(args: argparse.Namespace) -> int:
    """Evaluate; 1 when a point failed."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(f"evaluate needs {' and '.join(missing)}: pip install 'vidcodec[evaluate]'")
    if args.out.exists() and not args.out.is_dir():
        raise OutputError(f"{args.out} is no folder: give another --out")
    from vidcodec.evaluation.clips import FrameChoice
    from vidcodec.evaluation.evaluate import Request, evaluate
    from vidcodec.evaluation.rivals import parse_codecs
    from vidcodec.executor.local import cores

    request = Request(
        clips=args.clips,
        codecs=parse_codecs(args.codecs),
        folder=args.out,
        choice=FrameChoice(None if args.fps is None else Fraction(args.fps), args.frames, exact=args.exact),
        points=args.points,
        qps=args.rates,
        anchor=args.anchor,
        metric=args.metric,
        jobs=args.jobs or max(1, cores() // args.threads),
        threads=args.threads,
        cluster=args.ray,
        cache=args.cache,
        command=shlex.join(["vidcodec", *sys.argv[1:]]),
    )
    tell = Tell(json=args.json)
    results = evaluate(request, tell, tell.preparing)
    written = [args.out / name for name in ("results.json", "results.csv")]
    written += draw(results, args.out)
    if args.report:
        from vidcodec.evaluation.report import write_report

        written.append(write_report(results, args.out, args.report))
    if args.json:
        console.event(
            "result",
            files=[str(path) for path in written],
            points=len(results.points),
            comparisons=[vars(c) for c in results.comparisons],
            failures=[vars(f) for f in results.failures],
            notes=results.notes,
        )
    else:
        print("\n\n".join(tables(results)))
        print("\nwritten: " + ", ".join(str(path) for path in written))
    for note in [*(f"{clip.name}: {note}" for clip in results.clips for note in clip.notes), *results.notes]:
        console.note(note)
    for failure in results.failures:
        console.warning(f"{failure.clip}, {failure.codec}{_at(failure)} failed: {failure.error}")
    if results.failures:
        console.error(f"{len(results.failures)} points are missing; run it again to measure what failed")
        return 1
    return 0


def draw(results: Results, folder: Path) -> list[Path]:
    """The rate-distortion curves of every clip, in `folder`/plots."""
    from vidcodec.evaluation.plots import rd_curves

    return [path for c in results.clips for path in rd_curves(results, c.name, folder / "plots" / f"rd-{c.name}")]


class Tell:
    """A line on stderr for every point and every ten seconds; NDJSON on stdout as well."""

    def __init__(self, *, json: bool) -> None:
        self._json = json

    def preparing(self, clip: str, number: int, count: int) -> None:
        """Frames of a clip are being sampled."""
        print(f"frames of {clip} ({number} of {count})", file=sys.stderr, flush=True)

    def __call__(self, done: Point | Failure | None, state: State) -> None:
        left = "" if state.left is None else f", {clock(state.left)} left"
        if done is None:
            what = f"measuring {'; '.join(state.running)}"
        elif hasattr(done, "error"):
            what = f"FAILED {done.clip}, {done.codec}{_at(done)}: {done.error}"
        else:
            what = f"{done.clip}, {done.codec}{_at(done)}: {done.bpp:.4f} bpp, {decibels(done)}"
        print(f"[{state.done}/{state.total}{left}] {what}", file=sys.stderr, flush=True)
        if self._json and done is not None:
            kind = "failure" if hasattr(done, "error") else "point"
            console.event(kind, done=state.done, total=state.total, seconds_left=state.left, **vars(done))


def _at(point: Point | Failure) -> str:
    return f" at {point.rate_point:g}" if point.rate_point else ""


def decibels(point: Point) -> str:
    """PSNR-YUV in decibels, or what stands in its place."""
    value = point.quality.get("psnr_yuv")
    return "identical" if point.details.get("identical") else "N/A" if value is None else f"{value:.2f} dB"


def tables(results: Results) -> list[str]:
    """What a person wants to see: every point, then the comparisons."""
    from vidcodec.evaluation.tables import comparison_rows, comparison_title, point_rows

    head, rows = point_rows(results.points)
    out = [console.table([head, *rows], right=range(2, len(head)))]
    if results.comparisons:
        head, rows = comparison_rows(results.comparisons)
        same: dict[str, list[str]] = {}
        for c in results.comparisons:
            if c.note:
                same.setdefault(f"{c.codec}: {c.note}", []).append(str(c.clip))
        notes = [f"  {', '.join(names[:3])}{' ...' * (len(names) > 3)}, {note}" for note, names in same.items()]
        table = console.table([head, *rows], right=range(1, len(head)))
        out.append("\n".join([comparison_title(results), table, *notes]))
    return out
