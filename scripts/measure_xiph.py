"""Our codec, plain and adapted, against the codecs people use, on four CIF sequences of Xiph's.

    python scripts/measure_xiph.py --data DIR

DIR holds akiyo, foreman, coastguard and container (any file whose name begins so); without --data they come from the
cache of `vidcodec fetch xiph-cif`. With the default of 60 finetuning steps it is meant for less than an hour on two
cores; a run that was stopped goes on where it was. Writes results/NAME.json, .md and a figure per sequence.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

from _evaluating import comparison_rows, ours, parser, point_rows, publish, run
from _measuring import names, numbers, show, table

from vidcodec.evaluation import bdrate
from vidcodec.evaluation.plots import rd_curves
from vidcodec.evaluation.results import Results

SEQUENCES = ("akiyo", "foreman", "coastguard", "container")
RIVALS = ("x264:intra", "x264:inter", "x265:intra", "x265:inter", "svtav1:intra", "svtav1:inter", "webp", "jpeg")
ANCHOR = "x265:intra"
QPS = [22.0, 27.0, 32.0, 37.0, 42.0]


def arguments() -> argparse.Namespace:
    p = parser(__doc__, "xiph")
    p.add_argument("--data", type=Path, metavar="DIR", help="where the sequences are")
    p.add_argument("--sequences", default=",".join(SEQUENCES), metavar="NAME,NAME", help="default: %(default)s")
    p.add_argument("--qualities", type=numbers, default=[30, 50, 70, 85, 100], metavar="Q,Q", help="of our codec")
    p.add_argument("--qps", type=numbers, default=QPS, metavar="QP,QP", help="of the others (default: 22,27,32,37,42)")
    p.add_argument("--steps", type=int, default=60, help="of finetuning (default: %(default)s)")
    p.add_argument("--again", action="store_true", help="measure nothing: write the tables of known results anew")
    p.add_argument(
        "--ways",
        type=names,
        default=["plain", "trellis", "adapted", "refined"],
        metavar="WAY,WAY",
        help="of our codec (default: plain,trellis,adapted,refined)",
    )
    p.add_argument("--update-parameters", default="learned", help="which ones to update (default: %(default)s)")
    p.add_argument("--rivals", default=",".join(RIVALS), metavar="LIST", help="as vidcodec evaluate takes them")
    return p.parse_args()


def find(data: Path | None, sequence: str) -> Path | str:
    """The file of a sequence, or its name in the set that `vidcodec fetch` brings. SystemExit when there is none."""
    if data is None:
        return f"xiph-cif/{sequence}"
    found = sorted(path for path in data.iterdir() if path.is_file() and path.name.startswith(sequence))
    if not found:
        raise SystemExit(f"{data} has no file whose name begins with {sequence}")
    return found[0]


def codecs(args: argparse.Namespace) -> str:
    """All of them, ours first, with one step more each."""
    adapted = {"steps": args.steps, "quantizer": "trellis", "update_parameters": args.update_parameters}
    ways = {
        "vidcodec plain": {"adapt": "none", "quantizer": "uniform", "refine": "none"},
        "vidcodec trellis": {"adapt": "none", "quantizer": "trellis", "refine": "none"},
        "vidcodec adapted": {**adapted, "refine": "none"},
        "vidcodec refined": {**adapted, "refine": "lof"},
    }
    asked = {name: options for name, options in ways.items() if name.split()[1] in args.ways}
    return ",".join([*(ours(args, name, args.qualities, **options) for name, options in asked.items()), args.rivals])


def markdown(results: Results, args: argparse.Namespace) -> str:
    """Tables and remarks."""
    remarks = (
        f"BD-rate / BD-PSNR against {results.anchor} on PSNR-YUV (6:1:1), Akima; below zero per cent: fewer bits. "
        "N/A: the curves share less than half of the shorter one's range, or have fewer than four rising points. Bits: "
        "whole files for ours, WebP and JPEG, bare packets for the others. PSNR in dB, errors averaged over frames "
        "before the logarithm, on decoded files. Plain: shipped weights, symbols rounded. Trellis: decided by a "
        f"trellis or RDOQ, whichever cost less. Adapted: and {args.steps} finetuning steps of "
        f"{args.update_parameters} parameters. "
        "Refined: and latents improved by greedy search, 8 steps a frame. Times are of one thread each."
    )
    notes = [f"- {c.clip}, {c.codec}: {c.note}" for c in results.comparisons if c.note]
    figures = [f"![{clip.name}]({args.name}-{clip.name}.png)" for clip in results.clips]
    against = table(*comparison_rows(results.comparisons))
    parts = [against, steps(results), remarks, "\n".join(notes), "\n".join(figures)]
    return "\n\n".join([*filter(None, parts), table(*point_rows(results.points), left=2)])


def steps(results: Results) -> str:
    """BD-rate of each of our ways against the one before it."""
    ours = [codec.label for codec in results.codecs if codec.label.startswith("vidcodec ")]
    rows = []
    for before, after in pairwise(ours):
        found = {c.clip: c.bd_rate for c in bdrate.compare(results.points, before) if c.codec == after}
        rates = [found.get(clip.name) for clip in results.clips] + [found.get(None)]
        rows.append([f"{after} against {before}", *(show(rate, 1, sign=True) for rate in rates)])
    return "BD-rate in per cent:\n\n" + table(["step", *(clip.name for clip in results.clips), "mean"], rows)


def main() -> None:
    args = arguments()
    if args.again:
        results = Results.from_json((args.results / f"{args.name}.json").read_text())
        publish(args, __doc__.partition("\n\n")[0], {"xiph": results}, markdown(results, args))
        return
    clips = [find(args.data, sequence) for sequence in args.sequences.split(",")]
    anchor = ANCHOR if ANCHOR in args.rivals.split(",") else None
    results = run(args, clips, codecs(args), qps=args.qps, anchor=anchor)
    for clip in results.clips:
        rd_curves(results, clip.name, args.results / f"{args.name}-{clip.name}")
    publish(args, __doc__.partition("\n\n")[0], {"xiph": results}, markdown(results, args))


if __name__ == "__main__":
    main()
