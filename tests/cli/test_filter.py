"""vidcodec filter from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import Vidcodec, make_clip


def test_encode_and_decode(vidcodec: Vidcodec, clip: Path, filter_weights: Path, tmp_path: Path) -> None:
    coded, shown = tmp_path / "coded.mp4", tmp_path / "shown.mkv"
    usual = ("filter", "encode", clip, "-o", coded, "--codec", "x264", "--weights", filter_weights)
    words = (*usual, "--crf", 40, "--steps", 3)
    outcome = vidcodec(*words)
    assert outcome.code == 0, outcome.err
    assert "without filter" in outcome.out
    again = vidcodec(*words)
    assert (again.code, "--overwrite" in again.err) == (6, True)
    outcome = vidcodec(*words, "-y", "--json", "--strategy", "none")
    assert outcome.code == 0, outcome.err
    assert outcome.result["frames"] == 3
    outcome = vidcodec("filter", "decode", coded, "-o", shown, "--weights", filter_weights, "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.result["frames"], outcome.result["messages"]) == (3, 1)


def test_copy_takes_a_source(vidcodec: Vidcodec, clip: Path, filter_weights: Path, tmp_path: Path) -> None:
    coded, out = tmp_path / "coded.mp4", tmp_path / "out.mp4"
    vidcodec("filter", "encode", clip, "-o", coded, "--qp", 40, "--strategy", "none", "--weights", filter_weights)
    words = ("filter", "encode", coded, "-o", out, "--copy", "--weights", filter_weights)
    assert vidcodec(*words).code == 2
    outcome = vidcodec(*words, "--source", clip, "--steps", 2, "--strategy", "biases", "--segment", 1)
    assert outcome.code == 0, outcome.err
    assert vidcodec(*words, "--source", clip, "--crf", 30, "-y").code == 2


@pytest.mark.parametrize(
    ("words", "updated"),
    [
        (("--strategy", "full"), True),
        (("--strategy", "biases+multipliers"), True),
        (("--update-parameters", "multipliers"), True),
        (("--update-parameters", "none"), False),
        (("--strategy", "all", "--objective", "sparsity"), True),
    ],
)
def test_one_set_of_strategies(
    vidcodec: Vidcodec, clip: Path, filter_weights: Path, tmp_path: Path, words: tuple[str, ...], updated: bool
) -> None:
    more = ("--codec", "x264", "--qp", 45, "--steps", 1, "--weights", filter_weights, "--json")
    outcome = vidcodec("filter", "encode", clip, "-o", tmp_path / "c.mp4", *more, *words)
    assert outcome.code == 0, outcome.err
    assert bool(outcome.result["segments"][0]["curve"]) == updated


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("encode", "{clip}", "-o", "out.avi"), 6, ".mkv"),
        (("encode", "{clip}", "-o", "out.mp4", "--codec", "svtav1"), 6, ".mkv"),
        (("encode", "{clip}", "-o", "out.mp4", "--crf", "60"), 2, "end at 51"),
        (("encode", "{clip}", "-o", "out.mp4", "--crf", "30", "--qp", "30"), 2, "not allowed"),
        (("encode", "{clip}", "-o", "out.mp4", "--source", "{clip}"), 2, "--copy"),
        (("encode", "none.mp4", "-o", "out.mp4"), 3, "does not exist"),
        (("encode", "{clip}", "-o", "out.mp4", "--codec", "x266"), 2, "x265"),
        (("encode", "{clip}", "-o", "out.mp4", "--strategy", "some"), 2, "multipliers"),
        (("encode", "{clip}", "-o", "out.mp4", "--strategy", "random:9", "--objective", "sparsity"), 3, "whole"),
        (("decode", "{text}", "-o", "out.mkv"), 3, "not a video"),
        (("decode", "{clip}", "-o", "out.webm"), 6, ".mkv"),
        (("decode", "{clip}", "-o", "out.mkv", "--weights", "none.safetensors"), 5, "no weights file"),
    ],
)
def test_mistakes_are_told_in_one_line(
    vidcodec: Vidcodec,
    filter_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "text.mp4"
    text.write_text("nothing of a video " * 50)
    clip = make_clip(tmp_path / "clip.mkv")
    given = [word.format(clip=clip, text=text) for word in words]
    outcome = vidcodec("filter", *given, *(() if "--weights" in given else ("--weights", filter_weights)))
    assert outcome.code == code, outcome
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mkv", "text.mp4"]


def test_help_names_both(vidcodec: Vidcodec) -> None:
    assert vidcodec("filter").code == 2
    for what in ("encode", "decode"):
        outcome = vidcodec("filter", what, "--help")
        assert outcome.code == 0
        assert "--profile" in outcome.out
