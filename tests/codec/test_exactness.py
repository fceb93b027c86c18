"""The same file decoded under other threads, instruction sets and libraries: the same symbols and tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vidcodec.codec.encode import encode_video
from vidcodec.codec.options import EncodeOptions
from vidcodec.video import Sampling

FRAMES = 21
# One process imports everything once; each way of decoding is a fork of it that has computed nothing yet.
DECODE = """
import json, os, sys
from pathlib import Path
import torch
from vidcodec.codec.decode import VideoDecoder

source, weights, ways = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
for way in ways:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.environ.update(way["environment"])
        torch.set_num_threads(way["threads"])
        with torch.backends.mkldnn.flags(enabled=way["mkldnn"]):
            with VideoDecoder(source, weights=weights, device="cpu") as decoder:
                logs = [log.crc for _, _, log in decoder.frames()]  # of symbols and table indices
                print(json.dumps([logs, decoder.problems, torch.backends.cpu.get_cpu_capability()]))
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
WAYS = [
    {"threads": 1, "mkldnn": True, "environment": {}},
    {"threads": 2, "mkldnn": True, "environment": {"ONEDNN_MAX_CPU_ISA": "SSE41"}},
    {"threads": 1, "mkldnn": True, "environment": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}},
    {"threads": 2, "mkldnn": False, "environment": {}},
    {"threads": 1, "mkldnn": False, "environment": {"ATEN_CPU_CAPABILITY": "default"}},
]


def test_symbols_and_tables_are_the_same_everywhere(
    make_clip: Callable[..., Path], tiny_weights: Path, tmp_path: Path
) -> None:
    clip, path = make_clip(frames=FRAMES, size=(64, 48)), tmp_path / "o.vdc"
    options = EncodeOptions(sampling=Sampling(fps=None), weights=tiny_weights, adapt="none", quality=100)
    assert encode_video(clip, path, options).frames == FRAMES
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DECODE, path, tiny_weights, json.dumps(WAYS)],
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(WAYS)
    for logs, problems, _ in found:
        assert problems == []
        assert logs == found[0][0]
        assert len(logs) == FRAMES
        assert len(set(logs)) == FRAMES
    assert len(found) * FRAMES >= 100


@pytest.mark.usefixtures("any_threads")
def test_pixels_differ_by_one_code_value_at_most(
    make_clip: Callable[..., Path], tiny_weights: Path, tmp_path: Path
) -> None:
    from vidcodec.codec.decode import VideoDecoder

    options = EncodeOptions(sampling=Sampling(fps=None), weights=tiny_weights, adapt="none", quality=100)
    encode_video(make_clip(frames=2, size=(80, 64)), tmp_path / "o.vdc", options)
    shown = []
    for enabled in (True, False):
        with torch.backends.mkldnn.flags(enabled=enabled), VideoDecoder(tmp_path / "o.vdc", weights=tiny_weights) as d:
            shown.append([frame for _, frame, _ in d.frames()])
    for a, b in zip(*shown, strict=True):
        assert abs(a.y.astype(int) - b.y.astype(int)).max() <= 1
        assert abs(a.uv.astype(int) - b.uv.astype(int)).max() <= 1
