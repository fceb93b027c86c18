"""The experiment of van Rozendaal, Huijben and Cohen 2021 (arXiv 2101.08687): a codec overfitted to one video's
I-frames, with the cost of sending its weights inside the loss.

    python scripts/measure_seed.py CLIP...

I-frames at 2 frames a second. Four parts, all from real files:

    rates         no adaptation, encoder only, full model, at four or more rate points; bits of update and latents
    steps         the training curve of the full model: R-D-M cost over finetuning steps
    ablation      the update's prior at one rate: ours, spike and slab, no rate term, no quantisation in the loop
    amortisation  bits of the update per frame over the number of frames that share it

Symbols are decided by the quantiser asked for in all of them, latents are not refined. A run that was stopped goes on
where it was. Writes results/NAME.json, .md and figures.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from _evaluating import comparison_rows, ours, parser, publish, run
from _measuring import numbers, show, table

from vidcodec.codec.presets import QUANTIZERS, UPDATE_PRIORS
from vidcodec.evaluation import bdrate
from vidcodec.evaluation.clips import FrameChoice
from vidcodec.evaluation.plots import ablation_bars, amortisation, rd_curves, training_curves
from vidcodec.evaluation.results import Point, Results

NONE, ENCODER, FULL = "none", "encoder", "full"
PRIORS = {  # the ablation's words for values of --update-prior
    "ours": "adaptive",
    "spike and slab": "spike-slab",
    "no rate term": "no-rate",
    "no quantisation in the loop": "no-quantisation",
}


def arguments() -> argparse.Namespace:
    p = parser(__doc__, "seed")
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    p.add_argument("--qualities", type=numbers, default=[30, 50, 70, 90], metavar="Q,Q", help="default: 30,50,70,90")
    p.add_argument("--steps", type=int, default=300, help="of finetuning (default: %(default)s)")
    p.add_argument("--quantizer", default="trellis", choices=QUANTIZERS, help="default: %(default)s")
    p.add_argument("--ablation-quality", type=float, default=60, metavar="Q", help="default: %(default)g")
    p.add_argument(
        "--frame-counts", type=numbers, default=[1, 2, 5, 10, 20], metavar="N,N", help="default: 1,2,5,10,20"
    )
    return p.parse_args()


def best_adapted(p: Point) -> tuple[float, float]:
    """Cost of the adapted candidate in per cent of the best unadapted one's, less 100, and the bytes of its update.

    The file holds the cheapest candidate; this is about the adapted one, chosen or not.
    """
    costs = p.details["costs"]
    adapted = min(cost for name, cost in costs.items() if name.startswith("adapted"))
    unadapted = min(cost for name, cost in costs.items() if not name.startswith("adapted"))
    best = min(p.details["curve"], key=lambda row: row["cost"])
    return 100 * (adapted / unadapted - 1), best["update_bits"] / 8


def kept(p: Point) -> str:
    """Which kind of candidate is in the file."""
    return "adapted" if p.details["chosen"].startswith("adapted") else "plain"


# -------------------------------------------------------------------------------- the parts


def options_of(args: argparse.Namespace, **options: object) -> dict[str, object]:
    """Ours, with the quantiser asked for and latents as they are."""
    return {"quantizer": args.quantizer, "refine": "none", **options}


def measure_rates(args: argparse.Namespace) -> Results:
    """None, encoder, full at every quality, with figures against none."""
    modes = {NONE: {}, ENCODER: {"steps": args.steps}, FULL: {"steps": args.steps}}
    specs = [
        ours(args, mode, args.qualities, **options_of(args, adapt=mode, **options)) for mode, options in modes.items()
    ]
    return run(args, args.clips, ",".join(specs), anchor=NONE)


def rates_text(args: argparse.Namespace, rates: Results) -> str:
    """Comparison with both baselines, and where the bits went."""
    against = [rates.comparisons, [c for c in bdrate.compare(rates.points, ENCODER) if c.codec == FULL]]
    tables = [
        f"BD-rate / BD-PSNR against '{anchor}' (PSNR-YUV, Akima; below zero per cent: fewer bits).\n\n"
        + table(*comparison_rows(comparisons))
        for anchor, comparisons in zip((NONE, ENCODER), against, strict=True)
    ]
    head = (
        "clip",
        "adapted",
        "quality",
        "kept",
        "bytes",
        "update",
        "latents y",
        "hyper-latents z",
        "rest",
        "bpp",
        "of it update %",
        "YUV dB",
        "encode s",
    )
    rows = [
        [p.clip, p.codec, f"{p.rate_point:g}", kept(p)]
        + [show(v, 0) for v in (p.bytes, *(p.details[f"{k}_bytes"] for k in ("update", "y", "z", "rest")))]
        + [show(p.bpp, 4), show(100 * p.details["update_bytes"] / p.bytes, 1), show(p.quality["psnr_yuv"])]
        + [show(p.encode_seconds, 1)]
        for p in rates.points
    ]
    figures = [f"![{clip.name}]({args.name}-rd-{clip.name}.png)" for clip in rates.clips]
    return "\n\n".join(["## Rates", *tables, table(head, rows, 2), "\n".join(figures)])


def steps_text(args: argparse.Namespace, rates: Results) -> str:
    """The cost while finetuning the full model, of every clip at every rate."""
    curves = {
        f"{p.clip}, quality {p.rate_point:g}": [
            (row["step"], 100 * (row["cost"] / p.details["curve"][0]["cost"] - 1)) for row in p.details["curve"]
        ]
        for p in rates.points
        if p.codec == FULL and p.details["curve"]
    }
    training_curves(curves, args.results / f"{args.name}-steps", "R-D-M cost against the start (%)")
    rows = [
        [name, f"{curve[-1][0]}", show(min(cost for _, cost in curve), 2, sign=True), show(curve[-1][1], 2, sign=True)]
        for name, curve in curves.items()
    ]
    text = "R-D-M cost of the full model while finetuning, every update at its coded size; the best state is kept."
    head = ("full model", "steps", "best %", "last %")
    return "\n\n".join(["## Steps", text, f"![steps]({args.name}-steps.png)", table(head, rows)])


def measure_ablation(args: argparse.Namespace) -> tuple[Results, list[str]]:
    """Every prior that the finetuner offers, and the names of those it does not."""
    offered = {name: prior for name, prior in PRIORS.items() if prior in UPDATE_PRIORS}
    specs = [
        ours(args, name, [args.ablation_quality], **options_of(args, steps=args.steps, update_prior=prior))
        for name, prior in offered.items()
    ]
    return run(args, args.clips, ",".join(specs)), [name for name in PRIORS if name not in offered]


def ablation_text(args: argparse.Namespace, ablation: Results, missing: list[str]) -> str:
    """Cost of the adapted candidate against the plain one, by prior."""
    found = {(p.clip, p.codec): best_adapted(p) for p in ablation.points}
    names = [codec.label for codec in ablation.codecs]
    bars = {clip.name: {n: found.get((clip.name, n), (None, None))[0] for n in names} for clip in ablation.clips}
    ablation_bars(bars, args.results / f"{args.name}-ablation", "R-D-M cost against no adaptation (%)")

    def cell(clip: str, name: str) -> str | None:
        cost, size = found.get((clip, name), (None, None))
        return None if cost is None else f"{show(cost, 2, sign=True)} % ({show(size, 0)} bytes)"

    rows = [[clip.name, *(cell(clip.name, n) for n in names)] for clip in ablation.clips]
    text = (
        f"R-D-M cost of the adapted candidate against the plain one at quality {args.ablation_quality:g}, in brackets "
        "the bytes of its update; the encoder would send the plain file wherever the figure is above zero."
    )
    lacking = [f"Not offered by this version: {', '.join(missing)}."] if missing else []
    return "\n\n".join(
        [
            "## Ablation of the update's prior",
            text,
            table(["clip", *names], rows),
            *lacking,
            f"![ablation]({args.name}-ablation.png)",
        ]
    )


def measure_amortisation(args: argparse.Namespace) -> dict[int, Results]:
    """Full adaptation of the first N frames, by N."""
    spec = ours(args, FULL, [args.ablation_quality], **options_of(args, steps=args.steps))
    counts = sorted({int(n) for n in args.frame_counts})
    return {n: run(args, args.clips, spec, choice=FrameChoice(args.fps, n)) for n in counts}


def amortisation_text(args: argparse.Namespace, by_count: dict[int, Results]) -> str:
    """The update's bits per frame and the cost, over the number of frames."""
    rows, curves = [], {}
    for results in by_count.values():
        for p in results.points:
            frames = results.clip(p.clip).frames
            cost, size = best_adapted(p)
            curves.setdefault(p.clip, []).append((frames, 8 * size / frames))
            figures = [show(size, 0), show(8 * size / frames, 0), show(cost, 2, sign=True)]
            rows.append([p.clip, str(frames), *figures, kept(p)])
    amortisation(curves, args.results / f"{args.name}-amortisation")
    text = "The adapted candidate's update and its R-D-M cost against the plain one, over the frames that share it."
    head = ("clip", "frames", "update bytes", "bits per frame", "cost %", "kept")
    figure = f"![amortisation]({args.name}-amortisation.png)"
    return "\n\n".join(["## Amortisation", text, table(head, sorted(rows, key=lambda r: r[0])), figure])


def main() -> None:
    args = arguments()
    args.results.mkdir(parents=True, exist_ok=True)
    rates = measure_rates(args)
    for clip in rates.clips:
        rd_curves(rates, clip.name, args.results / f"{args.name}-rd-{clip.name}")
    ablation, missing = measure_ablation(args)
    by_count = measure_amortisation(args)
    text = "\n\n".join(
        [
            rates_text(args, rates),
            steps_text(args, rates),
            ablation_text(args, ablation, missing),
            amortisation_text(args, by_count),
        ]
    )
    parts = {"rates": rates, "ablation": replace(ablation, comparisons=[], anchor=None)}
    parts |= {f"amortisation {n}": results for n, results in by_count.items()}
    publish(args, __doc__.partition("\n\n")[0], parts, text)


if __name__ == "__main__":
    main()
