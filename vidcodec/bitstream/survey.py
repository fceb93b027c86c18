"""What a file holds and what it lost: one pass over all units, before anything is decoded."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from vidcodec.bitstream.fields import FieldReader
from vidcodec.bitstream.frames import PREFIX_LIMIT, FramePrefix, Settings, UpdatePrefix
from vidcodec.bitstream.header import Header
from vidcodec.bitstream.index import Done, Index, IndexEntry, head_of, symbols_checksum
from vidcodec.bitstream.signature import SNIFF_SIZE, signature_error
from vidcodec.bitstream.units import (
    CRITICAL,
    DONE,
    FRAM,
    HEAD,
    INDX,
    KNOWN_KINDS,
    MAGIC,
    SIDE,
    UNIT_OVERHEAD,
    UPDT,
    Damage,
    Unit,
    UnitFile,
)
from vidcodec.errors import BitstreamError, CorruptBitstreamError, TruncatedBitstreamError, UnsupportedVersionError

_NAMES = {HEAD: "header", UPDT: "update", FRAM: "frame", SIDE: "sound", INDX: "index", DONE: "end marker", b"": "unit"}


class FoundFrame(NamedTuple):
    """An intact unit of a frame."""

    unit: Unit
    reference: int  # distance back in frames, 0: a key frame
    settings: Settings | None  # None: those of the chain's key frame


class FoundUpdate(NamedTuple):
    """An intact unit of an update."""

    unit: Unit
    parent: int
    first_frame: int


@dataclass
class Survey:
    """What was found; filled by `survey`."""

    header: Header
    frame_count: int = 0  # at least so many
    counted: bool = False  # whether an end unit says so
    updates: dict[int, FoundUpdate] = field(default_factory=dict)  # by number, rising
    missing_updates: list[int] = field(default_factory=list)  # numbers, rising
    lost_updates: dict[int, int] = field(default_factory=dict)  # intact ones that need a missing one -> its number
    frames: dict[int, FoundFrame] = field(default_factory=dict)  # by index, rising: all intact units
    chains: dict[int, int] = field(default_factory=dict)  # index -> its key frame's, of frames that can be decoded
    side: list[Unit] = field(default_factory=list)  # pieces of what goes beside the pictures
    damaged: set[int] = field(default_factory=set)  # frames whose units are there, but not intact
    undecodable: dict[int, str] = field(default_factory=dict)  # intact frames that need what was lost: what, and why
    chain_starts: list[int] = field(default_factory=list)  # all key frames known of, lost ones as well
    problems: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)  # bytes by kind, summing to the file's size

    def why_lost(self, index: int) -> str | None:
        """What is wrong with a frame, None for one that can be decoded."""
        if index in self.chains:
            return None
        why = self.undecodable.get(index)
        return f"frame {index} {why}" if why else f"frame {index} is {self._damage_of(index)}"

    def _damage_of(self, index: int) -> str:
        return "damaged" if index in self.damaged else "missing"

    def settle(self) -> None:
        """Fills `lost_updates`, `chains` and `undecodable` from what was found."""
        for number, update in self.updates.items():
            if lost := self._lost_update(update.parent):
                self.lost_updates[number] = lost
        roots: dict[int, str] = {}  # what those need that need an undecodable frame
        for index, frame in self.frames.items():
            why = self._problem(index, frame, roots)
            if why:
                self.undecodable[index] = why
                roots[index] = why if why.startswith("needs ") else f"needs frame {index}, which {why}"
            else:
                self.chains[index] = self.chains[index - frame.reference] if frame.reference else index

    def _lost_update(self, number: int) -> int:
        """The first of an update and its parents that is not there, 0 where all are."""
        return self.lost_updates.get(number, 0) if number in self.updates or not number else number

    def _problem(self, index: int, frame: FoundFrame, roots: dict[int, str]) -> str:
        """Why an intact frame cannot be decoded, all before it being known; empty where it can."""
        at = index - frame.reference
        if at == index:
            assert frame.settings
            number = frame.settings.update
            if lost := self._lost_update(number):
                return f"needs update {lost}, which is lost"
            if number and self.updates[number].first_frame > index:
                return f"uses update {number}, which is for frames from {self.updates[number].first_frame} on"
            return ""
        place = bisect_right(self.chain_starts, index)
        if place and at < self.chain_starts[place - 1]:
            return f"refers to frame {at}, outside of its chain"
        if at in roots:
            return roots[at]
        if at not in self.chains:
            return f"needs frame {at}, which is {self._damage_of(at)}"
        key = self.frames[self.chains[at]].settings
        if frame.settings and key and frame.settings.update != key.update:
            return f"uses update {frame.settings.update}, its chain update {key.update}"
        return ""


def survey(file: UnitFile, strict: bool = False) -> Survey:
    """Checks every unit of the file.

    Fatal: no signature, no header (nor its copy in the index), another version, an unknown critical unit. Everything
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
            header = Header.from_bytes(head)  # first of all: another version may have another index
        index = self._find_index(head)
        if head is None:
            if index is None:
                raise _no_header(first)
            header = Header.from_bytes(index.head)
        self._table: dict[int, IndexEntry] = {} if index is None else index.by_offset()
        self._index = index
        self._done: Done | None = None
        self._found = Survey(header)
        self._sizes = dict.fromkeys(("head", "update", "frames", "sound", "index", "overhead", "damaged"), 0)
        self._sizes["overhead"] = len(MAGIC)
        self._symbols = 0  # crc32 of the symbol checksums of all frames so far
        self._last_frame = -1
        self._last_update = 0
        self._ends: set[bytes] = set()  # INDX, DONE: seen or reported already
        if not start.startswith(MAGIC):
            self._report("signature: damaged, but a header follows")
        if head is None:
            self._report("header: damaged, its copy in the index is used")

    def run(self) -> Survey:
        at = len(MAGIC)
        for item in self._file.walk(at, list(self._table)):
            if isinstance(item, Unit) and self._begins_a_file(item):
                break
            if isinstance(item, Damage):
                self._take_damage(item)
            else:
                self._take_unit(item)
            at = item.end
            self._sizes["damaged"] += item.end - item.offset if isinstance(item, Damage) else 0
        if at < self._file.size:
            self._sizes["damaged"] += self._file.size - at
            after = "after the end marker" if DONE in self._ends else "of another .vdc file"
            self._report(f"{self._file.size - at} bytes {after}, ignored")
        self._conclude()
        self._found.sizes = self._sizes
        return self._found

    def _begins_a_file(self, unit: Unit) -> bool:
        """Whether this is the header of a second file, glued behind what is left of the first."""
        before = unit.offset - len(MAGIC)
        return unit.kind == HEAD and before > 0 and self._file.read_at(before, len(MAGIC)) == MAGIC

    def _find_index(self, head: bytes | None) -> Index | None:
        """The index, from the end of the file, else from a search; None unless intact and of this header."""
        unit = self._index_from_end()
        index = self._parse_index(unit, head) if unit else None
        if index and unit and index.offset == unit.offset:
            return index
        for item in self._file.walk(len(MAGIC)):
            if isinstance(item, Damage):
                continue
            if self._begins_a_file(item):
                break
            if index := self._parse_index(item, head):
                return index
        return None

    def _parse_index(self, unit: Unit, head: bytes | None) -> Index | None:
        if unit.kind == INDX and not unit.flags & ~CRITICAL:
            with contextlib.suppress(CorruptBitstreamError):
                payload = self._file.payload(unit)
                copy = head_of(payload)
                if head is None:
                    Header.from_bytes(copy)  # the rest of it may be of another version
                if head is None or copy == head:
                    return Index.from_bytes(payload)
        return None

    def _index_from_end(self) -> Unit | None:
        place = self._file.size - UNIT_OVERHEAD - Done.SIZE
        done = self._file.check(place) if place > 0 else None
        if not isinstance(done, Unit) or done.kind != DONE or done.length != Done.SIZE:
            return None
        with contextlib.suppress(CorruptBitstreamError):
            place -= Done.from_bytes(self._file.payload(done)).index_size
            unit = self._file.check(place) if place > 0 else None
            return unit if isinstance(unit, Unit) and unit.kind == INDX else None
        return None

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
            SIDE: self._take_side,
            INDX: self._take_index,
            DONE: self._take_done,
        }
        try:
            takers[unit.kind](unit)
        except CorruptBitstreamError as error:
            if self._strict:
                raise
            self._take_damage(Damage(unit.offset, unit.end, unit.kind, str(error)), known=False)
            self._sizes["damaged"] += unit.end - unit.offset

    def _take_head(self, unit: Unit) -> None:
        if unit.offset != len(MAGIC):
            raise CorruptBitstreamError("a second header")
        self._sizes["head"] = unit.end - unit.offset

    def _take_update(self, unit: Unit) -> None:
        fields = FieldReader(self._file.start_of(unit, PREFIX_LIMIT), "update")
        number, parent, first_frame = UpdatePrefix.read(fields)
        if number <= self._last_update or first_frame <= self._last_frame:
            raise CorruptBitstreamError(f"an update numbered {number}, from frame {first_frame} on, is out of place")
        self._found.updates[number] = FoundUpdate(unit, parent, first_frame)
        self._last_update = number
        self._charge("update", unit, fields)

    def _take_frame(self, unit: Unit) -> None:
        fields = FieldReader(self._file.start_of(unit, PREFIX_LIMIT), "frame")
        frame = FramePrefix.read(fields)
        if frame.index <= self._last_frame:
            raise CorruptBitstreamError(f"a frame numbered {frame.index} is out of place")
        self._found.frames[frame.index] = FoundFrame(unit, frame.reference, frame.settings)
        self._last_frame = frame.index
        self._symbols = symbols_checksum([frame.checksum], self._symbols)
        self._charge("frames", unit, fields)

    def _take_side(self, unit: Unit) -> None:
        fields = FieldReader(self._file.start_of(unit, PREFIX_LIMIT), "sound")
        if (number := fields.varint()) != len(self._found.side):
            self._report(f"sound: piece {number} where piece {len(self._found.side)} is due")
        self._found.side.append(unit)
        self._charge("sound", unit, fields)

    def _charge(self, kind: str, unit: Unit, fields: FieldReader) -> None:
        """Counts a unit, of which what `fields` has read is overhead."""
        prefix = min(unit.length, PREFIX_LIMIT) - fields.left
        self._sizes[kind] += unit.length - prefix
        self._sizes["overhead"] += UNIT_OVERHEAD + prefix

    def _take_index(self, unit: Unit) -> None:
        self._ends.add(INDX)
        if self._sizes["index"]:
            raise CorruptBitstreamError("a second index")
        if Index.from_bytes(self._file.payload(unit)) != self._index:
            raise CorruptBitstreamError("does not belong to this file")
        self._sizes["index"] = unit.end - unit.offset

    def _take_done(self, unit: Unit) -> None:
        self._ends.add(DONE)
        self._done = Done.from_bytes(self._file.payload(unit))
        self._sizes["overhead"] += unit.end - unit.offset

    def _take_damage(self, damage: Damage, *, known: bool = True) -> None:
        """known: whether what was lost may be told from its place; not of units that are whole, but wrong."""
        if damage.kind in (INDX, DONE):
            self._ends.add(damage.kind)
        if damage.offset == len(MAGIC):
            return  # the header: reported already
        name = self._name(damage) if known or damage.offset in self._table else self._place(damage)
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
            self._found.damaged.add(number)
            return f"frame {number}"
        if kind == UPDT and entry:
            return f"update {entry.number} for frames from {entry.first_frame} on"
        return self._place(Damage(damage.offset, damage.end, kind, ""))

    @staticmethod
    def _place(damage: Damage) -> str:
        name = _NAMES[damage.kind]
        return f"{name} at byte {damage.offset}" if damage.kind in (UPDT, FRAM, b"") else name

    def _conclude(self) -> None:
        """What can be told only when all has been seen: counts, chains, what is missing, index and end marker."""
        found = self._found
        found.damaged -= found.frames.keys()
        error = CorruptBitstreamError if DONE in self._ends else TruncatedBitstreamError
        self._count()
        keys = {index for index, frame in found.frames.items() if not frame.reference}
        keys |= {entry.number for entry in self._table.values() if entry.key}
        found.chain_starts = sorted(keys)
        found.settle()
        there = sorted(found.frames.keys() | found.damaged)
        for first, last in _missing_runs(found.frame_count, there):
            self._report(f"{_frames(first, last)}: missing", error)
        for first, last, why in _runs(found.undecodable):
            text = why.replace("needs ", "need ").replace("uses ", "use ") if last > first else why
            self._report(f"{_frames(first, last)}: {text}", error)
        named = {f.settings.update for f in found.frames.values() if f.settings} | {
            update.parent for update in found.updates.values()
        }
        listed = {entry.number for entry in self._table.values() if entry.kind == UPDT}
        before = set(range(1, self._last_update))
        found.missing_updates = sorted((named | listed | before) - found.updates.keys() - {0})
        if found.missing_updates:
            self._report(f"updates missing: {', '.join(map(str, found.missing_updates))}", error)
        if INDX not in self._ends:
            self._report("index missing, rebuilt", error)
        if DONE not in self._ends:
            self._report("end marker missing", TruncatedBitstreamError)
        if not found.counted:
            self._report(f"the number of frames is not known: at least {found.frame_count}", TruncatedBitstreamError)

    def _count(self) -> None:
        """How many frames there were, as the index says, else the end marker, else as many as were seen."""
        found = self._found
        seen = max([self._last_frame, *found.damaged]) + 1
        counts = [end.frame_count for end in (self._index, self._done) if end]
        if len(set(counts)) > 1:
            self._report(f"end marker: says {counts[1]} frames, the index {counts[0]}")
        likely = [count for count in counts if count >= seen]
        if counts and not likely:
            self._report(f"{seen} frames, where the end of the file counts {counts[0]}")
        found.counted = bool(likely)
        found.frame_count = likely[0] if likely else seen
        whole = self._done and len(found.frames) == found.frame_count == self._done.frame_count
        if whole and self._done and self._symbols != self._done.checksum:
            self._report("end marker: its checksum over all frames does not match")

    def _report(self, problem: str, error: type[BitstreamError] = CorruptBitstreamError) -> None:
        if self._strict:
            raise error(problem)
        self._found.problems.append(problem)


def _frames(first: int, last: int) -> str:
    return f"frame {first}" if first == last else f"frames {first} to {last}"


def _missing_runs(count: int, present: list[int]) -> list[tuple[int, int]]:
    """Runs (first, last) of the numbers below `count` that are not in the rising list `present`."""
    runs = []
    due = 0
    for number in [*present, count]:
        if due < number:
            runs.append((due, number - 1))
        due = number + 1
    return runs


def _runs(reasons: dict[int, str]) -> Iterable[tuple[int, int, str]]:
    """Runs (first, last) of neighbouring frames with the same reason, and the reason."""
    runs: list[tuple[int, int, str]] = []
    for index, why in reasons.items():
        if runs and runs[-1][1:] == (index - 1, why):
            runs[-1] = (runs[-1][0], index, why)
        else:
            runs.append((index, index, why))
    return runs


def _no_header(damage: Unit | Damage) -> BitstreamError:
    if isinstance(damage, Damage) and damage.at_end and damage.kind in (HEAD, b""):
        return TruncatedBitstreamError("the file ends inside its header: nothing can be decoded")
    return CorruptBitstreamError("the header is damaged, and so is its copy in the index: nothing can be decoded")
