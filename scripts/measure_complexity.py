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
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vidcodec.families.family as family_module
from vidcodec.checkpoint import WEIGHTS, is_sent
from vidcodec.codec.decode import VideoDecoder
from vidcodec.codec.encode import encode_video
from vidcodec.codec.options import EncodeOptions
from vidcodec.evaluation.measurement import Figure, Measurement, numbers, parser, words
from vidcodec.evaluation.provenance import digest_of
from vidcodec.evaluation.tables import markdown, show
from vidcodec.families.msp.exact import ExactScales
from vidcodec.families.msp.network import PROFILES, HyperMean, Msp, PassMean
from vidcodec.families.msp.pictures import MspPictureCodec
from vidcodec.latents.coder import SymbolDecoder
from vidcodec.latents.symbols import SymbolLog
from vidcodec.rate import RateLevel
from vidcodec.video import Frame, Sampling, VideoReader, open_writer

DECODER_PARTS = ("Synthesis", "HyperMean", "PassMean", "scale path")
ENCODER_PARTS = ("Analysis", "HyperAnalysis")
MODULES = (*DECODER_PARTS[:3], *ENCODER_PARTS)
COUNTED_SIZE = (1088, 1920)
CODE = ("bitstream", "codec", "entropy", "families", "latents", "updates")


# --------------------------------------------------------------------------- multiplications


def count_macs(model: Msp, height: int = COUNTED_SIZE[0], width: int = COUNTED_SIZE[1]) -> dict[str, dict[str, float]]:
    """kMAC per luma pixel by part, of the decoder and of what the encoder runs besides its entropy model."""
    codec = MspPictureCodec(model, RateLevel(512))
    planes = torch.rand(1, 6, height // 2, width // 2, generator=torch.Generator().manual_seed(0)) * 0.2 - 0.1

    def counted(run: Callable[[], Any]) -> dict[str, float]:
        with FlopCounterMode(display=False) as counter:
            run()
        sums = {name: sum(v.values()) / 2e3 / (height * width) for name, v in counter.get_flop_counts().items()}
        return {**sums, "scale path": sums["Global"] - sum(sums.get(p, 0.0) for p in MODULES)}

    payload = codec.encode(planes).payload
    decoding = counted(lambda: codec.reconstruct(payload, height, width).show())
    encoding = counted(lambda: codec.encode(planes))
    assert decoding.keys() >= set(DECODER_PARTS), f"parts the decoder runs: {sorted(decoding)}"
    return {"decoder": {p: decoding[p] for p in DECODER_PARTS}, "encoder": {p: encoding[p] for p in ENCODER_PARTS}}


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters: all of them, and those the decoder uses."""
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    return {"all": sum(sizes.values()), "decoder": sum(s for n, s in sizes.items() if is_sent(model, n))}


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
    "log and checksum": [(SymbolLog, "add")],
    "planes to frame": [(family_module, "planes_to_frame")],
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


def decode_speed(coded: Path, weights: Path | None, threads: int, repeats: int) -> Figure:
    """Frames per second of the best of some decodings of a file, and where its time went."""
    torch.set_num_threads(threads)
    best: Figure = {"seconds": float("inf")}
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


def measure_speed(args: argparse.Namespace, size: str, threads: int) -> Figure:
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


def mac_figure(profile: str) -> Figure:
    model = Msp(PROFILES[profile]).eval().requires_grad_(False)
    return {"kmac_per_pixel": count_macs(model), "parameters": count_parameters(model)}


def rival_figure(size: str, threads: int) -> Figure:
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
    p = parser(__doc__, "complexity", frames=5)
    p.add_argument("clip", type=Path, metavar="CLIP")
    p.add_argument("--sizes", type=words, default=["352x288", "1280x720", "1920x1080"], metavar="WxH,WxH")
    p.add_argument("--thread-counts", type=numbers, default=[1, 2], metavar="N,N")
    p.add_argument("--repeats", type=int, default=3, help="decodings of which the fastest counts (default: 3)")
    p.add_argument("--quality", type=float, default=50.0, help="default: %(default)g")
    p.add_argument("--rival", action="store_true", help="time CompressAI's mbt2018 too: about a minute")
    args = p.parse_args()
    torch.set_flush_denormal(True)
    m = Measurement(args, __doc__)
    macs = {
        profile: m.figure({"macs of": profile, "size": "1920x1088"}, partial(mac_figure, profile), ["families"])
        for profile in PROFILES
    }
    known = {profile: f for profile, f in macs.items() if f}
    sums = {profile: sum(f["kmac_per_pixel"]["decoder"].values()) for profile, f in known.items()}
    rows = [
        [profile, f"{f['parameters']['all']:,}", f"{f['parameters']['decoder']:,}"]
        + [show(f["kmac_per_pixel"]["decoder"][k], 3) for k in DECODER_PARTS]
        + [f"**{show(sums[profile], 3)}**", show(sum(f["kmac_per_pixel"]["encoder"].values()), 3)]
        for profile, f in known.items()
    ]
    head = ["profile", "parameters", "of the decoder", *DECODER_PARTS, "**decoder**", "analysis (encoder only)"]
    clip = {"clip": args.clip.name, "clip_digest": digest_of(args.clip), "quality": args.quality}
    clip |= {"frames": args.frames, "weights_digest": digest_of(args.weights or WEIGHTS / "msp.safetensors")}
    places = list(itertools.product(args.sizes, map(int, args.thread_counts)))
    speeds = [m.figure({**clip, "size": s, "threads": n}, partial(measure_speed, args, s, n), CODE) for s, n in places]
    times = [
        [f["size"], str(f["threads"]), show(f["bpp"], 3), show(f["fps"]), show(f["ms"], 0)]
        + [show(f["ms_by_part"][k], 0) for k in PARTS_OF_TIME]
        + [show(f["ms"] - sum(f["ms_by_part"].values()), 0), show(f["encode_ms_unadapted"], 0)]
        for f in speeds
        if f
    ]
    size, threads = places[-1]
    rival = (
        m.figure({"codec": "mbt2018 4", "size": size, "threads": threads}, partial(rival_figure, size, threads), [])
        if args.rival
        else None
    )
    last = speeds[-1]
    compared = (
        f"One {size} frame, {threads} threads: mbt2018 {rival['decode_seconds']:.1f} s, ours {last['ms'] / 1e3:.2f} s, "
        f"{rival['decode_seconds'] / (last['ms'] / 1e3):.0f} times faster (its weights are random)."
        if rival and last
        else ""
    )
    m.publish(
        "Thousand multiplications a luma pixel, at 1920x1088:",
        markdown(head, rows),
        markdown(["size", "threads", "bpp", "frames/s", "ms a frame", *PARTS_OF_TIME, "rest", "encoding ms"], times, 2),
        f"{args.frames} frames of {args.clip.name}, scaled, quality {args.quality:g}, fastest of {args.repeats} runs; "
        "milliseconds a frame by part. `encoding ms`: of one frame without adaptation.",
        compared,
        summary={"decoder_kmac_per_pixel": sums},
    )


if __name__ == "__main__":
    main()
