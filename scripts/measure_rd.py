"""The base model without adaptation against other codecs: R-D points, BD-rate per clip, Kodak, stills.

    python scripts/measure_rd.py CLIP... --anchors rivals_2fps.json --kodak DIR --kodak-anchors DIR --stills DIR

The weights as they ship, nothing adapted; three ways to decide the symbols: plain rounding, a trellis (what the preset
'fast' does), and, slow, a trellis with latents refined by greedy search. Clips: frames at 2 fps as the anchors took
them. Pictures: each is a video of one frame; R'G'B' PSNR against the picture itself, so the conversion to 4:2:0 counts
against the codec; averages over the pictures, as CompressAI's figures.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _measuring import (
    Point,
    Results,
    add_coding_options,
    bd,
    code_clip,
    coding_key,
    digest_of,
    frame_errors,
    mean_of,
    numbers,
    parser,
    psnr,
    rival_points,
    sampling,
    show,
    table,
)

from vidcodec.codec.options import EncodeOptions
from vidcodec.video import Sampling, VideoReader

ALL_RIVALS = ("x265-intra", "x264-intra", "svtav1-intra", "vvenc-intra", "x265-inter", "svtav1-inter")
KODAK_PICTURES = 24
PICTURES = (".png", ".jpg", ".jpeg")
# Name: quantiser, refinement.
WAYS = {"plain": ("uniform", "none"), "trellis": ("trellis", "none"), "trellis, lof": ("trellis", "lof")}
QUALITIES = [5.0, 20.0, 40.0, 60.0, 80.0, 95.0]


def arguments() -> argparse.Namespace:
    p = parser(__doc__)
    add_coding_options(p)
    p.add_argument("--qualities", type=numbers, default=QUALITIES, metavar="Q,Q", help="default: 5,20,40,60,80,95")
    p.add_argument("--anchors", type=Path, metavar="JSON", help="measured points of other codecs on the clips")
    p.add_argument("--kodak", type=Path, metavar="DIR", help="the Kodak pictures, PNG")
    p.add_argument("--stills", type=Path, metavar="DIR", help="more pictures, JPEG or PNG")
    p.add_argument(
        "--ways",
        type=ways,
        default=["plain", "trellis"],
        metavar="WAY;WAY",
        help="for clips: plain, trellis, 'trellis, lof' (default: plain;trellis)",
    )
    p.add_argument(
        "--picture-ways",
        type=ways,
        default=["plain", "trellis"],
        metavar="WAY;WAY",
        help="for pictures (default: plain;trellis)",
    )
    p.add_argument("--kodak-anchors", type=Path, metavar="DIR", help="CompressAI's published points, JSON files")
    return p.parse_args()


def ways(text: str) -> list[str]:
    """'plain;trellis' as names of `WAYS`."""
    asked = [part.strip() for part in text.split(";")]
    if unknown := set(asked) - set(WAYS):
        raise argparse.ArgumentTypeError(f"not a way: {', '.join(unknown)}; known: {'; '.join(WAYS)}")
    return asked


def coded(
    results: Results, args: argparse.Namespace, source: Path, way: str, quality: float, **of: Any
) -> Point | None:
    """One clip or picture coded one way at one quality; of: `frames`, the limit of a clip, or `rgb` of a picture."""
    quantizer, refine = WAYS[way]
    frames = of.get("frames")
    options = EncodeOptions(
        sampling=sampling(args.fps, frames) if "frames" in of else Sampling(),
        quality=quality,
        adapt="none",
        preset=args.preset,
        quantizer=quantizer,
        refine=refine,
        weights=args.weights,
        device="cpu",
    )
    point = results.point(
        coding_key(source, options, frames), lambda: code_clip(source, options, rgb=of.get("rgb", lambda: None)())
    )
    return {**point, "way": way} if point else None


# ----------------------------------------------------------------------------------- clips


def frame_limit(anchors: Point, clip: Path) -> int | None:
    """As many frames as the anchors have of a clip."""
    entry = anchors.get(clip.stem)
    return entry["frames"] if entry else None


def measure_clips(results: Results, args: argparse.Namespace, anchors: Point) -> tuple[Point, str]:
    """BD-rates of every way against every rival, and tables."""
    rows, bds = [], {way: {} for way in args.ways}  # type: ignore[var-annotated]
    for clip in args.clips:
        limit = frame_limit(anchors, clip)
        for way in args.ways:
            asked = [coded(results, args, clip, way, q, frames=limit) for q in args.qualities]
            points = [p for p in asked if p]
            rows += [
                [p["clip"], way, f"{p['quality']:g}", str(p["frames"]), show(p["bytes"], 0), show(p["bpp"], 4)]
                + [show(p[f"psnr_{k}"]) for k in ("y", "u", "v", "yuv", "rgb")]
                for p in points
            ]
            frames = points[0]["frames"] if points else 0
            bds[way][clip.name] = {r: bd(rival_points(anchors, clip, r, frames), points) for r in ALL_RIVALS}
    means = {w: {r: mean_of(f[r]["bd_rate"] for f in bds[w].values()) for r in ALL_RIVALS} for w in args.ways}
    tables = []
    for way in args.ways:
        rates = [[c, *(show(f[r]["bd_rate"], 1, sign=True) for r in ALL_RIVALS)] for c, f in bds[way].items()]
        rates.append(["mean of those there", *(show(means[way][r], 1, sign=True) for r in ALL_RIVALS)])
        tables += [f"Symbols decided: {way}.", table(["clip", *ALL_RIVALS], rates)]
    head = ["clip", "way", "quality", "frames", "bytes", "bpp", "Y", "U", "V", "YUV", "RGB"]
    about = (
        "BD-rate in per cent against each codec on the same frames (PSNR-YUV, Akima; below zero: fewer bits than it). "
        "The rivals' bytes are bare packets, ours the whole file."
    )
    return {"clips": bds, "mean_bd_rate": means}, "\n\n".join([about, *tables, table(head, rows, 2)])


# -------------------------------------------------------------------------------- pictures


def read_rgb(path: Path) -> np.ndarray:
    """R'G'B' of a PNG, (H, W, 3) uint8."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise SystemExit(f"{path.name} is not a picture")
    return np.ascontiguousarray(picture[..., ::-1])


