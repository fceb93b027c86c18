"""CompressAI's hyperprior networks: names, weights, and their scale path on integers.

`compressai:mbt2018-mean:4` names an architecture of CompressAI's zoo and a quality. Two of them
fit this codec: a fixed number of parallel steps, and a scale that depends on z alone.

    bmshj2018-hyperprior   Balle et al. 2018 (arXiv 1802.01436)    zero-mean y, scales = h_s(z)
    mbt2018-mean           Minnen et al. 2018 (arXiv 1809.02736)   (scales, means) = h_s(z)

Layout of `h_s` and the order of its outputs: compressai/models/google.py, version 1.2.8.
Shapes stand at line ends, with N channels of z, M of y, and (h, w) the grid of y, H / 16.
"""

from __future__ import annotations

import hashlib
import http.client
import pickle
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, localcontext
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.hub
from compressai.models import MeanScaleHyperprior, ScaleHyperprior
from compressai.ops.bound_ops import LowerBoundFunction
from compressai.zoo import load_state_dict as rename_keys
from compressai.zoo.image import model_urls
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vidcodec.entropy.bank import BYTE, bank
from vidcodec.entropy.exact import WIDE_BITS, WIDE_LIMIT, WideConv, leaky, shift_to_int, to_grid, to_wide
from vidcodec.entropy.rates import rate_of_symbols, ste_round
from vidcodec.entropy.scales import LEVELS, MAX_INDEX, MAX_SCALE, MIN_SCALE, scale_to_index
from vidcodec.errors import CorruptBitstreamError, ModelMismatchError, ModelNotFoundError, first_line

PREFIX = "compressai:"
NETWORK_TIMEOUT = 20.0  # seconds, for every wait on a socket
ENCODER_ONLY = ("g_a.", "h_a.")
# The bottleneck is neither sent nor kept: what it says of z travels as one table a channel; its medians stay.
NEVER_UPDATED = (*ENCODER_ONLY, "entropy_bottleneck.")
# Of L = R + lambda * 255^2 * D, by quality: CompressAI's own in training (its documentation, version 1.2.8).
LAMBDAS = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800)

_SERIAL = "its autoregressive context decodes sample after sample"
_NO_HYPERPRIOR = "it has no hyperprior"
_VARIABLE_RATE = "its gains and quantisation offsets for variable rate are not implemented"
_UNSUPPORTED = {
    "mbt2018": _SERIAL,
    "mbt2018-vbr": _SERIAL,
    "cheng2020-anchor": _SERIAL,
    "cheng2020-attn": _SERIAL,
    "bmshj2018-factorized": _NO_HYPERPRIOR,
    "bmshj2018-factorized-relu": _NO_HYPERPRIOR,
    "bmshj2018-hyperprior-vbr": _VARIABLE_RATE,
    "mbt2018-mean-vbr": _VARIABLE_RATE,
    "ssf2020": "it predicts between frames, and here every frame stands alone",
}

SCALE_BITS = 16  # scales leave the integer path as sigma * 2^16
PMF_REACH = 64  # z symbols at which the bottleneck's own distribution is looked at

# ------------------------------------------------------------------------------- networks


class HyperpriorOutput(NamedTuple):
    """What a training step needs; rates are in bits per picture."""

    rgb: Tensor  # (B, 3, H, W), about [0, 1], not clamped
    mean: Tensor  # of y, (B, M, h, w)
    table: Tensor  # indices of y's tables, real-valued, (B, M, h, w)
    y_bits: Tensor  # (B,)
    z_bits: Tensor  # (B,)


