"""Why an update entry by entry stays at zero: what every entry could gain, against the bits that tell where it is.

    python scripts/measure_update_threshold.py CLIP

At the shipped weights, on the grid that finetuning would choose ('all', steps from curvature): the gradient of the loss
per grid step in bits of the whole video, from two independent halves of the crops, and

    above      share of the entries whose gradient exceeds the price of the first step away from zero, which is the
               threshold that `SparseMomentum` leaves standing (8.6 bits in matrices, 4.3 in vectors)
    gain       sum over entries of g^2 / (2 h): what a Newton step along the gradient would gain, h being 12 / ln 2 bits
               per squared step on this grid; g^2 is the product of the halves, so noise adds nothing on average
    kept       the part of that gain that lies in entries above the price, net of it
    rank 1     the part of it along the greatest singular vectors of a matrix: 'noisy' as the whole gradient shows it,
               'true' in the second half along the vectors of the first
"""

from __future__ import annotations

import argparse
import math
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidcodec.checkpoint import WEIGHTS
from vidcodec.evaluation.measurement import Figure, Measurement, parser
from vidcodec.evaluation.provenance import digest_of
from vidcodec.evaluation.tables import markdown, show
from vidcodec.families.crops import FrameCrops
from vidcodec.families.msp.checkpoint import load_model
from vidcodec.families.msp.network import Msp
from vidcodec.families.msp.objective import MspObjective
from vidcodec.updates.finetune import FinetuneConfig, step_exponents
from vidcodec.updates.optim import GRID_CURVATURE, is_vector
from vidcodec.updates.prior import AdaptivePrior
from vidcodec.updates.selection import everything
from vidcodec.updates.update import is_matrix
from vidcodec.video import Sampling, VideoReader


def arguments() -> argparse.Namespace:
    p = parser(__doc__, "update_threshold", frames=None)
    p.add_argument("clip", type=Path)
    p.add_argument("--quality", type=float, default=50.0, help="default: 50")
    p.add_argument("--batches", type=int, default=8, help="of each half (8)")
    p.add_argument("--crop", type=int, default=256, help="luma samples of a crop's side (256)")
    p.add_argument("--batch", type=int, default=4, help="crops of a batch (4)")
    return p.parse_args()


def group_of(name: str) -> str:
    part = name.partition(".")[0]
    return f"{part}, {'vectors' if is_vector(name) else 'matrices'}"


def halves(
    network: Msp, objective: MspObjective, crops: FrameCrops, args: argparse.Namespace
) -> list[dict[str, Tensor]]:
    """Mean gradients of the loss (bits per pixel) by the sent parameters, over two sets of batches."""
    names = set(everything(network).masks)
    parameters = {n: p.detach().requires_grad_(True) for n, p in network.named_parameters() if n in names}
    out = []
    for half in (0, 1):
        rng = np.random.default_rng([7, half])
        total = {n: torch.zeros_like(p) for n, p in parameters.items()}
        for _ in range(args.batches):
            o = objective.outcome(network, parameters, crops.crops(rng, args.batch), hard=False)
            loss = o.bits / o.pixels + objective.worth * o.error
            for n, g in zip(
                total, torch.autograd.grad(loss, list(parameters.values()), allow_unused=True), strict=True
            ):
                if g is not None:
                    total[n] += g / args.batches
        out.append(total)
    return out


def measure(args: argparse.Namespace, network: Msp) -> Figure:
    with VideoReader(args.clip, Sampling(fps=args.fps)) as reader:
        frames, depth = list(islice(reader.frames(), args.frames)), reader.format.bit_depth
    crops = FrameCrops(frames, depth, 16, torch.device("cpu"), size=args.crop)
    level = args.quality / 100 * (network.config.levels - 1)
    objective = MspObjective(network, torch.tensor([level]))
    exponents = step_exponents(network, objective, crops, FinetuneConfig(batch=args.batch), everything(network))
    first, second = halves(network, objective, crops, args)
    prior = AdaptivePrior()
    groups: dict[str, dict[str, float]] = {}
    for n, k in exponents.items():
        a, b = (g[n] * (crops.pixels * 2.0**-k) for g in (first, second))  # bits of the video per grid step
        mean, price = (a + b) / 2, float(prior.slope(n, torch.zeros_like(a)).flatten()[0])
        above = mean.abs() > price
        true = a * b / (2 * GRID_CURVATURE)
        net = (mean.abs() - price).clamp_min(0).square() / (2 * GRID_CURVATURE)
        p = groups.setdefault(group_of(n), dict.fromkeys(("entries", "above", "gain", "kept", "noisy1", "true1"), 0.0))
        p["entries"] += a.numel()
        p["above"] += int(above.sum())
        p["gain"] += float(true.sum())
        p["kept"] += float(net[above].sum())
        if is_matrix(n, tuple(a.shape)):
            x, y = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
            u, s, v = torch.linalg.svd(x, full_matrices=False)
            p["noisy1"] += float(s[0] ** 2) / (2 * GRID_CURVATURE)
            p["true1"] += float(s[0] * (u[:, 0] @ y @ v[0])) / (2 * GRID_CURVATURE)
    plain = objective.outcome(network, {}, crops.crops(np.random.default_rng(1), args.batch), hard=True)
    return {"groups": groups, "stream_bits": float(plain.bits) / plain.pixels * crops.pixels, "pixels": crops.pixels}


def main() -> None:
    args = arguments()
    m = Measurement(args, __doc__)
    network = load_model(weights=args.weights)[0].to(memory_format=torch.channels_last)
    key = {
        "clip": args.clip.name,
        "clip_digest": digest_of(args.clip),
        "weights_digest": digest_of(args.weights or WEIGHTS / "msp.safetensors"),
        "fps": str(args.fps),
        "frames": args.frames,
        "quality": args.quality,
        "batches": args.batches,
        "crop": args.crop,
        "batch": args.batch,
    }
    rows: list[list[str | None]] = []
    if p := m.figure(key, lambda: measure(args, network), ("entropy", "families", "updates")):
        total = p["stream_bits"]
        for name, g in sorted(p["groups"].items()):
            share = [show(100 * g[k] / total, 2) for k in ("gain", "kept", "noisy1", "true1")]
            rows.append([name, show(g["entries"], 0), show(100 * g["above"] / max(g["entries"], 1), 3), *share])
    head = ("parameters", "entries", "above %", "gain %", "kept %", "rank 1 noisy %", "rank 1 true %")
    remark = (
        "Gains in per cent of the stream's bits, to second order and with one curvature per tensor: they overlap and "
        f"are no forecast, but they compare. Price of the first step: {-math.log2(0.0025):.1f} bits in matrices."
    )
    m.publish(markdown(head, rows), remark)


if __name__ == "__main__":
    main()
