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

import json
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from vidcodec.checkpoint import sent_parameters
from vidcodec.codec.decode import VideoDecoder
from vidcodec.entropy.bank import SPIKE_SLAB, bank
from vidcodec.evaluation.measurement import Figure, Measurement, parser
from vidcodec.evaluation.provenance import digest_of
from vidcodec.evaluation.tables import markdown, show
from vidcodec.updates.coder import decode_update

CODE = ("bitstream", "entropy", "families", "updates")
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
Tensors = dict[str, np.ndarray]


def spike_slab_bytes(tensors: Tensors) -> float:
    """Ideal code length, in bytes."""
    return sum(bank().symbol_bits(n, np.full(n.shape, SPIKE_SLAB)) for n in tensors.values()) / 8


def entropy_bytes(tensors: Tensors) -> float:
    """Zero-order empirical entropy of each tensor, in bytes."""
    counts = [(np.unique(n, return_counts=True)[1], n.size) for n in tensors.values()]
    return -sum(float((c * np.log2(c / size)).sum()) for c, size in counts) / 8


def nnc_bytes(tensors: Tensors, python: Path, *, flat: bool) -> tuple[int, str]:
    """Bytes of the NNC stream and nncodec's version; flat: tensors as matrices, rows of output channels."""
    shaped = {f"t{i}": n.reshape(n.shape[0], -1) if flat and n.ndim > 2 else n for i, n in enumerate(tensors.values())}
    with tempfile.TemporaryDirectory(prefix="vidcodec-") as folder:
        np.savez(Path(folder, "update.npz"), **shaped)  # type: ignore[arg-type]
        command = [str(python), "-W", "ignore", "-c", NNC_PROGRAM, str(Path(folder, "update.npz")), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise RuntimeError(f"nncodec: {(done.stderr.strip().splitlines() or ['it died'])[-1]}")
    size, version = json.loads(done.stdout.strip().splitlines()[-1])
    return int(size), str(version)


def measure(path: Path, weights: Path | None, python: Path | None) -> Figure:
    """All coders on a file's first update."""
    with VideoDecoder(path, weights=weights, device="cpu") as decoder:
        if not decoder.reader.update_numbers:
            return {}
        payload = decoder.reader.update(decoder.reader.update_numbers[0]).payload
        network, update = decoder.base.network, decode_update(payload, decoder.base.network, decoder.base.folder)
    every: Tensors = {}
    for name, p in sent_parameters(network):
        t = update.tensors.get(name)
        every[name] = (np.zeros(tuple(p.shape)) if t is None else t.n.reshape(tuple(p.shape))).astype(np.int32)
    only_open = {n: t for n, t in every.items() if n in update.tensors}
    out: Figure = {
        "parameters": sum(n.size for n in every.values()),
        "tensors": len(every),
        "open_tensors": len(only_open),
        "open_parameters": sum(n.size for n in only_open.values()),
        "nonzero": update.nonzero,
        "ours": len(payload),
        "spike_slab_all": spike_slab_bytes(every),
        "spike_slab_open": spike_slab_bytes(only_open),
        "entropy_open": entropy_bytes(only_open),
    }
    if python:
        variants = {(w, f): t for w, t in (("all", every), ("open", only_open)) for f in (False, True)}
        coded = {f"{w}{', flat' * f}": nnc_bytes(t, python, flat=f) for (w, f), t in variants.items()}
        sizes = {name: size for name, (size, _) in coded.items()}
        out |= {"nnc_variants": sizes, "nnc": min(sizes.values()), "nncodec": coded["open"][1]}
    return out


def row(f: Figure) -> list[str]:
    """One update for the table."""
    sizes = [f.get(k) for k in ("ours", "spike_slab_all", "spike_slab_open", "nnc", "entropy_open")]
    counts = [f"{f['open_tensors']} of {f['tensors']}", f"{f['open_parameters']:,} of {f['parameters']:,}"]
    ratios = [show(f["ours"] / size if size else None, 3) for size in sizes[1:4]]
    return [f["file"], *counts, f"{f['nonzero']:,}", *(show(s, 0) for s in sizes), *ratios]


def main() -> None:
    p = parser(__doc__, "update_coders")
    p.add_argument("files", type=Path, nargs="+", metavar="FILE.vdc", help="files with model updates")
    p.add_argument("--nnc-python", type=Path, metavar="PYTHON", help="interpreter that has nncodec (default: no NNC)")
    args = p.parse_args()
    m, weights = Measurement(args, __doc__), args.weights and digest_of(args.weights)
    figures = []
    for path in args.files:
        key = {"file": path.name, "file_digest": digest_of(path), "weights_digest": weights}
        key["with"] = "NNC" if args.nnc_python else "no NNC"
        figures.append(m.figure(key, partial(measure, path, args.weights, args.nnc_python), CODE))
    there = [f for f in figures if f and "ours" in f]
    summary = {}
    for name in ("spike_slab_all", "spike_slab_open", "nnc"):
        if there and all(name in f for f in there):
            summary[f"ours_over_{name}"] = sum(f["ours"] for f in there) / sum(f[name] for f in there)
    sums = ", ".join(f"{k.removeprefix('ours_over_')} {v:.3f}" for k, v in summary.items())
    head = ["file", "open tensors", "their parameters", "non-zero", "ours", "spike-slab, all", "spike-slab, open"]
    head += ["NNC (smallest)", "entropy", "ours / s-s all", "ours / s-s open", "ours / NNC"]
    left_out = [f["file"] for f in figures if f and "ours" not in f]
    m.publish(
        markdown(head, map(row, there)),
        "Bytes. Ours: the update's whole payload in the file. Spike and slab: ideal code length, over all parameters "
        "that can travel (as the paper sends them) and over those of open tensors only (which favours it). NNC: the "
        "smallest of all / open tensors, own shapes / matrices; lossless, checked; its stream carries a header a "
        "tensor, which weighs on small updates. Ratios below 1: ours is smaller. Over all files together, ours over "
        f"{sums}. The updates were found under the rate of our own coder, which favours it.",
        f"Without an update, left out: {', '.join(left_out)}." if left_out else "",
        summary=summary,
    )


if __name__ == "__main__":
    main()
