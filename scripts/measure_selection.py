"""Which parameters are worth updating: gain of an adaptation against their number, and against the update's bytes.

    python scripts/measure_selection.py akiyo.mkv foreman.mkv
    python scripts/measure_selection.py akiyo.mkv foreman.mkv --lossless
    python scripts/measure_selection.py akiyo.mkv foreman.mkv --filter

Every selection finetunes the same network on the same frames for the same number of steps; then all frames are coded
for real, decoded pictures measured, and

    J = bits of the frames and of the update / pixels + lambda 255^2 D        [bits per pixel]

is compared with finetuning that sends nothing (the encoder alone), at as many steps. Gains in per cent of that J. Of
learned and random selections several numbers of parameters are measured. --lossless: the same of the lossless codec,
where D = 0; its gain is against the network as it is. --filter: of a post-filter behind x265, whose J is the video's
bits times its weighted errors against the unfiltered ones, plus the update, all in parts of those bits; the gain is
against the base filter. The update is shared by the frames taken here only, which is what a short video is like.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from _measuring import (
    MODEL,
    PLANE_WEIGHTS,
    Point,
    Results,
    digest_of,
    mean_of,
    names,
    parser,
    sampling,
    show,
    table,
)

from vidcodec.adapt.finetune import FinetuneConfig, Finetuned, Finetuner
from vidcodec.adapt.importance import SUFFIX
from vidcodec.adapt.lossless import LosslessObjective
from vidcodec.adapt.objective import MspObjective
from vidcodec.adapt.prior import AdaptivePrior
from vidcodec.adapt.selection import Strategy, select
from vidcodec.adapt.update import sent_parameters
from vidcodec.codec.crops import FrameCrops
from vidcodec.codec.lossless import PACE, LosslessCrops, LosslessPictureCodec
from vidcodec.codec.models import LEVEL_STEP, BaseModel, load_base, pick_device
from vidcodec.codec.planes import frame_to_planes, plane_errors, planes_to_frame
from vidcodec.models import lossless_checkpoint
from vidcodec.models.checkpoint import WEIGHTS
from vidcodec.models.lossless import Lossless
from vidcodec.models.msp import Msp
from vidcodec.postfilter.checkpoint import load_filter
from vidcodec.postfilter.encode import Adaptation, FilterEncodeOptions, best_labels, encode_source, mean_errors
from vidcodec.postfilter.finetune import FilterFinetuneConfig, FilterFinetuner
from vidcodec.postfilter.media import CodedVideo
from vidcodec.video import Frame, Sampling, VideoFormat, VideoReader

LOSSY, LOSSLESS, FILTER = MODEL, lossless_checkpoint.NAME, "filter-base"
COUNTS = {LOSSY: (4_000, 32_000, 256_000), LOSSLESS: (500, 2_000, 8_000), FILTER: (100, 1_000, 10_000)}
FAMILIES = ("random", "learned-gaussian", "learned-laplace")  # measured at several counts
STEPS = {LOSSY: 60, LOSSLESS: 60, FILTER: 100}
FRAMES = {LOSSY: 6, LOSSLESS: 4}
FILTER_QP = 37
TITLES = {LOSSY: "Lossy codec", LOSSLESS: "Lossless codec", FILTER: "Post-filter"}
REMARKS = {
    LOSSY: "J counts real bytes and decoded pictures, plain rounding, no refinement; the gain is against the encoder "
    "finetuned alone for as many steps.",
    LOSSLESS: "J counts real bytes; the gain is against the network as it is.",
    FILTER: "J: what the video's bits times its weighted errors (unfiltered: 1) and the update come to, in parts of "
    "those bits; the gain is against the base filter.",
}
LABELS = {"selected": "number of parameters that may change", "bytes_update": "model update, bytes"}
GAINS = {
    LOSSY: "gain in R-D cost J, %",
    LOSSLESS: "bits saved, update included, %",
    FILTER: "gain in bits times error, update included, %",
}
STYLES = {  # of a family in the plots: colour, marker
    "learned-laplace": ("C3", "o"),
    "learned-gaussian": ("C1", "s"),
    "learned, by price": ("C3", "*"),
    "random": ("0.5", "o"),
    "all": ("k", "D"),
    "biases": ("C0", "v"),
    "biases+multipliers": ("C0", "^"),
    "last-layer": ("C2", "P"),
    "low-rank": ("C4", "X"),
}


def selections_of(codec: str) -> list[str]:
    """What is measured of a codec, the cheapest and most telling first."""
    counted = [f"{family}:{count}" for count in COUNTS[codec] for family in FAMILIES]
    return ["all", "learned", "biases", "biases+multipliers", *counted, "last-layer", "low-rank:1"]


def arguments() -> argparse.Namespace:
    p = parser(__doc__)
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="videos; results name them by file name")
    codec = p.add_mutually_exclusive_group()
    codec.add_argument("--lossless", dest="codec", action="store_const", const=LOSSLESS, help="of the lossless codec")
    codec.add_argument("--filter", dest="codec", action="store_const", const=FILTER, help="of the post-filter")
    p.add_argument("--selections", type=names, metavar="S,S", help="default: all kinds, the counted ones at 3 numbers")
    p.add_argument("--frames", type=int, help="at 2 a second (default: 6, lossless 4; of the filter the whole clip)")
    p.add_argument("--steps", type=int, help="of finetuning (default: 60, filter 100)")
    p.add_argument("--crop", type=int, default=384, help="samples a side, or the whole frame (default: %(default)s)")
    p.add_argument("--batch", type=int, default=2, help="crops a step (default: %(default)s)")
    p.add_argument("--quality", type=float, default=50.0, help="of the lossy codec (default: %(default)s)")
    p.set_defaults(codec=LOSSY)
    args = p.parse_args()
    args.selections = args.selections or selections_of(args.codec)
    args.steps = args.steps or STEPS[args.codec]
    args.frames = args.frames or FRAMES.get(args.codec)
    return args


def weights_of(args: argparse.Namespace) -> Path:
    """The checkpoint that is measured."""
    return args.weights or WEIGHTS / f"{args.codec}.safetensors"


def scores_digest(args: argparse.Namespace) -> str:
    """Names the importance scores beside the weights."""
    path = weights_of(args).with_name(weights_of(args).stem + SUFFIX)
    return digest_of(path) if path.is_file() else "none"


@lru_cache
def read(clip: Path, sampled: Sampling) -> tuple[list[Frame], VideoFormat]:
    with VideoReader(clip, sampled) as reader:
        return list(reader.frames()), reader.format


def tuned_point(base: BaseModel, tuned: Finetuned, selected: int, strategy: Strategy | None) -> Point:
    """What every finetuned network tells. ValueError unless the payload makes the decoder's network."""
    decoder = dict(base.updated(tuned.payload).network.named_parameters())
    for name, p in sent_parameters(tuned.model):
        if not torch.equal(p, decoder[name]):
            raise ValueError(f"{name} is not what the update's bytes make of it")
    return {
        "selected": selected,
        "strategy": str(strategy or "none"),
        "changed": tuned.update.nonzero,
        "bytes_update": len(tuned.payload),
        "seconds": tuned.seconds,
    }


