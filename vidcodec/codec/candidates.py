"""Ways of coding a video, and what they cost: bytes of the file and the picture that a decoder shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from vidcodec.bitstream import FrameUnit
from vidcodec.codec.files import units_size
from vidcodec.codec.models import BaseModel
from vidcodec.codec.pictures import CodedPicture
from vidcodec.codec.planes import plane_errors, planes_to_frame
from vidcodec.codec.quantising import PLAIN_SETTINGS, Settings
from vidcodec.models.msp import PLANE_WEIGHTS
from vidcodec.video import Frame, VideoFormat


@dataclass(frozen=True, eq=False)
class Candidate:
    """A way of coding the video: a network, the update that takes a decoder there, what decides the symbols."""

    name: str
    model: BaseModel
    update: bytes = b""
    settings: Settings = PLAIN_SETTINGS
    refine: str = "none"


class CodedFrame(NamedTuple):
    """One frame as it will be in the file."""

    unit: FrameUnit
    errors: np.ndarray  # (3,), code values squared
    bits: tuple[float, float]  # of y and z

    @classmethod
    def of(cls, index: int, frame: Frame, coded: CodedPicture, video: VideoFormat) -> CodedFrame:
        """A coded picture, measured against its frame."""
        unit = FrameUnit(index=index, pts=frame.pts, z=b"", y=coded.payload, checksum=coded.log.crc)
        errors = plane_errors(frame, planes_to_frame(coded.planes, video, frame.pts))
        return cls(unit, errors, (coded.log.y_bits, coded.log.z_bits))

    def error_bits(self, lam: float, video: VideoFormat) -> float:
        """lambda * 255^2 * D, bits per pixel."""
        peak = float((1 << video.bit_depth) - 1)
        return lam * 255.0**2 * float(self.errors @ PLANE_WEIGHTS) / peak**2

    def cost(self, lam: float, video: VideoFormat) -> float:
        """True R-D cost, bits per pixel of the frame."""
        size = len(self.unit.y) + len(self.unit.z)
        return 8 * size / (video.width * video.height) + self.error_bits(lam, video)


@dataclass
class CodedVideo:
    """All frames coded one way, in memory."""

    candidate: Candidate
    level: int
    extra: bytes
    coded: list[CodedFrame] = field(default_factory=list)

    @property
    def frames(self) -> list[FrameUnit]:
        return [c.unit for c in self.coded]

    @property
    def errors(self) -> list[np.ndarray]:
        return [c.errors for c in self.coded]

    @property
    def y_bits(self) -> float:
        return sum(c.bits[0] for c in self.coded)

    @property
    def z_bits(self) -> float:
        return sum(c.bits[1] for c in self.coded)

    @property
    def frame_sizes(self) -> list[int]:
        return [len(c.unit.to_bytes()) for c in self.coded]

    def cost(self, lam: float, video: VideoFormat) -> float:
        """True R-D-M cost in bits per pixel: bytes of the file but for what all files share, and decoded pictures."""
        size = units_size(self.candidate.update, self.frame_sizes) / len(self.coded)
        error = sum(c.error_bits(lam, video) for c in self.coded) / len(self.coded)
        return 8 * size / (video.width * video.height) + error

    def take_over(self, known: CodedVideo, lam: float, video: VideoFormat) -> None:
        """Frames of `known` that cost less, where one decoder reads both."""
        a, b = self.candidate, known.candidate
        if (a.model, a.settings.quantizer) == (b.model, b.settings.quantizer):
            pairs = zip(self.coded, known.coded, strict=True)
            self.coded = [min(pair, key=lambda c: c.cost(lam, video)) for pair in pairs]
