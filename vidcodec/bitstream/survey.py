"""What a file holds and what it lost: one pass over all units, before anything is decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from vidcodec.bitstream.frames import FrameUnit, UpdateUnit
from vidcodec.bitstream.header import Header
from vidcodec.bitstream.index import Done, Index, IndexEntry, symbols_checksum
from vidcodec.bitstream.signature import SNIFF_SIZE, signature_error
from vidcodec.bitstream.units import (
    CRITICAL,
    DONE,
    FRAM,
    HEAD,
    INDX,
    KNOWN_KINDS,
    MAGIC,
    UNIT_OVERHEAD,
    UPDT,
    Damage,
    Unit,
    UnitFile,
)
from vidcodec.errors import BitstreamError, CorruptBitstreamError, TruncatedBitstreamError, UnsupportedVersionError

_NAMES = {HEAD: "header", UPDT: "update", FRAM: "frame", INDX: "index", DONE: "end marker", b"": "unit"}


@dataclass
class Survey:
    """What was found; filled by `survey`."""

    header: Header
    updates: list[UpdateUnit] = field(default_factory=list)
    missing_updates: list[int] = field(default_factory=list)  # first frame of each, or the earliest it can have
    frames: dict[int, Unit] = field(default_factory=dict)  # frame index -> its intact unit
    problems: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)  # bytes by kind, summing to the file's size
    stream_sizes: dict[str, int] = field(default_factory=lambda: {"z": 0, "y": 0})


def survey(file: UnitFile, strict: bool = False) -> Survey:
    """Checks every unit of the file.

    Fatal: no signature, no header (nor its copy in the index), a newer version, an unknown critical unit. Everything
    else becomes a line in `problems`, or with `strict` the first of them a Corrupt- or TruncatedBitstreamError.
    """
    return _Surveyor(file, strict).run()


class _Surveyor:
    def __init__(self, file: UnitFile, strict: bool) -> None:
        self._file = file
        self._strict = strict
        first = file.check(len(MAGIC))
        head_intact = isinstance(first, Unit) and first.kind == HEAD
        start = file.read_at(0, SNIFF_SIZE)
        if not start.startswith(MAGIC) and not head_intact:
            raise signature_error(start)
        head = file.payload(first) if isinstance(first, Unit) and head_intact else None
        if head is not None:
            header = Header.from_bytes(head)  # first of all: a newer version may have another index
        index = self._find_index(head)
        if head is None:
            if index is None:
                raise _no_header(first)
            header = Header.from_bytes(index.head)
        self._table: dict[int, IndexEntry] = {} if index is None else index.by_offset()
        self._index = index
        self._found = Survey(header)
        self._sizes = dict.fromkeys(("head", "update", "frames", "index", "overhead", "damaged"), 0)
        self._sizes["overhead"] = len(MAGIC)
        self._symbols: list[int] = []
        self._named: set[int] = set()  # lost frames a problem line speaks of already
        self._gaps: list[int] = []  # earliest first_frame of an update that may have been lost in each damage
        self._last_frame = self._last_update = -1
        self._ends: set[bytes] = set()  # INDX, DONE: seen or reported already
        if not start.startswith(MAGIC):
            self._report("signature: damaged, but a header follows")
        if head is None:
            self._report("header: damaged, its copy in the index is used")

    def run(self) -> Survey:
        at = len(MAGIC)
        for item in self._file.walk(at, list(self._table)):
            if isinstance(item, Damage):
                self._take_damage(item)
            else:
                self._take_unit(item)
            at = item.end
            self._sizes["damaged"] += item.end - item.offset if isinstance(item, Damage) else 0
        if at < self._file.size:
            self._sizes["damaged"] += self._file.size - at
            self._report(f"{self._file.size - at} bytes after the end marker, ignored")
        self._conclude()
        self._found.sizes = self._sizes
        return self._found

    def _find_index(self, head: bytes | None) -> Index | None:
        """The index, from the end of the file, else from a search; None unless intact and of this header."""
        unit = self._index_from_end()
        index = self._parse_index(unit, head) if unit else None
        if index and unit and index.offset == unit.offset:
            return index
        for item in self._file.walk(len(MAGIC)):
            if isinstance(item, Unit) and (index := self._parse_index(item, head)):
                return index
        return None

    def _parse_index(self, unit: Unit, head: bytes | None) -> Index | None:
        if unit.kind == INDX and not unit.flags & ~CRITICAL:
            with contextlib.suppress(CorruptBitstreamError):
                index = Index.from_bytes(self._file.payload(unit))
                if head is None or index.head == head:
                    return index
        return None

    def _index_from_end(self) -> Unit | None:
        place = self._file.size - UNIT_OVERHEAD - Done.SIZE
        done = self._file.check(place) if place > 0 else None
        if not isinstance(done, Unit) or done.kind != DONE or done.length != Done.SIZE:
            return None
        place -= Done.from_bytes(self._file.payload(done)).index_size
        unit = self._file.check(place) if place > 0 else None
        return unit if isinstance(unit, Unit) and unit.kind == INDX else None

    def _take_unit(self, unit: Unit) -> None:
        if unit.kind not in KNOWN_KINDS:
            if unit.flags & CRITICAL:
                name = unit.kind.decode("ascii")
                raise UnsupportedVersionError(f"the file needs {name} units, unknown to this vidcodec: update vidcodec")
            self._sizes["overhead"] += unit.end - unit.offset
            return
        if unit.flags & ~CRITICAL:
            name = f"{_NAMES[unit.kind]} at byte {unit.offset}"
            raise UnsupportedVersionError(f"the {name} has flags unknown to this vidcodec: update vidcodec")
        takers: dict[bytes, Callable[[Unit], None]] = {
            HEAD: self._take_head,
            UPDT: self._take_update,
            FRAM: self._take_frame,
            INDX: self._take_index,
            DONE: self._take_done,
        }
        try:
            takers[unit.kind](unit)
        except CorruptBitstreamError as error:
            if self._strict:
                raise
            self._take_damage(Damage(unit.offset, unit.end, unit.kind, str(error)))
            self._sizes["damaged"] += unit.end - unit.offset

    def _take_head(self, unit: Unit) -> None:
        if unit.offset != len(MAGIC):
            raise CorruptBitstreamError("a second header")
        self._sizes["head"] = unit.end - unit.offset

    def _take_update(self, unit: Unit) -> None:
        update = UpdateUnit.from_bytes(self._file.payload(unit))
        first = update.first_frame
        if first <= max(self._last_frame, self._last_update) or first >= self._found.header.frame_count:
            raise CorruptBitstreamError(f"an update from frame {first} is out of place")
        self._found.updates.append(update)
        self._last_update = first
        self._sizes["update"] += len(update.payload)
        self._sizes["overhead"] += unit.end - unit.offset - len(update.payload)

    def _take_frame(self, unit: Unit) -> None:
        frame = FrameUnit.from_bytes(self._file.payload(unit))
        if frame.index <= self._last_frame or frame.index >= self._found.header.frame_count:
            raise CorruptBitstreamError(f"a frame numbered {frame.index} is out of place")
        self._found.frames[frame.index] = unit
        self._last_frame = frame.index
        self._symbols.append(frame.checksum)
        streams = len(frame.z) + len(frame.y)
        self._found.stream_sizes["z"] += len(frame.z)
        self._found.stream_sizes["y"] += len(frame.y)
        self._sizes["frames"] += streams
        self._sizes["overhead"] += unit.end - unit.offset - streams

    def _take_index(self, unit: Unit) -> None:
        self._ends.add(INDX)
        if self._sizes["index"]:
            raise CorruptBitstreamError("a second index")
        if Index.from_bytes(self._file.payload(unit)) != self._index:
            raise CorruptBitstreamError("does not belong to this file")
        self._sizes["index"] = unit.end - unit.offset

    def _take_done(self, unit: Unit) -> None:
        done = Done.from_bytes(self._file.payload(unit))
        self._ends.add(DONE)
        self._sizes["overhead"] += unit.end - unit.offset
        count = self._found.header.frame_count
        if done.frame_count != count:
            self._report(f"end marker: says {done.frame_count} frames, the header {count}")
        elif len(self._symbols) == count and symbols_checksum(self._symbols) != done.checksum:
            self._report("end marker: its checksum over all frames does not match")

    def _take_damage(self, damage: Damage) -> None:
        self._gaps.append(max(self._last_frame, self._last_update) + 1)
        if damage.kind in (INDX, DONE):
            self._ends.add(damage.kind)
        if damage.offset == len(MAGIC):
            return  # the header: reported already
        name = self._name(damage)
        if damage.at_end:
            self._report(f"file ends inside {name}", TruncatedBitstreamError)
        else:
            self._report(f"{name}: {damage.reason}, left out")

    def _name(self, damage: Damage) -> str:
        """What was lost: as the index says, else as it looks."""
        entry = self._table.get(damage.offset)
        kind = entry.kind if entry and entry.kind else damage.kind
        if kind == FRAM:
            number = entry.number if entry else self._last_frame + 1
            self._named.add(number)
            return f"frame {number}"
        if kind == UPDT and entry:
            return f"update for frame {entry.number} on"
        return f"{_NAMES[kind]} at byte {damage.offset}" if kind in (UPDT, b"") else _NAMES[kind]

    def _conclude(self) -> None:
        """What can be told only when all has been seen: missing frames, updates, index and end marker."""
        header, found = self._found.header, self._found
        error = CorruptBitstreamError if DONE in self._ends else TruncatedBitstreamError
        for first, last in _missing_runs(header.frame_count, sorted(found.frames.keys() | self._named)):
            self._report(f"frame {first}: missing" if first == last else f"frames {first} to {last}: missing", error)
        if DONE not in self._ends:
            self._gaps.append(max(self._last_frame, self._last_update) + 1)
        present = {update.first_frame for update in found.updates}
        if self._index is not None:
            listed = {entry.number for entry in self._table.values() if entry.kind == UPDT}
            found.missing_updates = sorted(listed - present)
        elif len(found.updates) < header.update_count:
            found.missing_updates = sorted(set(self._gaps) or {0})
        if len(found.updates) != header.update_count:
            self._report(f"{len(found.updates)} intact updates of {header.update_count}", error)
        if INDX not in self._ends:
            self._report("index missing, rebuilt", error)
        if DONE not in self._ends:
            self._report("end marker missing", TruncatedBitstreamError)

    def _report(self, problem: str, error: type[BitstreamError] = CorruptBitstreamError) -> None:
        if self._strict:
            raise error(problem)
        self._found.problems.append(problem)


def _missing_runs(count: int, present: list[int]) -> list[tuple[int, int]]:
    """Runs (first, last) of the numbers below `count` that are not in the rising list `present`."""
    runs = []
    due = 0
    for number in [*present, count]:
        if due < number:
            runs.append((due, number - 1))
        due = number + 1
    return runs


def _no_header(damage: Unit | Damage) -> BitstreamError:
    if isinstance(damage, Damage) and damage.at_end and damage.kind in (HEAD, b""):
        return TruncatedBitstreamError("the file ends inside its header: nothing can be decoded")
    return CorruptBitstreamError("the header is damaged, and so is its copy in the index: nothing can be decoded")
