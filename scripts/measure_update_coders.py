"""The same model updates through three coders: ours, the fixed spike and slab, MPEG NNC.

    python scripts/measure_update_coders.py FILE.vdc... --nnc-python PYTHON

The integers of each file's update are coded as they stand in the file (ours), charged their ideal code length under
the spike-and-slab prior of van Rozendaal et al. (vidcodec's integer table of it, its bins taken for the integers),
and coded by `nncodec` (ISO/IEC 15938-17) as int32 arrays, losslessly, with row skipping. Where a coder can send all
parameters or only those of tensors that change, both are measured; the second needs a list of the tensors besides,
which is not charged. `entropy` is the zero-order empirical entropy of each tensor, without any side information.

nncodec asks for packages of its own: install it elsewhere and name that interpreter with --nnc-python.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from _measuring import MODEL, Point, Results, digest_of, parser, show, table, weights_digest
from torch import nn

from vidcodec.adapt.coder import decode_update
from vidcodec.adapt.update import Update, sent_parameters
from vidcodec.bitstream import BitstreamReader
from vidcodec.entropy.bank import SPIKE_SLAB, bank
from vidcodec.models.checkpoint import load_model

# Runs under --nnc-python: FOLDER holds one .npz; prints the length of the stream, decoded again and compared.
NNC_PROGRAM = """
import contextlib, importlib.metadata, io, json, sys
import numpy as np
from nncodec.nn import encode, decode
tensors = {k: v for k, v in np.load(sys.argv[1]).items()}
with contextlib.redirect_stdout(io.StringIO()):
    stream = encode(dict(tensors), args={"row_skipping": True, "results": sys.argv[2], "verbose": False})
    back = decode(stream)
