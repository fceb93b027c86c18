"""What info tells, and what verify checks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from cli_support import Vidcodec, damage_frame, make_clip

from vidcodec.bitstream import BitstreamReader, BitstreamWriter, UpdateUnit
from vidcodec.checkpoint import sent_parameters
from vidcodec.families.msp.checkpoint import load_model
from vidcodec.updates.coder import encode_update
from vidcodec.updates.selection import Strategy, select
from vidcodec.updates.update import TensorUpdate, Update


@pytest.fixture
def with_update(vdc: Path, weights: Path) -> tuple[Path, str]:
    """A .vdc file with an update of one tensor, and the tensor's name."""
    model, _ = load_model(weights=weights)
    name, parameter = next(iter(sent_parameters(model)))
    steps = np.zeros(tuple(parameter.shape), np.int32)
    steps.flat[0] = 2
    path = vdc.with_name("updated.vdc")
    with BitstreamReader(vdc) as reader, BitstreamWriter(path, reader.header) as writer:
        writer.write_update(UpdateUnit(1, 0, 0, encode_update(Update({name: TensorUpdate(steps, 8)}), model)))
        for frame in reader.frames():
            writer.write_frame(dataclasses.replace(frame, update=1))
    return path, name


def test_info_of_a_plain_file(vidcodec: Vidcodec, vdc: Path) -> None:
    outcome = vidcodec("info", vdc)
    assert outcome.code == 0
    assert "3 of 48x32, 8 bit 4:2:0" in outcome.out
    assert "msp at rate level" in outcome.out
    assert "0.500 s" in outcome.out


def test_info_as_json(vidcodec: Vidcodec, vdc: Path) -> None:
    facts = vidcodec("info", vdc, "--json").result
    assert facts["size"] == vdc.stat().st_size == sum(facts["sizes"].values())
    assert (facts["width"], facts["height"], facts["bit_depth"]) == (48, 32, 8)
    assert (facts["frame_count"], facts["intact_frames"], facts["complete"]) == (3, 3, True)
    assert [f["seconds"] for f in facts["frames"]] == [0.0, 0.5, 1.0]
    known = {"index", "pts", "seconds", "bytes", "kind", "reference", "rate_level", "quantizer", "update"}
    assert all(set(f) == known for f in facts["frames"])
    assert {(f["kind"], f["reference"], f["update"]) for f in facts["frames"]} == {("key", None, 0)}
    assert facts["updates"] == facts["problems"] == facts["notes"] == []


def test_info_decodes_for_the_bits_of_every_stream(vidcodec: Vidcodec, vdc: Path, weights: Path) -> None:
    facts = vidcodec("info", vdc, "--json", "--decode", "--weights", weights).result
    for frame in facts["frames"]:
        assert 0 < frame["z_bits"] + frame["y_bits"] <= 8 * frame["bytes"] + 1


def test_info_shows_the_tensors_of_an_update(vidcodec: Vidcodec, with_update: tuple[Path, str], weights: Path) -> None:
    path, name = with_update
    [update] = vidcodec("info", path, "--json", "--weights", weights).result["updates"]
    [tensor] = update["tensors"]
    assert (tensor["name"], tensor["changed"], tensor["step_exponent"]) == (name, 1, 8)
    assert 0 < tensor["bits"] <= 8 * update["bytes"] + 64
    assert name in vidcodec("info", path, "--weights", weights).out


def test_info_names_the_selection_of_an_update(vidcodec: Vidcodec, vdc: Path, weights: Path) -> None:
    model, _ = load_model(weights=weights)
    chosen = select(Strategy("random", 50, 1), model)
    tensors = {n: TensorUpdate(m.astype(np.int32), 8) for n, m in list(chosen.masks.items())[:3]}
    path = vdc.with_name("selected.vdc")
    with BitstreamReader(vdc) as reader, BitstreamWriter(path, reader.header) as writer:
        writer.write_update(UpdateUnit(1, 0, 0, encode_update(Update(tensors), model, selection=chosen)))
        for frame in reader.frames():
            writer.write_frame(dataclasses.replace(frame, update=1))
    [update] = vidcodec("info", path, "--json", "--weights", weights).result["updates"]
    assert update["kind"] == "adaptive, random:50"
    assert [t["name"] for t in update["tensors"]] == list(tensors)
    assert "random:50" in vidcodec("info", path, "--weights", "nowhere.safetensors").out


