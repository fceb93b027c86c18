"""vidcodec encode: a video file to one adapted .vdc file."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from dataclasses import fields
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from vidcodec.cli import console
from vidcodec.cli.arguments import (
    NDJSON,
    add_cluster,
    add_general_options,
    add_model_options,
    add_overwrite,
    add_sampling,
    add_seed,
    check_input,
    check_output,
    number,
    sampling_of,
    size_in_bytes,
    update_parameters,
    use_threads,
    whole,
)
from vidcodec.cli.parser import UsageError
from vidcodec.cli.progress import Progress
from vidcodec.codec.presets import ADAPT, PRESETS, QUANTIZERS, REFINE, UPDATE_PRIORS
from vidcodec.updates.strategy import PAYING

if TYPE_CHECKING:
    from vidcodec.codec.encode import EncodeResult

PIPE = Path("-")
ADAPT_HELP = {
    "none": "the shipped model as it is",
    "encoder": "only the encoder: nothing is sent, decoding stays as it is",
    "decoder": "only what the decoder uses",
    "full": "both",
}
REFINE_HELP = {
    "none": "latents as the encoder gives them",
    "lof": "greedy search for better ones",
    "sga": "stochastic annealing of them, slower",
    "best": "both, the cheaper of the two for every frame, slowest",
}
QUANTIZER_HELP = {
    "uniform": "plain rounding",
    "rdoq": "rounding that weighs bits against error",
    "trellis4": "trellis-coded with 4 states, or rdoq where that costs less",
    "trellis": "8 states, a little smaller, about twice the time to decide",
}
PRESETS_HELP = "presets:\n" + "\n".join(f"  {name:8} {preset.cost}" for name, preset in PRESETS.items())
EPILOG = f"""\
{PRESETS_HELP}

examples:
  vidcodec encode talk.mp4                             2 frames a second into talk.vdc
  vidcodec encode talk.mp4 -o t.vdc --fps source --start 1:30 --duration 20
  vidcodec encode cam.mkv -o cam.vdc --keyframes --target-size 3MB
  vidcodec encode cam.mkv -o cam.vdc --target-psnr 36 --preset slow --max-time 15
  vidcodec encode still.png -o still.vdc --quality 80 --adapt none
  vidcodec encode still.png -o still.vdc --adapt none --preset best     only the latents are refined
  vidcodec encode talk.mp4 -o t.vdc --refine none --quantizer rdoq      quick, and a little smaller than uniform
  vidcodec encode clip.mp4 -o c.vdc --update-parameters learned         for short videos: update what pays for its bits
  vidcodec encode day.mp4 -o day.vdc --preset best --work day.work      stopped? the same command goes on
  ffmpeg -i rtsp://camera -t 3600 -c copy -f matroska - | vidcodec encode - -o hour.vdc --preset fast
  vidcodec encode day.mp4 -o day.vdc --preset fast --workers 8          frames in eight processes, the same file
  vidcodec encode scan.png -o scan.vdc --lossless      every sample as it was; RGB stays RGB
  vidcodec encode talk.mp4 -o t.vdc --lossless --fps source             every frame of a video, and every sample of it
  vidcodec encode talk.mp4 -o t.vdc --json | jq -c 'select(.event == "result")'
