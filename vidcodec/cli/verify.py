"""vidcodec verify: every checksum of a .vdc file, and with the source at hand its quality."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcodec.cli import console
from vidcodec.cli.arguments import NDJSON, add_general_options, add_model_options, check_input, use_threads
from vidcodec.cli.progress import Progress
from vidcodec.errors import BitstreamError, InputError, UnsupportedInputError

if TYPE_CHECKING:
    from vidcodec.codec.decode import VideoDecoder
    from vidcodec.video import Frame, VideoFormat

EPILOG = """\
examples:
  vidcodec verify talk.vdc                             checksums of bytes and of decoded symbols
  vidcodec verify talk.vdc --against talk.mp4          and the PSNR of every plane; of a lossless file every sample

The exit code is 0 only if all is well, 4 for a damaged file, 3 if SOURCE is not what the file was made from.
"""


@dataclass
class Findings:
    """What verifying gave.

    differing: frames that are not the same in every sample, of a file that claims they are. rgb: whether the planes
    are R, G, B. errors: per frame, of Y, U, V (or R, G, B) and RGB, mean squared, on the scale of 0 to 1.
    """

    lossless: bool
    rgb: bool
    decoded: int = 0
    compared: int = 0
    differing: int = 0
    errors: list[list[float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def psnr(self) -> dict[str, float | None]:
        """Decibels by plane: errors averaged over frames, then the logarithm; 100 for a perfect match."""
        if not self.errors:
            return {}
        means = [math.fsum(column) / len(column) for column in zip(*self.errors, strict=True)]
        a, b, c, rgb = (min(100.0, -10 * math.log10(m)) if m > 0 else 100.0 for m in means)
        if self.rgb:
            return {"psnr_r": a, "psnr_g": b, "psnr_b": c, "psnr_rgb": rgb}
        return {
            "psnr_y": a,
            "psnr_u": b,
            "psnr_v": c,
            "psnr_yuv": (6 * a + b + c) / 8,
            "psnr_rgb": None if math.isnan(means[3]) else rgb,
        }


def add_parser(subparsers: Any) -> None:
    """The options of `vidcodec verify`."""
    parser = subparsers.add_parser(
        "verify",
        help="check a .vdc file, alone or against its source",
        epilog=EPILOG,
        description="Check every unit's CRC, decode every frame and compare its symbols with their checksum.",
    )
    parser.add_argument("input", type=Path, metavar="IN.vdc", help="the file to check")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="SOURCE",
        help="the video it was made from: measures the quality of frames with the same time stamps; those of a "
        "lossless file must be the same in every sample",
    )
    add_model_options(parser)
    add_general_options(parser, json=NDJSON)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Verify; 0 only if all is well."""
    check_input(args.input)
    if args.against:
        check_input(args.against)
    use_threads(args.threads)
    from vidcodec.codec.decode import VideoDecoder

    with (
        VideoDecoder(args.input, weights=args.weights, device=args.device) as decoder,
        Progress(json=args.json) as progress,
    ):
        found = _compare(decoder, args.against, progress) if args.against else _decode(decoder, progress)
        total = len(decoder)
        problems = decoder.problems
        intact = decoder.reader.complete and not problems and found.decoded == total
    matched = not args.against or (found.compared == total and not found.differing)
    _tell(args, found, total, problems, intact=intact, matched=matched)
    if not intact:
        return BitstreamError.exit_code
    return 0 if matched else InputError.exit_code


def _decoded(decoder: VideoDecoder, found: Findings, progress: Progress) -> Iterator[Frame]:
    """The frames whose symbols match their checksum."""
    for index, frame, _ in decoder.frames():
        found.decoded += 1
        progress("verify", (index + 1) / len(decoder), {"frames": found.decoded})
        yield frame


def _decode(decoder: VideoDecoder, progress: Progress) -> Findings:
    found = Findings(decoder.lossless, decoder.format.rgb)
    for _ in _decoded(decoder, found, progress):
        pass
    return found


