"""Whether training for adaptability pays: a short meta-training against plain training of equal cost.

    python scripts/measure_meta_training.py CLIP... --train-data DIR --arms DIR

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
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from vidcodec.checkpoint import is_sent
from vidcodec.evaluation.measurement import Measurement, numbers, parser, say, spec
from vidcodec.evaluation.tables import cost_of, markdown, mean_of, per_cent, show
from vidcodec.families.msp.checkpoint import load_model, save_model
from vidcodec.families.msp.network import Msp
from vidcodec.training.codec import rd_cost
from vidcodec.training.data import Planes, load_pictures, photo_crop, planes_to_tensor

ARMS = ("start", "plain", "meta")
CROP, BATCH = 192, 4


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
    fast: dict[str, Tensor] = dict(model.named_parameters())
    moving = [n for n, p in fast.items() if not is_sent(model, n) or p.ndim == 1 or n.endswith("table")]
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
            loss = cost(model, {**dict(model.named_parameters())}, planes, level)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = args.lr * min(1.0, (step + 1) / 20) * 0.5 * (1 + np.cos(np.pi * step / steps))
        optimiser.step()
        if step % max(1, steps // 20) == 0:
            say(f"{arm}: step {step} of {steps}, cost {loss.item():.3f}")
    save_model(model, path)


def main() -> None:
    p = parser(__doc__, "meta_training", frames=10)
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    p.add_argument("--train-data", type=Path, required=True, metavar="DIR", help="photographs")
    p.add_argument("--arms", type=Path, required=True, metavar="DIR", help="where the arms' weights stay")
    p.add_argument("--outer-steps", type=int, default=250, help="of meta-training (default: %(default)s)")
    p.add_argument("--inner-steps", type=int, default=4, help="default: %(default)s")
    p.add_argument("--inner-lr", type=float, default=1e-4, help="root mean square of a step (default: %(default)g)")
    p.add_argument("--lr", type=float, default=1e-4, help="of both arms, cosine to zero (default: %(default)g)")
    p.add_argument("--qualities", type=numbers, default=[30, 60], metavar="Q,Q", help="default: 30,60")
    p.add_argument("--steps", type=int, default=60, help="of adaptation (default: %(default)s)")
    args = p.parse_args()
    args.arms.mkdir(parents=True, exist_ok=True)
    weights = {"start": args.weights}
    for arm in ARMS[1:]:
        weights[arm] = args.arms / f"{arm}-{args.outer_steps}x{args.inner_steps}.safetensors"
        if not weights[arm].exists():
            train(arm, args, weights[arm])
    usual = {"steps": args.steps, "quantizer": "uniform", "refine": "none"}
    m = Measurement(args, __doc__)
    results = m.evaluate(
        args.clips, [spec("vidcodec", args.qualities, name=arm, weights=weights[arm], **usual) for arm in ARMS]
    )
    start = {(point.clip, point.rate_point): cost_of(point, "") for point in results.points if point.codec == "start"}
    rows, relative = [], {arm: list[float]() for arm in ARMS}
    for point in results.points:
        plain, adapted, before = cost_of(point, "plain"), cost_of(point, ""), start.get((point.clip, point.rate_point))
        if adapted and before:
            relative[point.codec].append(100 * (adapted / before - 1))
        figures = [show(plain, 4), show(adapted, 4), per_cent(adapted, plain, 2), per_cent(adapted, before, 2)]
        rows.append(
            [point.clip, f"{point.rate_point:g}", point.codec, *figures, show(point.details["update_bytes"], 0)]
        )
    means = {arm: mean_of(values) for arm, values in relative.items()}
    head = ["clip", "quality", "weights", "J plain", "J adapted", "adaptation", "against start", "update bytes"]
    m.publish(
        markdown(head, rows, 3),
        "Adapted against start, means: " + ", ".join(f"{arm} {show(v, 2, sign=True)} %" for arm, v in means.items()),
        f"{args.outer_steps} tasks of {args.inner_steps} inner steps and one outer, batches of {BATCH} crops of "
        f"{CROP}x{CROP}; plain training: as many gradients. J: true R-D-M cost in bits per pixel. Adaptation: "
        f"{args.steps} steps on {args.frames} frames, plain rounding.",
        summary={"adapted_against_start_percent": means},
    )


if __name__ == "__main__":
    main()
