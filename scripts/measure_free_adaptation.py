"""What adapting a network to a video gives where its update is free, and what a plain low-rank update leaves of it.

    python scripts/measure_free_adaptation.py CLIP --free 31,51,87 --ranks 1 --rank-seconds 300
    python scripts/measure_free_adaptation.py CLIP --free "" --ranks "" --tuned usual,batch=4,symbols=rounded

Adam on random crops, cosine schedule, plain rounding of symbols, one core. 'free': every parameter, nothing charged.
'rank R': W + B A for every sent matrix, depthwise kernels, biases and tables whole, encoder free; no quantisation and
no price in training. Its factors are rounded only afterwards, to the power of two nearest to a part of their root mean
square, and coded by the update coder: real bytes.

'tuned': what `encode` does (`Finetuner`, 'learned' entries) and variants of it, one change each: settings of
`FinetuneConfig`, 'parameters', 'crop' (luma samples of a side) or 'symbols=rounded' for a training that knows nothing
of the quantiser.
Judged as files are: real bytes of the frames that judge, under the quantiser that suits the shipped network.

A network is judged on whole frames spread over the clip: ideal bits of rounded symbols, and error in float arithmetic
(what `Finetuner.measure` takes). 'gain' is the difference in bits to the shipped network at the same error, which its
own rate levels around the one measured give, interpolated in logarithms. Seconds are those of the processor that the
process has used: they do not count what others take of a shared core.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from vidcodec.checkpoint import WEIGHTS, sent_parameters
from vidcodec.codec.presets import DEFAULT_MODEL
from vidcodec.codec.steps import SAMPLE_PIXELS
from vidcodec.evaluation.measurement import Figure, Measurement, numbers, parser, say, words
from vidcodec.evaluation.provenance import digest_of
from vidcodec.evaluation.tables import markdown, show
from vidcodec.families import load_family
from vidcodec.families.crops import FrameCrops
from vidcodec.families.family import Family
from vidcodec.families.msp.checkpoint import load_model
from vidcodec.families.msp.network import Msp
from vidcodec.families.msp.objective import MspObjective
from vidcodec.families.planes import plane_errors
from vidcodec.latents.decisions import PLAIN
from vidcodec.rate import UNIT, RateLevel
from vidcodec.updates import finetune
from vidcodec.updates.coder import encode_update
from vidcodec.updates.factors import is_factored
from vidcodec.updates.finetune import FinetuneConfig, Finetuner
from vidcodec.updates.prior import update_prior
from vidcodec.updates.selection import Selection, Strategy, select
from vidcodec.updates.update import MAX_FACTOR, Factors, TensorUpdate, Update
from vidcodec.video import Frame, Sampling, VideoReader

CODE = ("entropy", "families", "updates")  # that the figures depend on
MULTIPLE = 16
CURVE = (-1.0, -0.5, 0.0, 0.5, 1.0)  # rate levels around the one measured, where the shipped network is measured too
ROUNDINGS = (0.5, 1.0, 2.0)  # grid steps, in root mean squares of a factor


def arguments() -> argparse.Namespace:
    p = parser(__doc__, "free_adaptation", frames=None)
    p.add_argument("clip", type=Path, help="a video; results name it by file name")
    p.add_argument("--quality", type=float, default=50.0, help="default: 50")
    p.add_argument("--free", type=numbers_or_none, default=[31.0, 51.0, 87.0], metavar="S,S", help="seconds (31,51,87)")
    p.add_argument("--ranks", type=numbers_or_none, default=[1.0], metavar="R,R", help="default: 1")
    p.add_argument("--rank-seconds", type=float, default=300.0, metavar="S", help="default: 300")
    p.add_argument("--tuned", type=words, default=[], metavar="V,V", help="'usual' and variants; a+b for two at once")
    p.add_argument("--tuned-seconds", type=float, default=60.0, metavar="S", help="default: 60")
    p.add_argument("--sample", type=int, default=12, metavar="N", help="frames that judge (12)")
    p.add_argument("--crop", type=int, default=256, help="luma samples of a crop's side (256)")
    p.add_argument("--batch", type=int, default=4, help="crops of a step (4)")
    return p.parse_args()


def numbers_or_none(text: str) -> list[float]:
    return numbers(text) if text else []


class Clip:
    """A video's frames, the fixed ones that judge, and what the shipped network costs at several rate levels."""

    def __init__(self, args: argparse.Namespace, network: Msp) -> None:
        with VideoReader(args.clip, Sampling(fps=args.fps)) as reader:
            self.frames: list[Frame] = list(islice(reader.frames(), args.frames))
            self.format = reader.format
        self.crops = FrameCrops(self.frames, self.format.bit_depth, MULTIPLE, torch.device("cpu"), size=args.crop)
        self.level = args.quality / 100 * (network.config.levels - 1)
        self.at = [round(i) for i in np.linspace(0, len(self.frames) - 1, min(args.sample, len(self.frames)))]
        self.sample = [self.crops.planes(i).contiguous(memory_format=torch.channels_last) for i in self.at]
        self.objective = MspObjective(network, torch.tensor([self.level]))

    @torch.no_grad()
    def judge(self, network: Msp, parameters: dict[str, Tensor], level: float | None = None) -> tuple[float, float]:
        """Bits per pixel, and error, on the fixed frames."""
        objective = self.objective
        if level is not None:
            objective = MspObjective(network, torch.tensor([level]))
        out = [objective.outcome(network, parameters, x, hard=True) for x in self.sample]
        bits, pixels = sum(float(o.bits) for o in out), sum(o.pixels for o in out)
        return bits / pixels, sum(float(o.error) for o in out) / len(out)