class Coded(ScaleHyperprior):
    """A hyperprior network that training sees as files are coded: symbols rounded, under the tables of their scales."""

    encoder_only = NEVER_UPDATED
    last_layer = ("g_s.6.",)
    has_means = False

    def hyper_analyse(self, y: Tensor) -> Tensor:  # (B, M, h, w) -> (B, N, h/4, w/4)
        """Hyper-latents."""
        return self.h_a(y if self.has_means else y.abs())

    @property
    def medians(self) -> Tensor:
        """Of the channels of z, (N, 1, 1); not trained."""
        return self.entropy_bottleneck.quantiles.detach()[:, 0, 1, None, None]

    def forward(self, rgb: Tensor, rate: str = "mixed") -> HyperpriorOutput:  # type: ignore[override]
        """One pass; rate: as in `vidcodec.entropy.rates.rate_of_symbols`. rgb: (B, 3, H, W), multiples of 64."""
        y = self.g_a(rgb)
        z = self.hyper_analyse(y)
        z_hat = ste_round(z - self.medians) + self.medians
        with torch.autocast(rgb.device.type, enabled=False):  # differences of probabilities want every bit
            likelihood = self.entropy_bottleneck._likelihood(z_hat.float().transpose(0, 1).flatten(1)[:, None])[0]
        z_bits = -torch.log2(likelihood.clamp_min(2.0**-16))[:, 0].reshape(z.shape[1], len(z), -1).sum((0, 2))
        parameters = self.h_s(z_hat).float()
        scale, mean = parameters.chunk(2, 1) if self.has_means else (parameters, torch.zeros_like(parameters))
        # Scales below the bound must be able to grow again.
        index = scale_to_index(LowerBoundFunction.apply(scale, scale.new_tensor([MIN_SCALE])))
        residual = y.float() - mean
        q = ste_round(residual)
        bits = rate_of_symbols(residual, q, index, rate)
        # No file codes a sample of index 0: it is zero and free. Gradients are those of its symbol, or none could grow.
        coded = index.detach() >= 0.5
        q, bits = (torch.where(coded, x, x - x.detach()) for x in (q, bits))
        return HyperpriorOutput(self.g_s(q + mean).float(), mean, index, bits.sum((1, 2, 3)), z_bits)


class CodedScale(Coded):
    """bmshj2018-hyperprior."""


class CodedMeanScale(Coded, MeanScaleHyperprior):
    """mbt2018-mean."""

    has_means = True


ARCHITECTURES: dict[str, type[Coded]] = {"bmshj2018-hyperprior": CodedScale, "mbt2018-mean": CodedMeanScale}

# --------------------------------------------------------------------- names and weights


def parse_name(name: str) -> tuple[str, int]:
    """Architecture and quality of 'compressai:ARCHITECTURE:QUALITY'.

    Raises ModelNotFoundError for another form, an architecture that this codec cannot run
    (with the reason) or a quality outside 1 .. 8.
    """
    usage = f"supported are {' and '.join(f'{PREFIX}{a}:1..8' for a in ARCHITECTURES)}"
    match = re.fullmatch(re.escape(PREFIX) + r"([^:]+)(?::([^:]*))?", name)
    if match is None:
        raise ModelNotFoundError(f"'{name}' names no CompressAI model; {usage}")
    architecture, quality = match.groups()
    if architecture not in ARCHITECTURES:
        reason = _UNSUPPORTED.get(architecture, "there is no such model in CompressAI's zoo")
        raise ModelNotFoundError(f"'{name}' cannot be used: {reason}; {usage}")
    if quality is None or re.fullmatch("[1-8]", quality) is None:
        raise ModelNotFoundError(f"'{name}' has no quality from 1 to 8; {usage}")
    return architecture, int(quality)


def load_compressai(name: str, weights: Path | None = None) -> Coded:
    """The network of `name`, on the CPU in eval mode.

    weights: a checkpoint of CompressAI (.pth, .pth.tar) or a state dict as .safetensors; its
        channel counts win over those of the quality. None: CompressAI's pretrained weights
        (metric mse) from torch.hub's cache or the network.

    Raises ModelNotFoundError for a name without a model and for weights not at hand,
    ModelMismatchError for a file that is no checkpoint of this architecture.
    """
    architecture, quality = parse_name(name)
    if weights is None:
        state, source = _fetch(name, architecture, quality), f"the checkpoint of {name}"
    else:
        state, source = _read(Path(weights)), str(weights)
    try:
        model = ARCHITECTURES[architecture].from_state_dict(rename_keys(state))
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError, AttributeError) as e:
        raise ModelMismatchError(f"{source} is not a checkpoint of {architecture}: {first_line(e)}") from e
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise ModelMismatchError(f"{source} holds weights that are not finite numbers")
    return model.eval().requires_grad_(False)


