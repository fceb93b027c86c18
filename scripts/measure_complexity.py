"""What decoding costs: multiplications per pixel by part of the network, and frames per second.

    python scripts/measure_complexity.py CLIP --sizes 352x288,1280x720,1920x1080 --thread-counts 1,2

Multiplications (MAC) are counted by PyTorch's FlopCounterMode (two operations each) while a picture of 1920x1088 is
coded, for every profile; element-wise work and the entropy coder are not in them. Speed: a few frames of the clip,
scaled to each size, are coded without adaptation; then `VideoDecoder` decodes them all, its model loaded and the file
opened before the clock starts. `--rival` times CompressAI's autoregressive mbt2018 (quality 4, random weights: the
number of steps does not depend on them) on one frame of the largest size in the same run.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from _measuring import Point, Results, digest_of, names, parser, show, table, weights_digest
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vidcodec.codec.decode as decode_module
import vidcodec.codec.pictures as pictures_module
from vidcodec.codec.decode import VideoDecoder
from vidcodec.codec.encode import encode_video
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.pictures import MspPictureCodec
from vidcodec.models.checkpoint import is_sent
from vidcodec.models.msp import PROFILES, HyperMean, Msp, PassMean
from vidcodec.models.msp_exact import ExactScales
from vidcodec.quantize.coder import SymbolDecoder
from vidcodec.video import Frame, Sampling, VideoReader, open_writer

DECODER_PARTS = ("Synthesis", "HyperMean", "PassMean", "scale path")
ENCODER_PARTS = ("Analysis", "HyperAnalysis")
MODULES = (*DECODER_PARTS[:3], *ENCODER_PARTS)
COUNTED_SIZE = (1088, 1920)


# --------------------------------------------------------------------------- multiplications


def count_macs(model: Msp, height: int = COUNTED_SIZE[0], width: int = COUNTED_SIZE[1]) -> dict[str, dict[str, float]]:
    """kMAC per luma pixel by part, of the decoder and of what the encoder runs besides its entropy model."""
    codec = MspPictureCodec(model, 512)
    planes = torch.rand(1, 6, height // 2, width // 2, generator=torch.Generator().manual_seed(0)) * 0.2 - 0.1

    def counted(run: Callable[[], Any]) -> dict[str, float]:
        with FlopCounterMode(display=False) as counter:
            run()
        sums = {name: sum(v.values()) / 2e3 / (height * width) for name, v in counter.get_flop_counts().items()}
        return {**sums, "scale path": sums["Global"] - sum(sums.get(p, 0.0) for p in MODULES)}

    payload = codec.encode(planes).payload
    decoding = counted(lambda: codec.decode(payload, height, width))
    encoding = counted(lambda: codec.encode(planes))
    assert decoding.keys() >= set(DECODER_PARTS), f"parts the decoder runs: {sorted(decoding)}"
    return {
        "decoder": {p: decoding[p] for p in DECODER_PARTS},
        "encoder": {p: encoding[p] for p in ENCODER_PARTS},
    }


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters: all of them, and those the decoder uses."""
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    return {"all": sum(sizes.values()), "decoder": sum(s for n, s in sizes.items() if is_sent(n))}


# ------------------------------------------------------------------------------------- speed


def scaled_clip(clip: Path, width: int, height: int, frames: int, out: Path) -> None:
    """The first frames of a clip at another size, lossless."""
    with VideoReader(clip, Sampling(fps=None)) as reader:
        format = dataclasses.replace(reader.format, width=width, height=height)

        def resized(plane: np.ndarray, w: int, h: int) -> np.ndarray:
            return plane if plane.shape == (h, w) else cv2.resize(plane, (w, h), interpolation=cv2.INTER_CUBIC)

        with open_writer(out, format) as writer:
            for frame in itertools.islice(reader.frames(), frames):
                uv = [resized(plane, format.chroma_width, format.chroma_height) for plane in frame.uv]
                writer.write(Frame(resized(frame.y, width, height), np.stack(uv), frame.pts))


