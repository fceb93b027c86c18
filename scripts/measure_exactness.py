"""Whether one file decodes to the same symbols under every arithmetic this machine can be made to use.

    python scripts/measure_exactness.py FILE.vdc

Each combination is a process of its own: 1 and 2 threads; oneDNN on and off; instruction sets held down to SSE4.1 and
AVX2, or as they are (ONEDNN_MAX_CPU_ISA, ATEN_CPU_CAPABILITY and MKL_ENABLE_INSTRUCTIONS together); with a CUDA
device one more on that. Compared: a sha256 over all decoded symbols and the tables they were coded with, and the
pixels, which may differ by rounding; of a lossless file the symbols are the samples.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _measuring import Point, Results, digest_of, parser, show, table, weights_digest

from vidcodec.bitstream import BitstreamReader
from vidcodec.codec.decode import VideoDecoder
from vidcodec.codec.pictures import SymbolLog
from vidcodec.errors import CorruptBitstreamError
from vidcodec.models.checkpoint import WEIGHTS
from vidcodec.models.lossless_checkpoint import NAME as LOSSLESS

INSTRUCTIONS = {
    "SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "all": {},
}


def arguments() -> argparse.Namespace:
    p = parser(__doc__, threads=False)
    p.add_argument("file", type=Path, metavar="FILE.vdc")
    p.add_argument("--frames", type=int, metavar="N", help="only the first N frames")
    p.add_argument("--name", default="exactness", help="of the results files (default: %(default)s)")
    p.add_argument("--child", nargs=3, metavar=("THREADS", "ONEDNN", "OUT"), help=argparse.SUPPRESS)
    p.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    return p.parse_args()


# ------------------------------------------------------------------------------ one process


class CountedLog(SymbolLog):
    """A symbol log that also hashes and counts all symbols of a frame."""

    def add(self, symbols: np.ndarray, index: np.ndarray, bits: float, *, of_z: bool) -> None:
        super().add(symbols, index, bits, of_z=of_z)
        self.__dict__.setdefault("sha", hashlib.sha256()).update(symbols.astype("<i4").tobytes())
        self.__dict__["sha"].update(index.astype(np.uint8).tobytes())
        self.__dict__["count"] = self.__dict__.get("count", 0) + symbols.size


def child(args: argparse.Namespace) -> None:
    """Decode under this process's settings; figures as JSON on stdout, planes to the file OUT."""
    import vidcodec.codec.pictures as pictures

    threads, onednn, out = args.child
    torch.set_num_threads(int(threads))
    torch.backends.mkldnn.enabled = onednn == "on"  # type: ignore[assignment]
    pictures.SymbolLog = CountedLog  # type: ignore[misc]
    frames: list[Point] = []
    start = time.perf_counter()
    with VideoDecoder(args.file, weights=args.weights, device=args.device) as decoder, open(out, "wb") as planes:
        for i in range(len(decoder) if args.frames is None else min(args.frames, len(decoder))):
            try:
                frame, log = decoder.frame(i)
            except CorruptBitstreamError as error:
                frames.append({"error": str(error)})
                continue
            samples = [np.ascontiguousarray(plane).astype("<u2").tobytes() for plane in (frame.y, frame.uv)]
            planes.writelines(samples)
            if decoder.lossless:
                count, sha = frame.y.size + frame.uv.size, hashlib.sha256(b"".join(samples))
            else:
                count, sha = log.__dict__["count"], log.__dict__["sha"]
            frames.append({"crc": log.crc, "symbols": count, "sha256": sha.hexdigest()})
    print(json.dumps({"frames": frames, "seconds": time.perf_counter() - start}))


# ------------------------------------------------------------------------- all the processes


def combinations() -> list[dict[str, str]]:
    """The settings to compare, the reference first."""
    every = itertools.product(("1", "2"), ("on", "off"), reversed(INSTRUCTIONS))
    out = [{"threads": t, "onednn": d, "instructions": i, "device": "cpu"} for t, d, i in every]
    if torch.cuda.is_available():
        out.append({"threads": "1", "onednn": "on", "instructions": "all", "device": "cuda"})
    return out


