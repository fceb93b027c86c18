"""Frames as the codec sees them: 4:2:0 planes (R'G'B' ones without loss), a time stamp, what their numbers mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

UNSPECIFIED = 2  # H.273: matrix, primaries and transfer
IDENTITY = 0  # matrix of planes that are R'G'B'
BT709 = 1
BT601 = 6
HIGH_DEFINITION_LINES = 720  # from here on an untagged picture is taken for BT.709


@dataclass(frozen=True)
class ColourTags:
    """What the sample values mean.

    matrix, primaries, transfer: H.273 code points (2: unspecified).
    full_range: True when luma spans 0..2^n-1, False for 16..235 (times 2^(n-8)).
    chroma_location: 0 unspecified (taken for left), else H.273's chroma_sample_loc_type + 1:
        1 left, 2 centre, 3 top left, 4 top, 5 bottom left, 6 bottom.
    """

    matrix: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    full_range: bool = False
    chroma_location: int = 0

    def resolved_matrix(self, height: int) -> int:
        """The matrix to convert with: the tag, or by `height` (lines) BT.601 (6) below 720, else BT.709 (1)."""
        if self.matrix != UNSPECIFIED:
            return self.matrix
        return BT601 if height < HIGH_DEFINITION_LINES else BT709


@dataclass(frozen=True)
class VideoFormat:
    """What all frames of a video share.

    width, height: of the luma plane, in samples, from 1 on; odd is fine.
    bit_depth: 8 or 10.
    sample_aspect: width / height of one sample; 1 when unknown.
    rotation: degrees clockwise a player turns the picture: 0, 90, 180 or 270. The planes are not turned.
    time_base: seconds per unit of `Frame.pts`.
    frame_rate: frames per second, or None when the spacing varies.
    rgb: the planes are G', and B' with R', all of one size; for pictures kept without loss. The matrix is then 0.

    Raises ValueError when a field is out of its range.
    """

    width: int
    height: int
    bit_depth: int = 8
    colour: ColourTags = field(default_factory=ColourTags)
    sample_aspect: Fraction = Fraction(1)
    rotation: int = 0
    time_base: Fraction = Fraction(1, 1000)
    frame_rate: Fraction | None = None
    rgb: bool = False

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a picture of {self.width}x{self.height} samples")
        if self.bit_depth not in (8, 10):
            raise ValueError(f"bit depth {self.bit_depth}: only 8 and 10 exist")
        if self.rotation not in (0, 90, 180, 270):
            raise ValueError(f"rotation {self.rotation}: only 0, 90, 180 and 270 exist")
        if self.time_base <= 0 or self.sample_aspect <= 0 or (self.frame_rate is not None and self.frame_rate <= 0):
            raise ValueError("time base, sample aspect and frame rate must be above zero")

    @property
    def chroma_width(self) -> int:
        """Samples per line of U and of V."""
        return self.width if self.rgb else (self.width + 1) // 2

    @property
    def chroma_height(self) -> int:
        """Lines of U and of V."""
        return self.height if self.rgb else (self.height + 1) // 2

    @property
    def dtype(self) -> np.dtype:
        """Of the planes: uint8, or uint16 for 10 bit."""
        return np.dtype(np.uint8 if self.bit_depth == 8 else np.uint16)

    @property
    def frame_bytes(self) -> int:
        """Size of one raw frame."""
        return (self.width * self.height + 2 * self.chroma_width * self.chroma_height) * self.dtype.itemsize

    def check(self, frame: Frame) -> None:
        """Raise ValueError unless the planes of `frame` have this format's shapes and type."""
        luma, chroma = (self.height, self.width), (2, self.chroma_height, self.chroma_width)
        if frame.y.shape != luma or frame.uv.shape != chroma:
            raise ValueError(f"planes of {frame.y.shape} and {frame.uv.shape}, expected {luma} and {chroma}")
        if frame.y.dtype != self.dtype or frame.uv.dtype != self.dtype:
            raise ValueError(f"samples of {frame.y.dtype} and {frame.uv.dtype}, expected {self.dtype}")


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture in 4:2:0, or in R'G'B'.

    y: (H, W), uv: (2, ceil(H/2), ceil(W/2)); uint8, or uint16 holding 10 bits. Of R'G'B': y is G' and uv B' and R',
        (2, H, W).
    pts: presentation time in units of the format's time base.
    """

    y: np.ndarray
    uv: np.ndarray
    pts: int