def measure_lossy(args: argparse.Namespace, clip: Path, selection: str | None) -> Point:
    """One clip under one selection; None: the encoder alone."""
    base = load_base(args.codec, args.weights, pick_device("cpu"))
    network = base.network
    assert isinstance(network, Msp)
    frames, f = read(clip, sampling(Fraction(2), args.frames))
    level = round(args.quality / 100 * base.max_level)
    crops = FrameCrops(frames, f.bit_depth, base.multiple, base.device, size=args.crop)
    chosen = select(Strategy.parse(selection), network, pixels=crops.pixels, folder=base.folder) if selection else None
    config = FinetuneConfig(scope="full" if chosen else "encoder", steps=args.steps, batch=args.batch)
    objective = MspObjective(network, torch.tensor([level / LEVEL_STEP]))
    tuned = Finetuner(network, objective, crops, AdaptivePrior(), config, chosen).run(measure_every=0.25)
    point = tuned_point(base, tuned, chosen.count if chosen else 0, chosen.strategy if chosen else None)
    codec = base.with_network(tuned.model.eval()).picture_codec(level, f)
    size, errors = 0, []
    for frame in frames:
        coded = codec.encode(frame_to_planes(frame, f.bit_depth, codec.multiple))
        size += len(coded.payload)
        errors.append(plane_errors(frame, planes_to_frame(coded.planes, f, frame.pts)))
    mse = np.mean(errors, axis=0)[:3] / float((1 << f.bit_depth) - 1) ** 2
    bpp = 8 * (size + len(tuned.payload)) / crops.pixels
    worth = float(network.rate_lambda(torch.tensor(level / LEVEL_STEP))) * 255.0**2
    return {
        **point,
        "frames": len(frames),
        "width": f.width,
        "height": f.height,
        "level": level,
        "bytes_frames": size,
        "bpp": bpp,
        "J": bpp + worth * float(mse @ PLANE_WEIGHTS),
    }


