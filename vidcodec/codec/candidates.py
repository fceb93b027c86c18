"""Ways of coding a video, and what they cost: bytes of the file and the picture that a decoder shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from vidcodec.bitstream import FrameUnit
from vidcodec.codec.files import units_size
from vidcodec.codec.unit_spool import UnitSpool
from vidcodec.families.family import CodedFrame, Family
from vidcodec.families.planes import plane_errors
from vidcodec.latents.decisions import PLAIN_SETTINGS, Settings
from vidcodec.rate import RateLevel, TradeOff
from vidcodec.video import Frame, VideoFormat


@dataclass(frozen=True, eq=False)
class Candidate:
    """A way of coding the video: a network, the update that takes a decoder there, what decides the symbols.

    refine: how latents are searched, of the family's `refinements`. found: payloads of frames whose symbols were fitted
    with the network, by time stamp.
    """

    name: str
    family: Family
    update: bytes = b""
    settings: Settings = PLAIN_SETTINGS
    refine: str = "none"
    found: Mapping[int, bytes] = field(default_factory=dict)


class MeasuredFrame(NamedTuple):
    """One frame as it will be in the file, and what a decoder shows of it."""

    unit: FrameUnit
    errors: np.ndarray  # (3,), mean squared, code values squared; NaN where the picture was not compared
    bits: tuple[float, float]  # of y and z

    @classmethod
    def of(
        cls,
        index: int,
        frame: Frame,
        coded: CodedFrame,
        candidate: Candidate,
        level: RateLevel,
        *,
        compare: bool = True,
    ) -> MeasuredFrame:
        """A coded frame, its picture compared with the source's if asked for."""
        unit = FrameUnit(
            index=index,
            pts=frame.pts,
            payload=coded.payload,
            checksum=coded.log.crc,
            level=level.steps,
            quantizer=candidate.settings.quantizer.code,
            update=1 if candidate.update else 0,
            reference=1 if coded.predicted else 0,
        )
        errors = plane_errors(frame, coded.show()) if compare else np.full(3, np.nan)
        return cls(unit, errors, (coded.log.y_bits, coded.log.z_bits))

    def cost(self, trade_off: TradeOff, video: VideoFormat) -> float:
        """True R-D cost, bits per pixel of the frame."""
        bits = 8 * len(self.unit.payload)
        return bits / (video.width * video.height) + trade_off.error_bits(self.errors, video.bit_depth)


@dataclass
class CodedVideo:
    """Frames coded one way: their bytes on disk, what they cost in memory."""

    candidate: Candidate
    level: RateLevel
    extra: bytes
    units: UnitSpool = field(default_factory=UnitSpool)
    errors: list[np.ndarray] = field(default_factory=list)
    bits: list[tuple[float, float]] = field(default_factory=list)

    def append(self, coded: MeasuredFrame) -> None:
        """Add the next frame."""
        self.units.append(coded.unit)
        self.errors.append(coded.errors)
        self.bits.append(coded.bits)

    def __len__(self) -> int:
        return len(self.errors)

    def __getitem__(self, index: int) -> MeasuredFrame:
        return MeasuredFrame(self.units[index], self.errors[index], self.bits[index])

    def is_bound(self, index: int) -> bool:
        """Whether a frame refers to another one, or the next one to it."""
        return any(not self.units[i].is_key for i in (index, index + 1) if i < len(self))

    @property
    def compared(self) -> list[np.ndarray]:
        """The errors of those frames whose pictures were compared with the source's."""
        return [e for e in self.errors if not np.isnan(e[0])]

    @property
    def size(self) -> int:
        """Bytes of the file but for what all ways of coding share."""
        return units_size(self.candidate.update, self.units.sizes)

    def cost(self, trade_off: TradeOff, video: VideoFormat) -> float:
        """True R-D-M cost in bits per pixel: bytes of the file but for what all files share, and decoded pictures."""
        error = sum(trade_off.error_bits(e, video.bit_depth) for e in self.compared) / len(self.compared)
        return 8 * self.size / (video.width * video.height * len(self)) + error

    def decodes_like(self, other: Candidate) -> bool:
        """Whether one decoder reads frames of both."""
        own = self.candidate
        return (own.family, own.settings.quantizer) == (other.family, other.settings.quantizer)

    def close(self) -> None:
        """Give the disk space back."""
        self.units.close()
