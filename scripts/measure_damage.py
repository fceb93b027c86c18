"""What damaged files do: single flipped bytes, cut-off ends, and altered payloads under a repaired checksum.

    python scripts/measure_damage.py FILE.vdc --flips 500 --cuts 100 --resealed 40

Every damaged file is opened and all its frames are asked for, under a limit of time. Asserted for flips and cuts:
frames or a typed error come back, every frame comes back whose bytes are untouched with those of all that it refers to,
each frame that comes back has the symbols, the time and the pixels of the undamaged file's, and losses are told in
`problems`. Resealed payloads (an attacker's, not an accident's) must only end in frames or a typed error, in bounded
time and memory.

Decoded pictures are remembered by the bytes they came from (frame and update), so that 600 files need not run the
network on the same bytes again; --uncached of the flips are decoded without that memory.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache, partial
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import vidcodec.codec.decode as decode_module
from vidcodec.bitstream import BitstreamReader
from vidcodec.bitstream.units import FRAM, MAGIC, PREFIX_SIZE, UPDT, Unit, UnitFile, pack_unit
from vidcodec.codec.decode import VideoDecoder
from vidcodec.errors import VidcodecError
from vidcodec.evaluation.measurement import Figure, Measurement, parser
from vidcodec.evaluation.provenance import digest_of
from vidcodec.evaluation.tables import markdown, show
from vidcodec.families import load_for_stream

CODE = ("bitstream", "codec", "entropy", "families", "latents", "updates")
CRC_SIZE = 4


# ---------------------------------------------------------------------------- decoding it all


class RememberingDecoder(VideoDecoder):
    """A decoder that decodes every payload once under each update and settings."""

    known: dict[tuple[Any, ...], Any] = {}

    def _coder_of(self, update: int, level: int, quantizer: int) -> Any:
        coder = super()._coder_of(update, level, quantizer)
        settings = (
            *self.reader.update_chain(update),
            level,
            quantizer,
            self.header.extra,
            self.format,
            self.base.digest,
        )

        @dataclass
        class Remembered:
            def reconstruct(self, payload: bytes, pts: int, reference: Any = None) -> Any:
                known, key = RememberingDecoder.known, (payload, *settings)
                if reference is not None:
                    return coder.reconstruct(payload, pts, reference)
                if key not in known:
                    coded = coder.reconstruct(payload, pts)
                    known[key] = coded, coded.show()
                coded, frame = known[key]
                return coded._replace(show=lambda: replace(frame, pts=pts))

        return Remembered()


@dataclass
class Outcome:
    """What one file gave. frames: number -> (crc of the symbols, pts, crc of the samples)."""

    frames: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    error: str = ""  # a typed error
    wrong: str = ""  # any other one
    seconds: float = 0.0
    memory: int = 0  # peak of Python's and numpy's allocations, bytes


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """TimeoutError after so many seconds."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def decode_all(path: Path, args: argparse.Namespace, kind: type[VideoDecoder]) -> Outcome:
    """All frames of a file, or the error it raises."""
    out = Outcome()
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with time_limit(args.limit), kind(path, weights=args.weights, device="cpu") as decoder:
            for index, frame, log in decoder.frames():
                samples = zlib.crc32(frame.uv.tobytes(), zlib.crc32(frame.y.tobytes()))
                out.frames[index] = (log.crc, frame.pts, samples)
            out.problems = list(decoder.problems)
    except VidcodecError as error:
        out.error = type(error).__name__
    except Exception as error:
        out.wrong = f"{type(error).__name__}: {error}"
    out.seconds, out.memory = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return out


# ------------------------------------------------------------------------------- the damages


@dataclass(frozen=True)
class Damage:
    """A damaged file, and what is known of it beforehand."""

    label: str
    data: bytes
    expected: set[int]  # frames that must come back
    header_lost: bool = False  # a typed error is the right answer
    resealed: bool = False


