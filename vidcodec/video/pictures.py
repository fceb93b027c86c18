"""A decoded picture of any pixel format as 4:2:0 planes of 8 or 10 bits.

8-bit and 10-bit 4:2:0 pass bit for bit. Of everything else luma keeps its values where it can: chroma is averaged
down to 4:2:0, more than 10 bits are rounded to 10, RGB goes through `colour`, alpha is left out.

Where every sample is to be kept, RGB of up to 10 bits stays RGB, and what else would lose something is refused, alpha
that is not opaque everywhere included.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import av
import numpy as np

from vidcodec.errors import UnsupportedInputError
from vidcodec.video.colour import CENTRE, LEFT, downsample_chroma, rgb_to_yuv
from vidcodec.video.frame import (
    BT601,
    BT709,
    HIGH_DEFINITION_LINES,
    IDENTITY,
    UNSPECIFIED,
    ColourTags,
    Frame,
    VideoFormat,
)

_CENTRED_CHROMA_CODECS = ("mjpeg", "mpeg1video")  # by their standards; the others say left, or do not say
_RANGE_LIMITED, _RANGE_FULL = 1, 2  # AVColorRange
_GBR_PLANES, _ALPHA_PLANES = ("gbrp", "gbrap"), ("gbrap", "yuva")  # pixel formats whose names begin so


@dataclass(frozen=True)
class PixelLayout:
    """What a pixel format of FFmpeg holds.

    name: FFmpeg's. kind: "yuv", "gray", "rgb", or "gbr" for RGB that stays RGB. bits: per sample in the source. depth:
    8 or 10, what it becomes. halved: (across, down): whether the chroma planes have half the samples; alpha: whether
    there is an alpha plane. plain: the FFmpeg format to take the planes from, the same samples in little-endian planes
    of their own. whole: whether every sample is to be kept.
    """

    name: str
    kind: str
    bits: int
    depth: int
    halved: tuple[bool, bool]
    alpha: bool
    plain: str
    whole: bool = False

    @classmethod
    def of(cls, format: av.VideoFormat) -> PixelLayout:
        """The layout of a PyAV pixel format."""
        colours = [component for component in format.components if not component.is_alpha]
        alpha = len(colours) < len(format.components)
        bits = min(16, max(component.bits for component in colours))
        depth = 8 if bits <= 8 else 10
        if format.is_rgb or format.has_palette or format.is_bayer or format.name.startswith("xyz"):
            plain = "rgb24" if depth == 8 else "rgb48le"
            return cls(format.name, "rgb", bits, depth, (False, False), alpha, plain)
        suffix = "" if bits <= 8 else f"{bits}le"
        if len(colours) < 3:
            return cls(format.name, "gray", bits, depth, (True, True), alpha, f"gray{suffix}")
        across, down = 256 // format.chroma_width(256), 256 // format.chroma_height(256)
        shape = {(1, 1): "444", (2, 1): "422"}.get((across, down), "420")  # rare ones become 4:2:0 in swscale
        halved = (shape != "444", shape == "420")
        return cls(format.name, "yuv", bits, depth, halved, alpha, f"yuv{shape}p{suffix}")

    def exact(self) -> PixelLayout:
        """The layout to take planes from where every sample is to be kept.

        Raises UnsupportedInputError where neither 4:2:0 nor RGB planes of up to 10 bits hold them all. Alpha is for
        `to_frame` to look at: it must be opaque everywhere.
        """
        if self.bits > 10:
            raise UnsupportedInputError(
                f"pictures of {self.bits} bits per sample ({self.name}) cannot be kept without loss: at most 10 can"
            )
        if self.kind == "yuv" and not self._subsampled_right:
            raise UnsupportedInputError(
                f"{self.name} cannot be kept without loss, only 4:2:0 and RGB: convert the video to one of them first"
            )
        if self.kind != "rgb":
            return replace(self, whole=True)
        if self.name.startswith(("bayer", "xyz")):
            raise UnsupportedInputError(f"{self.name} cannot be kept without loss: convert it to RGB first")
        return replace(self, kind="gbr", plain="gbrp" if self.depth == 8 else f"gbrp{self.bits}le", whole=True)

    @property
    def _subsampled_right(self) -> bool:
        format = av.VideoFormat(self.name, 256, 256)
        return format.chroma_width(256) == 128 and format.chroma_height(256) == 128

    def notes(self, height: int) -> list[str]:
        """What the conversion changes, one line each, for a picture of `height` lines."""
        target = "yuv420p" if self.depth == 8 else "yuv420p10"
        notes = []
        if self.kind == "gray":
            notes.append("mono: chroma set to neutral")
        if self.kind == "rgb":
            matrix = "BT.601" if height < HIGH_DEFINITION_LINES else "BT.709"
            notes.append(f"converted from {self.name} to {target} ({matrix}, limited range)")
        elif self.kind == "yuv" and not self._subsampled_right:
            notes.append(f"converted from {self.name} to {target}")
        if self.bits == 9:
            notes.append("9 bits per sample taken to 10")
        if self.bits > 10:
            notes.append(f"{self.bits} bits per sample rounded to 10")
        if self.alpha and not self.whole:
            notes.append("transparency left out")
        return notes


def colour_tags(picture: av.VideoFrame, layout: PixelLayout, codec: str) -> ColourTags:
    """The tags of the planes that `to_frame` makes of `picture`, decoded by FFmpeg's `codec`."""
    primaries = int(picture.color_primaries) or UNSPECIFIED
    transfer = int(picture.color_trc) or UNSPECIFIED
    if layout.kind == "rgb":
        matrix = BT601 if picture.height < HIGH_DEFINITION_LINES else BT709
        return ColourTags(matrix, primaries, transfer, full_range=False, chroma_location=LEFT)
    if layout.kind == "gbr":
        return ColourTags(IDENTITY, primaries, transfer, full_range=True)
    tagged_range = int(picture.color_range)
    full_range = tagged_range == _RANGE_FULL or layout.name.startswith("yuvj")
    if layout.kind == "gray":
        full_range = tagged_range != _RANGE_LIMITED
    location = 0
    if codec in _CENTRED_CHROMA_CODECS:
        location = CENTRE
    elif layout.halved == (False, False):
        location = LEFT
    return ColourTags(int(picture.colorspace) or UNSPECIFIED, primaries, transfer, full_range, location)


