"""The tiny filter, and short clips coded on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from filter_support import write_clip

from vidcodec.postfilter.checkpoint import load_filter
from vidcodec.postfilter.encode import FilterEncodeOptions, encode_source
from vidcodec.postfilter.network import Filter


@pytest.fixture
def tiny_filter(filter_weights: Path) -> Filter:
    return load_filter(weights=filter_weights)[0]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 pictures of 96x64 with sound."""
    return write_clip(tmp_path_factory.mktemp("source") / "source.mkv", 8, audio=True)


@pytest.fixture(scope="session")
def coded(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """coded(codec, suffix): the source, coded."""
    made: dict[tuple[str, str], Path] = {}

    def make(codec: str, suffix: str) -> Path:
        if (codec, suffix) not in made:
            path = tmp_path_factory.mktemp("coded") / f"{codec}{suffix}"
            rate = {"crf": 50.0} if codec == "svtav1" else {"qp": 36}
            encode_source(source, path, FilterEncodeOptions(codec=codec, **rate), [], lambda *_: None)  # type: ignore[arg-type]
            made[codec, suffix] = path
        return made[codec, suffix]

    return make
