"""Help is quick and complete; wrong arguments get one line, a code of 2 and a suggestion."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from cli_support import Vidcodec
from hypothesis import given
from hypothesis import strategies as st

from vidcodec.cli.arguments import frame_range, frames_per_second, seconds, size_in_bytes
from vidcodec.cli.encode import ADAPT_HELP, QUANTIZER_HELP, REFINE_HELP
from vidcodec.codec.presets import ADAPT, QUANTIZERS, REFINE

COMMANDS = (
    ("encode",),
    ("decode",),
    ("info",),
    ("verify",),
    ("evaluate",),
    ("filter",),
    ("fetch",),
    ("train",),
    ("train", "codec"),
    ("train", "filter"),
    ("train", "export"),
    ("train", "plot"),
)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, vidcodec.cli as c\n"
        "codes = [c.main([*w, '--help']) for w in ([], ['encode'], ['decode'], ['info'], ['verify'], ['train'])]\n"
        "heavy = {'torch', 'av', 'numpy', 'cv2', 'compressai', 'tqdm', 'safetensors'} & set(sys.modules)\n"
        "print(codes, sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[0, 0, 0, 0, 0, 0] []"


@pytest.mark.parametrize("command", [(), *COMMANDS], ids=" ".join)
def test_help_has_examples(vidcodec: Vidcodec, command: tuple[str, ...]) -> None:
    outcome = vidcodec(*command, "--help")
    assert outcome.code == 0
    assert "examples:\n  vidcodec" in outcome.out


def test_every_choice_is_explained() -> None:
    assert (tuple(ADAPT_HELP), tuple(REFINE_HELP), tuple(QUANTIZER_HELP)) == (ADAPT, REFINE, QUANTIZERS)


def test_nothing_asked_prints_help(vidcodec: Vidcodec) -> None:
    for words in ((), ("train",)):
        outcome = vidcodec(*words)
        assert outcome.code == 2
        assert outcome.err.startswith("usage: vidcodec")


def test_version(vidcodec: Vidcodec) -> None:
    outcome = vidcodec("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("vidcodec ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("encde", "x"), "did you mean encode?"),
        (("encode", "x", "--qualty", "3"), "did you mean --quality?"),
        (("encode", "x", "--preset", "medum"), "did you mean medium?"),
        (("encode", "x", "--device", "gpu"), "auto, cpu, cuda"),
        (("encode", "x", "--fps", "fast"), "'fast' is no frame rate"),
        (("encode", "x", "--fps", "0"), "must be above zero"),
        (("encode", "x", "--fps", "1/0"), "no frame rate"),
        (("encode", "x", "--fps", "2", "--keyframes"), "not allowed with"),
        (("encode", "x", "--start", "1:99"), "is no time"),
        (("encode", "x", "--duration", "0"), "above zero"),
        (("encode", "x", "--target-size", "3 apples"), "is no size"),
        (("encode", "x", "--target-size", "0"), "at least one byte"),
        (("encode", "x", "--quality", "101"), "must be 0 to 100"),
        (("encode", "x", "--quality", "nan"), "must be 0 to 100"),
        (("encode", "x", "--quality", "5", "--target-psnr", "30"), "not allowed with"),
        (("encode", "x", "--max-time", "0"), "must be above 0"),
        (("encode", "x", "--threads", "0"), "whole number from 1"),
        (("encode",), "required: IN"),
        (("decode", "x"), "required: -o/--output"),
        (("decode", "x", "-o", "y.mkv", "--frames", "5:5"), "holds no frame"),
        (("train", "codec"), "--config FILE"),
        (("train", "--export", "x.safetensors"), "--config FILE"),
    ],
)
def test_wrong_arguments(vidcodec: Vidcodec, words: tuple[str, ...], said: str) -> None:
    outcome = vidcodec(*words)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.startswith("vidcodec: error: ")
    assert outcome.err.count("\n") == 1


def test_wrong_arguments_as_json(vidcodec: Vidcodec) -> None:
    outcome = vidcodec("encode", "x", "--qualty", "3", "--json")
    [event] = outcome.events
    assert (event["event"], event["type"], event["exit_code"]) == ("error", "UsageError", 2)
    assert outcome.err == f"vidcodec: error: {event['message']}\n"


UNITS = {"": 1, "B": 1, "k": 1000, "kB": 1000, "MB": 10**6, "GB": 10**9, "KiB": 1024, "MiB": 1 << 20, "GiB": 1 << 30}


@given(st.integers(1, 100_000), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
def test_sizes_mean_what_they_say(count: int, unit: str, space: str) -> None:
    assert size_in_bytes(f"{count}{space}{unit}") == count * UNITS[unit]


@given(st.decimals(min_value="0.001", max_value=1000, places=3), st.sampled_from(["kB", "MB", "KiB", "MiB"]))
def test_sizes_with_decimals(count: object, unit: str) -> None:
    assert size_in_bytes(f"{count}{unit}") == round(Fraction(str(count)) * UNITS[unit])


@given(st.text(max_size=12) | st.from_regex(r"[0-9.]{1,6}[kKmMgGiIbB/:x]{0,4}", fullmatch=True))
def test_any_text_gives_a_value_or_a_reason(text: str) -> None:
    for parse in (size_in_bytes, seconds, frames_per_second, frame_range):
        value: object = None
        with contextlib.suppress(argparse.ArgumentTypeError):
            value = parse(text)  # type: ignore[operator]
        assert value is None or isinstance(value, tuple) or value >= 0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("1:30", 90), ("01:00:01.5", 3601.5), (".5", 0.5), ("0", 0), ("90:00", 5400)]
)
def test_times(text: str, value: float) -> None:
    assert seconds(text) == value


def test_rates() -> None:
    assert frames_per_second("30000/1001") == Fraction(30000, 1001)
    assert frames_per_second("0.5") == Fraction(1, 2)
    assert frames_per_second("source") is None


def test_python_m_is_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vidcodec", "encode", "--json", "nope.mp4"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 3
    assert done.stderr == "vidcodec: error: nope.mp4 does not exist: check the name\n"
    assert '"type": "InputError"' in done.stdout
