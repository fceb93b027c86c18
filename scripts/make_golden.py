"""Make the golden file of tests/data/golden: a stream that every later version must decode.

    python scripts/make_golden.py

Run it only when the format or the arithmetic version changes, which is a breaking change.
The network is tiny and random, so that the file does not depend on the shipped weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from vidcodec import EncodeOptions, Frame, Sampling, VideoDecoder, VideoFormat, encode_video
from vidcodec.models.checkpoint import save_model
from vidcodec.models.msp import Msp, MspConfig
from vidcodec.video import open_writer

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "data" / "golden"


def tiny_network() -> Msp:
    torch.manual_seed(20)
    config = MspConfig(
        widths=(12, 12, 12), blocks=(1, 1, 1), latent=12, hyper=6, mean_features=8,
        scale_features=8, pass_width=8, pass_known=6, scale_width=8, scale_known=6, levels=3,
    )  # fmt: skip
    model = Msp(config)
    with torch.no_grad():
        for p in model.pass_scale:
            p.head.weight.mul_(8)  # type: ignore[union-attr]
    return model


def main() -> None:
    torch.set_num_threads(1)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    weights = GOLDEN / "tiny.safetensors"
    save_model(tiny_network(), weights)
    rng = np.random.default_rng(20)
    video = VideoFormat(50, 34, frame_rate=None)
    clip = GOLDEN / "clip.mkv"
    rows, columns = np.mgrid[:34, :50]
    with open_writer(clip, video, overwrite=True) as writer:
        for i in range(3):
            y = 128 + 60 * np.sin((columns + 5 * i) / 6) + 30 * np.cos(rows / 4) + rng.normal(0, 3, rows.shape)
            uv = rng.integers(100, 150, (2, 17, 25)).astype(np.uint8)
            writer.write(Frame(np.clip(y, 0, 255).astype(np.uint8), uv, 500 * i))
    options = EncodeOptions(
        sampling=Sampling(fps=None), weights=weights, steps=30, quality=60, quantizer="uniform", refine="none"
    )
    result = encode_video(clip, GOLDEN / "clip.vdc", options)
    clip.unlink()
    with VideoDecoder(GOLDEN / "clip.vdc", weights=weights, device="cpu") as decoder:
        frames = [decoder.frame(i) for i in range(len(decoder))]
    expected = {
        "update_bytes": result.update_size,
        "checksums": [log.crc for _, log in frames],
        "means": [[float(f.y.mean()), float(f.uv[0].mean()), float(f.uv[1].mean())] for f, _ in frames],
    }
    (GOLDEN / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(json.dumps(expected))


if __name__ == "__main__":
    main()
