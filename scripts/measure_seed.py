"""The experiment of van Rozendaal, Huijben and Cohen 2021 (arXiv 2101.08687): a codec overfitted to one video's
I-frames, with the cost of sending its weights inside the loss.

    python scripts/measure_seed.py CLIP... [--only rates,steps,ablation,amortisation] [--anchors JSON]

Four parts, all from real files:

    rates         no adaptation, encoder only, full model, at four or more rate points; bits of update and latents;
                  beside codecs measured elsewhere, where the anchors have the same frames
    steps         the training curve of the full model: R-D-M cost over finetuning steps
    ablation      the update's prior at one rate: ours, spike and slab, no rate term, no quantisation in the loop
    amortisation  what the update costs and gains over the number of frames that share it, against encoder only

Latents are not refined. On a long video, at so many minutes for every adaptation:

    python scripts/measure_seed.py CLIP --frames 1394 --frame-counts 10,30,100,279,1394 --steps 100000 --max-time 10

What is measured is kept: with --only, or fewer --qualities or --frame-counts, the same command goes there in parts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidcodec.codec.presets import QUANTIZERS
from vidcodec.evaluation import bdrate
from vidcodec.evaluation.measurement import Measurement, numbers, parser, spec, words
from vidcodec.evaluation.plots import ablation_bars, lines, rd_curves
from vidcodec.evaluation.results import Point, Results
from vidcodec.evaluation.tables import comparison_rows, cost_of, markdown, per_cent, show

NONE, ENCODER, FULL = "none", "encoder", "full"
PARTS = ("rates", "steps", "ablation", "amortisation")
PRIORS = {  # the ablation's words for values of --update-prior
    "ours": "adaptive",
    "spike and slab": "spike-slab",
    "no rate term": "no-rate",
    "no quantisation in the loop": "no-quantisation",
}
RIVALS = ("x265-intra", "x264-intra")


def update_bytes(p: Point) -> float:
    """Of the adapted candidate, in the file or not."""
    return min(p.details["curve"], key=lambda row: row["cost"])["update_bits"] / 8 if p.details["curve"] else 0.0


def adaptation(p: Point) -> str:
    """Cost of the adapted candidate against the best unadapted one; the file holds the cheaper one."""
    return per_cent(cost_of(p, "adapted"), cost_of(p, "plain"), 2)


def rates(m: Measurement, ours: dict[str, str], anchors: list[str]) -> tuple[Results, str]:
    """Every mode at every quality, BD figures against both baselines and the anchors, and where the bits went."""
    results = m.evaluate(m.args.clips, [*ours.values(), *(f"points:{m.args.anchors}#{r}" for r in anchors)], "rates")
    for clip in results.clips:
        rd_curves(results, clip.name, m.asset(f"rd-{clip.name}"))
    tables = []
    for anchor in (NONE, ENCODER, *(f"points:{r}" for r in anchors)):
        against = [c for c in bdrate.compare(results.points, anchor) if c.codec in ours and c.codec != NONE]
        about = f"BD-rate (BD-PSNR) against '{anchor}' (PSNR-YUV, Akima; below zero per cent: fewer bits):\n\n"
        tables.append(about + markdown(*comparison_rows(against)))
    sizes = ("update", "y", "z", "rest")
    rows = [
        [p.clip, p.codec, f"{p.rate_point:g}", p.details["chosen"], show(p.bytes, 0)]
        + [show(p.details[f"{k}_bytes"], 0) for k in sizes]
        + [show(p.bpp, 4), show(p.quality["psnr_yuv"]), show(p.encode_seconds, 1)]
        for p in results.points
        if p.codec in ours
    ]
    head = ["clip", "adapted", "quality", "kept", "bytes", *sizes, "bpp", "YUV dB", "encode s"]
    figures = "\n".join(f"![{clip.name}]({m.args.name}-rd-{clip.name}.png)" for clip in results.clips)
    return results, "\n\n".join(["## Rates", *tables, markdown(head, rows, 2), figures])


def steps(m: Measurement, results: Results) -> str:
    """The cost while finetuning the full model, of every clip at every rate."""
    curves = {
        f"{p.clip}, quality {p.rate_point:g}": [
            (row["step"], 100 * (row["cost"] / p.details["curve"][0]["cost"] - 1)) for row in p.details["curve"]
        ]
        for p in results.points
        if p.codec == FULL and p.details["curve"]
    }
    lines(curves, m.asset("steps"), "finetuning steps", "R-D-M cost against the start (%)", zero=True)
    rows = [
        [name, f"{curve[-1][0]}", show(min(cost for _, cost in curve), 2, sign=True), show(curve[-1][1], 2, sign=True)]
        for name, curve in curves.items()
    ]
    text = "R-D-M cost of the full model while finetuning, every update at its coded size; the best state is kept."
    table = markdown(["full model", "steps", "best %", "last %"], rows)
    return "\n\n".join(["## Steps", text, f"![steps]({m.args.name}-steps.png)", table])


def ablation(m: Measurement, usual: dict[str, Any]) -> str:
    """Cost of the adapted candidate against the plain one, by prior."""
    rate = [m.args.quality]
    codecs = [spec("vidcodec", rate, name=n, update_prior=prior, **usual) for n, prior in PRIORS.items()]
    results = m.evaluate(m.args.clips, codecs, "ablation")
    found = {(p.clip, p.codec): p for p in results.points}
    bars: dict[str, dict[str, float | None]] = {clip.name: dict.fromkeys(PRIORS) for clip in results.clips}
    cells: dict[str, dict[str, str]] = {clip.name: dict.fromkeys(PRIORS, "N/A") for clip in results.clips}
    for (clip, name), p in found.items():
        plain, adapted = cost_of(p, "plain"), cost_of(p, "adapted")
        bars[clip][name] = 100 * (adapted / plain - 1) if adapted and plain else None
        cells[clip][name] = f"{adaptation(p)} ({show(update_bytes(p), 0)} bytes)"
    ablation_bars(bars, m.asset("ablation"), "R-D-M cost against no adaptation (%)")
    text = (
        f"R-D-M cost of the adapted candidate against the plain one at quality {rate[0]:g}, in brackets the bytes of "
        "its update; the encoder would send the plain file wherever the figure is above zero."
    )
    table = markdown(["clip", *PRIORS], [[clip, *row.values()] for clip, row in cells.items()])
    return "\n\n".join(["## Ablation of the update's prior", text, table, f"![ablation]({m.args.name}-ablation.png)"])


def amortisation(m: Measurement, usual: dict[str, Any]) -> str:
    """The update's bits per frame, and what it gains, over the number of frames."""
    rows: list[list[str]] = []
    curves: dict[str, list[tuple[float, float]]] = {}
    modes = (NONE, ENCODER, FULL)
    codecs = [spec("vidcodec", [m.args.quality], name=mode, adapt=mode, **usual) for mode in modes]
    for count in m.args.frame_counts:
        results = m.evaluate(m.args.clips, codecs, f"amortisation {count:g}", frames=int(count))
        for clip in results.clips:
            plain, encoder, full = (next(iter(results.curve(clip.name, mode)), None) for mode in modes)
            if plain and encoder and full:
                bits = 8 * update_bytes(full) / clip.frames
                curves.setdefault(clip.name, []).append((clip.frames, bits))
                psnr = (full.quality["psnr_yuv"] or 0) - (plain.quality["psnr_yuv"] or 0)
                gains = [adaptation(encoder), adaptation(full), per_cent(full.bytes, plain.bytes)]
                gains.append(show(psnr, 2, sign=True))
                rows.append([clip.name, str(clip.frames), show(update_bytes(full), 0), show(bits, 0), *gains])
    axes = "frames that share the update", "bits of the update per frame"
    lines(curves, m.asset("amortisation"), *axes, log="xy")
    text = (
        "The full model's update; R-D-M cost of both adapted candidates against the plain one; bytes and PSNR of the "
        "full model's files against plain ones."
    )
    head = ["clip", "frames", "update bytes", "bits per frame", "encoder only", "full model", "bytes", "PSNR dB"]
    figure = f"![amortisation]({m.args.name}-amortisation.png)"
    return "\n\n".join(["## Amortisation", text, markdown(head, sorted(rows, key=lambda r: r[0])), figure])