def decode(args: argparse.Namespace, setting: dict[str, str], out: Path) -> Point:
    """What a process of its own decodes under a setting."""
    threads = setting["threads"]
    environment = {**os.environ, **INSTRUCTIONS[setting["instructions"]]}
    environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, "-W", "ignore", __file__, str(args.file), "--device", setting["device"]]
    command += ["--weights", str(args.weights)] if args.weights else []
    command += ["--frames", str(args.frames)] if args.frames else []
    command += ["--child", threads, setting["onednn"], str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "the process died")
    return json.loads(done.stdout)


def pixel_difference(a: Path, b: Path) -> tuple[int, float]:
    """Largest difference of samples, and the share of samples that differ. -1: not the same number of samples."""
    if a.stat().st_size != b.stat().st_size:
        return -1, 1.0
    largest, differing, total = 0, 0, 0
    for x, y in zip(_pieces(a), _pieces(b), strict=True):
        difference = np.abs(x.astype(np.int32) - y)
        largest = max(largest, int(difference.max(initial=0)))
        differing, total = differing + int(np.count_nonzero(difference)), total + x.size
    return largest, differing / max(total, 1)


def _pieces(path: Path):  # type: ignore[no-untyped-def]
    samples = np.memmap(path, "<u2", "r")
    return np.array_split(samples, max(1, samples.size // 4_000_000))


def shipped(file: Path) -> Path | None:
    """The weights that a file is decoded with where none are given; None: those of the default model."""
    with BitstreamReader(file) as reader:
        return WEIGHTS / f"{LOSSLESS}.safetensors" if reader.header.model == LOSSLESS else None


def main() -> None:
    args = arguments()
    if args.child:
        child(args)
        return
    results = Results(args.name, __doc__.partition("\n\n")[0], args)
    with tempfile.TemporaryDirectory(prefix="vidcodec-") as folder:
        reference, other = Path(folder, "reference"), Path(folder, "other")
        first: list[Point] = []

        def measure(setting: dict[str, str]) -> Point:
            if not first:
                first.append(decode(args, combinations()[0], reference))
            found = decode(args, setting, other)
            largest, share = pixel_difference(reference, other)
            intact = [f for f in found["frames"] if "error" not in f]
            return {
                "frames": len(found["frames"]),
                "intact": len(intact),
                "symbols": sum(f["symbols"] for f in intact),
                "sha256": hashlib.sha256("".join(f["sha256"] for f in intact).encode()).hexdigest()[:32],
                "same_symbols": found["frames"] == first[0]["frames"],
                "largest_pixel_difference": largest,
                "differing_samples": share,
                "seconds": found["seconds"],
            }

        of = {"file": args.file.name, "file_digest": digest_of(args.file), "max_frames": args.frames}
        of["weights_digest"] = weights_digest(args.weights or shipped(args.file))
        points = [results.point({**of, **s}, partial(measure, s)) for s in combinations()]
    there = [p for p in points if p]
    same = bool(there) and all(p["same_symbols"] and p["intact"] == p["frames"] for p in there)
    same = same and len({p["sha256"] for p in there}) == 1
    complete = len(there) == len(combinations())
    largest = max((p["largest_pixel_difference"] for p in there), default=0)
    rows = [
        [
            *(p[k] for k in ("threads", "onednn", "instructions", "device")),
            str(p["intact"]),
            show(p["symbols"], 0),
            p["sha256"][:12],
            str(p["largest_pixel_difference"]),
            f"{100 * p['differing_samples']:.4f}",
            show(p["seconds"], 1),
        ]
        for p in there
    ]
    head = ("threads", "oneDNN", "instructions", "device", "frames", "symbols", "their sha256", "largest pixel diff.")
    text = (
        f"{args.file.name}: {len(there)} combinations, "
        + (f"{there[0]['frames']} frames, {show(there[0]['symbols'], 0)} symbols: " if there else "")
        + ("identical in all of them" + " so far" * (not complete) if same else "**NOT identical**")
        + f"; largest difference of a decoded sample {largest} code value{'s' * (largest != 1)}."
    )
    summary = {"combinations": len(there), "complete": complete, "identical": same, "largest_pixel_difference": largest}
    results.finish(summary, text + "\n\n" + table([*head, "differing samples %", "seconds"], rows, 4))
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
