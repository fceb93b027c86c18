"""--work: what was stopped goes on from its finished steps, to the file that an encode in one go gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidcodec.codec import coding
from vidcodec.codec.candidates import MeasuredFrame
from vidcodec.codec.encode import encode_video
from vidcodec.codec.footage import Footage
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.work import Work, work_key
from vidcodec.errors import OutputError
from vidcodec.families.msp import quantising, refining
from vidcodec.families.msp.checkpoint import save_model
from vidcodec.families.msp.family import MspFamily
from vidcodec.families.msp.network import Msp
from vidcodec.families.msp.refine import Refiner
from vidcodec.updates.finetune import Finetuner
from vidcodec.video import Frame, Sampling, VideoFormat, open_writer

FRAMES = 5


@pytest.fixture(scope="module")
def options(make_tiny: Callable[..., Msp], tmp_path_factory: pytest.TempPathFactory) -> EncodeOptions:
    weights = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_model(make_tiny(scales=1), weights)
    return EncodeOptions(
        sampling=Sampling(fps=None),
        weights=weights,
        quality=60,
        device="cpu",
        steps=3,
        refine_steps=2,
        adapt="full",
        refine="best",
        quantizer="rdoq",
        seed=2,
    )


@pytest.fixture(scope="module")
def clip(make_clip: Callable[..., Path]) -> Path:
    return make_clip(frames=FRAMES)


def little_at_once(patch: pytest.MonkeyPatch) -> None:
    """Two frames a batch, few steps of annealing."""
    patch.setitem(coding.IN_FLIGHT, "cpu", 2 * 48 * 32)
    patch.setitem(refining.REFINE_SCALE, "sga", 1)


@pytest.fixture(autouse=True)
def two_frames_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    little_at_once(monkeypatch)


@pytest.fixture(scope="module")
def in_one_go(clip: Path, options: EncodeOptions, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        little_at_once(patch)
        return encode_video(clip, tmp_path_factory.mktemp("whole") / "o.vdc", options).output.read_bytes()


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What slow work is done: pictures refined, finetunings, searches of settings."""
    counts: dict[str, Any] = {"refined": set(), "finetuned": 0, "searched": 0}
    refine, tune, search = Refiner.refine, Finetuner.run, quantising.search_settings

    def refined(self: Refiner, *given: Any) -> Any:
        counts["refined"] |= set(given[5])
        return refine(self, *given)

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            counts[name] += 1
            return function(*given)

        return call

    monkeypatch.setattr(Refiner, "refine", refined)
    monkeypatch.setattr(Finetuner, "run", counted("finetuned", tune))
    monkeypatch.setattr(quantising, "search_settings", counted("searched", search))
    return counts


def stopping(stage: str, share: float) -> Callable[[str, float, dict[str, Any]], None]:
    """A report that is interrupted in a stage."""

    def report(now: str, done: float, _: dict[str, Any]) -> None:
        if now.startswith(stage) and done >= share:
            raise KeyboardInterrupt

    return report


def stopped(clip: Path, output: Path, options: EncodeOptions, stage: str, share: float) -> None:
    with pytest.raises(KeyboardInterrupt):
        encode_video(clip, output, options, stopping(stage, share))
    assert not output.exists()