def measure_lossless(args: argparse.Namespace, clip: Path, selection: str | None) -> Point:
    """One clip under one selection; None: the network as it is."""
    base = load_base(args.codec, args.weights, pick_device("cpu"))
    network = base.network
    assert isinstance(network, Lossless)
    frames, f = read(clip, sampling(Fraction(2), args.frames))
    crops = LosslessCrops(frames, f, network.config.scales, base.device)
    point: Point = {"selected": 0, "strategy": "none", "changed": 0, "bytes_update": 0, "seconds": 0.0}
    if selection:
        chosen = select(Strategy.parse(selection), network, pixels=crops.pixels, folder=base.folder)
        config = FinetuneConfig(scope="decoder", steps=args.steps, batch=crops.batch, **PACE)
        tuned = Finetuner(network, LosslessObjective(), crops, AdaptivePrior(), config, chosen).run(measure_every=0.25)
        point = tuned_point(base, tuned, chosen.count, chosen.strategy)
        network = tuned.model.eval()
        assert isinstance(network, Lossless)
    codec = LosslessPictureCodec(network, f)
    size = sum(len(codec.encode(frame, i).y) for i, frame in enumerate(frames))
    bpp = 8 * (size + point["bytes_update"]) / crops.pixels
    return {**point, "frames": len(frames), "width": f.width, "height": f.height, "bytes_frames": size, "J": bpp}


@lru_cache
def surveyed(clip: Path, weights: Path | None) -> Adaptation:
    """A clip coded by x265, its samples and the base filter's QP labels."""
    base, digest = load_filter("base", weights)
    with tempfile.TemporaryDirectory(prefix="vidcodec-") as folder:
        coded = Path(folder, "coded.mp4")
        options = FilterEncodeOptions(codec="x265", qp=FILTER_QP, finetune=None)
        encode_source(clip, coded, options, [], lambda *_: None)
        adaptation = Adaptation(CodedVideo(coded), clip, base, digest, options, lambda *_: None)
        adaptation.survey()
    (segment,) = adaptation.segments
    error = mean_errors(segment, "off", adaptation.video)
    segment.qp = best_labels(base, segment.samples, adaptation.depth, error)
    return adaptation


def measure_filter(args: argparse.Namespace, clip: Path, selection: str | None) -> Point:
    """The base filter against one adapted under a selection, over pictures spread over the clip."""
    assert selection
    a = surveyed(clip, args.weights)
    (segment,) = a.segments
    folder = args.weights.parent if args.weights else None
    config = FilterFinetuneConfig(parameters=selection, folder=folder, steps=args.steps)
    tuner = FilterFinetuner(
        a.base, segment.samples, a.depth, segment.qp, segment.bits, mean_errors(segment, "off", a.video), config
    )
    done = tuner.run()
    assert tuner.selection
    costs = [row["cost"] / segment.bits for row in done.curve]
    return {
        "selected": tuner.selection.count,
        "strategy": str(tuner.selection.strategy),
        "changed": done.update.nonzero,
        "bytes_update": len(done.payload),
        "seconds": done.seconds,
        "frames": int(segment.frames.sum()),
        "bytes_video": round(segment.bits / 8),
        "J_base": costs[0],
        "J": min(costs),
    }


MEASURES: dict[str, Callable[[argparse.Namespace, Path, str | None], Point]] = {
    LOSSY: measure_lossy,
    LOSSLESS: measure_lossless,
    FILTER: measure_filter,
}


def family(selection: str) -> str:
    """What selections of several sizes have in common."""
    name = selection.partition(":")[0]
    return "learned, by price" if selection == "learned" else f"{name}-laplace" if name == "learned" else name