def gain_at_equal_error(curve: list[tuple[float, float]], bpp: float, error: float) -> float:
    """Per cent of bits against a curve of (bits per pixel, error), by logarithms; straight lines beyond its ends."""
    points = sorted((math.log(e), math.log(b)) for b, e in curve)
    x = math.log(error)
    k = min(max(sum(p[0] < x for p in points) - 1, 0), len(points) - 2)
    (x0, y0), (x1, y1) = points[k], points[k + 1]
    return 100 * (bpp / math.exp(y0 + (y1 - y0) * (x - x0) / (x1 - x0)) - 1)


class Trained:
    """A network finetuned with its update free, or as factors.

    rank: of the sent matrices' updates; 0 for free weights.
    """

    def __init__(self, base: Msp, clip: Clip, rank: int, *, seed: int = 0) -> None:
        self.clip, self.rank = clip, rank
        self.network = copy.deepcopy(base)
        sent = dict(sent_parameters(self.network))
        self.base = {n: p.detach().clone() for n, p in sent.items()}
        self.network.requires_grad_(True)
        encoder = [p for n, p in self.network.named_parameters() if n not in sent]
        self.groups: list[Figure] = [{"params": encoder, "peak": 3e-4}]
        self.moved: dict[str, Tensor] = {}
        if not rank:
            self.groups.append({"params": list(sent.values()), "peak": 3e-4})
            return
        generator = torch.Generator().manual_seed(seed)
        for n, p in sent.items():
            p.requires_grad_(False)
            if is_factored(n, tuple(p.shape)):
                columns = p[0].numel()
                self.moved[n + ".left"] = torch.zeros(p.shape[0], rank)
                self.moved[n + ".right"] = torch.randn(rank, columns, generator=generator) / math.sqrt(columns)
            else:
                self.moved[n] = torch.zeros_like(p)
        for x in self.moved.values():
            x.requires_grad_(True)
        for factors, peak in ((True, 1.2e-3), (False, 6e-4)):
            chosen = [x for n, x in self.moved.items() if n.endswith((".left", ".right")) == factors]
            self.groups.append({"params": chosen, "peak": peak})

    def parameters(self, moved: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sent parameters; none where the weights themselves are trained."""
        out = {}
        for n, p in self.base.items() if moved else ():
            if n in moved:
                out[n] = p + moved[n]
            else:
                out[n] = p + (moved[n + ".left"] @ moved[n + ".right"]).reshape(p.shape)
        return out

    def train(self, seconds: float, batch: int, *, seed: int = 0) -> int:
        """For so many seconds of the processor; steps done."""
        optimiser = torch.optim.Adam([{k: v for k, v in g.items() if k != "peak"} for g in self.groups])
        rng, start, steps = np.random.default_rng([seed, 1]), time.process_time(), 0
        while (share := (time.process_time() - start) / seconds) < 1.0:
            out = self.clip.objective.outcome(
                self.network, self.parameters(self.moved), self.clip.crops.crops(rng, batch), hard=False
            )
            (out.bits / out.pixels + self.clip.objective.worth * out.error).backward()
            rate = min(1.0, (steps + 1) / 10) * 0.5 * (1 + math.cos(math.pi * share))
            for group, g in zip(optimiser.param_groups, self.groups, strict=True):
                group["lr"] = g["peak"] * rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            steps += 1
            if steps % 50 == 0:
                say(f"        {steps} steps, {100 * share:.0f} %")
        return steps

    def rounded(self, part: float) -> tuple[Update, dict[str, Tensor], Selection]:
        """The update with every tensor or factor on a grid of the power of two nearest to `part` of its rms."""
        grid: dict[str, TensorUpdate] = {}
        for n, x in self.moved.items():
            rms = float(x.detach()[x.detach() != 0].square().mean().sqrt()) if x.detach().any() else 1.0
            exponent = int(np.clip(round(-math.log2(part * rms)), 0, 20))
            steps = (x.detach() * 2.0**exponent).round().clamp(-MAX_FACTOR, MAX_FACTOR)
            grid[n] = TensorUpdate(steps.numpy().astype(np.int32), exponent)
        tensors = {}
        for n, p in self.base.items():
            if n not in grid:
                tensors[n] = Factors(grid[n + ".left"], grid[n + ".right"]).product(tuple(p.shape))
            elif grid[n].n.any():
                tensors[n] = grid[n]
        moved = {n: torch.from_numpy(t.n.astype(np.float32)) * 2.0**-t.exponent for n, t in grid.items()}
        return Update(tensors), moved, select(Strategy("low-rank", self.rank), self.network)


class Coded:
    """The frames that judge, as files hold them under one quantiser; what the shipped network costs at some rates."""

    def __init__(self, args: argparse.Namespace, clip: Clip) -> None:
        self.clip, self.args = clip, args
        self.family = load_family(DEFAULT_MODEL, args.weights, torch.device("cpu"))
        self.level = RateLevel(round(args.quality / 100 * self.family.top.steps))
        self.pictures = self.family.crops(clip.frames, clip.format, check_pixels=SAMPLE_PIXELS).checks()
        self.settings = self.family.search_settings(self.level, self.pictures, "trellis", lambda _: None)
        steps = [round(offset * UNIT) for offset in (-0.5, 0.0, 0.5)]
        self.curve = [self.judge(self.family, RateLevel(self.level.steps + step)) for step in steps]

    def judge(self, family: Family, level: RateLevel) -> tuple[float, float]:
        """Bits per pixel, and error in the units of the trade-off, of the sampled frames."""
        video, frames = self.clip.format, [self.clip.frames[i] for i in self.clip.at]
        coder = family.picture_coder(level, video, decisions=family.decisions(self.settings, level, self.pictures))
        coded = [coder.encode(frame) for frame in frames]
        errors = [
            family.trade_off(level).error_bits(plane_errors(f, c.show()), video.bit_depth)
            for f, c in zip(frames, coded, strict=True)
        ]
        bits = 8 * sum(len(c.payload) for c in coded) / (video.width * video.height * len(frames))
        return bits, sum(errors) / len(frames) / family.trade_off(level).worth

    def tuned(self, variant: str, seconds: float) -> Figure:
        """What `encode`'s finetuning gives in so many seconds of the processor, with a few things changed."""
        changes = dict(c.split("=") for c in variant.split("+") if c != "usual")
        symbols, strategy = changes.pop("symbols", "decided"), Strategy.parse(changes.pop("parameters", "learned"))
        side = int(changes.pop("crop", 0)) or None
        decided = self.family.decisions(self.settings, self.level, self.pictures)
        objective = self.family.objective(self.level, self.clip.format, PLAIN if symbols == "rounded" else decided)
        crops = self.family.crops(self.clip.frames, self.clip.format, size=side)
        settings = {"batch": crops.batch, **{k: type(getattr(FinetuneConfig, k))(v) for k, v in changes.items()}}
        config = FinetuneConfig(steps=10**9, max_seconds=seconds, **settings)
        finetune.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[assignment]  # a shared core
        selection = select(strategy, self.family.network, pixels=crops.pixels)
        done = Finetuner(self.family.network, objective, crops, update_prior("adaptive"), config, selection).run()
        bpp, error = self.judge(self.family.with_network(done.model.eval()), self.level)
        size = len(done.payload)
        counted = bpp + 8 * size / crops.pixels
        return {
            "steps": done.curve[-1]["step"],
            "quantizer": asdict(self.settings),
            "curve": self.curve,
            "bpp": bpp,
            "error": error,
            "bytes_update": size,
            "gain": gain_at_equal_error(self.curve, counted, error),
            "gain_uncounted": gain_at_equal_error(self.curve, bpp, error),
        }


def main() -> None:
    args = arguments()
    m = Measurement(args, __doc__)
    network = load_model(weights=args.weights)[0].to(memory_format=torch.channels_last)
    clip = Clip(args, network)
    common: Figure = {
        "clip": args.clip.name,
        "clip_digest": digest_of(args.clip),
        "weights_digest": digest_of(args.weights or WEIGHTS / "msp.safetensors"),
        "fps": str(args.fps),
        "frames": len(clip.frames),
        "quality": args.quality,
        "sample": len(clip.sample),
    }
    training: Figure = {"crop": args.crop, "batch": args.batch}
    curve = []
    for offset in CURVE if args.free or args.ranks else ():
        level = clip.level + offset

        def plain(level: float = level) -> Figure:
            return dict(zip(("bpp", "error"), clip.judge(network, {}, level), strict=True))

        if p := m.figure({**common, "kind": "plain", "level": level}, plain, CODE):
            curve.append((p["bpp"], p["error"]))

    def gain(bpp: float, error: float, size: int = 0) -> float:
        return gain_at_equal_error(curve, bpp + 8 * size / clip.crops.pixels, error)

    def free(seconds: float) -> Figure:
        trained = Trained(network, clip, 0)
        wall = time.monotonic()
        steps = trained.train(seconds, args.batch)
        bpp, error = clip.judge(trained.network, {})
        return {"steps": steps, "wall": time.monotonic() - wall, "bpp": bpp, "error": error, "gain": gain(bpp, error)}

    def low_rank(rank: int, seconds: float) -> Figure:
        trained = Trained(network, clip, rank)
        wall = time.monotonic()
        steps = trained.train(seconds, args.batch)
        out: Figure = {"steps": steps, "wall": time.monotonic() - wall}
        with torch.no_grad():
            bpp, error = clip.judge(trained.network, trained.parameters(trained.moved))
            out |= {"bpp": bpp, "error": error, "gain": gain(bpp, error), "rounded": []}
            for part in ROUNDINGS:
                update, moved, selection = trained.rounded(part)
                bpp, error = clip.judge(trained.network, trained.parameters(moved))
                size = len(encode_update(update, network, selection=selection))
                figures = {"bpp": bpp, "error": error, "bytes_update": size, "gain": gain(bpp, error, size)}
                out["rounded"].append({"part": part, **figures, "gain_uncounted": gain(bpp, error)})
        return out

    tasks: list[tuple[Figure, Callable[[], Figure]]] = [
        ({"kind": "free", "seconds": s}, partial(free, s)) for s in args.free
    ]
    tasks += [
        (
            {"kind": "rank", "rank": int(r), "seconds": args.rank_seconds},
            partial(low_rank, int(r), args.rank_seconds),
        )
        for r in args.ranks
    ]

    @cache
    def coded() -> Coded:
        return Coded(args, clip)

    def tuned_by_encode(variant: str) -> Figure:
        return coded().tuned(variant, args.tuned_seconds)

    tasks += [
        ({"kind": "tuned", "variant": v, "seconds": args.tuned_seconds}, partial(tuned_by_encode, v))
        for v in args.tuned
    ]
    rows: list[list[str | None]] = []
    tuned: list[list[str | None]] = []
    for key, measure in tasks:
        if not (p := m.figure({**common, **training, **key}, measure, CODE)):
            continue
        if p["kind"] == "tuned":
            gains = [show(p[k], 1, sign=True) for k in ("gain", "gain_uncounted")]
            size = show(p["bytes_update"], 0)
            tuned.append([p["variant"], show(p["seconds"], 0), str(p["steps"]), size, *gains])
            continue
        name = "free" if p["kind"] == "free" else f"rank {p['rank']}"
        head = [name, show(p["seconds"], 0), str(p["steps"])]
        rows.append([*head, "none", None, show(p["gain"], 1, sign=True)])
        for r in p.get("rounded", ()):
            size = show(r["bytes_update"], 0)
            rows.append([*head, f"{r['part']:g} rms", size, show(r["gain"], 1, sign=True)])
    top = ("update", "seconds", "steps", "rounding", "bytes", "gain %")
    remarks = (
        f"{common['clip']}, {common['frames']} frames at {common['fps']} fps, quality {args.quality:g}; "
        f"{len(clip.sample)} whole frames judge; seconds of one core. Bytes are those of the update coder, and counted "
        "in the gain; without rounding nothing is counted."
        + (f" {args.batch} crops of {args.crop}x{args.crop} a step." if rows else "")
    )
    text = markdown(top, rows) if rows else ""
    if tuned:
        head = ["encode's finetuning", "seconds", "steps", "update bytes", "gain %", "update not counted"]
        text += "\n\n" + markdown(head, tuned)
    m.publish(text.strip(), remarks)


if __name__ == "__main__":
    main()