assert set(back) == set(tensors) and all(np.array_equal(back[k], v) for k, v in tensors.items()), "not lossless"
print(json.dumps([len(bytes(stream)), importlib.metadata.version("nncodec")]))
"""


def arguments() -> argparse.Namespace:
    p = parser(__doc__)
    p.add_argument("files", type=Path, nargs="+", metavar="FILE.vdc", help="files with model updates; others are named")
    p.add_argument("--nnc-python", type=Path, metavar="PYTHON", help="interpreter that has nncodec (default: no NNC)")
    return p.parse_args()


def read_update(path: Path, model: nn.Module) -> tuple[Update, int]:
    """The first update of a file and its bytes. ValueError where there is none."""
    with BitstreamReader(path) as reader:
        if not reader.updates:
            raise ValueError("no model update in it")
        payload = reader.updates[0].payload
    return decode_update(payload, model), len(payload)


def all_tensors(update: Update, model: nn.Module) -> dict[str, np.ndarray]:
    """The integers of every parameter that may travel, zero where the update is closed."""
    out = {}
    for name, p in sent_parameters(model):
        t = update.tensors.get(name)
        out[name] = np.zeros(tuple(p.shape), np.int32) if t is None else t.n.reshape(tuple(p.shape)).astype(np.int32)
    return out


def spike_slab_bytes(tensors: dict[str, np.ndarray]) -> float:
    """Ideal code length, in bytes."""
    return sum(bank().symbol_bits(n, np.full(n.shape, SPIKE_SLAB)) for n in tensors.values()) / 8


def entropy_bytes(tensors: dict[str, np.ndarray]) -> float:
    """Zero-order empirical entropy of each tensor, in bytes."""
    total = 0.0
    for n in tensors.values():
        counts = np.unique(n, return_counts=True)[1]
        total -= float((counts * np.log2(counts / n.size)).sum())
    return total / 8


def nnc_bytes(tensors: dict[str, np.ndarray], python: Path, *, flat: bool) -> tuple[int, str]:
    """Bytes of the NNC stream and nncodec's version; flat: tensors as matrices, rows of output channels."""
    shaped = {f"t{i}": n.reshape(n.shape[0], -1) if flat and n.ndim > 2 else n for i, n in enumerate(tensors.values())}
    with tempfile.TemporaryDirectory(prefix="vidcodec-") as folder:
        np.savez(Path(folder, "update.npz"), **shaped)
        command = [str(python), "-W", "ignore", "-c", NNC_PROGRAM, str(Path(folder, "update.npz")), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise RuntimeError(f"nncodec: {(done.stderr.strip().splitlines() or ['it died'])[-1]}")
    size, version = json.loads(done.stdout.strip().splitlines()[-1])
    return int(size), str(version)


def measure(path: Path, model: nn.Module, python: Path | None) -> Point:
    """All coders on one file's update."""
    update, ours = read_update(path, model)
    everything = all_tensors(update, model)
    only_open = {n: t for n, t in everything.items() if n in update.tensors}
    out: Point = {
        "parameters": sum(n.size for n in everything.values()),
        "tensors": len(everything),
        "open_tensors": len(only_open),
        "open_parameters": sum(n.size for n in only_open.values()),
        "nonzero": update.nonzero,
        "largest": max(int(np.abs(n).max()) for n in only_open.values()),
        "ours": ours,
        "spike_slab_all": spike_slab_bytes(everything),
        "spike_slab_open": spike_slab_bytes(only_open),
        "entropy_open": entropy_bytes(only_open),
    }
    if python:
        variants = {(w, f): t for w, t in (("all", everything), ("open", only_open)) for f in (False, True)}
        coded = {f"{w}{', flat' * f}": nnc_bytes(t, python, flat=f) for (w, f), t in variants.items()}
        sizes = {name: size for name, (size, _) in coded.items()}
        out |= {"nnc_variants": sizes, "nnc": min(sizes.values()), "nncodec": coded["open"][1]}
    return out


HEAD = (
    "file",
    "open tensors",
    "their parameters",
    "non-zero",
    "ours",
    "spike-slab, all",
    "spike-slab, open",
    "NNC (smallest)",
    "entropy",
    "ours / s-s all",
    "ours / s-s open",
    "ours / NNC",
)


def row(p: Point) -> list[str | None]:
    """One update for the table."""
    ours = p["ours"]
    ratios = [ours / p["spike_slab_all"], ours / p["spike_slab_open"], ours / p["nnc"] if "nnc" in p else None]
    sizes = [p["ours"], p["spike_slab_all"], p["spike_slab_open"], p.get("nnc"), p["entropy_open"]]
    return [
        p["file"],
        f"{p['open_tensors']} of {p['tensors']}",
        f"{p['open_parameters']:,} of {p['parameters']:,}",
        f"{p['nonzero']:,}",
        *(show(s, 0) for s in sizes),
        *(show(r, 3) for r in ratios),
    ]


def main() -> None:
    args = arguments()
    model = load_model(MODEL, args.weights)[0]
    results = Results("update_coders", __doc__.partition("\n\n")[0], args)
    points = []
    for path in args.files:
        with BitstreamReader(path) as reader:
            if not reader.updates:
                print(f"{path.name} has no update (the plain model was kept), left out")
                continue
        key = {"file": path.name, "file_digest": digest_of(path), "weights_digest": weights_digest(args.weights)}
        key["with"] = "NNC" if args.nnc_python else "no NNC"
        if p := results.point(key, partial(measure, path, model, args.nnc_python)):
            points.append(p)
    totals = {k: sum(p[k] for p in points) for k in ("ours", "spike_slab_all", "spike_slab_open")}
    if points and all("nnc" in p for p in points):
        totals["nnc"] = sum(p["nnc"] for p in points)
    summary = {**totals, **{f"ours_over_{k}": totals["ours"] / v for k, v in totals.items() if k != "ours" and v}}
    sums = ", ".join(f"{k.removeprefix('ours_over_')} {v:.3f}" for k, v in summary.items() if k.startswith("ours_over"))
    remarks = (
        "Bytes. Ours: the update's whole payload in the file. Spike and slab: ideal code length, over all parameters "
        "that can travel (as the paper sends them) and over those of open tensors only (which favours it). NNC: the "
        "smallest of all / open tensors, own shapes / matrices; lossless, checked; its stream carries a header a "
        "tensor, which weighs on small updates. Ratios below 1: ours is smaller. "
        f"Over all files together, ours over {sums}. The updates were found under the rate of our own coder, which "
        "favours it; a codec trained with another prior would send other integers."
    )
    results.finish(summary, "\n\n".join([table(HEAD, map(row, points)), remarks]))


if __name__ == "__main__":
    main()
