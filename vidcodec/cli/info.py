"""vidcodec info: what a .vdc file holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcodec.cli import console
from vidcodec.cli.arguments import add_general_options, add_model_options, check_input, use_threads
from vidcodec.cli.progress import Progress
from vidcodec.errors import BitstreamError, CorruptBitstreamError, UnsupportedVersionError, VidcodecError

if TYPE_CHECKING:
    from vidcodec.bitstream import BitstreamReader

SHOWN_FRAMES = 24  # a longer list loses its middle, for a person
SHOWN_TENSORS = 16
HEADER_FIELDS = (
    *("width", "height", "bit_depth", "matrix", "primaries", "transfer", "full_range", "chroma_location"),
    *("sample_aspect", "rotation", "time_base", "frame_rate", "model"),
)

EPILOG = """\
examples:
  vidcodec info talk.vdc
  vidcodec info talk.vdc --decode                      with the bits of z and y in every frame
  vidcodec info talk.vdc --json | jq '.sizes, .updates[0].tensors[:5]'

Without the model's weights everything but the tensors of an update is shown.
"""


def add_parser(subparsers: Any) -> None:
    """The options of `vidcodec info`."""
    parser = subparsers.add_parser(
        "info",
        help="show what a .vdc file holds",
        epilog=EPILOG,
        description="Show header, sizes, the model update and the frames of a .vdc file.",
    )
    parser.add_argument("input", type=Path, metavar="IN.vdc", help="the file to look at")
    parser.add_argument(
        "--decode", action="store_true", help="decode every frame as well, for the bits of z and y (takes a while)"
    )
    add_model_options(parser)
    add_general_options(parser, json="print one JSON object on stdout, with every frame and tensor")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Show; 4 when the file is damaged."""
    check_input(args.input)
    use_threads(args.threads)
    from vidcodec.bitstream import BitstreamReader

    with BitstreamReader(args.input) as reader:
        facts = describe(reader, args.input)
        if reader.update_numbers:
            try:
                _add_tensors(facts, reader, args)
            except VidcodecError as error:
                facts["notes"].append(f"the update's tensors are not shown: {error}")
    if args.decode:
        _add_frame_bits(facts, args)
    if args.json:
        console.event("result", **facts)
    else:
        print(report(facts))
    for note in facts["notes"]:
        console.note(note)
    for problem in facts["problems"]:
        console.warning(problem)
    return 0 if facts["complete"] and not facts["problems"] else BitstreamError.exit_code


def describe(reader: BitstreamReader, path: Path) -> dict[str, Any]:
    """All that the units say."""
    from vidcodec.bitstream import FORMAT_VERSION
    from vidcodec.families import family_of
    from vidcodec.rate import UNIT
    from vidcodec.updates.coder import describe_kind

    h = reader.header
    family = family_of(h.model)
    frames = [
        {
            "index": f.index,
            "pts": f.pts,
            "seconds": float(f.pts * h.time_base),
            "bytes": len(f.payload),
            "kind": "key" if f.is_key else "predicted",
            "reference": f.index - f.reference if f.reference else None,
            "rate_level": None if family.lossless else f.level / UNIT,
            "quantizer": f.quantizer,
            "update": f.update,
        }
        for f in reader.frames()
    ]
    settings = sorted({(f.level, f.quantizer) for f in reader.frames()})
    updates = [reader.update(number) for number in reader.update_numbers]
    size = sum(reader.sizes.values())
    return {
        "file": str(path),
        "size": size,
        "format_version": FORMAT_VERSION,
        "frame_count": reader.frame_count,
        "intact_frames": len(reader),
        "complete": reader.complete,
        **{name: getattr(h, name) for name in HEADER_FIELDS},
        "lossless": family.lossless,
        "rgb": family.has_rgb(h),
        "model_digest": h.model_digest.hex(),
        "tables_digest": h.tables_digest.hex(),
        "arithmetic": h.arithmetic,
        "quantizers": [] if family.lossless else [quantizer(code) for code in sorted({q for _, q in settings})],
        "rate_levels": [] if family.lossless else sorted({level / UNIT for level, _ in settings}),
        "bpp": 8 * (size - reader.sizes["sound"]) / (h.width * h.height * reader.frame_count)
        if reader.frame_count
        else 0.0,
        "sizes": dict(reader.sizes),
        "update_count": len(updates),
        "updates": [
            {
                "number": u.number,
                "parent": u.parent,
                "first_frame": u.first_frame,
                "bytes": len(u.payload),
                "kind": describe_kind(u.payload),
                "tensors": None,
            }
            for u in updates
        ],
        "frames": frames,
        "problems": list(reader.problems),
        "notes": [],
    }


def quantizer(code: int) -> dict[str, Any]:
    """What the header's byte says; its kind is 'unknown' in files of a later version."""
    from vidcodec.latents.quantizer import UNIT, Quantizer

    try:
        q = Quantizer.from_code(code)
    except UnsupportedVersionError:
        return {"code": code, "kind": "unknown"}
    return {"code": code, "kind": q.kind, "table_set": q.table_set, "step": q.step / UNIT}


def _add_tensors(facts: dict[str, Any], reader: BitstreamReader, args: argparse.Namespace) -> None:
    """What every update changes, by tensor; raises VidcodecError without the right weights."""
    import numpy as np

    from vidcodec.codec.device import pick_device
    from vidcodec.families import load_for_stream
    from vidcodec.updates.coder import decode_update, selection_of, tensor_bits

    h = reader.header
    base = load_for_stream(h.model, h.model_digest, args.weights, pick_device("cpu"))
    for entry, unit in zip(facts["updates"], map(reader.update, reader.update_numbers), strict=True):
        update = decode_update(unit.payload, base.network, base.folder)
        bits = tensor_bits(update, base.network, selection_of(unit.payload, base.network, base.folder))
        entry["tensors"] = [
            {
                "name": name,
                "shape": list(t.n.shape),
                "weights": int(t.n.size),
                "changed": int(np.count_nonzero(t.n)),
                "step_exponent": t.exponent,
                "bits": bits.get(name),
            }
            for name, t in update.tensors.items()
        ]


