"""Audio and subtitles beside the pictures: kept as they are, put into .mkv, out of the way of everything else."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vidcodec.bitstream import BitstreamReader
from vidcodec.codec import files
from vidcodec.codec.decode import decode_video
from vidcodec.codec.encode import encode_video
from vidcodec.codec.options import EncodeOptions
from vidcodec.video import Sampling

SRT = """1
00:00:00,100 --> 00:00:00,800
first words

2
00:00:01,600 --> 00:00:02,300
last words
"""


def stream_packets(path: Path, kind: str) -> list[tuple[float, bytes]]:
    with av.open(f"file:{path}") as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(stream) if p.size]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 frames at 2 a second with AAC and two subtitles."""
    path, noise = tmp_path_factory.mktemp("clip") / "clip.mkv", np.random.default_rng(1)
    (srt := path.with_suffix(".srt")).write_text(SRT)
    with av.open(f"file:{path}", "w") as container, av.open(f"file:{srt}") as written:
        video = container.add_stream("ffv1", rate=2)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        sound = container.add_stream("aac", rate=48000, layout="stereo")
        words = container.add_stream_from_template(written.streams[0], opaque=True)
        for packet in written.demux():
            if packet.size:
                packet.stream = words
                container.mux(packet)
        for index in range(5):
            picture = av.VideoFrame(48, 32, "yuv420p")
            for plane in picture.planes:
                plane.update(noise.integers(0, 255, plane.buffer_size, np.uint8).tobytes())
            picture.pts = index
            container.mux(video.encode(picture))
            for piece in range(24):
                samples = noise.integers(-9000, 9000, (1, 2000)).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
                frame.rate, frame.pts = 48000, 1000 * (24 * index + piece)
                container.mux(sound.encode(frame))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return path


@pytest.fixture
def options(tiny_weights: Path) -> EncodeOptions:
    every = Sampling(fps=None)
    return EncodeOptions(sampling=every, weights=tiny_weights, device="cpu", preset="fast", quality=50, audio="copy")


def test_sound_and_words_come_back_in_time(
    clip: Path, options: EncodeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PIECE", 5000)
    result = encode_video(clip, tmp_path / "o.vdc", options)
    mute = encode_video(clip, tmp_path / "mute.vdc", replace(options, audio="none"))
    assert result.sound_size > 5000
    assert abs(result.bpp - mute.bpp) < 0.5  # entries of the index
    with BitstreamReader(result.output, strict=True) as reader:
        assert sum(map(len, reader.side())) == result.sound_size == reader.sizes["sound"]
        frames = [f.payload for f in reader.frames()]
    with BitstreamReader(mute.output) as reader:
        assert [f.payload for f in reader.frames()] == frames
        assert list(reader.side()) == []
    shown = tmp_path / "shown.mkv"
    decode_video(result.output, shown, weights=options.weights, device="cpu")
    for kind in ("audio", "subtitle"):
        before, after = stream_packets(clip, kind), stream_packets(shown, kind)
        assert [data for _, data in after] == [data for _, data in before]
        assert np.allclose([t for t, _ in after], [t for t, _ in before], atol=0.0015)
    with av.open(f"file:{shown}") as container:
        assert [s.type for s in container.streams] == ["video", "audio", "subtitle"]
        assert [float(f.pts * f.time_base) for f in container.decode(video=0)] == [0, 0.5, 1, 1.5, 2]
        container.seek(0)
        sounds = list(container.decode(audio=0))
        assert sum(f.samples for f in sounds) >= 5 * 24 * 1000
        container.seek(0)
        (duration, *_) = [p.duration * p.time_base for p in container.demux(subtitles=0) if p.size]
        assert duration == Fraction(7, 10)


def test_a_part_of_a_video_has_its_own_sound(clip: Path, options: EncodeOptions, tmp_path: Path) -> None:
    part = replace(options, sampling=Sampling(fps=None, start=1.0, duration=0.5))
    result = encode_video(clip, tmp_path / "o.vdc", part)
    decode_video(result.output, tmp_path / "o.mkv", weights=options.weights, device="cpu")
    times = [t for t, _ in stream_packets(tmp_path / "o.mkv", "audio")]
    assert times
    assert 0.99 <= times[0] < 1.05
    assert 1.4 < times[-1] < 1.5


def test_sound_is_left_out_with_a_note(clip: Path, options: EncodeOptions, tmp_path: Path) -> None:
    result = encode_video(clip, tmp_path / "o.vdc", options)
    usual = {"weights": options.weights, "device": "cpu"}
    whole = decode_video(result.output, tmp_path / "o.y4m", **usual)
    assert any("write .mkv" in note for note in whole.notes)
    part = decode_video(result.output, tmp_path / "part.mkv", start=1, **usual)
    assert any("left out of a part" in note for note in part.notes)
    assert not decode_video(result.output, tmp_path / "mute.mkv", audio=False, **usual).notes
    with av.open(f"file:{tmp_path / 'mute.mkv'}") as container:
        assert [s.type for s in container.streams] == ["video"]


def test_a_damaged_sound_leaves_the_pictures(clip: Path, options: EncodeOptions, tmp_path: Path) -> None:
    result = encode_video(clip, tmp_path / "o.vdc", options)
    data = bytearray(result.output.read_bytes())
    data[data.index(b"SIDE") + 4000] ^= 0x40
    (damaged := tmp_path / "d.vdc").write_bytes(data)
    decoded = decode_video(damaged, tmp_path / "d.mkv", weights=options.weights, device="cpu")
    assert decoded.frames == decoded.expected == 5
    assert any("sound" in problem for problem in decoded.problems)


def test_a_target_size_holds_the_sound_as_well(clip: Path, options: EncodeOptions, tmp_path: Path) -> None:
    loud = encode_video(clip, tmp_path / "loud.vdc", options)
    target = loud.size + 300
    met = encode_video(clip, tmp_path / "met.vdc", replace(options, quality=None, target_size=target))
    assert met.size <= target
    assert met.sound_size == loud.sound_size > met.size / 2
