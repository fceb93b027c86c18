"""Videos in segments: updates of their own, on the base or on the one before, and what decodes without which."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vidcodec.bitstream import BitstreamReader
from vidcodec.checkpoint import sent_parameters
from vidcodec.cli import main
from vidcodec.codec import encode, footage, steps
from vidcodec.codec.decode import VideoDecoder
from vidcodec.codec.encode import EncodeResult, encode_video
from vidcodec.codec.footage import Footage
from vidcodec.codec.options import EncodeOptions
from vidcodec.errors import ModelError, UnsupportedInputError
from vidcodec.families.crops import FrameCrops
from vidcodec.families.msp.family import MspFamily
from vidcodec.families.msp.network import Msp
from vidcodec.families.planes import plane_errors
from vidcodec.updates import importance
from vidcodec.updates.importance import OBJECTIVES, Importance, factor_shapes, fingerprint, save_importance
from vidcodec.video import Frame, Sampling, VideoReader

EVERY_FRAME = Sampling(fps=None)
FRAMES, LENGTH = 6, 2  # of the clip, of a segment of a second


@pytest.fixture(scope="module")
def clip(make_clip: Callable[..., Path]) -> Path:
    return make_clip(frames=FRAMES)


@pytest.fixture(scope="module")
def options(tiny_weights: Path) -> EncodeOptions:
    return EncodeOptions(
        sampling=EVERY_FRAME,
        weights=tiny_weights,
        steps=4,
        quality=60,
        device="cpu",
        quantizer="uniform",
        refine="none",
        segment_minutes=1 / 60,
        update_parameters="biases",
    )


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits of updates are cheap, and steps are large."""
    original = steps.FinetuneConfig
    bold = {"vector_lr": 1.0, "matrix_lr": 0.3, "vector_share": 0.0}
    monkeypatch.setattr(steps, "FinetuneConfig", lambda **o: original(**{**o, **bold}))
    monkeypatch.setattr(FrameCrops, "pixels", property(lambda _: 10**9, lambda *_: None), raising=False)


def prefer(monkeypatch: pytest.MonkeyPatch, *starts: str) -> None:
    """Ways of coding whose names begin so cost less than others, the first of them the least."""

    def cost(video: encode.CodedVideo, *_: object) -> float:
        return float(next((i for i, s in enumerate(starts) if video.candidate.name.startswith(s)), len(starts)))

    monkeypatch.setattr(encode.CodedVideo, "cost", cost)


def updates(path: Path) -> tuple[list[tuple[int, int, int]], list[int]]:
    """(number, parent, first frame) of every update, and the one in force by frame."""
    with BitstreamReader(path, strict=True) as reader:
        found = [reader.update(n) for n in reader.update_numbers]
        return [(u.number, u.parent, u.first_frame) for u in found], [f.update for f in reader.frames()]


def decoded(path: Path, weights: Path | None, order: list[int] | None = None) -> dict[int, Frame]:
    with VideoDecoder(path, weights=weights, device="cpu") as decoder:
        return {i: decoder.frame(i)[0] for i in order or range(FRAMES)}


def assert_decodes_from_anywhere(result: EncodeResult, clip: Path, weights: Path | None) -> None:
    """To the quality the encoder saw, and each frame as well alone as in order."""
    frames = decoded(result.output, weights)
    with VideoReader(clip, EVERY_FRAME) as reader:
        errors = [plane_errors(o, frames[i]) for i, o in enumerate(reader.frames())]
    assert result.quality_figures["psnr_y"] == pytest.approx(-10 * np.log10(np.mean(errors, 0)[0] / 255**2), abs=1e-9)
    assert result.size == result.output.stat().st_size
    for i in (FRAMES - 1, 0, LENGTH):
        assert np.array_equal(decoded(result.output, weights, [i])[i].y, frames[i].y)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    ("starts", "found"),
    [
        (("adapted", "plain on"), [(1, 0, 0), (2, 1, 2), (3, 2, 4)]),
        (("adapted", "plain,", "plain"), [(1, 0, 0), (2, 0, 2), (3, 0, 4)]),
        (("plain on", "adapted"), [(1, 0, 0)]),
        (("plain",), []),
    ],
    ids=["on the one before", "on the base", "the one before as it is", "none"],
)
def test_segments_have_the_updates_that_cost_least(
    clip: Path,
    options: EncodeOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    starts: tuple[str, ...],
    found: list[tuple[int, int, int]],
) -> None:
    prefer(monkeypatch, *starts)
    if "plain," in starts:  # where both start alike, the base's own
        monkeypatch.setattr(encode, "_continued", lambda before, number: replace(before, name="worse", update=b""))
    result = encode_video(clip, tmp_path / "o.vdc", options)
    in_force = [max((n for n, _, first in found if first <= i), default=0) for i in range(FRAMES)]
    assert updates(result.output) == (found, in_force)
    assert [s["update"] for s in result.segments] == in_force[::LENGTH]
    assert [s["first_frame"] for s in result.segments] == [0, 2, 4]
    assert result.chosen == f"3 segments, {len(found)} updates"
    assert_decodes_from_anywhere(result, clip, options.weights)


