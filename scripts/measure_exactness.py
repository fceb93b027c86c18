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

import vidcodec.latents.symbols as symbols_module
from vidcodec.codec.decode import VideoDecoder
from vidcodec.errors import CorruptBitstreamError
from vidcodec.evaluation.measurement import Figure, Measurement, parser
from vidcodec.evaluation.provenance import digest_of
from vidcodec.evaluation.tables import markdown, show
from vidcodec.latents.symbols import SymbolLog

CODE = ("bitstream", "codec", "entropy", "families", "latents", "updates")
INSTRUCTIONS = {
    "all": {},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}
SETTINGS = ("threads", "onednn", "instructions", "device")


class CountedLog(SymbolLog):
    """A symbol log that also hashes and counts all symbols of a frame."""

    def add(self, symbols: np.ndarray, index: np.ndarray, bits: float, *, of_z: bool) -> None:
        super().add(symbols, index, bits, of_z=of_z)
        self.__dict__.setdefault("sha", hashlib.sha256()).update(symbols.astype("<i4").tobytes())
        self.__dict__["sha"].update(index.astype(np.uint8).tobytes())
        self.__dict__["count"] = self.__dict__.get("count", 0) + symbols.size


def child(args: argparse.Namespace) -> None:
    """Decode under this process's settings; figures as JSON on stdout, planes to the file OUT."""
    threads, onednn, out = args.child
    torch.set_num_threads(int(threads))
    torch.backends.mkldnn.enabled = onednn == "on"  # type: ignore[assignment]
    symbols_module.SymbolLog = CountedLog  # type: ignore[misc]
    frames: list[Figure] = []
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


def decode(args: argparse.Namespace, setting: dict[str, str], out: Path) -> Figure:
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
    found: Figure = json.loads(done.stdout)
    return found


def pixel_difference(a: Path, b: Path) -> tuple[int, float]:
    """Largest difference of samples, and the share of samples that differ. -1: not the same number of samples."""
    x, y = (np.memmap(path, "<u2", "r") if path.stat().st_size else np.zeros(0, "<u2") for path in (a, b))
    if x.size != y.size:
        return -1, 1.0
    pieces = max(1, x.size // 4_000_000)
    found = [np.abs(p.astype(np.int32) - q) for p, q in zip(*(np.array_split(s, pieces) for s in (x, y)), strict=True)]
    return max(int(d.max(initial=0)) for d in found), sum(int(np.count_nonzero(d)) for d in found) / max(x.size, 1)


def measure(args: argparse.Namespace, folder: Path, setting: dict[str, str], first: dict[str, str]) -> Figure:
    """One setting against the first one."""
    reference, other, told = folder / "reference", folder / "other", folder / "reference.json"
    if not told.exists():
        told.write_text(json.dumps(decode(args, first, reference)["frames"]))
    found = decode(args, setting, other)
    largest, share = pixel_difference(reference, other)
    intact = [f for f in found["frames"] if "error" not in f]
    return {
        "frames": len(found["frames"]),
        "intact": len(intact),
        "symbols": sum(f["symbols"] for f in intact),
        "sha256": hashlib.sha256("".join(f["sha256"] for f in intact).encode()).hexdigest()[:32],
        "same_symbols": found["frames"] == json.loads(told.read_text()),
        "largest_pixel_difference": largest,
        "differing_samples": share,
        "seconds": found["seconds"],
    }


def main() -> None:
    p = parser(__doc__, "exactness", frames=None)
    p.add_argument("file", type=Path, metavar="FILE.vdc")
    p.add_argument("--child", nargs=3, metavar=("THREADS", "ONEDNN", "OUT"), help=argparse.SUPPRESS)
    p.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child:
        child(args)
        return
    every = [(*s, "cpu") for s in itertools.product(("1", "2"), ("on", "off"), INSTRUCTIONS)]
    every += [("1", "on", "all", "cuda")] * torch.cuda.is_available()
    settings = [dict(zip(SETTINGS, s, strict=True)) for s in every]
    m = Measurement(args, __doc__)
    of = {"file": args.file.name, "file_digest": digest_of(args.file), "max_frames": args.frames}
    of |= {"weights_digest": args.weights and digest_of(args.weights), "torch": torch.__version__}
    with tempfile.TemporaryDirectory(prefix="vidcodec-") as folder:
        found = [m.figure({**of, **s}, partial(measure, args, Path(folder), s, settings[0]), CODE) for s in settings]
    there = [f for f in found if f]
    same = len({f["sha256"] for f in there}) == 1 and all(
        f["same_symbols"] and f["intact"] == f["frames"] for f in there
    )
    largest = max((f["largest_pixel_difference"] for f in there), default=0)
    rows = [
        [
            *(f[k] for k in (*SETTINGS, "intact", "symbols")),
            f["sha256"][:12],
            f["largest_pixel_difference"],
            show(100 * f["differing_samples"], 4),
            show(f["seconds"], 1),
        ]
        for f in there
    ]
    head = [*SETTINGS, "frames", "symbols", "their sha256", "largest pixel diff.", "differing samples %", "seconds"]
    m.publish(
        f"{args.file.name}: {len(there)} combinations: {'identical' if same else '**NOT identical**'} symbols in all "
        f"of them; largest difference of a decoded sample {largest} code values.",
        markdown(head, rows, 4),
        summary={"combinations": len(there), "identical": same, "largest_pixel_difference": largest},
    )
    raise SystemExit(int(not same))


if __name__ == "__main__":
    main()
