"""Every rival codes frames into files that decode to the same frames, nearly."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from vidcodec.bitstream import BitstreamReader, UpdateUnit
from vidcodec.bitstream.writer import bitstream_bytes
from vidcodec.checkpoint import sent_parameters
from vidcodec.errors import CodecUnavailableError, InputError, ModelNotFoundError, UnsupportedInputError
from vidcodec.evaluation.codec import Codec, Encoded, Source, padded
from vidcodec.evaluation.rivals import parse_codec
from vidcodec.evaluation.video_rivals import Vvenc
from vidcodec.families.msp.checkpoint import load_model
from vidcodec.updates.coder import encode_update
from vidcodec.updates.update import TensorUpdate, Update
from vidcodec.video import Frame

MakeSource = Callable[..., Source]
FAST = [
    "x264:intra,preset=ultrafast",
    "x264:inter,preset=ultrafast",
    "x265:intra,preset=ultrafast",
    "x265:inter,preset=ultrafast",
    "svtav1:intra,preset=12",
    "svtav1:inter,preset=12",
    "vp9:intra,preset=5",
    "vp9:inter,preset=5",
    "jpeg",
    "webp",
]


def code(spec: str, source: Source, rate: float, folder: Path) -> tuple[Codec, Encoded]:
    codec = parse_codec(spec).codec
    assert isinstance(codec, Codec)
    codec.check()
    codec.prepare()
    folder.mkdir(exist_ok=True)
    return codec, codec.encode(source, rate, folder)


def program(path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that does what a shell script says, first on the PATH."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")


def error(a: list[Frame], b: list[Frame]) -> float:
    """Mean squared error of Y, largest over frames."""
    return max(float(np.square(x.y.astype(float) - y.y).mean()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("spec", FAST)
def test_frames_come_back(spec: str, make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source(4)
    low, high = sorted(parse_codec(spec).rate_points(2))
    sizes, errors = [], []
    for rate in (low, high):
        codec, encoded = code(spec, source, rate, tmp_path / f"{rate:g}")
        decoded = list(codec.decode(encoded.files, source.format))
        assert [f.uv.shape for f in decoded] == [(2, 40, 48)] * 4
        assert encoded.frame_bits is not None
        assert len(encoded.frame_bits) == 4
        assert sum(encoded.frame_bits) == 8 * encoded.rate_bytes
        assert encoded.rate_bytes <= sum(file.stat().st_size for file in encoded.files)
        sizes.append(encoded.rate_bytes)
        errors.append(error(list(source.frames()), decoded))
    assert max(errors) < 150
    assert (sizes[0] - sizes[1]) * (errors[0] - errors[1]) < 0  # more bytes, less error


@pytest.mark.parametrize("spec", FAST[:8])
def test_intra_has_key_frames_only_and_inter_has_one(spec: str, make_source: MakeSource, tmp_path: Path) -> None:
    _, encoded = code(spec, make_source(5), 30, tmp_path / "coded")
    with av.open(str(encoded.files[0])) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert len(packets) == 5
    assert sum(p.is_keyframe for p in packets) == (5 if ":intra" in spec else 1)
    assert sum(p.size for p in packets) == pytest.approx(encoded.rate_bytes, abs=20)  # start codes, delimiters


@pytest.mark.parametrize("spec", ["x264:intra,preset=ultrafast", "svtav1:intra,preset=12", "jpeg", "webp"])
def test_odd_sizes_come_back(spec: str, make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source(2, (99, 77))
    codec, encoded = code(spec, source, 40, tmp_path / "coded")
    decoded = list(codec.decode(encoded.files, source.format))
    assert decoded[0].y.shape == (77, 99)
    assert decoded[0].uv.shape == (2, 39, 50)
    assert error(list(source.frames()), decoded) < 150


@pytest.mark.parametrize("spec", ["jpeg", "webp"])
def test_picture_codecs_keep_the_samples_scale(spec: str, make_source: MakeSource, tmp_path: Path) -> None:
    """No conversion of range or matrix: means of all planes stay."""
    source = make_source(1)
    codec, encoded = code(spec, source, 90, tmp_path / "coded")
    (before,), (after,) = list(source.frames()), list(codec.decode(encoded.files, source.format))
    assert abs(before.y.mean() - after.y.mean()) < 0.5
    assert np.abs(before.uv.mean((1, 2)) - after.uv.mean((1, 2))).max() < 0.5


def test_the_same_settings_give_the_same_bytes(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source(4)
    files = [code("x265:inter,preset=ultrafast", source, 30, tmp_path / n)[1] for n in ("a", "b")]
    assert files[0].rate_bytes == files[1].rate_bytes


def test_x265_writes_no_settings_into_every_picture(make_source: MakeSource, tmp_path: Path) -> None:
    _, encoded = code("x265:intra,preset=ultrafast", make_source(3), 51, tmp_path / "coded")
    assert max(encoded.frame_bits or []) < 8 * 1000


def test_an_unknown_preset_is_told(make_source: MakeSource, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedInputError, match="preset hasty"):
        code("x264:intra,preset=hasty", make_source(1), 30, tmp_path / "coded")


def test_pictures_too_small_for_an_encoder_are_told(make_source: MakeSource, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedInputError, match="x265:intra cannot code 8x8"):
        code("x265:intra", make_source(1, (8, 8)), 30, tmp_path / "coded")


def test_a_source_that_lost_frames_is_told(make_source: MakeSource) -> None:
    source = make_source(3)
    with pytest.raises(InputError, match="holds 3 frames where 4"):
        list(Source(source.path, source.format, 4).frames())
    with pytest.raises(InputError, match="holds more frames where 2"):
        list(Source(source.path, source.format, 2).frames())


def test_padding_repeats_the_edge(make_frames: Callable[..., list[Frame]]) -> None:
    (frame,) = make_frames(1, (7, 5))
    wide = padded(frame, 4)
    assert wide.y.shape == (8, 8)
    assert wide.uv.shape == (2, 4, 4)
    assert (wide.y[:, 7] == wide.y[:, 6]).all()
    assert (wide.uv[:, 3] == wide.uv[:, 2]).all()


def test_vvenc_is_called_with_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "vvencapp", "", monkeypatch)
    intra, inter = (Vvenc(mode).command(Path("a.y4m"), Path("b.266"), 32) for mode in ("intra", "inter"))
    assert intra[intra.index("--qp") + 1] == inter[inter.index("--qp") + 1] == "32"
    assert intra[intra.index("--intraperiod") + 1] == "1"
    assert int(inter[inter.index("--intraperiod") + 1]) > 1000
    assert inter[inter.index("--qpa") + 1] == "0"


def test_an_ffmpeg_with_libvvenc_stands_in_for_vvencapp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    program(tmp_path / "ffmpeg", "echo ' V....D libx265   another'", monkeypatch)
    with pytest.raises(CodecUnavailableError, match="nor an ffmpeg with libvvenc"):
        Vvenc("intra").settings()
    program(tmp_path / "ffmpeg", "echo ' V....D libvvenc  H.266'", monkeypatch)
    intra = Vvenc("intra").settings()["command"]
    assert intra[0] == "ffmpeg"
    assert intra[intra.index("-qp") + 1] == intra[intra.index("-qpa") + 1] == "0"
    assert intra[intra.index("-vvenc-params") + 1].startswith("IntraPeriod=1:")


@pytest.mark.parametrize("mode", ["intra", "inter"])
def test_vvenc_codes_frames_that_come_back(mode: str, make_source: MakeSource, tmp_path: Path) -> None:
    spec = f"vvenc:{mode},preset=faster"
    try:
        parse_codec(spec).codec.check()  # type: ignore[union-attr]
    except CodecUnavailableError as unavailable:
        pytest.skip(str(unavailable))
    source = make_source(3, (99, 77))
    sizes, errors = [], []
    for rate in (20, 40):
        codec, encoded = code(spec, source, rate, tmp_path / f"{rate}")
        decoded = list(codec.decode(encoded.files, source.format))
        assert [f.y.shape for f in decoded] == [(77, 99)] * 3
        sizes.append(encoded.rate_bytes)
        errors.append(error(list(source.frames()), decoded))
    assert sizes[0] > sizes[1]
    assert errors[0] < errors[1] < 150


def test_a_vvenc_that_fails_is_told(make_source: MakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "vvencapp", "echo 'no licence today' >&2\nexit 3", monkeypatch)
    with pytest.raises(UnsupportedInputError, match="exit code 3: no licence today"):
        code("vvenc:intra", make_source(1), 30, tmp_path / "coded")


def test_ours_writes_a_file_that_decodes(make_source: MakeSource, tiny_weights: Path, tmp_path: Path) -> None:
    source = make_source(2, (48, 32))
    codec, encoded = code(f"vidcodec:adapt=none,weights={tiny_weights}", source, 60, tmp_path / "coded")
    assert encoded.rate_bytes == encoded.files[0].stat().st_size
    assert encoded.details["update_bytes"] == 0
    assert codec.inspect(encoded.files) == {"tensor_bits": {}}
    assert sum(encoded.frame_bits or []) / 8 + encoded.details["rest_bytes"] == encoded.rate_bytes
    assert len(list(codec.decode(encoded.files, source.format))) == 2


def test_bits_of_an_update_are_told_by_tensor(make_source: MakeSource, tiny_weights: Path, tmp_path: Path) -> None:
    spec = f"vidcodec:adapt=none,weights={tiny_weights}"
    codec, encoded = code(spec, make_source(1, (48, 32)), 60, tmp_path / "coded")
    network = load_model("msp", tiny_weights)[0]
    name, parameter = next(sent_parameters(network))
    steps = np.ones(tuple(parameter.shape), np.int32)
    payload = encode_update(Update({name: TensorUpdate(steps, 10)}), network)
    with BitstreamReader(encoded.files[0]) as reader:
        header, frames = reader.header, [replace(frame, update=1) for frame in reader.frames()]
    adapted = tmp_path / "adapted.vdc"
    adapted.write_bytes(bitstream_bytes(header, [UpdateUnit(1, 0, 0, payload)], frames))
    bits = codec.inspect([adapted])["tensor_bits"]
    assert list(bits) == [name]
    assert 0 < bits[name] <= 8 * len(payload)


def test_a_zoo_model_with_weights_of_a_file_codes_and_decodes(make_source: MakeSource, tmp_path: Path) -> None:
    from compressai.models import MeanScaleHyperprior
    from safetensors.torch import save_file

    state = {name: value.contiguous() for name, value in MeanScaleHyperprior(8, 12).state_dict().items()}
    save_file(state, tmp_path / "zoo-3.safetensors")
    source = make_source(2, (64, 64))
    spec = f"compressai:mbt2018-mean,weights={tmp_path}/zoo-{{q}}.safetensors"
    codec, encoded = code(spec, source, 3, tmp_path / "c")
    assert encoded.rate_bytes == encoded.files[0].stat().st_size
    assert len(list(codec.decode(encoded.files, source.format))) == 2
    with pytest.raises(ModelNotFoundError, match=r"zoo-4.safetensors"):
        codec.encode(source, 4, tmp_path / "c")


def test_a_zoo_model_is_not_run_without_its_weights(
    make_source: MakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    with pytest.raises(ModelNotFoundError, match="weights of compressai:mbt2018-mean:2 are not at hand"):
        code("compressai:mbt2018-mean", make_source(1, (64, 64)), 2, tmp_path / "coded")
    assert not list((tmp_path / "coded").iterdir())