@pytest.mark.usefixtures("eager")
def test_info_and_verify_know_of_segments(
    clip: Path,
    options: EncodeOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prefer(monkeypatch, "adapted", "plain on")
    path = encode_video(clip, tmp_path / "o.vdc", replace(options, key_seconds=60)).output  # in chains
    known = ["--weights", str(options.weights)]
    assert main(["verify", str(path), "--against", str(clip), *known]) == 0
    assert main(["info", str(path), *known]) == 0
    told = capsys.readouterr().out
    assert "6 of 6 frames compared" in told
    assert "model update 3 on top of update 2 from frame 4 on" in told
    assert "by part: " in told


@pytest.mark.usefixtures("eager")
def test_a_change_of_an_update_is_lost_with_it_and_one_of_the_base_is_not(
    clip: Path, options: EncodeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer(monkeypatch, "adapted", "plain on")
    result = encode_video(clip, tmp_path / "o.vdc", options)
    data = bytearray(result.output.read_bytes())
    with BitstreamReader(result.output) as reader:
        second = reader.update(2).payload
    data[data.index(second) + len(second) // 2] ^= 4
    (tmp_path / "d.vdc").write_bytes(data)
    whole = decoded(result.output, options.weights)
    with VideoDecoder(tmp_path / "d.vdc", weights=options.weights, device="cpu") as decoder:
        left = {i: frame for i, frame, _ in decoder.frames()}
        assert any("update 2" in problem for problem in decoder.problems)
    assert list(left) == [0, 1]
    assert all(np.array_equal(left[i].y, whole[i].y) for i in left)


@pytest.mark.usefixtures("eager")
def test_a_learned_selection_changes_an_update_too(
    clip: Path, options: EncodeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Msp
) -> None:
    """Entries are selected by the base weights' scores, whatever update they are changed on."""
    monkeypatch.setattr(importance, "WEIGHTS", tmp_path / "none")
    rng = np.random.default_rng(0)

    def scores(name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        return tuple(rng.integers(-900, 900, s).astype(np.int16) for s in factor_shapes(name, shape))

    factors = {o: {n: scores(n, tuple(p.shape)) for n, p in sent_parameters(tiny)} for o in OBJECTIVES}
    assert options.weights
    (tmp_path / "w").mkdir()
    weights = tmp_path / "w" / options.weights.name
    weights.write_bytes(options.weights.read_bytes())
    save_importance(Importance(fingerprint(tiny), 10**6, factors), weights.with_name(f"tiny{importance.SUFFIX}"))  # type: ignore[arg-type]
    prefer(monkeypatch, "adapted", "plain on")
    asked = replace(options, weights=weights, update_parameters="learned:400")
    result = encode_video(clip, tmp_path / "o.vdc", asked)
    assert updates(result.output)[0] == [(1, 0, 0), (2, 1, 2), (3, 2, 4)]
    assert_decodes_from_anywhere(result, clip, weights)


@pytest.mark.usefixtures("eager")
def test_long_videos_and_stopped_ones_give_the_same_file(
    clip: Path, options: EncodeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer(monkeypatch, "adapted", "plain on")
    whole = encode_video(clip, tmp_path / "o.vdc", options).output.read_bytes()
    monkeypatch.setattr(footage, "LEAST_KEPT", 4)
    monkeypatch.setattr(encode, "Footage", lambda *a, **k: Footage(*a, **k, kept_bytes=0))
    kept = replace(options, work=tmp_path / "work")

    def stop(stage: str, share: float, _: object) -> None:
        if stage == "segment 3: adapt":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_video(clip, tmp_path / "s.vdc", kept, stop)
    tuned: list[str] = []
    result = encode_video(clip, tmp_path / "s.vdc", kept, lambda stage, *_: tuned.append(stage))
    assert result.output.read_bytes() == whole
    told = re.search(r"went on from (\d+) finished steps", " ".join(result.notes))
    assert told
    assert int(told[1]) >= 2


def test_segments_begin_in_time_and_the_last_one_is_no_stump(make_clip: Callable[..., Path]) -> None:
    for count, seconds, starts in (
        (6, 1, [0, 2, 4]),
        (7, 1, [0, 2, 4]),
        (7, 1.5, [0, 3]),
        (9, 1.5, [0, 3, 6]),
        (3, 9, [0]),
    ):
        with Footage(make_clip(frames=count), EVERY_FRAME, lambda *_: None) as frames:
            assert [s.start for s in frames.stretches(seconds)] == starts, (count, seconds)
            assert sum(len(s) for s in frames.stretches(seconds)) == count


@pytest.mark.usefixtures("eager")
def test_every_segment_takes_its_share_of_a_size(clip: Path, options: EncodeOptions, tmp_path: Path) -> None:
    size = encode_video(clip, tmp_path / "o.vdc", replace(options, adapt="none", update_parameters=None)).size
    asked = replace(options, quality=None, target_size=int(0.9 * size), adapt="encoder", update_parameters=None)
    result = encode_video(clip, tmp_path / "o.vdc", asked)
    assert 0.6 * size < result.size <= 0.9 * size


def test_what_cannot_be_in_segments_says_so(
    clip: Path, options: EncodeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnsupportedInputError, match="segment_minutes"):
        replace(options, segment_minutes=-1)
    monkeypatch.setattr(MspFamily, "one_extra", False)
    with pytest.raises(ModelError, match="segment_minutes"):
        encode_video(clip, tmp_path / "o.vdc", options)
