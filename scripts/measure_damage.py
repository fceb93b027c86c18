"""What damaged files do: single flipped bytes, cut-off ends, and altered payloads under a repaired checksum.

    python scripts/measure_damage.py FILE.vdc --flips 500 --truncations 100 --resealed 40

Every damaged file is opened and all its frames are asked for, under a limit of time. Asserted for flips and cuts:
frames or a typed error come back, every frame whose bytes and update are untouched comes back, each frame that comes
back has the symbols, the time and the pixels of the undamaged file's, and losses are told in `problems`. Resealed
payloads (an attacker's, not an accident's) must only end in frames or a typed error, in bounded time and memory.

Decoded pictures are remembered by the bytes they came from (frame and update), so that 600 files need not run the
network on the same bytes again; --uncached of the flips are decoded without that memory.
"""

from __future__ import annotations

import argparse
import resource
import signal
import tempfile
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from _measuring import Point, Results, digest_of, parser, show, table, weights_digest

import vidcodec.codec.decode as decode_module
from vidcodec.bitstream import pack_unit
from vidcodec.codec.decode import VideoDecoder
from vidcodec.codec.models import load_for_stream
from vidcodec.errors import VidcodecError

MAGIC_SIZE, PREFIX_SIZE, CRC_SIZE = 8, 9, 4
CHUNK = 50


def arguments() -> argparse.Namespace:
    p = parser(__doc__)
    p.add_argument("file", type=Path, metavar="FILE.vdc")
    p.add_argument("--flips", type=int, default=500, metavar="N", help="default: %(default)s")
    p.add_argument("--truncations", type=int, default=100, metavar="N", help="default: %(default)s")
    p.add_argument("--resealed", type=int, default=40, metavar="N", help="default: %(default)s")
    p.add_argument("--uncached", type=int, default=5, metavar="N", help="flips decoded in full (default: %(default)s)")
    p.add_argument("--limit", type=float, default=120.0, metavar="S", help="seconds a file may take (default: 120)")
    p.add_argument("--seed", type=int, default=1)
    return p.parse_args()


# -------------------------------------------------------------------------------- the file


@dataclass(frozen=True)
class Span:
    """One unit of the undamaged file: its type and its bytes [start, end)."""

    kind: str
    start: int
    end: int
    frame: int = -1  # FRAM: its number; UPDT: the first frame it applies to


def spans_of(data: bytes) -> list[Span]:
    """The units of an undamaged file."""
    out, at, frames = [], MAGIC_SIZE, 0
    while at < len(data):
        kind = data[at : at + 4].decode()
        end = at + PREFIX_SIZE + int.from_bytes(data[at + 5 : at + PREFIX_SIZE], "little") + CRC_SIZE
        out.append(Span(kind, at, end, frames if kind in ("FRAM", "UPDT") else -1))
        frames += kind == "FRAM"
        at = end
    return out


def untouched(spans: list[Span], touched: Callable[[Span], bool]) -> set[int]:
    """Frames whose own unit and whose update are as they were."""
    out, update_intact = set(), True
    for span in spans:
        if span.kind == "UPDT":
            update_intact = not touched(span)
        if span.kind == "FRAM" and update_intact and not touched(span):
            out.add(span.frame)
    return out


# ---------------------------------------------------------------------------- decoding it all


class Remembered:
    """A picture codec that decodes every payload once."""

    def __init__(self, codec: Any) -> None:
        self._codec, self.multiple = codec, codec.multiple
        self._known: dict[tuple[bytes, int, int], Any] = {}

    def decode(self, payload: bytes, height: int, width: int) -> Any:
        key = (payload, height, width)
        if key not in self._known:
            self._known[key] = self._codec.decode(payload, height, width)
        return self._known[key]


