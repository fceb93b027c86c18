"""A file in memory: where each of its units lies, and which frame needs which others."""

from __future__ import annotations

from dataclasses import dataclass

from vidcodec.bitstream import FrameUnit, Header, UpdateUnit


@dataclass(frozen=True)
class Sample:
    """A file in memory and what it was made of."""

    header: Header
    updates: list[UpdateUnit]
    frames: list[FrameUnit]
    data: bytes

    def units(self) -> list[tuple[bytes, int, int]]:
        """(type, offset, end) of every unit."""
        found, at = [], 8
        while at < len(self.data):
            end = at + 13 + int.from_bytes(self.data[at + 5 : at + 9], "little")
            found.append((self.data[at : at + 4], at, end))
            at = end
        return found

    def frame_spans(self) -> list[tuple[int, int]]:
        """(offset, end) of every frame."""
        return [(start, end) for kind, start, end in self.units() if kind == b"FRAM"]

    def update_spans(self) -> list[tuple[int, int]]:
        """(offset, end) of every update."""
        return [(start, end) for kind, start, end in self.units() if kind == b"UPDT"]

    def decodable(self, frames: set[int], updates: set[int]) -> list[int]:
        """What can be decoded of these intact frames (indices) and updates (numbers)."""

        def whole_update(number: int) -> bool:
            return number == 0 or (number in updates and whole_update(self.updates[number - 1].parent))

        def whole(index: int) -> bool:
            frame = self.frames[index]
            if index not in frames:
                return False
            return whole(index - frame.reference) if frame.reference else whole_update(frame.update)

        return [index for index in range(len(self.frames)) if whole(index)]

    def untouched(self, *places: int) -> tuple[set[int], set[int]]:
        """Frames and updates in whose units none of these bytes lies."""
        return (
            {i for i, (a, b) in enumerate(self.frame_spans()) if not any(a <= p < b for p in places)},
            {i + 1 for i, (a, b) in enumerate(self.update_spans()) if not any(a <= p < b for p in places)},
        )


def make_frame(
    index: int, reference: int = 0, *, level: int = 0x1234, quantizer: int = 0, update: int = 0
) -> FrameUnit:
    """A frame with a payload of its own."""
    payload = b"z" * index + bytes((index, 255)) * (9 - index)
    return FrameUnit(index, 45000 * index, payload, 0xDEADBEEF + index, level, quantizer, update, reference)