def weights_digest(model: nn.Module) -> bytes:
    """16 bytes naming what the decoder uses of a network's weights, the same on every machine.

    Parameters only: the buffers of these networks are constants or derived tables. The
    encoder's half may be retrained without making old files unreadable.
    """
    h = hashlib.sha256()
    for name, p in sorted(model.named_parameters()):
        if not name.startswith(ENCODER_ONLY):
            h.update(name.encode())
            h.update(p.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    return h.digest()[:16]


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint file; pickles are restricted to tensors and plain containers."""
    if not path.is_file():
        raise ModelNotFoundError(f"no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, OSError, EOFError, ValueError, KeyError, RuntimeError) as e:
        raise ModelMismatchError(f"{path} cannot be read as a checkpoint: {first_line(e)}") from e
    return _state_dict(checkpoint, str(path))


def _fetch(name: str, architecture: str, quality: int) -> dict[str, Tensor]:
    """CompressAI's pretrained state dict, from torch.hub's cache or the network."""
    url = model_urls[architecture]["mse"][quality]
    try:
        with _socket_timeout(NETWORK_TIMEOUT):
            checkpoint = torch.hub.load_state_dict_from_url(url, map_location="cpu", progress=False, weights_only=True)
    except (OSError, http.client.HTTPException, pickle.UnpicklingError, EOFError, RuntimeError) as e:
        raise ModelNotFoundError(
            f"weights of {name} are not at hand and could not be fetched ({first_line(e)}); "
            f"download {url} where there is a network and give it with 'weights'"
        ) from e
    return _state_dict(checkpoint, url)


def _state_dict(checkpoint: object, source: str) -> dict[str, Tensor]:
    """Names and tensors of a checkpoint: itself, or the 'state_dict' in what CompressAI's training saves."""
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelMismatchError(f"{source} holds no state dict (a table of names and tensors)")
    return state


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# ------------------------------------------------------------------------ the scale path


@lru_cache(maxsize=1)
def scale_thresholds() -> tuple[int, ...]:
    """sigma * 2^16 at which the table index goes from k to k + 1, for k = 0 .. 62.

    The geometric means of neighbouring scales (`vidcodec.entropy.scales`), rounded. Decimal
    arithmetic is correctly rounded by its specification, so no machine's libm has a say.
    """
    with localcontext() as context:
        context.prec = 40
        low, high = Decimal(str(MIN_SCALE)), Decimal(str(MAX_SCALE))
        step = (high / low).ln() / MAX_INDEX
        return tuple(round(low * (step * (k + Decimal("0.5"))).exp() * 2**SCALE_BITS) for k in range(LEVELS - 1))


class ExactHyperScales:
    """`h_s` from z symbols to table indices on integers, as encoder and decoder run it.

    model: its weights are read once; build a new object after changing them.

    Raises ModelMismatchError where `h_s` is not made of the layers known here.
    """

    def __init__(self, model: ScaleHyperprior) -> None:
        self.device = model.g_s[0].weight.device
        medians = model.entropy_bottleneck.quantiles[:, 0, 1]
        self.medians = to_grid(medians, WIDE_BITS, WIDE_LIMIT)[:, None, None]  # (N, 1, 1)
        self.thresholds = torch.tensor(scale_thresholds(), dtype=torch.float64, device=self.device)
        self.layers: list[tuple[WideConv, float]] = []  # with the slope of the ReLU behind each
        modules = list(model.h_s)
        if isinstance(modules[-1], nn.ReLU):  # the thresholds are positive: it changes no index
            modules.pop()
        for layer in modules[::2]:
            outputs = model.M if layer is modules[-1] else layer.out_channels  # scales come first, then means
            self.layers.append((_wide(layer, outputs), 0.0))
        for k, activation in enumerate(modules[1::2]):
            if not isinstance(activation, (nn.ReLU, nn.LeakyReLU)):
                raise ModelMismatchError(f"h_s holds a {type(activation).__name__}, which has no integer form here")
            self.layers[k] = (self.layers[k][0], float(getattr(activation, "negative_slope", 0.0)))

    def scales(self, z: Tensor) -> Tensor:
        """z symbols (B, N, h/4, w/4), any dtype, to sigma * 2^16 (B, M, h, w): float64 integers of any sign."""
        x = (z.to(self.device).double() * 2.0**WIDE_BITS + self.medians).clamp(-WIDE_LIMIT, WIDE_LIMIT)
        *inner, (last, _) = self.layers
        for layer, slope in inner:
            x = leaky(to_wide(layer(x), layer.bits), slope)
        return shift_to_int(last(x), last.bits + WIDE_BITS - SCALE_BITS)

    def index(self, z: Tensor) -> Tensor:
        """z symbols (B, N, h/4, w/4) to table indices 0 .. 63 of y (B, M, h, w), int64."""
        return torch.bucketize(self.scales(z), self.thresholds, right=True)


def _wide(layer: nn.Module, outputs: int) -> WideConv:
    """The first `outputs` channels of one layer of `h_s` as an integer layer."""
    if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) or layer.bias is None or layer.groups != 1:
        raise ModelMismatchError(f"h_s holds a {type(layer).__name__}, which has no integer form here")
    weight, bias = layer.weight.detach(), layer.bias.detach()[:outputs]
    if isinstance(layer, nn.Conv2d) and layer.stride == (1, 1) and layer.kernel_size == (3, 3):
        return WideConv.from_float(weight[:outputs], bias)
    if isinstance(layer, nn.ConvTranspose2d) and layer.stride == (2, 2) and layer.kernel_size == (5, 5):
        return WideConv.from_transposed(weight[:, :outputs], bias)
    raise ModelMismatchError(f"h_s holds a layer of kernel {layer.kernel_size}, stride {layer.stride}: not known here")


