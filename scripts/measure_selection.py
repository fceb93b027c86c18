"""Which parameters are worth updating: gain of an adaptation against their number, and against the update's bytes.

    python scripts/measure_selection.py akiyo.mkv foreman.mkv coastguard.mkv car-detection.mp4 --filter akiyo.mkv

Every selection finetunes the same network on the same frames for the same number of steps; then all frames are coded
for real, decoded pictures measured, and

    J = bits of the frames and of the update / pixels + lambda 255^2 D        [bits per pixel]

is compared with finetuning that sends nothing (the encoder alone), at as many steps. Gains in per cent of that J. Of
learned and random selections several numbers of parameters are measured. --filter: the same of a post-filter behind
x265, whose cost is the video's bits times its weighted errors against the unfiltered ones, plus the update; the gain
is against the base filter. The update is shared by the frames taken here only, which is what a short video is like.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

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
    weights_digest,
)

from vidcodec.adapt.finetune import FinetuneConfig, Finetuned, Finetuner
from vidcodec.adapt.importance import SUFFIX
from vidcodec.adapt.objective import MspObjective
from vidcodec.adapt.prior import AdaptivePrior
from vidcodec.adapt.selection import Strategy, select
from vidcodec.adapt.update import sent_parameters
from vidcodec.codec.crops import FrameCrops
from vidcodec.codec.models import LEVEL_STEP, BaseModel, load_base, pick_device
from vidcodec.codec.planes import frame_to_planes, plane_errors, planes_to_frame
from vidcodec.models.checkpoint import WEIGHTS
from vidcodec.models.msp import Msp
from vidcodec.postfilter.checkpoint import load_filter
from vidcodec.postfilter.encode import Adaptation, FilterEncodeOptions, best_labels, encode_source, mean_errors
from vidcodec.postfilter.finetune import FilterFinetuneConfig, FilterFinetuner
from vidcodec.postfilter.media import CodedVideo
from vidcodec.video import Frame, Sampling, VideoFormat, VideoReader

SELECTIONS = (
    "all", "biases", "biases+multipliers", "last-layer", "low-rank:1",
    "random:4000", "random:32000", "random:256000",
    "learned-gaussian:4000", "learned-gaussian:32000", "learned-gaussian:256000",
    "learned-laplace:4000", "learned-laplace:32000", "learned-laplace:256000", "learned",
)  # fmt: skip
FILTER_SELECTIONS = (
    "all", "biases", "biases+multipliers", "last-layer", "low-rank:1", "random:100", "random:1000",
    "learned-gaussian:100", "learned-gaussian:1000", "learned-laplace:100", "learned-laplace:1000", "learned",
)  # fmt: skip
COLOURS = {"learned-laplace": "C3", "learned-gaussian": "C1", "random": "0.6"}
LABELS = {"selected": "parameters that may change", "bytes_update": "update, bytes"}
FILTER_QP = 37


def arguments() -> argparse.Namespace:
    p = parser(__doc__)
    p.add_argument("clips", type=Path, nargs="*", metavar="CLIP", help="of the lossy codec")
    p.add_argument("--filter", type=Path, nargs="*", default=[], metavar="CLIP", help="of the post-filter")
    p.add_argument("--selections", type=names, default=list(SELECTIONS), metavar="S,S", help="of the codec")
    p.add_argument("--filter-selections", type=names, default=list(FILTER_SELECTIONS), metavar="S,S")
    p.add_argument("--frames", type=int, default=10, help="at 2 a second (default: %(default)s)")
    p.add_argument("--steps", type=int, default=60, help="of finetuning (default: %(default)s)")
    p.add_argument("--filter-steps", type=int, default=100, help="of the filter's (default: %(default)s)")
    p.add_argument("--crop", type=int, default=384, help="samples a side, or the whole frame (default: %(default)s)")
    p.add_argument("--batch", type=int, default=2, help="crops a step (default: %(default)s)")
    p.add_argument("--quality", type=float, default=50.0, help="default: %(default)s")
    return p.parse_args()


def scores_digest(folder: Path | None, model: str) -> str:
    """Names the importance scores at hand."""
    path = (folder or WEIGHTS) / f"{model}{SUFFIX}"
    return digest_of(path) if path.is_file() else "none"


@lru_cache(maxsize=1)
def read(clip: Path, sampled: Sampling) -> tuple[list[Frame], VideoFormat]:
    with VideoReader(clip, sampled) as reader:
        return list(reader.frames()), reader.format


def true_cost(base: BaseModel, tuned: Finetuned, frames: list[Frame], f: VideoFormat, level: int) -> Point:
    """All frames coded for real; bytes and errors. ValueError unless the payload makes the decoder's network."""
    decoder = dict(base.updated(tuned.payload).network.named_parameters())
    for name, p in sent_parameters(tuned.model):
        if not torch.equal(p, decoder[name]):
            raise ValueError(f"{name} is not what the update's bytes make of it")
    codec = base.with_network(tuned.model.eval()).picture_codec(level, f)
    size, errors = 0, []
    for frame in frames:
        coded = codec.encode(frame_to_planes(frame, f.bit_depth, codec.multiple))
        size += len(coded.payload)
        errors.append(plane_errors(frame, planes_to_frame(coded.planes, f, frame.pts)))
    pixels = f.width * f.height * len(frames)
    mse = np.mean(errors, axis=0)[:3] / float((1 << f.bit_depth) - 1) ** 2
    bpp = 8 * (size + len(tuned.payload)) / pixels
    assert isinstance(base.network, Msp)
    worth = float(base.network.rate_lambda(torch.tensor(level / LEVEL_STEP))) * 255.0**2
    return {
        "bytes_frames": size, "bytes_update": len(tuned.payload), "bpp": bpp,
        "J": bpp + worth * float(mse @ PLANE_WEIGHTS),
    }  # fmt: skip


