"""Which parameters are worth updating: gain of an adaptation against their number, and against the update's bytes.

    python scripts/measure_selection.py akiyo.mkv foreman.mkv [--lossless | --filter]

Every selection finetunes the same network on the same frames for the same number of steps. Lossy: the true R-D-M cost
J of the adapted candidate, plain rounding, is compared with finetuning that sends nothing (the encoder alone), at as
many steps. --lossless: with the network as it is. --filter: of a post-filter behind x265, whose J is the video's bits
and what its errors against the unfiltered ones are worth in bits, plus the update; compared with the base filter. The
update is shared by the frames taken here only (--frames), which is what a short video is like.

'saved per bit': what the update saves in the frames, in bits of J, for each of its own. A second table tells the same
of the kinds of tensors in every update, as finetuning shares its gain out (`vidcodec.updates.worth`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from vidcodec.codec.device import pick_device
from vidcodec.codec.presets import QUANTIZERS
from vidcodec.evaluation.measurement import Measurement, parser, spec, words
from vidcodec.evaluation.plots import lines
from vidcodec.evaluation.results import Point
from vidcodec.evaluation.tables import cost_of, markdown, mean_of, show
from vidcodec.families import load_family
from vidcodec.postfilter.checkpoint import load_filter
from vidcodec.updates.selection import Strategy, select

LOSSY, LOSSLESS, FILTER = "lossy", "lossless", "filter"
COUNTS = {LOSSY: (4_000, 32_000, 256_000), LOSSLESS: (500, 2_000, 8_000), FILTER: (100, 1_000, 10_000)}
COUNTED = ("random", "learned-gaussian", "learned-laplace")  # measured at several numbers
STEPS = {LOSSY: 60, LOSSLESS: 60, FILTER: 100}
FRAMES = {LOSSY: 6, LOSSLESS: 4, FILTER: None}
REFERENCE = "reference"
QP = 37.0


def codecs_of(kind: str, selections: list[str], args: argparse.Namespace, steps: int) -> list[str]:
    """The reference, then one for every selection."""
    weights, minutes = args.weights, args.max_time
    if kind == FILTER:
        usual: dict[str, Any] = {"codec": "x265", "weights": weights}
        tuned = [spec("filter", [QP], name=s, strategy=s, steps=steps, **usual) for s in selections]
        return [spec("filter", [QP], name=REFERENCE, strategy="base", **usual), *tuned]
    if kind == LOSSLESS:
        plain = spec("vidcodec", name=REFERENCE, lossless=1, adapt="none", weights=weights)
        usual = {"lossless": 1, "steps": steps, "weights": weights, "max_minutes": minutes}
        return [plain, *(spec("vidcodec", name=s, update_parameters=s, **usual) for s in selections)]
    usual = {"steps": steps, "quantizer": args.quantizer, "refine": "none", "weights": weights, "max_minutes": minutes}
    tuned = [spec("vidcodec", [args.quality], name=s, update_parameters=s, **usual) for s in selections]
    return [spec("vidcodec", [args.quality], name=REFERENCE, adapt="encoder", **usual), *tuned]


def cost(p: Point, kind: str) -> float | None:
    """J of what was adapted, kept or not; None where nothing was."""
    if kind == FILTER:
        bits = p.details["cost_bits"].get("base" if p.codec == REFERENCE else "adapted")
        return None if bits is None else 1 + bits / (8 * p.details["video_bytes"])
    return cost_of(p, "plain" if (kind, p.codec) == (LOSSLESS, REFERENCE) else "adapted")


def update_bytes(p: Point) -> float:
    """Of the cheapest state of the finetuning."""
    best: dict[str, float] = min(p.details["curve"], key=lambda row: row["cost"], default={})
    return best.get("bytes", best.get("update_bits", 0) / 8)


@cache
def network_of(kind: str, weights: Path | None) -> nn.Module:
    """What is updated."""
    if kind == FILTER:
        return load_filter("base", weights)[0]
    return load_family("msp" if kind == LOSSY else LOSSLESS, weights, pick_device("cpu")).network


def selected(selection: str, kind: str, weights: Path | None, pixels: int) -> int:
    """How many parameters may change; pixels: that share the update."""
    folder = weights.parent if weights else None
    return select(Strategy.parse(selection), network_of(kind, weights), pixels=pixels, folder=folder).count


def shown(figures: Iterable[float]) -> list[str]:
    """Number of parameters, bytes, gain, bits saved per bit and seconds for a table."""
    return [show(x, digits) for x, digits in zip(figures, (0, 0, 2, 1, 0), strict=True)]


def by_kind(points: Iterable[Point]) -> str:
    """Bytes of every kind of tensor, and what they save, over all clips."""
    sums: dict[tuple[str, str], list[float]] = {}
    for p in points:
        for t in p.details.get("tensors") or []:
            total = sums.setdefault((p.codec, t["kind"]), [0.0, 0.0])
            total[:] = total[0] + t["bits"] / 8, total[1] + t["brought"] / 8
    rows = [
        [*key, show(sent, 0), show(saved, 0), show(saved / sent, 1) if sent else None]
        for key, (sent, saved) in sorted(sums.items(), key=lambda item: (item[0][0], -item[1][1]))
    ]
    return markdown(["selection", "kind of tensor", "update bytes", "saves bytes", "per byte"], rows, 2) if rows else ""


def main() -> None:
    p = parser(__doc__, "selection", frames=None)
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    which = p.add_mutually_exclusive_group()
    which.add_argument("--lossless", dest="kind", action="store_const", const=LOSSLESS, help="of the lossless codec")
    which.add_argument("--filter", dest="kind", action="store_const", const=FILTER, help="of the post-filter")
    p.set_defaults(kind=LOSSY)
    p.add_argument("--selections", type=words, metavar="S,S", help="default: all kinds, the counted ones at 3 numbers")
    p.add_argument("--steps", type=int, help="of finetuning (default: 60, filter 100)")
    p.add_argument("--quality", type=float, default=50.0, help="of the lossy codec (default: %(default)s)")
    p.add_argument("--quantizer", default="uniform", choices=QUANTIZERS, help="of it (default: %(default)s)")
    p.add_argument("--max-time", type=float, metavar="MIN", help="of every finetuning, but for --filter")
    args = p.parse_args()
    kind, args.name = args.kind, args.name if args.kind == LOSSY else f"{args.name}_{args.kind}"
    counted = [f"{family}:{count}" for count in COUNTS[kind] for family in COUNTED]
    usual = ["all", "learned", "biases", "biases+multipliers", *counted, "last-layer", "low-rank:1"]
    selections, steps = args.selections or usual, args.steps or STEPS[kind]
    m = Measurement(args, __doc__)
    codecs = codecs_of(kind, selections, args, steps)
    results = m.evaluate(args.clips, codecs, frames=args.frames or FRAMES[kind])
    references = {point.clip: cost(point, kind) for point in results.points if point.codec == REFERENCE}
    found: dict[str, list[tuple[float, ...]]] = {}  # selected, update, gain, saved per bit, seconds
    rows = []
    for point in results.points:
        if point.codec == REFERENCE or not (known := references.get(point.clip)):
            continue
        shared = 8 * point.details["video_bytes"] if kind == FILTER else results.clip(point.clip).pixels
        number, adapted = selected(point.codec, kind, args.weights, shared), cost(point, kind)
        gain = 100 * (1 - (adapted or known) / known)  # an adaptation that sends nothing changes nothing
        sent = 8 * update_bytes(point)
        saved = (known - (adapted or known)) * shared / sent + 1 if sent else 0.0
        figures = number, sent / 8, gain, saved, point.details["stage_seconds"].get("adapt", 0.0)
        found.setdefault(point.codec, []).append(figures)
        rows.append([point.clip, point.codec, *shown(figures), show(adapted, 4)])
    means = {s: [mean_of(column) or 0 for column in zip(*f, strict=True)] for s, f in found.items()}
    ranked = sorted(means.items(), key=lambda item: -item[1][2])
    head = ["selected", "update bytes", "gain %", "saved per bit", "s"]
    for column, axis in ((0, "number of parameters that may change"), (1, "model update, bytes")):
        curves: dict[str, list[tuple[float, float]]] = {}
        for selection, mean in ranked:
            curves.setdefault(selection.partition(":")[0], []).append((max(mean[column], 1), mean[2]))
        lines(curves, m.asset(("selected", "bytes")[column]), axis, "gain in J, %", log="x", zero=True)
    m.publish(
        f"![by number of parameters]({args.name}-selected.png) ![by bytes]({args.name}-bytes.png)",
        markdown(
            ["selection, mean of the clips", *head],
            [[s, *shown(f)] for s, f in ranked],
        ),
        markdown(["clip", "selection", *head, "J"], rows, 2),
        by_kind(results.points),
        f"{kind}, {steps} steps. `selected`: parameters that may change; s: of finetuning.",
        summary={"means": means},
    )


if __name__ == "__main__":
    main()