def test_info_does_without_the_model(vidcodec: Vidcodec, with_update: tuple[Path, str]) -> None:
    outcome = vidcodec("info", with_update[0], "--weights", "nowhere.safetensors", "--json")
    assert outcome.code == 0
    assert outcome.result["updates"][0]["bytes"] > 0
    assert outcome.result["updates"][0]["tensors"] is None
    assert "note: the update's tensors are not shown" in outcome.err


def test_info_of_a_damaged_file(vidcodec: Vidcodec, vdc: Path) -> None:
    damage_frame(vdc, 0)
    outcome = vidcodec("info", vdc)
    assert outcome.code == 4
    assert "DAMAGED: 2 of 3 frames are intact" in outcome.out
    assert "warning: frame 0: " in outcome.err


def test_an_intact_file_verifies(vidcodec: Vidcodec, vdc: Path, weights: Path) -> None:
    outcome = vidcodec("verify", vdc, "--weights", weights)
    assert outcome.code == 0
    assert outcome.out.endswith("all is well\n")


def test_quality_is_that_of_the_encoder(
    vidcodec: Vidcodec, shared_vdc: tuple[Path, Path], weights: Path, tmp_path: Path
) -> None:
    clip, path = shared_vdc
    found = vidcodec("verify", path, "--against", clip, "--weights", weights, "--json").result
    assert (found["ok"], found["compared"]) == (True, 3)
    told = vidcodec("encode", clip, "-o", tmp_path / "x.vdc", "--weights", weights, "--adapt", "none", "--json").result
    for key in ("psnr_y", "psnr_u", "psnr_v", "psnr_yuv"):
        assert found[key] == pytest.approx(told[key], abs=1e-6)
    assert found["psnr_rgb"] > 0


def test_sampled_frames_find_their_originals(vidcodec: Vidcodec, weights: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "fast.mkv", frames=12, rate=10)
    assert vidcodec("encode", clip, "--weights", weights, "--adapt", "none", "--start", "0.3").code == 0
    found = vidcodec("verify", clip.with_suffix(".vdc"), "--against", clip, "--weights", weights, "--json")
    assert found.code == 0
    assert found.result["compared"] == found.result["frames"] == 2


def test_damage_is_found(vidcodec: Vidcodec, vdc: Path, weights: Path) -> None:
    damage_frame(vdc, 2)
    outcome = vidcodec("verify", vdc, "--weights", weights, "--json")
    assert outcome.code == 4
    assert outcome.result["ok"] is False
    assert outcome.result["decoded"] == 2
    assert outcome.err.splitlines()[-1] == f"vidcodec: error: {vdc} is damaged: 2 of 3 frames can be decoded"


def test_cut_file_is_found(vidcodec: Vidcodec, vdc: Path, weights: Path) -> None:
    vdc.write_bytes(vdc.read_bytes()[:-3])
    outcome = vidcodec("verify", vdc, "--weights", weights)
    assert outcome.code == 4
    assert "3 of 3 frames" in outcome.out  # all are there, and still not all is well
    assert "all is well" not in outcome.out


def test_another_source_is_told(vidcodec: Vidcodec, vdc: Path, weights: Path, tmp_path: Path) -> None:
    small = make_clip(tmp_path / "small.mkv", size=(32, 32))
    outcome = vidcodec("verify", vdc, "--against", small, "--weights", weights)
    assert outcome.code == 3
    assert "it was not made from this source" in outcome.err
    short = make_clip(tmp_path / "short.mkv", frames=2)
    outcome = vidcodec("verify", vdc, "--against", short, "--weights", weights)
    assert outcome.code == 3
    assert "1 of 3 frames have no counterpart" in outcome.err