def measure(args: argparse.Namespace, clip: Path, selection: str | None, sampled: Sampling) -> Point:
    """One clip under one selection; None: the encoder alone."""
    base = load_base(MODEL, args.weights, pick_device("cpu"))
    network = base.network
    assert isinstance(network, Msp)
    frames, f = read(clip, sampled)
    level = round(args.quality / 100 * base.max_level)
    crops = FrameCrops(frames, f.bit_depth, base.multiple, base.device, size=args.crop)
    chosen = None
    if selection is not None:
        chosen = select(Strategy.parse(selection), network, pixels=crops.pixels, folder=base.folder)
    config = FinetuneConfig(scope="full" if chosen else "encoder", steps=args.steps, batch=args.batch)
    objective = MspObjective(network, torch.tensor([level / LEVEL_STEP]))
    tuned = Finetuner(network, objective, crops, AdaptivePrior(), config, chosen).run(measure_every=0.25)
    return {
        "frames": len(frames), "width": f.width, "height": f.height, "level": level,
        "selected": chosen.count if chosen else 0, "strategy": str(chosen.strategy) if chosen else "encoder",
        "changed": tuned.update.nonzero, "seconds": tuned.seconds, **true_cost(base, tuned, frames, f, level),
    }  # fmt: skip


@lru_cache(maxsize=1)
def surveyed(clip: Path) -> Adaptation:
    """A clip coded by x265, its samples and the base filter's QP labels."""
    base, digest = load_filter("base")
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


def measure_filter(args: argparse.Namespace, clip: Path, selection: str) -> Point:
    """The base filter against one adapted under a selection, over pictures spread over the clip."""
    a = surveyed(clip)
    (segment,) = a.segments
    config = FilterFinetuneConfig(parameters=selection, steps=args.filter_steps)
    tuner = FilterFinetuner(
        a.base, segment.samples, a.depth, segment.qp, segment.bits, mean_errors(segment, "off", a.video), config
    )
    done = tuner.run()
    assert tuner.selection
    costs = [row["cost"] / segment.bits for row in done.curve]
    return {
        "frames": int(segment.frames.sum()), "bytes_video": round(segment.bits / 8), "bytes_update": len(done.payload),
        "selected": tuner.selection.count, "changed": done.update.nonzero, "J_base": costs[0], "J": min(costs),
        "seconds": done.seconds,
    }  # fmt: skip


def family(selection: str) -> str:
    """What selections of several sizes have in common."""
    return selection.partition(":")[0] if selection != "learned" else "learned, by price"