@pytest.fixture(scope="module")
def halfway(clip: Path, options: EncodeOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of an encode that was stopped with 4 of 5 frames refined."""
    folder = tmp_path_factory.mktemp("halfway")
    with pytest.MonkeyPatch.context() as patch:
        little_at_once(patch)
        stopped(clip, folder / "o.vdc", replace(options, work=folder / "work"), "refine", 0.81)
    return folder / "work"


@pytest.fixture
def work(halfway: Path, tmp_path: Path) -> Path:
    return shutil.copytree(halfway, tmp_path / "work")


def test_refined_frames_and_finetuning_are_not_done_again(
    clip: Path, options: EncodeOptions, tmp_path: Path, work: Path, done: dict[str, Any], in_one_go: bytes
) -> None:
    result = encode_video(clip, tmp_path / "o.vdc", replace(options, work=work))
    assert done == {"refined": {4}, "finetuned": 0, "searched": 0}
    assert result.output.read_bytes() == in_one_go
    assert [note for note in result.notes if "went on" in note] == [f"went on from 14 finished steps in {work}"]
    assert not list(work.rglob("*.step"))


def test_settings_are_kept_when_finetuning_is_stopped(
    clip: Path, options: EncodeOptions, tmp_path: Path, done: dict[str, Any], in_one_go: bytes
) -> None:
    asked = replace(options, work=tmp_path / "new" / "work")
    stopped(clip, tmp_path / "o.vdc", asked, "adapt", 0.1)
    assert (done["finetuned"], done["searched"]) == (1, 1)
    done.update(finetuned=0, searched=0)
    assert encode_video(clip, tmp_path / "o.vdc", asked).output.read_bytes() == in_one_go
    assert (done["finetuned"], done["searched"], len(done["refined"])) == (1, 0, FRAMES)


def test_damaged_steps_are_done_again_and_told(
    clip: Path, options: EncodeOptions, tmp_path: Path, work: Path, done: dict[str, Any], in_one_go: bytes
) -> None:
    steps = [p for p in sorted(work.rglob("*.step")) if not p.name.startswith("coded")]
    assert [p.name.partition("-")[0] for p in steps] == ["adapted", "refined", "refined", "settings"]
    flipped = bytearray(steps[0].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    for path, content in zip(steps, (flipped, steps[1].read_bytes()[:-40], b"", b"x" * 500), strict=True):
        path.write_bytes(content)
    result = encode_video(clip, tmp_path / "o.vdc", replace(options, work=work))
    assert (done["finetuned"], done["searched"], len(done["refined"])) == (1, 1, FRAMES)
    assert result.output.read_bytes() == in_one_go
    assert len([note for note in result.notes if "done again" in note]) == 4


def test_steps_of_another_encode_are_left_alone(
    clip: Path, options: EncodeOptions, tmp_path: Path, work: Path, done: dict[str, Any]
) -> None:
    before = {p: p.read_bytes() for p in work.rglob("*.step")}
    result = encode_video(clip, tmp_path / "o.vdc", replace(options, work=work, seed=3))
    assert (done["finetuned"], done["searched"], len(done["refined"])) == (1, 1, FRAMES)
    assert any("another encode" in note for note in result.notes)
    assert {p: p.read_bytes() for p in work.rglob("*.step")} == before


def test_frames_options_and_weights_make_the_key(make_tiny: Callable[..., Msp], tmp_path: Path) -> None:
    def make_clip_of(video: VideoFormat, sample: int, pts: int) -> Path:
        path = tmp_path / f"{sample}-{pts}.mkv"
        with open_writer(path, replace(video, time_base=Fraction(1, 10)), overwrite=True) as writer:
            for time in (pts, pts + 5):
                writer.write(Frame(np.full((4, 4), sample, np.uint8), np.zeros((2, 2, 2), np.uint8), time))
        return path

    def key(o: EncodeOptions = EncodeOptions(), seed: int = 0, pts: int = 0, sample: int = 0) -> str:  # noqa: B008
        network = make_tiny(seed, scales=1)
        base = MspFamily("msp", network, bytes(16), torch.device("cpu"))
        path = make_clip_of(VideoFormat(4, 4), sample, pts)
        with Footage(path, Sampling(fps=None), lambda *_: None) as footage:
            return work_key(o, base, footage)

    others = [
        key(EncodeOptions(seed=1)),
        key(EncodeOptions(quality=1)),
        key(EncodeOptions(max_minutes=3)),
        key(seed=1),
        key(pts=1),
        key(sample=1),
    ]
    assert len({key(), *others}) == 7
    assert key(EncodeOptions(work=Path("w"), weights=Path("elsewhere"))) == key()


def test_a_folder_that_cannot_be_is_told_before_slow_work(
    clip: Path, options: EncodeOptions, tmp_path: Path, done: dict[str, Any]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be kept"):
        encode_video(clip, tmp_path / "o.vdc", replace(options, work=tmp_path / "file"))
    assert not done["finetuned"]


@pytest.mark.parametrize("changes", [{}, {"key_seconds": 1.0}], ids=["alone", "in chains"])
def test_frames_that_were_coded_once_are_not_coded_again(
    clip: Path, options: EncodeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """A preset that codes every frame once, stopped after every batch in turn: the bytes of an encode in one go."""
    fast = replace(options, preset="fast", steps=None, refine=None, refine_steps=None, **changes)
    whole = encode_video(clip, tmp_path / "whole.vdc", fast).output.read_bytes()
    asked, coded, output = replace(fast, work=tmp_path / "work"), list[int](), tmp_path / "o.vdc"
    of = MeasuredFrame.of

    def counted(index: int, *given: Any, **more: Any) -> MeasuredFrame:
        coded.append(index)
        return of(index, *given, **more)

    monkeypatch.setattr(MeasuredFrame, "of", counted)
    save = Work.save

    def stopping_after(self: Work, came_from: Any, *given: Any) -> None:
        save(self, came_from, *given)
        if came_from[0] == "coded":
            raise KeyboardInterrupt

    monkeypatch.setattr(Work, "save", stopping_after)
    stops = 0
    while not output.exists():
        stops += 1
        try:
            encode_video(clip, output, asked)
        except KeyboardInterrupt:
            continue
    assert output.read_bytes() == whole
    assert stops == (4 if changes else FRAMES + 1)
    if not changes:
        assert coded == list(range(FRAMES))
    assert not list((tmp_path / "work").rglob("*.step"))