def main() -> None:
    p = parser(__doc__, "seed")
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    p.add_argument("--only", type=words, default=list(PARTS), metavar="PART,PART", help="default: all")
    p.add_argument("--qualities", type=numbers, default=[30, 50, 70, 90], metavar="Q,Q", help="default: 30,50,70,90")
    p.add_argument("--steps", type=int, default=300, help="of finetuning (default: %(default)s)")
    p.add_argument("--max-time", type=float, metavar="MIN", help="of every adaptation")
    p.add_argument("--quantizer", default="trellis", choices=QUANTIZERS, help="default: %(default)s")
    p.add_argument("--quality", type=float, default=60, help="of ablation and amortisation (default: %(default)g)")
    p.add_argument("--frame-counts", type=numbers, default=[1, 2, 5, 10, 20], metavar="N,N", help="1,2,5,10,20")
    p.add_argument("--anchors", type=Path, metavar="JSON", help="measured points of other codecs")
    args = p.parse_args()
    m, parts = Measurement(args, __doc__), []
    usual = {"quantizer": args.quantizer, "refine": "none", "weights": args.weights, "steps": args.steps}
    usual["max_minutes"] = args.max_time
    known = json.loads(args.anchors.read_text()).values() if args.anchors else []
    anchors = [r for r in RIVALS if any(r in entry["codecs"] for entry in known)]
    if {"rates", "steps"} & set(args.only):
        modes = {
            mode: spec("vidcodec", args.qualities, name=mode, adapt=mode, **usual) for mode in (NONE, ENCODER, FULL)
        }
        results, text = rates(m, modes, anchors)
        parts = [text]
        if "steps" in args.only:
            parts.append(steps(m, results))
    for name, part in (("ablation", ablation), ("amortisation", amortisation)):
        if name in args.only:
            parts.append(part(m, usual))
    m.publish(*parts)


if __name__ == "__main__":
    main()
