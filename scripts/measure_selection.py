"""Which parameters are worth updating: gain of an adaptation against their number, and against the update's bytes.

    python scripts/measure_selection.py akiyo.mkv foreman.mkv [--lossless | --filter]

Every selection finetunes the same network on the same frames for the same number of steps. Lossy: the true R-D-M cost
J of the adapted candidate, plain rounding, is compared with finetuning that sends nothing (the encoder alone), at as
many steps. --lossless: with the network as it is. --filter: of a post-filter behind x265, whose J is the video's bits
and what its errors against the unfiltered ones are worth in bits, plus the update; compared with the base filter. The
update is shared by the frames taken here only, which is what a short video is like.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from vidcodec.codec.device import pick_device
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


def codecs_of(kind: str, selections: list[str], weights: Path | None, steps: int, quality: float) -> list[str]:
    """The reference, then one for every selection."""
    if kind == FILTER:
        usual: dict[str, Any] = {"codec": "x265", "weights": weights}
        tuned = [spec("filter", [QP], name=s, strategy=s, steps=steps, **usual) for s in selections]
        return [spec("filter", [QP], name=REFERENCE, strategy="base", **usual), *tuned]
    if kind == LOSSLESS:
        plain = spec("vidcodec", name=REFERENCE, lossless=1, adapt="none", weights=weights)
        usual = {"lossless": 1, "steps": steps, "weights": weights}
        return [plain, *(spec("vidcodec", name=s, update_parameters=s, **usual) for s in selections)]
    usual = {"steps": steps, "quantizer": "uniform", "refine": "none", "weights": weights}
    tuned = [spec("vidcodec", [quality], name=s, update_parameters=s, **usual) for s in selections]
    return [spec("vidcodec", [quality], name=REFERENCE, adapt="encoder", **usual), *tuned]


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
    """Number of parameters, bytes, gain and seconds for a table."""
    return [show(x, digits) for x, digits in zip(figures, (0, 0, 2, 0), strict=True)]


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
    args = p.parse_args()
    kind, args.name = args.kind, args.name if args.kind == LOSSY else f"{args.name}_{args.kind}"
    counted = [f"{family}:{count}" for count in COUNTS[kind] for family in COUNTED]
    usual = ["all", "learned", "biases", "biases+multipliers", *counted, "last-layer", "low-rank:1"]
    selections, steps = args.selections or usual, args.steps or STEPS[kind]
    m = Measurement(args, __doc__)
    codecs = codecs_of(kind, selections, args.weights, steps, args.quality)
    results = m.evaluate(args.clips, codecs, frames=args.frames or FRAMES[kind])
    references = {point.clip: cost(point, kind) for point in results.points if point.codec == REFERENCE}
    found: dict[str, list[tuple[int, float, float, float]]] = {}  # selected, update, gain, seconds
    rows = []
    for point in results.points:
        if point.codec == REFERENCE or not (known := references.get(point.clip)):
            continue
        shared = 8 * point.details["video_bytes"] if kind == FILTER else results.clip(point.clip).pixels
        number, adapted = selected(point.codec, kind, args.weights, shared), cost(point, kind)
        gain = 100 * (1 - (adapted or known) / known)  # an adaptation that sends nothing changes nothing
        figures = number, update_bytes(point), gain, point.details["stage_seconds"].get("adapt", 0.0)
        found.setdefault(point.codec, []).append(figures)
        rows.append([point.clip, point.codec, *shown(figures), show(adapted, 4)])
    means = {s: [mean_of(column) or 0 for column in zip(*f, strict=True)] for s, f in found.items()}
    ranked = sorted(means.items(), key=lambda item: -item[1][2])
    head = ["selected", "update bytes", "gain %", "s"]
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
        f"{kind}, {steps} steps. `selected`: parameters that may change; s: of finetuning.",
        summary={"means": means},
    )


if __name__ == "__main__":
    main()
