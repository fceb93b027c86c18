"""What the post-filter gains: BD-rate of base and adapted filter against the plain codec, update sizes, speed.

    python scripts/measure_filter.py CLIP... --codecs x264,x265 --qps 27,32,37,42 --threads 1

Every clip is coded at every QP (constant quantiser, preset medium), then `filter_encode` works on that very file
(`--copy`), so that plain, base and adapted have the same pictures. Rate: bytes of the video stream, for base and
adapted with the message (SEI) in it. Quality: PSNR of the decoded, filtered and rounded pictures, errors averaged over
pictures before the logarithm, as the encoder measures; at the first QP the written file is decoded again by
`FilteredVideo` and must give the same. `--strategies` compares what may change, on the first clip with the last codec
at its second QP. `--speed CLIP...` times decoding and filtering with `--threads`: let nothing else run.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from _measuring import Point, Results, bd, digest_of, mean_of, names, numbers, parser, show, table

from vidcodec.models.checkpoint import WEIGHTS
from vidcodec.postfilter.checkpoint import load_filter
from vidcodec.postfilter.decode import FilterDecodeOptions, FilteredVideo
from vidcodec.postfilter.encode import FilterEncodeOptions, encode_source, filter_encode, fitted
from vidcodec.postfilter.finetune import FilterFinetuneConfig
from vidcodec.postfilter.planes import depth_of, squared_errors, to_planes
from vidcodec.video import Sampling, VideoReader

STRATEGIES = (("multipliers", "rate"), ("biases", "rate"), ("full", "rate"), ("full", "sparsity"))


def weights_of(args: argparse.Namespace, profile: str) -> Path:
    return args.weights or WEIGHTS / f"filter-{profile}.safetensors"


def quality(values: list[float]) -> Point:
    y, u, v = values
    return {"psnr_y": y, "psnr_yuv": (6 * y + u + v) / 8}


def decoded_psnr(coded: Path, source: Path, options: FilterDecodeOptions) -> float:
    """PSNR of Y of a written file, decoded and filtered."""
    errors, samples = 0.0, 0
    with VideoReader(source, Sampling(fps=None)) as reader:
        for picture, frame in zip(FilteredVideo(coded, options).pictures(), reader.frames(), strict=True):
            original = fitted(frame, reader.format.bit_depth, depth_of(picture))
            errors += float(squared_errors(to_planes(picture), original)[0])
            samples += picture.width * picture.height
    return 10 * math.log10(255.0**2 * samples / errors)


def measure(
    args: argparse.Namespace, clip: Path, codec: str, qp: int, profile: str, tuning: FilterFinetuneConfig, check: bool
) -> Point:
    """One clip at one QP: bytes and PSNR without filter, with the base filter, and as written."""
    with tempfile.TemporaryDirectory(prefix="vidcodec-") as folder:
        coded, written = (args.coded or Path(folder)) / f"{clip.stem}.{codec}.{qp}.mp4", Path(folder, "written.mp4")
        if not coded.exists():
            encode_source(clip, coded, FilterEncodeOptions(codec=codec, qp=qp), [], lambda *_: None)
        options = FilterEncodeOptions(copy_of=clip, profile=profile, weights=args.weights, finetune=tuning)
        r = filter_encode(coded, written, options)
        if check:
            shown = decoded_psnr(written, clip, FilterDecodeOptions(weights=args.weights))
            if abs(shown - r.psnr["kept"][0]) > 1e-3:
                raise ValueError(f"decoded at {shown:.4f} dB, measured {r.psnr['kept'][0]:.4f} dB in encoding")
    pixels = r.frames * r.width * r.height
    (segment,) = r.segments
    base_message = segment["message_bytes"] - segment["update_bytes"]  # the same fields, no update
    sizes = {"plain": 0, "base": base_message, "adapted": r.message_bytes}
    psnr = {"plain": r.psnr["off"], "base": r.psnr["base"], "adapted": r.psnr["kept"]}
    return {
        "frames": r.frames,
        "width": r.width,
        "height": r.height,
        "video_bytes": r.video_bytes,
        "kept": segment["kept"],
        "filtered": segment["filtered"],
        "told_qp": segment["qp"],
        "checked": check,
        "update_bytes": segment["update_bytes"],
        "message_bytes": r.message_bytes,
        "cost_bits": segment["cost_bits"],
        "seconds": r.seconds,
        **{k: {"bpp": 8 * (r.video_bytes + sizes[k]) / pixels, **quality(psnr[k])} for k in sizes},
    }


def speed(args: argparse.Namespace, clip: Path, profile: str) -> Point:
    """Pictures a second of decoding and filtering, by the clock and by processor time."""
    network, _ = load_filter(profile, args.weights)
    with tempfile.TemporaryDirectory(prefix="vidcodec-") as folder:
        coded = Path(folder, "coded.mp4")
        encode_source(clip, coded, FilterEncodeOptions(codec="x264", qp=32), [], lambda *_: None)
        video = FilteredVideo(coded, FilterDecodeOptions(profile, args.weights))
        begin, clock = time.process_time(), time.perf_counter()
        pictures = sum(1 for _ in itertools.islice(video.pictures(), 60))
        worked, waited = time.process_time() - begin, time.perf_counter() - clock
    return {
        "width": video.video.width,
        "height": video.video.height,
        "macs_per_pixel": network.macs_per_pixel,
        "frames_per_second": pictures / waited,
        "frames_per_cpu_second": pictures / worked,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    p = parser(__doc__)
    p.add_argument("clips", type=Path, nargs="*", metavar="CLIP")
    p.add_argument("--codecs", type=names, default=["x264", "x265"])
    p.add_argument("--qps", type=numbers, default=[27, 32, 37, 42])
    p.add_argument("--profile", default="base")
    p.add_argument("--strategy", type=names, default=["multipliers"], help="or several: multipliers,biases,full")
    p.add_argument("--steps", type=int, default=FilterFinetuneConfig().steps)
    p.add_argument("--coded", type=Path, metavar="DIR", help="keep coded files there, and take them from there")
    p.add_argument("--strategies", action="store_true", help="compare them")
    p.add_argument("--speed", type=Path, nargs="*", default=[], metavar="CLIP")
    args = p.parse_args()
    torch.set_flush_denormal(True)
    results = Results("filter", __doc__.partition("\n")[0], args)  # type: ignore[union-attr]
    parts, summary = [], Point()

    def point(
        clip: Path, codec: str, qp: float, profile: str, strategy: str, objective: str, check: bool
    ) -> Point | None:
        tuning = FilterFinetuneConfig(strategy=strategy, objective=objective, steps=args.steps)
        key = {
            "clip": clip.name,
            "clip_digest": digest_of(clip),
            "codec": codec,
            "qp": int(qp),
            "profile": profile,
            "strategy": strategy,
            "objective": objective,
            "steps": args.steps,
            "weights_digest": digest_of(weights_of(args, profile)),
        }
        return results.point(key, partial(measure, args, clip, codec, int(qp), profile, tuning, check))

    rows = []
    for strategy in args.strategy:
        every = []
        for clip, codec in itertools.product(args.clips, args.codecs):
            found = [point(clip, codec, qp, args.profile, strategy, "rate", i == 0) for i, qp in enumerate(args.qps)]
            points = [f for f in found if f]
            if len(points) < len(args.qps):
                continue
            figures = {
                f"{kind}_{metric}": bd((q["plain"] for q in points), (q[kind] for q in points), f"psnr_{metric}")[
                    "bd_rate"
                ]
                for kind in ("base", "adapted")
                for metric in ("y", "yuv")
            }
            every.append(figures)
            updates = "/".join(str(q["update_bytes"]) for q in points)
            cells = [show(f, 2, sign=True) for f in figures.values()]
            rows.append([clip.stem, codec, strategy, points[0]["frames"], *cells, updates])
            summary[f"{clip.stem} {codec} {strategy}"] = figures
        if every:
            means = {k: mean_of(f[k] for f in every) for k in every[0]}
            summary[f"mean {strategy}"] = means
            name = "mean of all" if len(every) == len(args.clips) * len(args.codecs) else f"mean of these {len(every)}"
            rows.append([name, "", strategy, "", *(show(m, 2, sign=True) for m in means.values()), ""])
    if rows:
        head = ["clip", "codec", "adapts", "frames", "base Y", "base YUV", "adapted Y", "adapted YUV", "update bytes"]
        parts.append(
            f"BD-rate against the plain codec in per cent (Akima; QP {', '.join(f'{q:g}' for q in args.qps)}; profile "
            f"{args.profile}, {args.steps} steps); less is better. YUV is 6:1:1. Update bytes by QP; the rest of the "
            "message takes some 40 bytes and is counted too.\n\n" + table(head, rows, 3)
        )
    if args.strategies and args.clips:
        rows = []
        for strategy, objective in STRATEGIES:
            q = point(args.clips[0], args.codecs[-1], args.qps[1], args.profile, strategy, objective, False)
            if q:
                gain = {k: q[k]["psnr_yuv"] - q["plain"]["psnr_yuv"] for k in ("base", "adapted")}
                cost = q["cost_bits"].get("adapted")
                rows.append(
                    [
                        f"{strategy}, {objective}",
                        q["update_bytes"],
                        q["kept"],
                        show(gain["base"], 3, sign=True),
                        show(gain["adapted"], 3, sign=True),
                        show(None if cost is None else 100 * cost / (8 * q["video_bytes"]), 2, sign=True),
                        show(q["seconds"]["adapt"], 0),
                    ]
                )
        head = ["strategy, objective", "update bytes", "kept", "base dB", "as written dB", "J, % of the video", "s"]
        parts.append(
            f"Strategies on {args.clips[0].stem}, {args.codecs[-1]} at QP {args.qps[1]:g}: gains in PSNR-YUV; J is the "
            "cost that chooses, message included, against no filter.\n\n" + table(head, rows)
        )
    if args.speed:
        rows = []
        for clip, profile in itertools.product(args.speed, ("small", "base")):
            if not weights_of(args, profile).is_file():
                continue
            key = {"speed": clip.name, "profile": profile, "threads": torch.get_num_threads()}
            q = results.point(key, partial(speed, args, clip, profile))
            if q:
                size = f"{q['width']}x{q['height']}"
                speeds = [show(q[k], 1) for k in ("frames_per_second", "frames_per_cpu_second")]
                rows.append([size, profile, show(q["macs_per_pixel"] / 1000, 1), *speeds])
        parts.append(
            f"Decoding H.264 and filtering with {torch.get_num_threads()} threads: pictures per second by the clock, "
            "on a machine that did nothing else, and per second of processor time.\n\n"
            + table(["size", "profile", "kMAC per pixel", "pictures/s", "per processor second"], rows, 2)
        )
    results.finish(summary, "\n\n".join(parts))


if __name__ == "__main__":
    main()
