"""Small results for tests of the report, and pictures to go with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vidcodec.evaluation.results import ClipInfo, CodecInfo, Comparison, Failure, Point, Provenance, Results
from vidcodec.video import Frame, VideoFormat

NASTY = """<script>window.hacked=1</script>"'&<img src=x onerror="window.hacked=1">"""
OURS, X265, X264 = "vidcodec:adapt=full", "x265:intra", "x264:intra"
FRAMES = 4


def point(clip: str, codec: str, size: int, psnr: float, **changes: Any) -> Point:
    """A point with everything a codec may tell."""
    each = 8 * size // FRAMES
    details: dict[str, Any] = {}
    if codec.startswith("vidcodec"):
        details = {
            "update_bytes": 200,
            "y_bytes": size - 300,
            "z_bytes": 80,
            "rest_bytes": 20,
            "tensor_bits": {f"synthesis.{n}.weight": 900.0 / (n + 1) for n in range(20)},
            "curve": [{"step": n, "cost": 0.5 - 0.01 * n, "bpp": 0.3} for n in range(5)],
        }
    return replace(
        Point(
            key=f"{clip}-{codec}-{size}",
            clip=clip,
            codec=codec,
            rate_point=30,
            bytes=size,
            file_bytes=size + 9,
            bpp=8 * size / (64 * 48 * FRAMES),
            files=[f"coded/{size}"],
            quality={"psnr_yuv": psnr, "psnr_y": psnr - 1, "ms_ssim_y": 0.97, "ssim_y": None},
            frame_bits=[each + 10 * n for n in range(FRAMES)],
            frame_psnr={"yuv": [psnr + n for n in range(FRAMES)]},
            encode_seconds=2.0,
            decode_seconds=0.02,
            threads=1,
            encode_memory=5 * 10**8,
            decode_memory=10**8,
            details=details,
            measured={"vidcodec": "0.1.0", "commit": "abc"},
        ),
        **changes,
    )


def small_results(clips: tuple[str, ...] = ("akiyo", "bus")) -> Results:
    """Three codecs on clips of four 64x48 frames."""
    points = [
        point(clip, codec, round(factor * size), 30 + 2 * n)
        for clip in clips
        for codec, factor in ((OURS, 1.0), (X265, 0.9), (X264, 1.3))
        for n, size in enumerate((1000, 2000, 4000, 8000))
    ]
    comparisons = [
        Comparison(codec, X265, clip, "psnr_yuv", rate, gain, [1, 1] if clip else [len(clips), 0], note)
        for codec, rate, gain, note in ((OURS, 12.34, -0.5, ""), (X264, None, None, "N/A at equal quality: too little"))
        for clip in (*clips, None)
    ]
    return Results(
        provenance=Provenance(
            "vidcodec evaluate a.mkv --fps 2",
            "0.1.0",
            "abc",
            "2026-01-02T03:04:05Z",
            "A CPU",
            2,
            "3.11.7",
            {"av": "18.1"},
        ),
        sampling={"fps": "2", "frames": FRAMES},
        anchor=X265,
        clips=[ClipInfo(name, "0" * 16, f"sources/{name}.mkv", 64, 48, FRAMES, 2.0) for name in clips],
        codecs=[
            CodecInfo(OURS, OURS, "vidcodec", "quality", {"adapt": "full"}),
            CodecInfo(X265, X265, "x265", "qp", {"preset": "veryslow"}),
            CodecInfo(X264, X264, "x264", "qp", {}),
        ],
        points=points,
        comparisons=comparisons,
        failures=[],
    )


def nasty_results() -> Results:
    """Every text that comes from elsewhere tries to break out of the page."""
    found, bad = small_results(("akiyo",)), NASTY
    points = [
        replace(
            p,
            clip=bad,
            codec=p.codec + bad,
            notes=[bad],
            details={**p.details, **({"tensor_bits": {bad: 99.0}} if p.details else {})},
        )
        for p in found.points
    ]
    return replace(
        found,
        provenance=replace(
            found.provenance, command=f"</code></pre>{bad}", commit=bad, date=bad, cpu=bad, libraries={bad: bad}
        ),
        sampling={"fps": bad, "frames": bad},
        anchor=found.anchor + bad,
        clips=[replace(found.clips[0], name=bad, notes=[bad])],
        codecs=[replace(c, label=c.label + bad, rate_name=bad, settings={bad: [bad]}) for c in found.codecs],
        points=points,
        comparisons=[
            replace(c, codec=c.codec + bad, anchor=bad, clip=c.clip and bad, note=bad) for c in found.comparisons
        ],
        failures=[Failure(bad, bad, 30, bad)],
    )


def noise(seed: int, frames: int = FRAMES, size: tuple[int, int] = (64, 48)) -> Iterator[Frame]:
    """Frames of coloured noise."""
    w, h = size
    random = np.random.default_rng(seed)
    for number in range(frames):
        yield Frame(
            random.integers(16, 235, (h, w), np.uint8), random.integers(90, 160, (2, h // 2, w // 2), np.uint8), number
        )


class Pictures:
    """Stands for `vidcodec.evaluation.pictures`: noise, another one for every codec."""

    size = (64, 48)

    def clip_format(self, folder: Path, clip: ClipInfo) -> VideoFormat:
        return VideoFormat(*self.size)

    def source_frames(self, folder: Path, clip: ClipInfo) -> Iterator[Frame]:
        return noise(0, size=self.size)

    def decoded_frames(self, folder: Path, results: Results, point: Point) -> Iterator[Frame]:
        return noise(1 if point.codec.startswith("vidcodec") else 2, size=self.size)