def ceiling(path: Path) -> Point:
    """What the conversion to 8-bit 4:2:0 and back leaves of a picture: no codec behind it can do better by much."""
    with VideoReader(path) as reader:
        frame = next(iter(reader.frames()))
        return {"psnr_rgb": psnr(float(frame_errors(frame, frame, reader.format, read_rgb(path))[3]))}


def published(folder: Path) -> dict[str, list[Point]]:
    """Points of CompressAI's files by codec."""
    out = {}
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text())
        pairs = zip(data["results"]["bpp"], data["results"]["psnr-rgb"], strict=True)
        out[data["name"]] = [{"bpp": b, "psnr_rgb": q} for b, q in pairs]
    return out


def measure_pictures(results: Results, args: argparse.Namespace, folder: Path, what: str) -> tuple[Point, str]:
    """Mean points over the pictures by way, BD figures against the published ones and plain rounding, and tables."""
    pictures = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)
    rows: list[list[str | None]] = []
    points: dict[str, list[Point]] = {way: [] for way in args.picture_ways}
    keys = ("bpp", "psnr_rgb", "psnr_yuv", "psnr_y")
    for way in args.picture_ways:
        for quality in args.qualities:
            asked = [coded(results, args, p, way, quality, rgb=partial(read_rgb, p)) for p in pictures]
            there = [p for p in asked if p]
            if len(there) < len(pictures):
                continue
            mean = {k: float(np.mean([p[k] for p in there])) for k in keys} | {"quality": quality}
            points[way].append(mean)
            rows.append([way, f"{quality:g}", show(mean["bpp"], 4), *(show(mean[k]) for k in keys[1:])])
    limits = [
        results.point({"picture": p.name, "picture_digest": digest_of(p), "of": "4:2:0 alone"}, partial(ceiling, p))
        for p in pictures
    ]
    limit = mean_of(p["psnr_rgb"] for p in limits if p)
    # The published points are means over all of Kodak: a part of it does not compare.
    whole = what == "Kodak" and args.kodak_anchors and len(pictures) == KODAK_PICTURES
    others = published(args.kodak_anchors) if whole else {}
    bds = {way: {name: bd(theirs, points[way], "psnr_rgb") for name, theirs in others.items()} for way in points}
    for way in args.picture_ways[1:]:
        bds[way]["ours, " + args.picture_ways[0]] = bd(points[args.picture_ways[0]], points[way], "psnr_rgb")
    rates = [
        [way, name, show(f["bd_rate"], 1, sign=True), show(f["bd_psnr"], 2, sign=True)]
        for way, figures in bds.items()
        for name, f in figures.items()
    ]
    text = "\n\n".join(
        [
            f"{what}, {len(pictures)} pictures, each coded by itself with all its bytes. R'G'B' PSNR against the "
            f"picture, mean over pictures; 8-bit 4:2:0 alone, without any coding, stands at {show(limit)} dB.",
            table(["way", "quality", "bpp", "PSNR RGB", "YUV", "Y"], rows),
            "BD figures (R'G'B' PSNR, Akima); below zero per cent: fewer bits than the codec named"
            + (", whose points CompressAI published." if others else "."),
            table(["way", "codec", "BD-rate %", "BD-PSNR dB"], rates, 2),
        ]
    )
    name = what.lower()
    return {name: points, f"{name}_bd": bds, f"{name}_420_ceiling": limit}, text


def main() -> None:
    args = arguments()
    anchors = json.loads(args.anchors.read_text()) if args.anchors else {}
    results = Results("rd", __doc__.partition("\n\n")[0], args)
    summary, text = measure_clips(results, args, anchors)
    for folder, what in ((args.kodak, "Kodak"), (args.stills, "Stills")):
        if folder:
            more, part = measure_pictures(results, args, folder, what)
            summary, text = {**summary, **more}, f"{text}\n\n{part}"
    results.finish(summary, text)


if __name__ == "__main__":
    main()