class Damager:
    """Makes the damaged files of one file, each from its own random numbers."""

    def __init__(self, data: bytes, seed: int) -> None:
        self.data, self.seed = data, seed
        self.units = [u for u in UnitFile(BytesIO(data)).walk(len(MAGIC)) if isinstance(u, Unit)]
        with BitstreamReader(BytesIO(data), strict=True) as reader:
            frames, updates = ([u for u in self.units if u.kind == kind] for kind in (FRAM, UPDT))
            chains: dict[int, list[Unit]] = {0: []}  # what a frame under an update needs
            for number, unit in zip(reader.update_numbers, updates, strict=True):
                chains[number] = [*chains[reader.update(number).parent], unit]
            self.needed = {
                i: [*(frames[k] for k in reader.reference_path(i)), *chains[reader.frame(i).update]]
                for i in reader.frame_indices
            }

    def _rng(self, kind: int, i: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, kind, i])

    def untouched(self, touched: Callable[[Unit], bool]) -> set[int]:
        """Frames whose units, with all that they need, are as they were."""
        return {i for i, units in self.needed.items() if not any(map(touched, units))}

    def flip(self, i: int) -> Damage:
        """One byte changed, anywhere."""
        rng = self._rng(0, i)
        at, mask = int(rng.integers(len(self.data))), int(rng.integers(1, 256))
        data = self.data[:at] + bytes([self.data[at] ^ mask]) + self.data[at + 1 :]
        return Damage(f"flip {i}: byte {at} ^ {mask}", data, self.untouched(lambda u: u.offset <= at < u.end))

    def cut(self, i: int) -> Damage:
        """Cut off, anywhere."""
        at = int(self._rng(1, i).integers(len(self.data)))
        lost = at < self.units[0].end
        return Damage(f"cut {i}: at byte {at}", self.data[:at], self.untouched(lambda u: u.end > at), header_lost=lost)

    def reseal(self, i: int) -> Damage:
        """1 to 8 bytes of a frame's or an update's payload changed, and the unit's checksum made to fit."""
        rng = self._rng(2, i)
        choices = [u for u in self.units if u.kind in (FRAM, UPDT)]
        updates = [u for u in choices if u.kind == UPDT]
        unit = choices[int(rng.integers(len(choices)))] if i % 2 or not updates else updates[i // 2 % len(updates)]
        payload = bytearray(self.data[unit.offset + PREFIX_SIZE : unit.end - CRC_SIZE])
        for at in rng.integers(len(payload), size=int(rng.integers(1, 9))):
            payload[at] ^= int(rng.integers(1, 256))
        packed = pack_unit(unit.kind, bytes(payload), critical=bool(unit.flags & 1))
        data = self.data[: unit.offset] + packed + self.data[unit.end :]
        return Damage(f"resealed {i}: {unit.kind.decode()} at {unit.offset}", data, set(), resealed=True)


def verdict(damage: Damage, found: Outcome, clean: Outcome) -> str:
    """What is wrong with an outcome; empty when nothing is."""
    if found.wrong or damage.resealed:
        return found.wrong
    if found.error:
        return "" if damage.header_lost else f"refused with {found.error}, though its header can be read"
    if lost := damage.expected - found.frames.keys():
        return f"untouched frames {sorted(lost)} did not come back"
    if changed := [i for i, frame in found.frames.items() if frame != clean.frames.get(i)]:
        return f"frames {changed} are silently wrong"
    if len(found.frames) < len(clean.frames) and not found.problems:
        return "frames are missing and nothing says so"
    return ""


def measure(
    args: argparse.Namespace,
    clean: Callable[[], Outcome],
    make: Callable[[int], Damage],
    count: int,
    kind: type[VideoDecoder],
) -> Figure:
    """All damages of one kind, each written, decoded and judged."""
    whole, found = clean(), []
    with tempfile.TemporaryDirectory(prefix="vidcodec-") as folder:
        for damage in map(make, range(count)):
            Path(folder, "damaged.vdc").write_bytes(damage.data)
            found.append((damage, decode_all(Path(folder, "damaged.vdc"), args, kind)))
    outcomes = [o for _, o in found]
    same = [sum(f == whole.frames.get(i) for i, f in o.frames.items()) for o in outcomes]
    return {
        "opened": sum(not o.error and not o.wrong for o in outcomes),
        "errors": dict(Counter(o.error for o in outcomes if o.error)),
        "frames_asked": len(whole.frames) * len(outcomes),
        "frames_returned": sum(len(o.frames) for o in outcomes),
        "frames_promised": sum(len(d.expected) for d, _ in found),
        "frames_as_in_clean_file": sum(same),
        "unreported": sum(not o.error and not o.problems for o in outcomes),
        "max_seconds": max(o.seconds for o in outcomes),
        "max_traced_mb": max(o.memory for o in outcomes) / 1e6,
        "wrong": [f"{d.label}: {v}" for d, o in found if (v := verdict(d, o, whole))],
    }


def main() -> None:
    p = parser(__doc__, "damage")
    p.add_argument("file", type=Path, metavar="FILE.vdc")
    p.add_argument("--flips", type=int, default=500, metavar="N", help="default: %(default)s")
    p.add_argument("--cuts", type=int, default=100, metavar="N", help="default: %(default)s")
    p.add_argument("--resealed", type=int, default=40, metavar="N", help="default: %(default)s")
    p.add_argument("--uncached", type=int, default=5, metavar="N", help="flips decoded in full (default: %(default)s)")
    p.add_argument("--limit", type=float, default=120.0, metavar="S", help="seconds a file may take (default: 120)")
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    decode_module.load_for_stream = lru_cache(load_for_stream)  # the same weights 600 times
    damager = Damager(args.file.read_bytes(), args.seed)

    @cache
    def clean() -> Outcome:
        out = decode_all(args.file, args, RememberingDecoder)
        if out.wrong or out.error or out.problems:
            raise SystemExit(f"{args.file.name} is not a clean file: {out.wrong or out.error or out.problems}")
        return out

    m, of = Measurement(args, __doc__), {"file": args.file.name, "file_digest": digest_of(args.file), "seed": args.seed}
    of |= {"weights_digest": args.weights and digest_of(args.weights), "limit": args.limit}
    kinds: list[tuple[str, int, Callable[[int], Damage], type[VideoDecoder]]] = [
        ("flipped byte", args.flips, damager.flip, RememberingDecoder),
        ("flipped byte, all decoded again", args.uncached, damager.flip, VideoDecoder),
        ("cut off", args.cuts, damager.cut, RememberingDecoder),
        ("resealed payload", args.resealed, damager.reseal, VideoDecoder),
    ]
    found = [
        m.figure({**of, "damage": name, "files": count}, partial(measure, args, clean, make, count, kind), CODE)
        for name, count, make, kind in kinds
        if count
    ]
    there = [f for f in found if f]
    counts = ("frames_promised", "frames_as_in_clean_file", "unreported")
    rows = [
        [
            *(f[k] for k in ("damage", "files", "opened")),
            ", ".join(f"{n} {e}" for e, n in f["errors"].items()) or "-",
            f"{f['frames_returned']:,} of {f['frames_asked']:,}",
            *(f"{f[k]:,}" for k in counts),
            len(f["wrong"]),
            show(f["max_seconds"], 3),
            show(f["max_traced_mb"], 1),
        ]
        for f in there
    ]
    head = ["damage", "files", "opened", "typed errors", "frames returned", "untouched", "same as in the clean file"]
    wrong = [line for f in there for line in f["wrong"]]
    m.publish(
        markdown([*head, "nothing to report", "failures", "max s", "max MB"], rows),
        f"{args.file.name}, {len(damager.data):,} bytes, {len(damager.units)} units. `untouched`: frames whose bytes, "
        "with all that they need, the damage left alone, all of which must come back. `nothing to report`: files that "
        "open without a problem line. MB: peak of traced allocations while one file is read. A resealed update may "
        "change pixels while all symbols still match their checksum.",
        "\n".join(f"- {line}" for line in wrong) or "No failure.",
    )
    raise SystemExit(int(bool(wrong)))


if __name__ == "__main__":
    main()
