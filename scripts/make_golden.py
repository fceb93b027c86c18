"""Make golden files of tests/data/golden: streams that every later version must decode.

    python scripts/make_golden.py NAME...

Make one again only when the format or the arithmetic version changes, which is a breaking change.
The network is tiny and random, so that the files do not depend on the shipped weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidcodec import EncodeOptions, Frame, Sampling, VideoDecoder, VideoFormat, encode_video
from vidcodec.families.lossless.checkpoint import save_lossless
from vidcodec.families.lossless.network import Lossless, LosslessConfig
from vidcodec.families.msp import quantising
from vidcodec.families.msp.checkpoint import save_model
from vidcodec.families.msp.network import Msp, MspConfig
from vidcodec.families.pocket.checkpoint import save_pocket
from vidcodec.families.pocket.network import Pocket, PocketConfig
from vidcodec.video import open_writer

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "data" / "golden"


def tiny_network() -> Msp:
    torch.manual_seed(20)
    config = MspConfig(
        widths=(12, 12),
        blocks=(1, 1),
        analysis_blocks=None,
        latent=12,
        hyper=6,
        mean_features=8,
        scale_features=8,
        pass_width=8,
        pass_known=6,
        scale_width=8,
        scale_known=6,
        levels=3,
    )
    model = Msp(config)
    with torch.no_grad():
        for p in model.pass_scale:
            p.head.weight.mul_(8)  # type: ignore[union-attr, operator]
    return model


def tiny_lossless() -> Lossless:
    torch.manual_seed(20)
    return Lossless(LosslessConfig(luma=(10,), chroma=(8,), mixtures=2, scales=3, tiers=2))


def tiny_pocket() -> Pocket:
    return Pocket(PocketConfig(grids=5, own=8, coarse=4, context=8, hidden=16))


# Name: what its stream shows.
CASES: dict[str, dict[str, Any]] = {
    "clip": {"quantizer": "uniform", "quality": 60},
    "trellis": {"quantizer": "trellis", "quality": 90, "update_parameters": "biases"},
    "rdoq": {
        "quantizer": "rdoq",
        "quality": 90,
        "update_parameters": "low-rank:2",
        "update_prior": "no-rate",
        "steps": 80,
    },
    "chain": {"quantizer": "rdoq", "quality": 70, "adapt": "none", "key_seconds": 60},
    "lossless": {"lossless": True, "update_parameters": "last-layer"},
    "pocket": {"model": "pocket", "quality": 60, "steps": 100},
}
# Networks of the other families.
WEIGHTS = {"lossless": "tiny_lossless", "pocket": "tiny_pocket"}


def make(name: str, clip: Path, weights: Path) -> None:
    """One stream and what it must decode to."""
    case = CASES[name] if WEIGHTS.get(name) else {"refine": "none", **CASES[name]}
    options = EncodeOptions(sampling=Sampling(fps=None), weights=weights, **{"steps": 30, **case})
    result = encode_video(clip, GOLDEN / f"{name}.vdc", options)
    with VideoDecoder(GOLDEN / f"{name}.vdc", weights=weights, device="cpu") as decoder:
        frames = [decoder.frame(i) for i in range(len(decoder))]
    expected = {
        "update_bytes": result.update_size,
        "checksums": [log.crc for _, log in frames],
        "means": [[float(f.y.mean()), float(f.uv[0].mean()), float(f.uv[1].mean())] for f, _ in frames],
    }
    (GOLDEN / f"{name}.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(name, result.chosen, result.update_size, result.size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=CASES, metavar="NAME", help=", ".join(CASES))
    names = parser.parse_args().names
    torch.set_num_threads(1)
    quantising.KINDS["trellis"] = ("trellis8",)  # not RDOQ where that costs less
    GOLDEN.mkdir(parents=True, exist_ok=True)
    if not (weights := GOLDEN / "tiny.safetensors").exists():
        save_model(tiny_network(), weights)
    if not (weights := GOLDEN / "tiny_lossless.safetensors").exists():
        save_lossless(tiny_lossless(), weights)
    if not (weights := GOLDEN / "tiny_pocket.safetensors").exists():
        save_pocket(tiny_pocket(), weights)
    rng = np.random.default_rng(20)
    video = VideoFormat(50, 34, frame_rate=None)
    clip = GOLDEN / "source.mkv"
    rows, columns = np.mgrid[:34, :50]
    with open_writer(clip, video, overwrite=True) as writer:
        for i in range(3):
            y = 128 + 60 * np.sin((columns + 5 * i) / 6) + 30 * np.cos(rows / 4) + rng.normal(0, 3, rows.shape)
            uv = rng.integers(100, 150, (2, 17, 25)).astype(np.uint8)
            writer.write(Frame(np.clip(y, 0, 255).astype(np.uint8), uv, 500 * i))
    for name in names:
        make(name, clip, GOLDEN / f"{WEIGHTS.get(name, 'tiny')}.safetensors")
    clip.unlink()


if __name__ == "__main__":
    main()
