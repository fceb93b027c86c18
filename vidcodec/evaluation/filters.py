"""Our filter behind a conventional codec, as a codec of its own: x264, x265 or SVT-AV1, and what travels beside it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vidcodec.errors import InputError, ModelNotFoundError
from vidcodec.evaluation.codec import Codec, Encoded, Source, read_frames, shown
from vidcodec.evaluation.learned import CODE, SCORES
from vidcodec.evaluation.provenance import digest_of
from vidcodec.evaluation.video_rivals import check_encoder, ffmpeg_versions
from vidcodec.updates.strategy import Strategy
from vidcodec.version import PACKAGE
from vidcodec.video import Frame, VideoFormat

ENCODERS = {"x264": "libx264", "x265": "libx265", "svtav1": "libsvtav1"}  # by their names: FFmpeg's
NONE, BASE = "none", "base"


@dataclass(frozen=True)
class Filter(Codec):
    """Packets of the codec at a constant quantiser, and the filter's messages with them.

    codec, preset: the conventional one's. strategy: 'none' (no filter at all), 'base' (the filter as it ships), or what
    an update of it may change (`vidcodec.updates.strategy`); objective: of its finetuning. steps: of finetuning, the
    usual number where 0. profile, weights: of the base filter.
    """

    codec: str = "x265"
    preset: str = ""
    strategy: str = "multipliers"
    objective: str = "rate"
    steps: int = 0
    profile: str = "base"
    weights: Path | None = None

    family, rate_name = "filter", "qp"
    lowest, highest, usual = 0, 63, (27, 42)
    code = (*CODE, "postfilter", "evaluation/filters.py")
    choices = {"codec": tuple(ENCODERS), "objective": ("rate", "sparsity"), "profile": ("small", "base")}

    def check_rate(self, rate_point: float) -> None:
        super().check_rate(rate_point)
        if self.codec != "svtav1" and rate_point > 51:
            raise InputError(f"{self.label}: {self.rate_name} of {self.codec} is from 0 to 51, not {rate_point:g}")

    def from_qp(self, qp: float) -> float | None:
        return 2 * qp - 24 if self.codec == "svtav1" else qp

    def settings(self) -> dict[str, Any]:
        options = {k: v for k, v in self.options().items() if k != "weights"}
        scores = self._weights.with_name(self._weights.stem + SCORES)
        files = [] if self.strategy == NONE else [self._weights, *[scores] * self.strategy.startswith("learned")]
        return {
            **options,
            "filter": " ".join(digest_of(file) for file in files if file.is_file()),
            "encoder": ENCODERS[self.codec],
            **ffmpeg_versions(),
            "torch": version("torch"),
        }

    @property
    def _weights(self) -> Path:
        return self.weights or PACKAGE / "weights" / f"filter-{self.profile}.safetensors"

    def __post_init__(self) -> None:
        if self.strategy not in (NONE, BASE):
            Strategy.parse(self.strategy)

    def check(self) -> None:
        check_encoder(ENCODERS[self.codec], self.label)
        if not self._weights.is_file():
            raise ModelNotFoundError(f"{self.label}: there is no filter {self._weights}: check weights= and profile=")

    def prepare(self) -> None:
        import vidcodec.postfilter.decode
        import vidcodec.postfilter.encode  # noqa: F401

    def encode(self, source: Source, rate_point: float, folder: Path) -> Encoded:
        from vidcodec.postfilter.encode import FilterEncodeOptions, encode_source, filter_encode
        from vidcodec.postfilter.finetune import FilterFinetuneConfig
        from vidcodec.postfilter.media import CodedVideo
        from vidcodec.postfilter.sparse import SparseConfig

        steps = {"steps": self.steps} if self.steps else {}
        tuning = FilterFinetuneConfig(
            strategy="multipliers" if self.strategy in (NONE, BASE) else self.strategy,
            sparse=SparseConfig() if self.objective == "sparsity" else None,
            folder=self.weights and self.weights.parent,
            **steps,  # type: ignore[arg-type]
        )
        options = FilterEncodeOptions(
            codec=self.codec,
            crf=rate_point if self.codec == "svtav1" else None,
            qp=None if self.codec == "svtav1" else int(rate_point),
            preset=self.preset or None,
            profile=self.profile,
            weights=self.weights,
            finetune=None if self.strategy in (NONE, BASE) else tuning,
        )
        path, notes = folder / "coded.mkv", list[str]()
        if self.strategy == NONE:
            encode_source(source.path, path, options, notes, lambda *_: None)
            return Encoded([path], CodedVideo(path).packets().size, notes=notes)
        r = filter_encode(source.path, path, options)
        (segment,) = r.segments
        details = {**segment, "video_bytes": r.video_bytes, "stage_seconds": r.seconds}
        return Encoded([path], r.video_bytes + r.message_bytes, details=details, notes=r.notes)

    def decode(self, files: list[Path], format: VideoFormat) -> Iterator[Frame]:
        if self.strategy == NONE:
            return (shown(frame, format) for frame in read_frames(files))
        return (shown(frame, format) for frame in itertools.chain.from_iterable(map(self._filtered, files)))

    def _filtered(self, file: Path) -> Iterator[Frame]:
        from vidcodec.postfilter.decode import FilterDecodeOptions, FilteredVideo
        from vidcodec.postfilter.planes import to_planes, unpack

        for picture in FilteredVideo(file, FilterDecodeOptions(self.profile, self.weights)).pictures():
            yield Frame(*unpack(to_planes(picture), picture.height, picture.width), picture.pts or 0)
