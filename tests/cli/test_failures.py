"""Whatever goes wrong: one line that says what to do, the right exit code, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import wave
from pathlib import Path

import pytest
from cli_support import Outcome, Vidcodec, make_clip, start

import vidcodec.codec.encode
from vidcodec.checkpoint import WEIGHTS


def only_error(outcome: Outcome, code: int, said: str) -> None:
    assert outcome.code == code, outcome
    assert said in outcome.err
    assert "Traceback" not in outcome.err + outcome.out
    assert outcome.err.splitlines()[-1].startswith("vidcodec: error: ")
    assert outcome.err.count("vidcodec: error: ") == 1


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def encode(vidcodec: Vidcodec, source: Path, weights: Path, *more: object) -> Outcome:
    return vidcodec("encode", source, "--weights", weights, "--adapt", "none", *more)


def test_no_such_input(vidcodec: Vidcodec, weights: Path, tmp_path: Path) -> None:
    only_error(encode(vidcodec, tmp_path / "no.mp4", weights), 3, "no.mp4 does not exist")


def test_directory_as_input(vidcodec: Vidcodec, weights: Path, tmp_path: Path) -> None:
    only_error(encode(vidcodec, tmp_path, weights), 3, "is a directory")
    only_error(vidcodec("info", tmp_path), 3, "is a directory")


def test_sound_alone(vidcodec: Vidcodec, weights: Path, tmp_path: Path) -> None:
    source = tmp_path / "sound.wav"
    with wave.open(str(source), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    only_error(encode(vidcodec, source, weights), 3, "holds no video stream")
    assert left_in(tmp_path) == ["sound.wav"]


def test_text_file(vidcodec: Vidcodec, weights: Path, tmp_path: Path) -> None:
    source = tmp_path / "notes.md"
    source.write_text("# not a video\n" * 50)
    only_error(encode(vidcodec, source, weights), 3, "is not a video")


def test_range_without_frames(vidcodec: Vidcodec, weights: Path, clip: Path) -> None:
    only_error(encode(vidcodec, clip, weights, "--start", "10"), 3, "change --start or --duration")


def test_output_that_is_the_input(vidcodec: Vidcodec, weights: Path, clip: Path, vdc: Path) -> None:
    only_error(encode(vidcodec, clip, weights, "-o", clip, "-y"), 6, "is the input itself")
    link = clip.with_name("link.vdc")
    link.symlink_to(clip)
    only_error(encode(vidcodec, clip, weights, "-o", link, "-y"), 6, "is the input itself")
    only_error(vidcodec("decode", vdc, "-o", vdc, "--weights", weights, "-y"), 6, "is the input itself")


def test_output_in_a_directory_that_is_not(vidcodec: Vidcodec, weights: Path, clip: Path, vdc: Path) -> None:
    only_error(encode(vidcodec, clip, weights, "-o", clip.parent / "no" / "x.vdc"), 6, "create it first")
    only_error(vidcodec("decode", vdc, "-o", vdc.parent / "no" / "x.mkv"), 6, "create it first")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_output_in_a_directory_that_is_closed(vidcodec: Vidcodec, weights: Path, clip: Path) -> None:
    closed = clip.parent / "closed"
    closed.mkdir(mode=0o500)
    only_error(encode(vidcodec, clip, weights, "-o", closed / "x.vdc"), 6, "may not be written to")


def test_wrong_suffix(vidcodec: Vidcodec, weights: Path, clip: Path, vdc: Path) -> None:
    only_error(encode(vidcodec, clip, weights, "-o", clip.with_name("x.mp4")), 6, "x.vdc")
    only_error(vidcodec("decode", vdc, "-o", vdc.with_suffix(".avi")), 6, "use .y4m, .mkv, .mp4")


def test_directory_as_output(vidcodec: Vidcodec, weights: Path, clip: Path) -> None:
    only_error(encode(vidcodec, clip, weights, "-o", clip.parent), 6, "clip.vdc")


@pytest.mark.parametrize("model", ["mps", "compressai:nothing:3"])
def test_unknown_model(vidcodec: Vidcodec, clip: Path, model: str) -> None:
    only_error(vidcodec("encode", clip, "--model", model, "--adapt", "none"), 5, model)


def test_missing_weights(vidcodec: Vidcodec, clip: Path, vdc: Path) -> None:
    only_error(vidcodec("encode", clip, "--weights", "no.safetensors"), 5, "no.safetensors")
    only_error(vidcodec("decode", vdc, "-o", vdc.with_suffix(".mkv"), "--weights", "no.safetensors"), 5, "no.saf")


@pytest.mark.skipif(not (WEIGHTS / "msp.safetensors").is_file(), reason="no weights are shipped yet")
def test_other_weights_than_the_files(vidcodec: Vidcodec, vdc: Path) -> None:
    only_error(vidcodec("verify", vdc), 5, "--weights")


def test_not_a_vdc(vidcodec: Vidcodec, clip: Path) -> None:
    for command in (("info",), ("verify",), ("decode", "-o", clip.with_suffix(".y4m"))):
        only_error(vidcodec(*command, clip), 4, "Matroska")
    empty = clip.with_name("empty.vdc")
    empty.touch()
    only_error(vidcodec("info", empty), 4, "")


def test_target_out_of_reach(vidcodec: Vidcodec, weights: Path, clip: Path) -> None:
    only_error(encode(vidcodec, clip, weights, "--target-size", "20"), 7, "cannot be met")
    assert left_in(clip.parent) == ["clip.mkv"]


def test_every_error_is_an_event_too(vidcodec: Vidcodec, weights: Path, clip: Path) -> None:
    outcome = encode(vidcodec, clip, weights, "--target-size", "20", "--json")
    event = outcome.events[-1]
    assert (event["event"], event["type"], event["exit_code"]) == ("error", "RateControlError", 7)
    assert f"vidcodec: error: {event['message']}\n" in outcome.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ZeroDivisionError("of\nmine"), 1, "ZeroDivisionError: of mine (this is a bug, please report it"),
        (OSError(28, "No space left on device", "/x"), 6, "/x: No space left on device: free some space"),
        (PermissionError(13, "Permission denied", "/x"), 6, "/x: Permission denied"),
        (MemoryError(), 1, "out of memory"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
    ],
)
def test_what_nobody_expected(
    vidcodec: Vidcodec, clip: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.delenv("VIDCODEC_DEBUG", raising=False)
    monkeypatch.setattr(vidcodec_encode, "encode_video", fail)
    only_error(vidcodec("encode", clip), code, said)


def test_debug_shows_the_traceback(vidcodec: Vidcodec, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vidcodec_encode, "encode_video", lambda *_: 1 / 0)
    for debug in ("option", "environment"):
        if debug == "environment":
            monkeypatch.setenv("VIDCODEC_DEBUG", "1")
        outcome = vidcodec("encode", clip, *(["--debug"] if debug == "option" else []))
        assert outcome.code == 1
        assert "Traceback" in outcome.err
        assert outcome.err.splitlines()[-1].startswith("vidcodec: error: ZeroDivisionError")


vidcodec_encode = vidcodec.codec.encode


@pytest.mark.parametrize(("number", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_stopped_encode_leaves_nothing(weights: Path, tmp_path: Path, number: str, code: int, word: str) -> None:
    make_clip(tmp_path / "clip.mkv", frames=6)
    process = start(
        "encode", "clip.mkv", "--weights", weights, "--preset", "best", "--threads", "1", "--json", cwd=tmp_path
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("adapt: "):
            break
    process.send_signal(getattr(signal, number))
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.splitlines()[-1] == f"vidcodec: error: {word}; nothing was written"
    assert Outcome(code, out, err).events[-1]["type"] == "Interrupted"
    assert left_in(tmp_path) == ["clip.mkv"]


def test_stopped_with_a_work_folder_says_how_to_go_on(
    vidcodec: Vidcodec, clip: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    words = ("encode", clip, "--weights", weights, "--adapt", "none", "--work", tmp_path / "w", "--threads", "1")
    with monkeypatch.context() as patch:
        patch.setattr(vidcodec_encode, "_write", stop)
        only_error(vidcodec(*words), 130, f"interrupted; finished steps are kept in {tmp_path / 'w'}: the same command")
    outcome = vidcodec(*words)
    assert outcome.code == 0
    assert "went on from 5 finished steps" in outcome.err  # settings, three frames coded, all of them refined


def test_reader_that_left_is_no_error(shared_vdc: tuple[Path, Path]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "vidcodec", "info", shared_vdc[1]],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 141
