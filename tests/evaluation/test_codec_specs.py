"""What `--codecs` takes, and what it says to what it does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vidcodec.errors import CodecUnavailableError, InputError
from vidcodec.evaluation.learned import CompressAI, Vidcodec
from vidcodec.evaluation.measured import MeasuredPoints
from vidcodec.evaluation.rivals import CODECS, parse_codec, parse_codecs
from vidcodec.evaluation.video_rivals import X264, X265, SvtAv1


def test_modes_and_presets_are_read() -> None:
    x265, x264, svt = (c.codec for c in parse_codecs("x265:inter,preset=medium,x264:intra,svtav1"))
    assert (x265, x264, svt) == (X265("inter", "medium"), X264("intra", "veryslow"), SvtAv1("inter", "3"))


def test_options_of_one_codec_do_not_become_the_next() -> None:
    ours, x265, bare = parse_codecs("vidcodec:adapt=none,preset=fast,steps=100,x265:intra,vidcodec,seed=3")
    assert ours.label == "vidcodec:preset=fast,adapt=none,steps=100"
    assert x265.label == "x265:intra"
    assert bare.label == "vidcodec:seed=3"


def test_our_options_reach_the_encoder() -> None:
    codec = parse_codec("vidcodec:adapt=encoder,update-prior=spike-slab,max_minutes=1.5,weights=w.safetensors").codec
    assert isinstance(codec, Vidcodec)
    options = codec.encode_options(37.5)
    assert (options.adapt, options.update_prior, options.max_minutes) == ("encoder", "spike-slab", 1.5)
    assert (options.weights, options.quality) == (Path("w.safetensors"), 37.5)
    decided = parse_codec("vidcodec:refine=best,quantizer=trellis4,refine-steps=3").codec.encode_options(50)  # type: ignore[attr-defined]
    assert (decided.refine, decided.quantizer, decided.refine_steps) == ("best", "trellis4", 3)


def test_a_default_written_out_is_the_same_codec() -> None:
    assert parse_codec("vidcodec:preset=medium").codec == parse_codec("vidcodec").codec


def test_rates_and_names_are_the_codecs_own() -> None:
    chosen = parse_codec("vidcodec:adapt=none,rates=10/35.5/90,name=plain")
    assert chosen.label == "plain"
    assert chosen.rate_points(4, [22, 27]) == [10, 35.5, 90]


def test_quantisers_go_to_codecs_that_have_one() -> None:
    x265, svt, jpeg = parse_codecs("x265:intra,svtav1:intra,jpeg")
    assert x265.rate_points(4, [22, 37]) == [22, 37]
    assert svt.rate_points(4, [22, 37]) == [20, 50]
    assert len(jpeg.rate_points(3, [22, 37])) == 3


def test_four_usual_points_are_the_literatures_quantisers() -> None:
    assert parse_codec("x265:intra").rate_points(4) == [22, 27, 32, 37]


@pytest.mark.parametrize("family", sorted(CODECS))
def test_labels_make_the_same_codec_again(family: str) -> None:
    codec = parse_codec(family).codec
    assert parse_codec(codec.label).codec == codec


def test_a_zoo_model_is_named_with_its_quality() -> None:
    codec = parse_codec("compressai:bmshj2018-hyperprior,weights=zoo/{q}.pth").codec
    assert isinstance(codec, CompressAI)
    options = codec.encode_options(5)
    assert (options.model, options.adapt) == ("compressai:bmshj2018-hyperprior:5", "none")
    assert options.weights == Path("zoo/5.pth")


def test_a_zoo_model_takes_the_options_of_encode() -> None:
    codec = parse_codec("compressai:mbt2018-mean,adapt=full,steps=3,update_parameters=biases").codec
    assert isinstance(codec, CompressAI)
    options = codec.encode_options(2)
    assert (options.model, options.adapt, options.steps) == ("compressai:mbt2018-mean:2", "full", 3)
    assert codec.label == "compressai:mbt2018-mean,adapt=full,update_parameters=biases,steps=3"
    assert parse_codec(codec.label).codec == codec
    assert parse_codec("compressai:mbt2018-mean,adapt=none").codec == parse_codec("compressai").codec
    for option in ("model=msp", "lossless=1", "quality=3"):
        with pytest.raises(InputError, match="no option"):
            parse_codec(f"compressai:mbt2018-mean,{option}")


def test_lossless_codecs_have_one_rate() -> None:
    for chosen in parse_codecs("vidcodec:lossless=1,png,webp:lossless,x265:lossless,ffv1"):
        assert chosen.rate_points(4, [22, 27]) == [0]
        with pytest.raises(InputError, match="has one rate: leave rates= out"):
            parse_codec(f"{chosen.label}{',' if ':' in chosen.label else ':'}rates=30")


def test_points_name_a_file_and_a_codec() -> None:
    chosen = parse_codec("points:dir/rivals.json#vvenc-intra")
    assert chosen.codec == MeasuredPoints(Path("dir/rivals.json"), "vvenc-intra")
    assert chosen.label == "points:vvenc-intra"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x266:intra", "did you mean x26"),
        ("", "no codec given"),
        ("x265:intre", "intra, inter"),
        ("x265:intra,inter", "it takes"),
        ("x265:intra,quality=3", "no option 'quality'.*preset="),
        ("jpeg:intra", "it takes"),
        ("x264:intra,rates=22/x", "slashes"),
        ("x264:intra,rates=60", "from 0 to 51, not 60"),
        ("x264:intra,rates=22.5", "whole number"),
        ("vidcodec:adapt=everything", "none, encoder, decoder, full"),
        ("vidcodec:refine=lofty", "vidcodec:refine cannot be 'lofty': none, lof, sga"),
        ("vidcodec:quantizer=scalar", "vidcodec:quantizer cannot be 'scalar': uniform, rdoq, trellis"),
        ("vidcodec:quality=40", "rates="),
        ("vidcodec:none", "name=value"),
        ("vidcodec:steps=many", "cannot be 'many'"),
        ("points:file.json", "points:rivals.json#"),
        ("x265:intra,x265:intra", "twice"),
    ],
)
def test_mistakes_are_told_with_what_is_possible(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_codecs(text)


def test_a_program_that_is_not_here_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(CodecUnavailableError, match="no vvencapp on the PATH"):
        parse_codec("vvenc:intra").codec.check()


def test_an_architecture_outside_the_zoo_is_refused() -> None:
    from vidcodec.errors import ModelNotFoundError

    with pytest.raises(ModelNotFoundError, match="mbt2018-mean"):
        parse_codec("compressai:cheng2020-anchor").codec.check()


def test_weights_that_are_not_there_are_told_before_any_work(tmp_path: Path) -> None:
    from vidcodec.errors import ModelNotFoundError

    with pytest.raises(ModelNotFoundError, match="no weights"):
        parse_codec(f"vidcodec:weights={tmp_path / 'none.safetensors'}").codec.check()


def test_settings_follow_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"one")
    codec = parse_codec(f"vidcodec:weights={path}").codec
    first = codec.settings()
    path.write_bytes(b"other")
    assert codec.settings() != first