"""


def add_parser(subparsers: Any) -> None:
    """The options of `vidcodec encode`."""
    parser = subparsers.add_parser(
        "encode",
        help="compress a video into a .vdc file",
        epilog=EPILOG,
        description="Sample frames, adapt the codec to them and write one .vdc file. The model update that decoders "
        "need is in the file; where adapting does not pay, none is sent.",
    )
    parser.add_argument(
        "input",
        type=Path,
        metavar="IN",
        help="a video or picture, anything FFmpeg opens; - for what comes through a pipe",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT.vdc", help="the file to write (default: IN with .vdc)"
    )
    add_overwrite(parser)

    which = add_sampling(parser)
    which.add_argument(
        "--key-interval",
        dest="key_seconds",
        type=number(0),
        default=0.0,
        metavar="SECONDS",
        help="let frames refer to the one before, where that costs less, and begin anew after so many seconds: for "
        "cameras that stand still, 60 (default: 0, every frame by itself)",
    )
    which.add_argument(
        "--segment",
        dest="segment_minutes",
        type=number(0),
        default=0.0,
        metavar="MINUTES",
        help="let every so many minutes have a model update of their own, a change of the one before or a new one, "
        "whichever costs less; every segment is adapted for as many steps (default: 0, one update for all frames)",
    )
    parser.add_argument(
        "--audio",
        choices=("none", "copy"),
        default="none",
        help="copy: keep audio and subtitles as they are, for decode to put into .mkv (default: %(default)s)",
    )

    size = parser.add_argument_group("size and quality", "at most one of these")
    target = size.add_mutually_exclusive_group()
    target.add_argument(
        "--quality", type=number(0, 100), metavar="0..100", help="higher is better and larger (default: 50)"
    )
    target.add_argument(
        "--target-psnr",
        type=number(0, above=True),
        metavar="DB",
        help="smallest file of at least this PSNR-YUV (6:1:1) in dB, usually 28 to 45",
    )
    target.add_argument(
        "--target-bpp",
        type=number(0, above=True),
        metavar="BITS",
        help="best quality in at most so many bits per pixel of the frames taken, everything included",
    )
    target.add_argument(
        "--target-size",
        type=size_in_bytes,
        metavar="SIZE",
        help="best quality in a file of at most this size: 3MB, 500kB, 1.5MiB or bytes",
    )

    target.add_argument(
        "--lossless",
        action="store_true",
        help="keep every sample of the frames taken: 4:2:0 video of 8 or 10 bits and RGB pictures, with a network of "
        "its own",
    )

    work = parser.add_argument_group("adaptation")
    work.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default="medium",
        help="how much work; more gives a smaller file, decoding stays as fast: see below (default: %(default)s)",
    )
    work.add_argument(
        "--max-time",
        type=number(0, above=True),
        default=math.inf,
        metavar="MIN",
        help="spend at most so many minutes adapting and refining (default: what the preset takes)",
    )
    scopes = "; ".join(f"{name}: {what}" for name, what in ADAPT_HELP.items())
    work.add_argument(
        "--adapt",
        choices=ADAPT,
        default="full",
        help=f"what is adapted to this video ({scopes}; default: %(default)s)",
    )
    work.add_argument(
        "--update-prior",
        choices=UPDATE_PRIORS,
        default="adaptive",
        help="how the model update is charged and coded; others are there to compare with (default: %(default)s)",
    )
    work.add_argument(
        "--update-parameters",
        type=update_parameters,
        metavar="WHAT",
        help="which parameters the model update may change: all, biases, biases+multipliers, last-layer, "
        "low-rank[:RANK], random:N (to compare with), or learned[:N]: the N most important ones, without N those that "
        "pay for their bits in a video of this size (default: low-rank where the frames take "
        f"{PAYING[0][0] // 1_000_000} MB or more, else learned where the weights come with scores, else all; lossless: "
        "all)",
    )
    methods = "; ".join(f"{name}: {what}" for name, what in REFINE_HELP.items())
    work.add_argument(
        "--refine", choices=REFINE, help=f"how every frame's latents are refined ({methods}; default: the preset's)"
    )
    kinds = "; ".join(f"{name}: {what}" for name, what in QUANTIZER_HELP.items())
    work.add_argument(
        "--quantizer", choices=QUANTIZERS, help=f"how latents become symbols ({kinds}; default: the preset's)"
    )
    add_seed(work, "of the random choices while adapting and refining")
    work.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="keep finished steps (settings, the adapted network, refined frames) in this folder until the file is "
        "written; the same command goes on from them after Ctrl-C or a crash, finetuning that was not finished starts "
        "again (--max-time holds for each run)",
    )

    model = parser.add_argument_group("model and machine")
    model.add_argument(
        "--model",
        default="msp",
        metavar="NAME",
        help="msp; pocket: a network small enough to send whole, fitted to the video with all latents (slow); or "
        "CompressAI's like compressai:mbt2018-mean:4 (default: %(default)s)",
    )
    add_model_options(parser)
    parser.add_argument(
        "--workers",
        type=whole(1, 1024),
        default=1,
        metavar="N",
        help="code the frames of a long video in so many processes, which share the cores; the file is the same",
    )
    add_cluster(parser)
    add_general_options(parser, json=f"{NDJSON}; errors as well")
    parser.set_defaults(run=run, parser=parser, interrupted="nothing was written")


def run(args: argparse.Namespace) -> int:
    """Encode; prints a summary."""
    if args.input == PIPE:
        if args.output is None:
            raise UsageError("what comes through a pipe has no name: give -o OUT.vdc")
        check_output(args.output, overwrite=args.overwrite, suffix=".vdc")
        # Frames are read more than once, so what is coded is kept: as it came, not as pictures.
        with NamedTemporaryFile(prefix=f".{args.output.name}.", dir=args.output.parent) as kept:
            shutil.copyfileobj(sys.stdin.buffer, kept, 1 << 20)
            kept.flush()
            return _encode(args, Path(kept.name), args.output)
    check_input(args.input)
    output = args.output or args.input.with_suffix(".vdc")
    check_output(output, overwrite=args.overwrite, source=args.input, suffix=".vdc")
    return _encode(args, args.input, output)


def _encode(args: argparse.Namespace, source: Path, output: Path) -> int:
    if args.work:
        args.interrupted = f"finished steps are kept in {args.work}: the same command goes on from them"
    with Progress(json=args.json) as progress:
        progress("load", 0.0)
        use_threads(args.threads)
        from vidcodec.codec.encode import encode_video
        from vidcodec.codec.options import EncodeOptions
        from vidcodec.executor import open_executor
        from vidcodec.executor.local import cores

        options = EncodeOptions(
            sampling=sampling_of(args),
            max_minutes=args.max_time,
            **{f.name: getattr(args, f.name) for f in fields(EncodeOptions) if f.name in args},
        )
        if args.workers == 1 and args.ray is None:
            result = encode_video(source, output, options, progress)
        else:
            threads = args.threads or max(1, cores() // args.workers)
            with open_executor(args.workers, threads, args.ray) as executor:
                result = encode_video(source, output, options, progress, executor)
    console.outcome(result, summary, json=args.json)
    return 0


def summary(r: EncodeResult) -> str:
    """What a person wants to know of an encode."""
    frames = f"{r.frames} frame{'s' * (r.frames != 1)} of {r.width}x{r.height}"
    names = ("samples", "hashes") if r.lossless else ("y", "z")
    parts = {"model update": r.update_size, names[0]: r.y_size, names[1]: r.z_size}
    if r.sound_size:
        parts["audio and subtitles"] = r.sound_size
    parts["container"] = r.size - sum(parts.values())
    rows = [(name, f"{size:,.0f} bytes", console.share(size, r.size)) for name, size in parts.items()]
    q = r.quality_figures
    labels = {"psnr_y": "Y", "psnr_u": "U", "psnr_v": "V", "psnr_yuv": "YUV 6:1:1"}
    psnr = ", ".join(f"{text} {q[key]:.2f}" for key, text in labels.items() if key in q)
    some = "" if r.compared == r.frames else f"of {r.compared} frames, "
    quality = f"PSNR (dB, {some}errors averaged over frames before the logarithm): {psnr}\nquality {r.quality:g}; "
    spent = ", ".join(f"{stage} {time:.1f}" for stage, time in r.seconds.items())
    return "\n".join(
        (
            f"{r.output}: {frames}, {r.size:,} bytes, {r.bpp:.4f} bits per pixel",
            console.table(rows, right=(1, 2)),
            ("every sample is kept; " if r.lossless else quality) + _choice(r),
            *map(_segment, r.segments),
            *_parts(r.tensors if r.update_size else []),
            f"seconds: {spent}",
        )
    )


def _parts(tensors: list[dict[str, Any]]) -> list[str]:
    """What the parts of the network cost and saved, by the beginnings of their names."""
    sums: dict[str, list[float]] = {}
    for t in tensors:
        cost = sums.setdefault(t["name"].partition(".")[0], [0.0, 0.0])
        cost[:] = cost[0] + t["bits"] / 8, cost[1] + t["brought"] / 8
    rows = [(name, f"{spent:,.0f} bytes", f"{saved:,.0f}") for name, (spent, saved) in sums.items()]
    return [console.table([("adapted part", "sent", "saves about"), *rows], right=(1, 2))] if rows else []


def _segment(s: dict[str, Any]) -> str:
    """A line about one of several segments."""
    own = f"own update {s['update']}, {s['update_size']:,} bytes" + f" on top of update {s['parent']}" * bool(
        s["parent"]
    )
    known = own if s["update_size"] else f"update {s['update']}" if s["update"] else "no update"
    first = s["first_frame"]
    return f"frames {first}:{first + s['frames']}: {s['size']:,} bytes, {s['chosen']}; {known}"


def _choice(r: EncodeResult) -> str:
    """Which candidate was kept, and by how much."""
    others = {name: cost for name, cost in r.costs.items() if name != r.chosen}
    if not others or r.chosen not in r.costs:
        return f"coded {r.chosen}: the only candidate"
    cost = r.costs[r.chosen]
    name, least = min(others.items(), key=lambda item: item[1])
    gain = f", {100 * (1 - cost / least):.2f} % below {name}" if least > 0 else ""
    return f"kept {r.chosen}: R-D-M cost {cost:.4f} bits per pixel{gain}"