def _add_frame_bits(facts: dict[str, Any], args: argparse.Namespace) -> None:
    """Bits of z and y of every frame, by decoding it."""
    from vidcodec.codec.decode import VideoDecoder

    with (
        VideoDecoder(args.input, weights=args.weights, device=args.device) as decoder,
        Progress(json=args.json) as progress,
    ):
        for done, entry in enumerate(facts["frames"], 1):
            try:
                _, log = decoder.frame(entry["index"])
                entry["z_bits"], entry["y_bits"] = log.z_bits, log.y_bits
            except CorruptBitstreamError as error:
                facts["problems"].append(str(error))
            progress("decode", done / len(facts["frames"]), {"frames": done})


# --------------------------------------------------------------------------- for people


def report(f: dict[str, Any]) -> str:
    """The facts as text."""
    rate = f"{f['frame_rate']} frames per second" if f["frame_rate"] else "frames at their own times"
    turned = f", to be turned by {f['rotation']} degrees" if f["rotation"] else ""
    full = "full" if f["full_range"] else "limited"
    planes = f"{f['bit_depth']} bit {'RGB' if f['rgb'] else '4:2:0'}"
    levels = (
        " to ".join(f"{level:g}" for level in dict.fromkeys((min(f["rate_levels"]), max(f["rate_levels"]))))
        if f["rate_levels"]
        else ""
    )
    level = f" at rate level {levels}" if levels else ""
    quantiser = [("quantiser", _quantizer(q)) for q in f["quantizers"]]
    lines = [
        f"{f['file']}: {f['size']:,} bytes, {f['bpp']:.4f} bits per pixel"
        + ("" if f["complete"] else f", DAMAGED: {f['intact_frames']} of {f['frame_count']} frames are intact"),
        console.table(
            [
                ("pictures", f"{f['frame_count']} of {f['width']}x{f['height']}, {planes}{turned}"),
                ("time", f"{rate}, time base {f['time_base']} s"),
                (
                    "colour",
                    f"matrix {f['matrix']}, primaries {f['primaries']}, transfer {f['transfer']} (H.273), "
                    f"{full} range, sample aspect {f['sample_aspect']}",
                ),
                ("model", f"{f['model']}{level}, weights {f['model_digest']}"),
                *quantiser,
                ("coding", f"format {f['format_version']}, arithmetic {f['arithmetic']}, tables {f['tables_digest']}"),
            ]
        ),
        "bytes",
        console.table([(k, f"{v:,}", console.share(v, f["size"])) for k, v in f["sizes"].items() if v], right=(1, 2)),
    ]
    for update in f["updates"]:
        number, first, size = update["number"], update["first_frame"], update["bytes"]
        on_top = f" on top of update {update['parent']}" if update["parent"] else ""
        lines.append(f"model update {number}{on_top} from frame {first} on: {size:,} bytes ({update['kind']})")
        if update["tensors"]:
            lines.append(_tensors(update["tensors"]))
    if f["frames"]:
        lines += ["frames", _frames(f["frames"], lossless=f["lossless"])]
    return "\n".join(lines)


def _quantizer(q: dict[str, Any]) -> str:
    if q["kind"] == "unknown":
        return f"number {q['code']}, not known to this vidcodec"
    return f"{q['kind']}, tables {q['table_set']}, step {q['step']:.3g} of the model's"


def _tensors(tensors: list[dict[str, Any]]) -> str:
    largest = sorted(tensors, key=lambda t: -(t["bits"] or 0))
    rows = [
        (
            t["name"],
            f"{t['changed']:,} of {t['weights']:,} weights",
            f"2^-{t['step_exponent']}",
            f"{(t['bits'] or 0) / 8:,.0f} bytes",
        )
        for t in largest[:SHOWN_TENSORS]
    ]
    if rest := largest[SHOWN_TENSORS:]:
        rows.append((f"{len(rest)} more", "", "", f"{sum(t['bits'] or 0 for t in rest) / 8:,.0f} bytes"))
    parts: dict[str, float] = {}
    for t in largest:
        part = t["name"].partition(".")[0]
        parts[part] = parts.get(part, 0.0) + (t["bits"] or 0) / 8
    sums = ", ".join(f"{part} {size:,.0f} bytes" for part, size in sorted(parts.items(), key=lambda item: -item[1]))
    return f"{console.table(rows, right=(1, 2, 3))}\n  by part: {sums}"


def _frames(frames: list[dict[str, Any]], *, lossless: bool) -> str:
    def row(f: dict[str, Any]) -> tuple[str, ...]:
        streams: tuple[str, ...] = ()
        if "z_bits" in f and lossless:
            streams = (f"samples {f['y_bits']:,.0f} bits",)
        elif "z_bits" in f:
            streams = (f"z {f['z_bits']:,.0f} bits", f"y {f['y_bits']:,.0f} bits")
        return (str(f["index"]), f"{f['seconds']:.3f} s", f"{f['bytes']:,} bytes", *streams)

    rows = [row(f) for f in frames]
    if len(rows) > SHOWN_FRAMES:
        half = SHOWN_FRAMES // 2
        rows = [*rows[:half], ("...", "", f"{len(rows) - 2 * half} more"), *rows[-half:]]
    return console.table(rows, right=(0, 1, 2, 3, 4))
