"""Which shape of the network to train: candidates trained for the same few minutes on the same data, one core each.

    python scripts/measure_shapes.py RUN... --at 4 --rate-before RUN --rate-after RUN

RUN is the folder of a training run (log.jsonl, config.json). The score is the mean, over four rate levels, of log2 of
the R-D cost R + lambda 255^2 D on held-out crops of 256x256; lower is better, 0.1 is about 7 % of the cost.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from _measuring import Point, Results, digest_of, parser, show, table
from measure_complexity import count_macs, count_parameters

from vidcodec.models.msp import Msp, MspConfig


def arguments() -> argparse.Namespace:
    p = parser(__doc__)
    p.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    p.add_argument("--at", type=float, default=4.0, metavar="MIN", help="compare all runs about there (default: 4)")
    p.add_argument("--rate-before", type=Path, metavar="RUN", help="a run that charged noisy symbols")
    p.add_argument("--rate-after", type=Path, metavar="RUN", help="its continuation on rounded ones ('mixed')")
    return p.parse_args()


def log_of(run: Path) -> list[Point]:
    """The validations of a run."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines() if line.strip()]


def describe_shape(model: dict) -> str:
    """What sets a shape apart from the default configuration."""
    default = MspConfig().to_dict()
    c = {**default, **model}
    widths, blocks, scales = "/".join(map(str, c["widths"])), "/".join(map(str, c["blocks"])), c["scales"]
    passes = f"{1 + 3 * scales} passes" if scales else "1 pass"
    return f"{c['block']}, widths {widths}, blocks {blocks}, {scales} scales, {passes}"


def measure(run: Path) -> Point:
    """The whole log of a run, and what its shape costs."""
    config = json.loads((run / "config.json").read_text())
    torch.manual_seed(0)
    model = Msp(MspConfig.from_dict(config["model"])).eval().requires_grad_(False)
    return {
        "shape": describe_shape(config["model"]), "minutes_planned": config["minutes"],
        "training": {k: config[k] for k in ("batch", "crop", "lr", "seed", "threads", "holdout")},
        "log": log_of(run), "parameters": count_parameters(model), "kmac_per_pixel": count_macs(model),
    }  # fmt: skip


def near(log: list[Point], minutes: float) -> Point:
    """The validation nearest to a time."""
    return min(log, key=lambda entry: abs(entry["minutes"] - minutes))


def shapes_table(points: list[Point], at: float) -> str:
    """All shapes about `at` minutes and at their last validation."""
    rows = []
    for p in sorted(points, key=lambda p: near(p["log"], at)["score"]):
        early, last = near(p["log"], at), p["log"][-1]
        macs = {side: sum(parts.values()) for side, parts in p["kmac_per_pixel"].items()}
        final = [show(last["score"], 3, sign=True), f"{last['minutes']:.1f}", f"{last['step']:,}"]
        rows.append([
            p["candidate"], p["shape"], *(f"{p['parameters'][k] / 1e6:.2f} M" for k in ("all", "decoder")),
            show(macs["decoder"], 1), show(macs["encoder"], 1), show(early["score"], 3, sign=True),
            f"{early['minutes']:.1f}", f"{early['step']:,}", *(final if last is not early else ["stopped"] * 3),
        ])  # fmt: skip
    head = (
        "candidate", "shape", "parameters", "of the decoder", "decoder kMAC/pixel", "analysis kMAC/pixel",
        "early score", "at min", "step", "last score", "at min", "step",
    )  # fmt: skip
    return table(head, rows, 2)


def rate_text(before: list[Point], after: list[Point]) -> tuple[Point, str]:
    """What charging the rate of rounded symbols changed."""
    last_noise = max((e for e in before if e["minutes"] <= after[0]["minutes"]), key=lambda e: e["minutes"])
    summary = {"before": last_noise, "after": after[0], "before_log": before, "after_log": after}
    rows = [
        [what, f"{e['step']:,}", f"{e['minutes']:.1f}", show(e["score"], 3, sign=True)]
        + [f"{bpp:.3f} / {psnr:.2f}" for bpp, psnr, _ in e["points"]]
        for what, e in [*(("noisy symbols", e) for e in before), *(("rounded symbols, 'mixed'", e) for e in after)]
    ]
    head = ("rate charged on", "step", "min", "score", *(f"level {n}: bpp / dB" for n in (0.1, 0.37, 0.63, 0.9)))
    text = (
        "The rate term of training. The run on top charged the bits of noisy symbols throughout. From a state it saved "
        f"near minute {last_noise['minutes']:.0f} a copy went on with `rate_of_symbols(..., 'mixed')`: the bits, and "
        "their gradient towards the scales, of the rounded symbols. Score "
        f"{last_noise['score']:+.3f} (step {last_noise['step']:,}, {last_noise['minutes']} min, noise) to "
        f"{after[0]['score']:+.3f} (step {after[0]['step']:,}, {after[0]['minutes']} min), "
        f"{after[0]['minutes'] - last_noise['minutes']:.1f} minutes later. One run each; the noisy one lost "
        "at the lowest rate level from its first validation on."
    )
    return summary, text + "\n\n" + table(head, rows)


def main() -> None:
    args = arguments()
    torch.set_flush_denormal(True)
    results = Results("shapes", __doc__.partition("\n\n")[0], args)
    named = {run: {"candidate": run.name, "log_digest": digest_of(run / "log.jsonl")} for run in args.runs}
    points = [p for run, key in named.items() if (p := results.point(key, partial(measure, run)))]
    trained = points[0]["training"] if points else {}
    body = [
        "Score: mean over four rate levels (0.1, 0.37, 0.63, 0.9 of the range) of log2(R + lambda 255^2 D), rounded "
        "symbols, held-out crops of 256x256, averaged weights; lower is better, 0.1 is about 7 % of the cost. All with "
        f"one core each, batch {trained.get('batch')}, crops of {trained.get('crop')}, the same data and seed, the "
        f"learning rate's cosine over {points[0]['minutes_planned'] if points else '?'} minutes. `stopped`: the run "
        f"was ended by hand after the validation at about {args.at:g} minutes. One run of each; all charged the rate "
        "of noisy symbols, see below. A few minutes say which shape learns fastest, not which one is best in the end.",
        shapes_table(points, args.at),
    ]
    summary: Point = {}
    if args.rate_before and args.rate_after:
        summary["rate"], text = rate_text(log_of(args.rate_before), log_of(args.rate_after))
        body.append(text)
    results.finish(summary, "\n\n".join(body))


if __name__ == "__main__":
    main()