PARTS_OF_TIME: dict[str, list[tuple[Any, str]]] = {
    "entropy decoding": [(SymbolDecoder, "get"), (SymbolDecoder, "get_quantised")],
    "scale path (integers)": [(ExactScales, "features"), (ExactScales, "pass_index")],
    "mean path": [(HyperMean, "forward"), (PassMean, "forward")],
    "synthesis": [(Msp, "synthesise")],
    "log and checksum": [(pictures_module.SymbolLog, "add")],
    "planes to frame": [(decode_module, "planes_to_frame")],
}


@contextmanager
def stopwatch(seconds: dict[str, float]) -> Iterator[None]:
    """Adds up the time spent in each of PARTS_OF_TIME."""

    def timed(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[part] += time.perf_counter() - start

        return run

    with ExitStack() as stack:
        for part, places in PARTS_OF_TIME.items():
            for place, name in places:
                plain = getattr(place, name)
                setattr(place, name, timed(plain, part))
                stack.callback(setattr, place, name, plain)
        yield


def decode_speed(coded: Path, weights: Path | None, threads: int, repeats: int) -> Point:
    """Frames per second of the best of some decodings of a file, and where its time went."""
    torch.set_num_threads(threads)
    best: Point = {"seconds": float("inf")}
    with VideoDecoder(coded, weights=weights, device="cpu") as decoder:
        decoder.frame(0)  # the first one builds the codec
        for _ in range(repeats):
            parts: dict[str, float] = defaultdict(float)
            with stopwatch(parts):
                start = time.perf_counter()
                count = sum(1 for _ in decoder.frames())
                seconds = time.perf_counter() - start
            if seconds < best["seconds"]:
                ms = {part: 1e3 * parts[part] / count for part in PARTS_OF_TIME}
                best = {"frames": count, "seconds": seconds, "ms_by_part": ms}
    return {**best, "fps": best["frames"] / best["seconds"], "ms": 1e3 * best["seconds"] / best["frames"]}


def measure_speed(args: argparse.Namespace, size: str, threads: int) -> Point:
    """One size, one number of threads."""
    width, height = (int(n) for n in size.split("x"))
    with tempfile.TemporaryDirectory(prefix="vidcodec-") as folder:
        source, coded = Path(folder, "scaled.mkv"), Path(folder, "coded.vdc")
        scaled_clip(args.clip, width, height, args.frames, source)
        options = EncodeOptions(
            sampling=Sampling(fps=None), quality=args.quality, adapt="none", weights=args.weights, device="cpu"
        )
        result = encode_video(source, coded, options)
        speed = decode_speed(coded, args.weights, threads, args.repeats)
    return {"bpp": result.bpp, "encode_ms_unadapted": 1e3 * result.seconds["code"] / result.frames, **speed}


# -------------------------------------------------------------------------------------- main


def arguments() -> argparse.Namespace:
    p = parser(__doc__, threads=False)
    p.add_argument("clip", type=Path, metavar="CLIP")
    p.add_argument("--sizes", type=names, default=["352x288", "1280x720", "1920x1080"], metavar="WxH,WxH")
    p.add_argument("--thread-counts", type=names, default=["1", "2"], metavar="N,N")
    p.add_argument("--frames", type=int, default=5, help="default: %(default)s")
    p.add_argument("--repeats", type=int, default=3, help="decodings of which the fastest counts (default: 3)")
    p.add_argument("--quality", type=float, default=50.0, help="default: %(default)g")
    p.add_argument("--rival", action="store_true", help="time CompressAI's mbt2018 too: about a minute")
    return p.parse_args()


def mac_point(profile: str) -> Point:
    model = Msp(PROFILES[profile]).eval().requires_grad_(False)
    return {"kmac_per_pixel": count_macs(model), "parameters": count_parameters(model)}


def rival_point(size: str, threads: int) -> Point:
    """Seconds for one frame through CompressAI's mbt2018, whose decoder visits every latent in turn."""
    from compressai.zoo import mbt2018

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = mbt2018(4, pretrained=False).eval()
    model.update(force=True)
    width, height = (int(n) for n in size.split("x"))
    picture = torch.rand(1, 3, -(-height // 64) * 64, -(-width // 64) * 64)
    with torch.no_grad():
        coded = model.compress(picture)
        start = time.perf_counter()
        model.decompress(coded["strings"], coded["shape"])
    return {"decode_seconds": time.perf_counter() - start}


def main() -> None:
    args = arguments()
    torch.set_flush_denormal(True)
    results = Results("complexity", __doc__.partition("\n\n")[0], args)
    digest = {"weights_digest": weights_digest(args.weights)}
    shapes = {
        profile: results.point(
            {"of": "multiplications", "size": "1920x1088", "shape": PROFILES[profile].to_dict()},
            partial(mac_point, profile),
        )
        for profile in PROFILES
    }
    clip = {"clip": args.clip.name, "clip_digest": digest_of(args.clip), "quality": args.quality}
    speeds = [
        results.point(
            {**clip, "size": size, "decode_threads": threads, "frames": args.frames, **digest},
            partial(measure_speed, args, size, int(threads)),
        )
        for size in args.sizes
        for threads in args.thread_counts
    ]
    text, summary = [], {}
    known = {profile: p for profile, p in shapes.items() if p}
    rows = [
        [profile, f"{p['parameters']['all']:,}", f"{p['parameters']['decoder']:,}"]
        + [show(p["kmac_per_pixel"]["decoder"][k], 3) for k in DECODER_PARTS]
        + ["**" + show(sum(p["kmac_per_pixel"]["decoder"].values()), 3) + "**"]
        + [show(sum(p["kmac_per_pixel"]["encoder"].values()), 3)]
        for profile, p in known.items()
    ]
    summary["decoder_kmac_per_pixel"] = {n: sum(p["kmac_per_pixel"]["decoder"].values()) for n, p in known.items()}
    head = ["profile", "parameters", "of the decoder", *DECODER_PARTS, "**decoder**", "analysis (encoder only)"]
    text += ["Thousand multiplications a luma pixel, at 1920x1088:", table(head, rows)]
    there = [p for p in speeds if p]
    head = ("size", "threads", "bpp", "frames/s", "ms a frame", *PARTS_OF_TIME, "rest", "encoding ms")
    rows = []
    for p in there:
        parts = p["ms_by_part"]
        rest = p["ms"] - sum(parts.values())
        rows.append(
            [p["size"], p["decode_threads"], show(p["bpp"], 3), show(p["fps"]), show(p["ms"], 0)]
            + [show(parts[k], 0) for k in PARTS_OF_TIME]
            + [show(rest, 0), show(p["encode_ms_unadapted"], 0)]
        )
    remark = (
        f"{args.frames} frames of {args.clip.name}, scaled, quality {args.quality:g}, fastest of {args.repeats} runs; "
        "milliseconds a frame by part. `encoding ms`: of one frame without adaptation."
    )
    text += [table(head, rows, 2), remark]
    if args.rival and there:
        size, threads = args.sizes[-1], args.thread_counts[-1]
        rival = results.point(
            {"codec": "compressai mbt2018 4, random weights", "size": size, "decode_threads": threads},
            partial(rival_point, size, int(threads)),
        )
        ours = next((p for p in there if (p["size"], p["decode_threads"]) == (size, threads)), None)
        if rival and ours:
            summary["times_faster_than_mbt2018"] = rival["decode_seconds"] / (ours["ms"] / 1e3)
            text.append(
                f"One {size} frame, {threads} threads: mbt2018 {rival['decode_seconds']:.1f} s, "
                f"ours {ours['ms'] / 1e3:.2f} s, {summary['times_faster_than_mbt2018']:.0f} times faster "
                "(its weights are random)."
            )
    results.finish(summary, "\n\n".join(text))


if __name__ == "__main__":
    main()