class RememberingDecoder(VideoDecoder):
    """A decoder whose picture codecs are remembered by the update's bytes and the header's fields."""

    codecs: dict[Any, Remembered] = {}

    def codec_for(self, index: int) -> Any:
        update = self.reader.update_for(index)
        key = (update.payload if update else b"", self.header.level, self.header.extra, self.format, self.base.digest)
        if key not in self.codecs:
            self.codecs[key] = Remembered(super().codec_for(index))
        return self.codecs[key]


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
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.perf_counter()
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
    out.seconds = time.perf_counter() - start
    out.memory = tracemalloc.get_traced_memory()[1] - before
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
        self.data, self.seed, self.spans = data, seed, spans_of(data)

    def _rng(self, kind: int, i: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, kind, i])

    def flip(self, i: int) -> Damage:
        """One byte changed, anywhere."""
        rng = self._rng(0, i)
        at, mask = int(rng.integers(len(self.data))), int(rng.integers(1, 256))
        data = self.data[:at] + bytes([self.data[at] ^ mask]) + self.data[at + 1 :]
        expected = untouched(self.spans, lambda s: s.start <= at < s.end)
        return Damage(f"flip {i}: byte {at} ^ {mask}", data, expected)

    def truncation(self, i: int) -> Damage:
        """Cut off, anywhere."""
        at = int(self._rng(1, i).integers(len(self.data)))
        expected = untouched(self.spans, lambda s: s.end > at)
        head = self.spans[0].end
        return Damage(f"cut {i}: at byte {at}", self.data[:at], expected, header_lost=at < head)

    def reseal(self, i: int) -> Damage:
        """1 to 8 bytes of a frame's or an update's payload changed, and the unit's checksum made to fit."""
        rng = self._rng(2, i)
        choices = [s for s in self.spans if s.kind in ("FRAM", "UPDT")]
        updates = [s for s in choices if s.kind == "UPDT"]
        span = choices[int(rng.integers(len(choices)))] if i % 2 or not updates else updates[i // 2 % len(updates)]
        payload = bytearray(self.data[span.start + PREFIX_SIZE : span.end - CRC_SIZE])
        for at in rng.integers(len(payload), size=int(rng.integers(1, 9))):
            payload[at] ^= int(rng.integers(1, 256))
        unit = pack_unit(span.kind.encode(), bytes(payload), critical=bool(self.data[span.start + 4] & 1))
        data = self.data[: span.start] + unit + self.data[span.end :]
        return Damage(f"resealed {i}: {span.kind} at {span.start}", data, set(), resealed=True)


def verdict(damage: Damage, found: Outcome, clean: Outcome) -> str:
    """What is wrong with an outcome; empty when nothing is."""
    if found.wrong:
        return found.wrong
    if damage.resealed:
        return ""
    if found.error:
        return "" if damage.header_lost else f"refused with {found.error}, though its header can be read"
    if lost := damage.expected - found.frames.keys():
        return f"untouched frames {sorted(lost)} did not come back"
    if changed := [i for i, frame in found.frames.items() if frame != clean.frames.get(i)]:
        return f"frames {changed} are silently wrong"
    if len(found.frames) < len(clean.frames) and not found.problems:
        return "frames are missing and nothing says so"
    return ""


def summarise(damages: list[Damage], outcomes: list[Outcome], clean: Outcome) -> Point:
    """Figures of a chunk of damaged files."""
    failures = [f"{d.label}: {v}" for d, o in zip(damages, outcomes, strict=True) if (v := verdict(d, o, clean))]
    errors: dict[str, int] = {}
    for o in outcomes:
        if o.error:
            errors[o.error] = errors.get(o.error, 0) + 1
    same = [sum(f == clean.frames[i] for i, f in o.frames.items() if i in clean.frames) for o in outcomes]
    return {
        "files": len(outcomes),
        "opened": sum(not o.error and not o.wrong for o in outcomes),
        "errors": errors,
        "frames_asked": len(clean.frames) * len(outcomes),
        "frames_returned": sum(len(o.frames) for o in outcomes),
        "frames_as_in_clean_file": sum(same),
        "frames_promised": sum(len(d.expected) for d in damages),
        "unreported": sum(not o.error and not o.problems for o in outcomes),
        "max_seconds": max(o.seconds for o in outcomes),
        "max_traced_mb": max(o.memory for o in outcomes) / 1e6,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "failures": failures,
    }


def merge(chunks: list[Point]) -> Point:
    """Chunks of one kind of damage as one."""
    out: Point = {k: sum(c[k] for c in chunks) for k, v in chunks[0].items() if type(v) is int and k != "run"}
    out |= {k: max(c[k] for c in chunks) for k in ("max_seconds", "max_traced_mb", "peak_rss_mb")}
    kinds = sorted({e for c in chunks for e in c["errors"]})
    out["errors"] = {e: sum(c["errors"].get(e, 0) for c in chunks) for e in kinds}
    return {**out, "failures": [f for c in chunks for f in c["failures"]]}


class Runner:
    """Damages in chunks, each chunk one point of the results."""

    def __init__(self, args: argparse.Namespace, results: Results, folder: Path) -> None:
        self.args, self.results, self.folder = args, results, folder
        self.damager = Damager(args.file.read_bytes(), args.seed)

    @cached_property
    def clean(self) -> Outcome:
        """The undamaged file, decoded."""
        tracemalloc.start()
        out = decode_all(self.args.file, self.args, RememberingDecoder)
        if out.wrong or out.error or out.problems:
            raise SystemExit(f"{self.args.file.name} is not a clean file: {out.wrong or out.error or out.problems}")
        return out

    def run(self, kind: str, count: int, make: Callable[[int], Damage], decoder: type[VideoDecoder]) -> Point | None:
        """All damages of one kind."""
        chunks = []
        for first in range(0, count, CHUNK):
            stop = min(first + CHUNK, count)
            key = {
                "file": self.args.file.name,
                "file_digest": digest_of(self.args.file),
                "kind": kind,
                "seed": self.args.seed,
                "from": first,
                "to": stop,
                "weights_digest": weights_digest(self.args.weights),
            }
            chunks.append(self.results.point(key, partial(self.chunk, make, range(first, stop), decoder)))
        there = [c for c in chunks if c]
        return merge(there) if there else None

    def chunk(self, make: Callable[[int], Damage], numbers: range, decoder: type[VideoDecoder]) -> Point:
        """One chunk of damages, each written, decoded and judged."""
        clean, damages, outcomes = self.clean, [], []
        path = self.folder / "damaged.vdc"
        for damage in map(make, numbers):
            path.write_bytes(damage.data)
            damages.append(damage)
            outcomes.append(decode_all(path, self.args, decoder))
        return summarise(damages, outcomes, clean)


def main() -> None:
    args = arguments()
    decode_module.load_for_stream = lru_cache(load_for_stream)  # the same weights 600 times
    results = Results("damage", __doc__.partition("\n\n")[0], args)
    with tempfile.TemporaryDirectory(prefix="vidcodec-") as folder:
        runner = Runner(args, results, Path(folder))
        damager = runner.damager
        kinds = {
            "flipped byte": runner.run("flip", args.flips, damager.flip, RememberingDecoder),
            "flipped byte, all decoded again": runner.run("flip, uncached", args.uncached, damager.flip, VideoDecoder),
            "cut off": runner.run("cut", args.truncations, damager.truncation, RememberingDecoder),
            "resealed payload": runner.run("resealed", args.resealed, damager.reseal, VideoDecoder),
        }
    there = {name: merged for name, merged in kinds.items() if merged}
    rows = [
        [
            name,
            str(m["files"]),
            str(m["opened"]),
            ", ".join(f"{n} {e}" for e, n in m["errors"].items()) or "-",
            f"{m['frames_returned']:,} of {m['frames_asked']:,}",
            "-" if name == "resealed payload" else f"{m['frames_promised']:,}",
            f"{m['frames_as_in_clean_file']:,}",
            str(m["unreported"]),
            str(len(m["failures"])),
            show(m["max_seconds"], 3),
            show(m["max_traced_mb"], 1),
        ]
        for name, m in there.items()
    ]
    head = (
        "damage",
        "files",
        "opened",
        "typed errors",
        "frames returned",
        "untouched",
        "same as in the clean file",
        "nothing to report",
        "failures",
        "max s",
        "max MB",
    )
    failures = [f for m in there.values() for f in m["failures"]]
    rss = max((m["peak_rss_mb"] for m in there.values()), default=0)
    notes = [
        f"{args.file.name}, {show(args.file.stat().st_size, 0)} bytes, {len(damager.spans)} units. `untouched`: frames "
        "whose bytes and update the damage left alone, all of which must come back. `nothing to report`: files that "
        "open without a problem line. MB: peak of traced allocations while one file is read; the process's peak was "
        f"{rss:.0f} MB. A resealed update may change pixels while all symbols still match their checksum.",
        "\n".join(f"- {f}" for f in failures) or "No failure.",
    ]
    results.finish(there, "\n\n".join([table(head, rows), *notes]))
    if failures:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