def rotation_of(picture: av.VideoFrame) -> int:
    """Degrees clockwise a player turns the picture, to the nearest quarter turn."""
    return round(-picture.rotation / 90) % 4 * 90


def to_frame(picture: av.VideoFrame, layout: PixelLayout, format: VideoFormat, pts: int) -> Frame:
    """The planes of `picture` in `format`, whose size and depth it has.

    Raises UnsupportedInputError where every sample is to be kept and alpha is not opaque everywhere.
    """
    if layout.whole:
        _check_opaque(picture, layout, format)
    if layout.kind == "rgb":
        rgb = picture.reformat(format=layout.plain)
        return rgb_to_yuv(_samples(rgb, 0, format.width, format.height, 3), format, pts)
    if layout.kind == "gbr":
        # Not through swscale where they are planes: from some formats it leaves a part of the last row as it finds it.
        planes = picture if layout.name.startswith(_GBR_PLANES) else picture.reformat(format=layout.plain)
        g, b, r = (_to_depth(_samples(planes, i, format.width, format.height), layout) for i in range(3))
        return Frame(g, np.stack([b, r]), pts)
    plain = _plain(picture, layout)
    y = _to_depth(_samples(plain, 0, format.width, format.height), layout)
    if layout.kind == "gray":
        neutral = np.full((2, format.chroma_height, format.chroma_width), 1 << (format.bit_depth - 1), format.dtype)
        return Frame(y, neutral, pts)
    across, down = layout.halved
    width = format.chroma_width if across else format.width
    height = format.chroma_height if down else format.height
    chroma = [_samples(plain, index, width, height) for index in (1, 2)]
    if not down:
        chroma = [_averaged(plane, format.colour.chroma_location, horizontally=not across) for plane in chroma]
    return Frame(y, _to_depth(np.stack(chroma), layout), pts)


def _check_opaque(picture: av.VideoFrame, layout: PixelLayout, format: VideoFormat) -> None:
    if layout.name.startswith(_ALPHA_PLANES):
        alpha = _samples(picture, 3, format.width, format.height)
    elif layout.alpha or picture.format.has_palette:  # interleaved, so of 8 bits
        alpha = _samples(picture.reformat(format="rgba"), 0, format.width, format.height, 4)[..., 3]
    else:
        return
    if (alpha < (1 << max(layout.bits, 8)) - 1).any():
        raise UnsupportedInputError(
            f"transparent pictures ({layout.name}) cannot be kept without loss: lay them over a background, or remove "
            "their alpha channel, first"
        )


def _plain(picture: av.VideoFrame, layout: PixelLayout) -> av.VideoFrame:
    """The same samples in planes of their own: the range is pinned so that swscale leaves the values alone."""
    if picture.format.name in (layout.plain, layout.plain.replace("yuv", "yuvj")):
        return picture
    side = _RANGE_FULL if picture.color_range == _RANGE_FULL or layout.kind == "gray" else _RANGE_LIMITED
    return picture.reformat(format=layout.plain, src_color_range=side, dst_color_range=side)


def _samples(picture: av.VideoFrame, plane: int, width: int, height: int, channels: int = 1) -> np.ndarray:
    """A copy of one plane without its line padding: (height, width), or (height, width, channels)."""
    source = picture.planes[plane]
    if source.line_size < 0:
        raise UnsupportedInputError("pictures stored bottom up are not taken: convert the video first")
    dtype = np.dtype(np.uint8 if picture.format.components[0].bits <= 8 else np.uint16)
    order = dtype.newbyteorder(">" if picture.format.is_big_endian else "<")
    lines = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)  # type: ignore[call-overload]
    samples = lines[:height, : width * channels * dtype.itemsize].copy().view(order).astype(dtype, copy=False)
    return samples.reshape((height, width) if channels == 1 else (height, width, channels))


def _averaged(plane: np.ndarray, location: int, *, horizontally: bool) -> np.ndarray:
    """Chroma of 4:2:2, or (horizontally) of 4:4:4, as that of 4:2:0."""
    smaller = downsample_chroma(plane.astype(np.float32), location, horizontally=horizontally)
    return np.floor(smaller + np.float32(0.5)).astype(plane.dtype)


def _to_depth(samples: np.ndarray, layout: PixelLayout) -> np.ndarray:
    """Samples of the source's bits as samples of 8 or 10 bits."""
    if layout.depth == 8:
        return samples
    if layout.bits > 10:
        surplus = layout.bits - 10
        samples = ((samples.astype(np.uint32) + (1 << (surplus - 1))) >> surplus).astype(np.uint16)
    elif layout.bits < 10:
        samples = samples << (10 - layout.bits)
    return np.minimum(samples, 1023)  # the spare bits of a damaged or careless file may be set


def sample_aspect_of(stream: av.VideoStream) -> Fraction:
    """Width over height of one sample; 1 when the stream does not say."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return Fraction(aspect) if aspect and aspect > 0 else Fraction(1)
