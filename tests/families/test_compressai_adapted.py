"""CompressAI's networks adapt like ours: the same steps, update coder and files."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vidcodec import EncodeOptions, Sampling, VideoDecoder, encode_video
from vidcodec.checkpoint import is_sent
from vidcodec.families import load_family
from vidcodec.families.compressai.network import ARCHITECTURES, Coded
from vidcodec.families.compressai.objective import HyperpriorObjective
from vidcodec.families.family import Family
from vidcodec.rate import TradeOff
from vidcodec.training.data import batches, load_pictures
from vidcodec.video import VideoReader

CLIP = Path(__file__).parents[1] / "data" / "car_park.mp4"
SAMPLING = Sampling(fps=Fraction(1), duration=2)
BT709 = 1


def frames_as_pictures(folder: Path) -> Path:
    """Two frames of the clip as PNG, to train on."""
    import cv2

    from vidcodec.video import yuv_to_rgb

    with VideoReader(CLIP, SAMPLING) as reader:
        for i, frame in enumerate(reader.frames()):
            cv2.imwrite(str(folder / f"{i}.png"), yuv_to_rgb(frame, reader.format)[..., ::-1])
    return folder


def trained(architecture: str, pictures: Path, steps: int = 120) -> Coded:
    """A narrow network after a short training by the objective of adaptation: too little to be good, enough to code."""
    torch.manual_seed(1)
    network = ARCHITECTURES[architecture](8, 12)
    objective = HyperpriorObjective(TradeOff(0.3), BT709, False)
    adam = torch.optim.Adam(network.parameters(), lr=4e-3)
    source = batches(load_pictures(pictures, progress=False), seed=0, start=0, batch=2, crop=64)
    for _, planes, _ in _first(source, steps):
        out = objective.outcome(network, {}, planes, hard=False)
        loss = out.bits / out.pixels + objective.worth * out.error
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
    return network.eval().requires_grad_(False)


def _first(source: Iterator, count: int) -> Iterator:
    return (item for item, _ in zip(source, range(count), strict=False))


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A model's name and weights of a narrow network of it."""
    folder = tmp_path_factory.mktemp("zoo")
    return f"compressai:{request.param}:3", saved(trained(request.param, frames_as_pictures(folder)), folder)


def saved(network: Coded, folder: Path) -> Path:
    """The network's weights in a file."""
    path = folder / "zoo.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return path


def test_an_adapted_file_costs_less_and_decodes_to_what_was_coded(weights: tuple[str, Path], tmp_path: Path) -> None:
    name, path = weights
    options = EncodeOptions(
        sampling=SAMPLING,
        model=name,
        weights=path,
        adapt="decoder",
        steps=20,
        seed=1,
        device="cpu",
        update_parameters="all",
    )
    result = encode_video(CLIP, tmp_path / "o.vdc", options)
    plain, adapted = result.costs.values()
    assert adapted < plain
    assert result.chosen.startswith("adapted")
    assert result.update_size > 0
    with VideoDecoder(tmp_path / "o.vdc", weights=path, device="cpu") as decoder:
        assert len([frame for _, frame, _ in decoder.frames()]) == result.frames
        assert decoder.problems == []


def test_full_adaptation_leaves_what_the_decoder_has_to_itself_alone(weights: tuple[str, Path]) -> None:
    """The bottleneck is neither sent nor trained but for its tables, which travel; medians stay."""
    family = load_family(*weights, torch.device("cpu"))
    network = family.network
    names = {n for n, _ in network.named_parameters() if is_sent(network, n)}
    assert names
    assert all(n.startswith(("g_s.", "h_s.")) for n in names)
    with VideoReader(CLIP, SAMPLING) as reader:
        video, frame = reader.format, next(reader.frames())
    objective = family.objective(family.top, video)
    crops = family.crops([frame], video)
    parameters = {n: p.detach().requires_grad_() for n, p in network.named_parameters()}
    out = objective.outcome(network, parameters, crops.checks()[0], hard=False)
    (out.bits + out.error).backward()
    assert parameters["entropy_bottleneck.quantiles"].grad is None
    assert parameters["g_s.0.weight"].grad is not None


def test_training_and_files_agree_on_rate(weights: tuple[str, Path]) -> None:
    """What the objective charges is what the coder takes, within a few per cent: h_s is integer arithmetic there."""
    charged, coded = bits_charged_and_coded(load_family(*weights, torch.device("cpu")))
    assert charged == pytest.approx(coded, rel=0.1)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_training_does_not_charge_for_symbols_that_no_file_codes(architecture: str, tmp_path: Path) -> None:
    """Large latents whose scales lie below the table are zero in the file; the objective sees just that."""
    torch.manual_seed(1)
    network = ARCHITECTURES[architecture](8, 12)
    network.g_a[-1].bias.data[:6] += 20.0
    network.h_s[-1 if network.has_means else -2].bias.data[:6] = -1.0
    family = load_family(f"compressai:{architecture}:3", saved(network, tmp_path), torch.device("cpu"))
    charged, coded = bits_charged_and_coded(family)
    assert charged == pytest.approx(coded, rel=0.1)


def bits_charged_and_coded(family: Family) -> tuple[float, int]:
    """Of one frame: by the objective of adaptation, and in its payload."""
    with VideoReader(CLIP, SAMPLING) as reader:
        video, frame = reader.format, next(reader.frames())
    coded = family.picture_coder(family.top, video).encode(frame)
    batch = family.crops([frame], video, check_pixels=10**9).checks()[0]
    with torch.no_grad():
        out = family.objective(family.top, video).outcome(family.network, {}, batch, hard=True)
    return float(out.bits), 8 * len(coded.payload)
