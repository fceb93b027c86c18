"""The base model without adaptation against other codecs: R-D points, BD-rate per clip, Kodak.

    python scripts/measure_rd.py CLIP... --anchors rivals_2fps.json --kodak DIR --kodak-anchors DIR

Clips: frames at 2 fps as the anchors took them. Kodak: every picture is a video of one frame; R'G'B' PSNR against the
PNG itself, so the conversion to 4:2:0 counts against the codec; averages over the pictures, as CompressAI's figures.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from _measuring import (
    Point,
    Results,
    add_coding_options,
    bd,
    code_clip,
    code_point,
    coding_key,
    digest_of,
    frame_errors,
    mean_of,
    numbers,
    parser,
    psnr,
    rival_points,
    show,
    table,
)

from vidcodec.codec.options import EncodeOptions
from vidcodec.video import VideoReader

ALL_RIVALS = ("x265-intra", "x264-intra", "svtav1-intra", "vvenc-intra", "x265-inter", "svtav1-inter")
KODAK_PICTURES = 24
QUALITIES = [5.0, 20.0, 40.0, 60.0, 80.0, 95.0]


def arguments() -> argparse.Namespace:
    p = parser(__doc__)
    add_coding_options(p)
    p.set_defaults(steps=0)
    p.add_argument("--qualities", type=numbers, default=QUALITIES, metavar="Q,Q", help="default: 5,20,40,60,80,95")
    p.add_argument("--anchors", type=Path, metavar="JSON", help="measured points of other codecs on the clips")
    p.add_argument("--kodak", type=Path, metavar="DIR", help="the Kodak pictures, PNG")
    p.add_argument("--kodak-anchors", type=Path, metavar="DIR", help="CompressAI's published points, JSON files")
    return p.parse_args()


# ----------------------------------------------------------------------------------- clips


def frame_limit(anchors: Point, clip: Path) -> int | None:
    """As many frames as the anchors have of a clip."""
    entry = anchors.get(clip.stem)
    return entry["frames"] if entry else None


def measure_clips(results: Results, args: argparse.Namespace, anchors: Point) -> tuple[Point, str]:
    """BD-rates against every rival, and two tables."""
    rows, bds = [], {}
    for clip in args.clips:
        limit = frame_limit(anchors, clip)
        asked = [code_point(results, args, clip, q, "none", limit) for q in args.qualities]
        points = [p for p in asked if p]
        rows += [
            [p["clip"], f"{p['quality']:g}", str(p["frames"]), show(p["bytes"], 0), show(p["bpp"], 4)]
            + [show(p[f"psnr_{k}"]) for k in ("y", "u", "v", "yuv", "rgb")]
            for p in points
        ]
        frames = points[0]["frames"] if points else 0
        bds[clip.name] = {r: bd(rival_points(anchors, clip, r, frames), points) for r in ALL_RIVALS}
    means = {r: mean_of(figures[r]["bd_rate"] for figures in bds.values()) for r in ALL_RIVALS}
    rates = [[c, *(show(f[r]["bd_rate"], 1, sign=True) for r in ALL_RIVALS)] for c, f in bds.items()]
    rates.append(["mean of those there", *(show(means[r], 1, sign=True) for r in ALL_RIVALS)])
    head = ["clip", "quality", "frames", "bytes", "bpp", "Y", "U", "V", "YUV", "RGB"]
    text = "\n\n".join(
        [
            "BD-rate in per cent against each codec on the same frames (PSNR-YUV, Akima; below zero: fewer bits than "
            "it). The rivals' bytes are bare packets, ours the whole file.",
            table(["clip", *ALL_RIVALS], rates),
            table(head, rows),
        ]
    )
    return {"clips": bds, "mean_bd_rate": means}, text


# ----------------------------------------------------------------------------------- Kodak


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


def picture_point(results: Results, args: argparse.Namespace, path: Path, quality: float) -> Point | None:
    """One picture at one quality."""
    options = EncodeOptions(quality=quality, adapt="none", weights=args.weights, device="cpu")
    key = coding_key(path, options, None)
    return results.point(key, lambda: code_clip(path, options, rgb=read_rgb(path)))


def published(folder: Path) -> dict[str, list[Point]]:
    """Points of CompressAI's files by codec."""
    out = {}
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text())
        pairs = zip(data["results"]["bpp"], data["results"]["psnr-rgb"], strict=True)
        out[data["name"]] = [{"bpp": b, "psnr_rgb": q} for b, q in pairs]
    return out


def measure_kodak(results: Results, args: argparse.Namespace) -> tuple[Point, str]:
    """Mean points over the pictures, BD figures against the published ones, and two tables."""
    pictures = sorted(args.kodak.glob("*.png"))
    rows, points = [], []
    for quality in args.qualities:
        asked = [picture_point(results, args, path, quality) for path in pictures]
        there = [p for p in asked if p]
        if len(there) < len(pictures):
            continue
        keys = ("bpp", "psnr_rgb", "psnr_yuv", "psnr_y")
        points.append({k: float(np.mean([p[k] for p in there])) for k in keys} | {"quality": quality})
        rows.append([f"{quality:g}", show(points[-1]["bpp"], 4), *(show(points[-1][k]) for k in keys[1:])])
    limits = [
        results.point({"picture": p.name, "picture_digest": digest_of(p), "of": "4:2:0 alone"}, partial(ceiling, p))
        for p in pictures
    ]
    limit = mean_of(p["psnr_rgb"] for p in limits if p)
    # The published points are means over all of Kodak: a part of it does not compare.
    whole = args.kodak_anchors and len(pictures) == KODAK_PICTURES
    others = published(args.kodak_anchors) if whole else {}
    bds = {name: bd(theirs, points, "psnr_rgb") for name, theirs in others.items()}
    rates = [[n, show(f["bd_rate"], 1, sign=True), show(f["bd_psnr"], 2, sign=True)] for n, f in bds.items()]
    text = "\n\n".join(
        [
            f"Kodak, {len(pictures)} pictures, each coded by itself with all its bytes. R'G'B' PSNR against the PNG, "
            f"mean over pictures; 8-bit 4:2:0 alone, without any coding, stands at {show(limit)} dB.",
            table(["quality", "bpp", "PSNR RGB", "YUV", "Y"], rows),
            "BD figures (R'G'B' PSNR, Akima) against points published by CompressAI; below zero per cent: fewer bits.",
            table(["codec", "BD-rate %", "BD-PSNR dB"], rates),
        ]
    )
    return {"kodak": points, "kodak_bd": bds, "kodak_420_ceiling": limit}, text


def main() -> None:
    args = arguments()
    anchors = json.loads(args.anchors.read_text()) if args.anchors else {}
    results = Results("rd", __doc__.partition("\n\n")[0], args)
    summary, text = measure_clips(results, args, anchors)
    if args.kodak:
        more, kodak = measure_kodak(results, args)
        summary, text = {**summary, **more}, f"{text}\n\n{kodak}"
    results.finish(summary, text)


if __name__ == "__main__":
    main()
