"""Whether training for adaptability pays: a short meta-training against plain training of equal cost.

    python scripts/measure_meta_training.py CLIP... --train-data DIR --work DIR

Both arms begin with the shipped weights. Meta-training is first-order MAML (Finn, Abbeel, Levine 2017, arXiv
1703.03400): a picture stands for a video; a few steps on its crops, as adaptation would make them (every encoder
weight, every vector the decoder shares; each tensor by a step of fixed root mean square), then the gradient on other
crops of it, at the adapted weights, moves the base. Plain training takes the same number of gradients of as many
crops. Then every clip is coded for real, with and without adaptation, from the weights of each arm: which adapted
files cost least?
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _measuring import (
    Point,
    Results,
    add_coding_options,
    code_clip,
    coding_key,
    mean_of,
    numbers,
    parser,
    sampling,
    say,
    show,
    table,
)
from torch import Tensor
from torch.func import functional_call

from vidcodec.codec.options import EncodeOptions
from vidcodec.models.checkpoint import is_sent, load_model, save_model
from vidcodec.models.msp import Msp
from vidcodec.training.codec import rd_cost
from vidcodec.training.data import Planes, load_pictures, photo_crop, planes_to_tensor

ARMS = ("start", "plain", "meta")
CROP, BATCH = 192, 4


def arguments() -> argparse.Namespace:
    p = parser(__doc__, threads=True)
    add_coding_options(p)
    p.set_defaults(steps=60)
    p.add_argument("--train-data", type=Path, required=True, metavar="DIR", help="photographs")
    p.add_argument("--work", type=Path, required=True, metavar="DIR", help="where the arms' weights stay")
    p.add_argument("--outer-steps", type=int, default=250, help="of meta-training (default: %(default)s)")
    p.add_argument("--inner-steps", type=int, default=4, help="default: %(default)s")
    p.add_argument("--inner-lr", type=float, default=1e-4, help="root mean square of a step (default: %(default)g)")
    p.add_argument("--lr", type=float, default=1e-4, help="of both arms, cosine to zero (default: %(default)g)")
    p.add_argument("--qualities", type=numbers, default=[30.0, 60.0], metavar="Q,Q", help="default: 30,60")
    p.add_argument("--frames", type=int, default=10, help="of each clip (default: %(default)s)")
    return p.parse_args()


# -------------------------------------------------------------------------------- training


def crops(rng: np.random.Generator, picture: Planes) -> Tensor:
    """A batch from one picture: (BATCH, 6, CROP / 2, CROP / 2)."""
    return torch.stack([planes_to_tensor(*photo_crop(rng, picture, CROP)) for _ in range(BATCH)])


def cost(model: Msp, parameters: dict[str, Tensor], planes: Tensor, level: Tensor) -> Tensor:
    """(R + lambda 255^2 D) / lambda^0.45, as the base is trained."""
    with torch.autocast("cpu", torch.bfloat16):
        out = functional_call(model, parameters, (planes, level))
    return rd_cost(out, planes, model.rate_lambda(level))


def meta_gradients(
    model: Msp, args: argparse.Namespace, rng: np.random.Generator, pictures: list[Planes]
) -> Iterator[Tensor]:
    """One task: the costs of its inner steps, then the cost whose gradient stays in the parameters."""
    picture = pictures[int(rng.integers(len(pictures)))]
    level = torch.full((BATCH,), float(rng.uniform(0.5, 7.5)))
    fast = dict(model.named_parameters())
    moving = [n for n, p in fast.items() if not is_sent(n) or p.ndim == 1 or n.endswith("table")]
    for _ in range(args.inner_steps):
        loss = cost(model, fast, crops(rng, picture), level)
        gradients = torch.autograd.grad(loss, [fast[n] for n in moving], allow_unused=True)
        for n, g in zip(moving, gradients, strict=True):
            if g is not None:
                step = args.inner_lr * g / g.square().mean().sqrt().clamp_min(1e-12)
                fast[n] = (fast[n] - step).detach().requires_grad_(True)
        yield loss.detach()
    loss = cost(model, fast, crops(rng, picture), level)
    for p, g in zip(model.parameters(), torch.autograd.grad(loss, list(fast.values()), allow_unused=True), strict=True):
        p.grad = g
    yield loss.detach()


def train(arm: str, args: argparse.Namespace, path: Path) -> None:
    """Train one arm and leave its weights at `path`."""
    pictures = [planes for _, planes in load_pictures(args.train_data)]
    model = load_model(weights=args.weights)[0].requires_grad_(True).to(memory_format=torch.channels_last)
    rng = np.random.default_rng(7)
    torch.set_flush_denormal(True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=0.0)
    steps = args.outer_steps * (1 if arm == "meta" else args.inner_steps + 1)
    for step in range(steps):
        if arm == "meta":
            *_, loss = meta_gradients(model, args, rng, pictures)
        else:
            planes = torch.cat([crops(rng, pictures[i])[:1] for i in rng.integers(len(pictures), size=BATCH)])
            level = torch.from_numpy(rng.uniform(0.5, 7.5, BATCH).astype(np.float32))
            loss = cost(model, dict(model.named_parameters()), planes, level)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = args.lr * min(1.0, (step + 1) / 20) * 0.5 * (1 + np.cos(np.pi * step / steps))
        optimiser.step()
        if step % max(1, steps // 20) == 0:
            say(f"{arm}: step {step} of {steps}, cost {loss.item():.3f}")
    save_model(model, path)


# ------------------------------------------------------------------------------- measuring


def main() -> None:
    args = arguments()
    results = Results("meta_training", __doc__.partition("\n\n")[0], args)
    args.work.mkdir(parents=True, exist_ok=True)
    weights: dict[str, Path | None] = {"start": args.weights}
    for arm in ARMS[1:]:
        weights[arm] = args.work / f"{arm}-{args.outer_steps}x{args.inner_steps}.safetensors"
        if not weights[arm].exists():  # type: ignore[union-attr]
            train(arm, args, weights[arm])  # type: ignore[arg-type]
    rows, relative = [], {arm: [] for arm in ARMS}  # type: ignore[var-annotated]
    for clip in args.clips:
        for quality in args.qualities:
            start: Point | None = None
            for arm in ARMS:
                options = EncodeOptions(
                    sampling=sampling(args.fps, args.frames),
                    quality=quality,
                    steps=args.steps,
                    quantizer="uniform",
                    refine="none",
                    weights=weights[arm],
                    device="cpu",
                )
                point = results.point(
                    {**coding_key(clip, options, args.frames), "arm": arm}, partial(code_clip, clip, options)
                )
                if not point:
                    continue
                start = start or point
                plain, adapted = point["candidates"]["plain"], min(point["candidates"].values())
                best = min(start["candidates"].values())
                relative[arm].append(100 * (adapted / best - 1))
                gain = show(100 * (adapted / plain - 1), 2, sign=True)
                against = show(relative[arm][-1], 2, sign=True)
                costs = [show(plain, 4), show(adapted, 4)]
                rows.append([clip.name, f"{quality:g}", arm, *costs, gain, against, show(point["bytes_update"], 0)])
    head = [
        "clip",
        "quality",
        "weights",
        "J plain",
        "J adapted",
        "adaptation %",
        "adapted against start %",
        "update bytes",
    ]
    means = {arm: mean_of(values) for arm, values in relative.items()}
    rows.append(["mean", "", "", "", "", "", "; ".join(f"{a} {show(m, 2, sign=True)}" for a, m in means.items()), ""])
    text = (
        f"{args.outer_steps} tasks of {args.inner_steps} inner steps and one outer, batches of {BATCH} crops of "
        f"{CROP}x{CROP}; plain training: as many gradients. J: true R-D-M cost in bits per pixel. Adaptation: "
        f"{args.steps} steps on {args.frames} frames, plain rounding."
    )
    results.finish({"adapted_against_start_percent": means}, f"{table(head, rows, 3)}\n\n{text}")


if __name__ == "__main__":
    main()