def plot(path: Path, codec: str, points: list[Point], clips: int) -> None:
    """Gain against the number of selected parameters, and against the update's bytes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 5), sharey=True)
    families: dict[str, list[Point]] = {}
    for p in sorted(points, key=lambda p: p["selected"]):
        families.setdefault(family(p["selection"]), []).append(p)
    for axis, (key, label) in zip(axes, LABELS.items(), strict=True):
        for name, ours in families.items():
            colour, marker = STYLES.get(name, ("C5", "o"))
            axis.plot(
                [max(p[key], 1) for p in ours],
                [p["gain"] for p in ours],
                marker + "-",
                color=colour,
                label=name,
                markersize=12 if marker == "*" else 7,
            )
        axis.axhline(0, color="0.7", linewidth=0.8)
        axis.set(xscale="log", xlabel=label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(GAINS[codec])
    axes[0].legend(fontsize=9)
    figure.suptitle(f"{TITLES[codec]}, {'mean of ' if clips > 1 else ''}{clips} clip{'s' if clips > 1 else ''}")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def averaged(found: dict[str, list[Point]], clips: int) -> list[Point]:
    """Means over clips by selection, the best first; only what was measured on all of them."""
    keys = ("gain", "selected", "bytes_update", "changed", "seconds")
    out: list[Point] = [
        {"selection": selection, **{k: mean_of(p[k] for p in points) for k in keys}}
        for selection, points in found.items()
        if len(points) == clips
    ]
    return sorted(out, key=lambda m: -m["gain"])


def cells(p: Point) -> list[str | None]:
    return [
        *(show(p[k], 0) for k in ("selected", "changed", "bytes_update")),
        show(p["gain"], 2, sign=True),
        show(p["seconds"], 0),
    ]


def asked(args: argparse.Namespace, results: Results) -> Iterable[tuple[Path, str, Point]]:
    """Clip, selection and point with its gain: a selection on all clips, then the next."""
    shared: Point = {"codec": args.codec, "steps": args.steps, "weights_digest": digest_of(weights_of(args))}
    shared |= {
        LOSSY: {"frames": args.frames, "batch": args.batch, "crop": args.crop, "quality": args.quality},
        LOSSLESS: {"frames": args.frames},
        FILTER: {"qp": FILTER_QP},
    }[args.codec]
    clips = {clip: {**shared, "clip": clip.name, "clip_digest": digest_of(clip)} for clip in args.clips}
    measure = partial(MEASURES[args.codec], args)
    references: dict[Path, Point | None] = {}
    if args.codec != FILTER:  # whose points tell their own
        for clip, key in clips.items():
            references[clip] = results.point({**key, "selection": "none"}, partial(measure, clip, None))
    for selection in args.selections:
        scores = {"scores_digest": scores_digest(args)} if selection.startswith("learned") else {}
        for clip, key in clips.items():
            p = results.point({**key, "selection": selection, **scores}, partial(measure, clip, selection))
            if p and (known := p.get("J_base") or (references.get(clip) or {}).get("J")):
                yield clip, selection, {**p, "gain": 100 * (1 - p["J"] / known)}


def main() -> None:
    args = arguments()
    torch.set_flush_denormal(True)
    name = {LOSSY: "selection", LOSSLESS: "selection_lossless", FILTER: "selection_filter"}[args.codec]
    results = Results(name, __doc__.partition("\n\n")[0], args)  # type: ignore[union-attr]
    found: dict[str, list[Point]] = {}
    rows = []
    for clip, selection, p in asked(args, results):
        found.setdefault(selection, []).append(p)
        rows.append([clip.stem, p["strategy"], *cells(p), show(p["J"], 4)])
    means = averaged(found, len(args.clips))
    head = ["selected", "changed", "update bytes", "gain %", "s"]
    texts = [
        table(["selection, mean of the clips", *head], [[m["selection"], *cells(m)] for m in means]),
        table(["clip", "selection", *head, "J"], rows, 2),
        f"{TITLES[args.codec]}, {args.steps} steps. {REMARKS[args.codec]} `selected`: parameters that may change; "
        "`changed`: that do; s: of finetuning.",
    ]
    if means:
        plot(results.path.with_suffix(".png"), args.codec, means, len(args.clips))
        texts.insert(0, f"![gain by number of parameters and by bytes]({name}.png)")
    results.finish({"means": means}, "\n\n".join(texts))


if __name__ == "__main__":
    main()