def plot(path: Path, parts: dict[str, list[Point]]) -> None:
    """Gain against the number of selected parameters, and against the update's bytes; a row per codec."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(parts), 2, figsize=(11, 4.2 * len(parts)), squeeze=False)
    for row, (title, points) in zip(axes, parts.items(), strict=True):
        for axis, key in zip(row, ("selected", "bytes_update"), strict=True):
            for name in dict.fromkeys(p["family"] for p in points):
                ours = sorted((p for p in points if p["family"] == name), key=lambda p: p["selected"])
                axis.plot([max(p[key], 1) for p in ours], [p["gain"] for p in ours], "o-", label=name,
                          color=COLOURS.get(name), markersize=5)  # fmt: skip
            axis.set(xscale="log", xlabel=LABELS[key], ylabel="gain, %", title=title)
            axis.axhline(0, color="0.8", linewidth=0.8)
            axis.grid(alpha=0.3)
    axes[0][1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def averaged(found: dict[str, list[Point]]) -> list[Point]:
    """Means over clips, by selection; only what was measured on all of them."""
    out = []
    clips = max((len(points) for points in found.values()), default=0)
    for selection, points in found.items():
        if points and len(points) == clips:
            keys = ("gain", "selected", "bytes_update", "changed", "seconds")
            figures = {k: mean_of(p[k] for p in points) for k in keys}
            out.append({"selection": selection, "family": family(selection), **figures})
    return out


def codec_part(args: argparse.Namespace, results: Results) -> tuple[list[Point], str]:
    """The lossy codec: means over clips, and tables."""
    sampled, found, rows = sampling(Fraction(2), args.frames), dict[str, list[Point]](), []
    folder = args.weights.parent if args.weights else None
    for clip in args.clips:
        shared = {
            "codec": MODEL, "clip": clip.name, "clip_digest": digest_of(clip), "frames": args.frames,
            "steps": args.steps, "batch": args.batch, "crop": args.crop, "quality": args.quality,
            "weights_digest": weights_digest(args.weights),
        }  # fmt: skip
        alone = results.point({**shared, "selection": "encoder"}, partial(measure, args, clip, None, sampled))
        for selection in args.selections:
            scores = {"scores_digest": scores_digest(folder, MODEL)} if selection.startswith("learned") else {}
            key = {**shared, "selection": selection, **scores}
            p = results.point(key, partial(measure, args, clip, selection, sampled))
            if p and alone:
                p = {**p, "gain": 100 * (1 - p["J"] / alone["J"])}
                found.setdefault(selection, []).append(p)
                rows.append([clip.stem, p["strategy"], *cells(p), show(p["bpp"], 4), show(p["J"], 4)])
    means = averaged(found)
    head = ["clip", "selection", "selected", "changed", "update bytes", "gain %", "s", "bpp", "J"]
    mean_rows = [[m["selection"], *cells(m)] for m in sorted(means, key=lambda m: -m["gain"])]
    text = "\n\n".join([table(["selection, mean of the clips", *head[2:7]], mean_rows), table(head, rows, 2)])
    return means, text


def cells(p: Point) -> Sequence[Any]:
    return [*(show(p[k], 0) for k in ("selected", "changed", "bytes_update")), show(p["gain"], 2, sign=True),
            show(p["seconds"], 0)]  # fmt: skip


def filter_part(args: argparse.Namespace, results: Results) -> tuple[list[Point], str]:
    """The post-filter: means over clips, and a table. Its J is what it lowers the video's cost by."""
    found, rows = dict[str, list[Point]](), []
    for clip in args.filter:
        shared = {
            "codec": "filter-base", "clip": clip.name, "clip_digest": digest_of(clip), "steps": args.filter_steps,
            "qp": FILTER_QP, "weights_digest": digest_of(WEIGHTS / "filter-base.safetensors"),
        }  # fmt: skip
        for selection in args.filter_selections:
            scores = {"scores_digest": scores_digest(None, "filter-base")} if selection.startswith("learned") else {}
            key = {**shared, "selection": selection, **scores}
            if p := results.point(key, partial(measure_filter, args, clip, selection)):
                p = {**p, "gain": 100 * (p["J_base"] - p["J"])}
                found.setdefault(selection, []).append(p)
                rows.append([clip.stem, selection, *cells(p)])
    return averaged(found), table(["clip", "selection", "selected", "changed", "update bytes", "gain %", "s"], rows, 2)


def main() -> None:
    args = arguments()
    torch.set_flush_denormal(True)
    results = Results("selection", __doc__.partition("\n\n")[0], args)  # type: ignore[union-attr]
    parts, texts, summary = {}, [], Point()
    for title, clips, part in (("lossy codec", args.clips, codec_part), ("post-filter", args.filter, filter_part)):
        if clips:
            means, text = part(args, results)
            summary[title] = means
            texts.append(f"**{title[0].upper() + title[1:]}**\n\n{text}")
            if means:
                parts[title] = means
    if parts:
        plot(results.path.with_suffix(".png"), parts)
        texts.append("![gain by number of parameters and by bytes](selection.png)")
    texts.append(
        "J of the codec counts real bytes and decoded pictures, plain rounding, no refinement; the gain is against the "
        "encoder finetuned alone for as many steps. `selected`: parameters that may change; `changed`: that do. The "
        "post-filter's gain is in per cent of the video's bits, update included, against the base filter."
    )
    results.finish(summary, "\n\n".join(texts))


if __name__ == "__main__":
    main()