def _compare(decoder: VideoDecoder, source: Path, progress: Progress) -> Findings:
    """Decode everything, and measure the frames that the source has at the same times."""
    from vidcodec.video import Sampling, VideoReader

    f = decoder.format
    found = Findings(decoder.lossless, f.rgb)
    with VideoReader(source, Sampling(fps=None), exact=decoder.lossless) as reader:
        g = reader.format
        if (g.width, g.height, g.bit_depth, g.rgb) != (f.width, f.height, f.bit_depth, f.rgb):
            raise InputError(
                f"{source} has pictures of {_kind(g)}, the file has {_kind(f)}: it was not made from this source"
            )
        decoded = _decoded(decoder, found, progress)
        frame = next(decoded, None)
        for original in reader.frames():  # both with rising time stamps
            while frame is not None and frame.pts * f.time_base < original.pts * g.time_base:
                frame = next(decoded, None)
            if frame is None:
                break
            if frame.pts * f.time_base == original.pts * g.time_base:
                found.errors.append(_errors(original, frame, decoder, found))
                found.compared += 1
                found.differing += found.lossless and any(found.errors[-1][:3])
        for _ in decoded:
            pass
        found.notes += reader.notes
    return found


def _kind(f: VideoFormat) -> str:
    return f"{f.width}x{f.height} at {f.bit_depth} bit" + " RGB" * f.rgb


def _errors(original: Frame, decoded: Frame, decoder: VideoDecoder, found: Findings) -> list[float]:
    """Mean squared errors of Y, U, V (R, G, B) and RGB; RGB is not a number where the matrix has none."""
    import numpy as np

    from vidcodec.families.planes import plane_errors
    from vidcodec.video import yuv_to_rgb

    peak = (1 << decoder.format.bit_depth) - 1
    planes = [float(e) / peak**2 for e in plane_errors(original, decoded)]
    if found.rgb:  # they are G, B, R
        return [planes[2], planes[0], planes[1], math.fsum(planes) / 3]
    try:
        a, b = (yuv_to_rgb(x, decoder.format) for x in (original, decoded))
    except UnsupportedInputError as error:
        if str(error) not in found.notes:
            found.notes.append(f"no PSNR of RGB: {error}")
        return [*planes, math.nan]
    difference = (a.astype(np.float64) - b) / np.iinfo(a.dtype).max
    return [*planes, float(np.square(difference).mean())]


def _tell(
    args: argparse.Namespace, found: Findings, total: int, problems: list[str], *, intact: bool, matched: bool
) -> None:
    """Print what was found."""
    psnr = found.psnr()
    for note in found.notes:
        console.note(note)
    for problem in problems:
        console.warning(problem)
    if args.json:
        compared = {"against": str(args.against), "compared": found.compared, **psnr} if args.against else {}
        if args.against and found.lossless:
            compared["identical"] = found.compared - found.differing
        console.event(
            "result",
            file=str(args.input),
            ok=intact and matched,
            intact=intact,
            frames=total,
            decoded=found.decoded,
            problems=problems,
            notes=found.notes,
            **compared,
        )
    else:
        print(f"{args.input}: {found.decoded} of {total} frames decode to the symbols that were coded")
        if args.against:
            same = f", {found.compared - found.differing} of them the same in every sample" * found.lossless
            print(f"{found.compared} of {total} frames compared with {args.against}{same}")
        if psnr and (found.differing or not found.lossless):
            names = {"psnr_yuv": "YUV 6:1:1", "psnr_rgb": "RGB"}
            shown = ", ".join(f"{names.get(k, k[-1].upper())} {v:.2f}" for k, v in psnr.items() if v is not None)
            print(f"PSNR (dB, errors averaged over frames before the logarithm): {shown}")
        if intact and matched:
            print("all is well")
    if not intact:
        console.error(f"{args.input} is damaged: {found.decoded} of {total} frames can be decoded")
    elif found.differing:
        console.error(
            f"{found.differing} of {found.compared} frames differ from those of {args.against}, and the file is "
            "lossless: is it the source?"
        )
    elif not matched:
        console.error(
            f"{total - found.compared} of {total} frames have no counterpart in {args.against}: is it the source?"
        )