# ----------------------------------------------------------------------------- tables of z


@torch.no_grad()
def choose_z_tables(model: ScaleHyperprior) -> bytes:
    """For each channel of z the table (1 .. 191) that codes the bottleneck's own distribution shortest.

    One byte a channel, N in all. Floating point, so the choice is sent, never made again.
    """
    reach = PMF_REACH
    bottleneck = model.entropy_bottleneck
    symbols = torch.arange(-reach, reach + 1, device=bottleneck.quantiles.device)
    pmf = bottleneck._likelihood(symbols + bottleneck.quantiles[:, :, 1:2])[0][:, 0]  # (N, 129)
    lengths = np.stack([_code_lengths(t, reach) for t in range(1, BYTE)])  # (191, 129)
    cost = pmf.double().cpu().numpy() @ lengths.T  # (N, 191)
    return bytes((cost.argmin(1) + 1).tolist())


def parse_z_tables(extra: bytes, channels: int) -> np.ndarray:
    """The tables that `choose_z_tables` sent, int64 (channels,). Raises CorruptBitstreamError unless they can be."""
    tables = np.frombuffer(extra, np.uint8).astype(np.int64)
    if tables.size != channels or (tables < 1).any() or (tables >= BYTE).any():
        raise CorruptBitstreamError(
            f"the tables of z must be {channels} bytes from 1 to {BYTE - 1}; the stream's {tables.size} bytes are not"
        )
    return tables


def _code_lengths(table: int, reach: int) -> np.ndarray:
    """Bits of the symbols -reach .. reach under a signed table, the escape included, float64."""
    bits, own = bank().bits[table], int(bank().reach[table])
    lengths = np.full(2 * reach + 1, float(bits[-1]) + 16.0)
    inside = min(reach, own)
    lengths[reach - inside : reach + inside + 1] = bits[own - inside : own + inside + 1]
    return lengths
