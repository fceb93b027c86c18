"""What a user writes to select parameters, and how the stream names it. Imports nothing heavy.

    all                   every parameter the decoder uses
    biases                numbers added to whole channels, those of rate levels included
    biases+multipliers    all that acts on whole channels: biases, gains, scale indices, multipliers
    multipliers           one number per channel, of networks made with them (the post-filter)
    last-layer            what makes the output samples (a network names it: `last_layer`)
    low-rank[:R]          vectors as they are, matrices as products of two thin ones of rank R (1)
    random:N              N entries drawn from a seed, to compare with
    learned[:N]           the N entries of the greatest learned importance; without N, those worth their bits

`learned` is `learned-laplace`; `learned-gaussian` takes the other objective's scores (`vidcodec.updates.importance`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from vidcodec.bitstream.fields import FieldReader, varint
from vidcodec.errors import CorruptBitstreamError, UnsupportedInputError

# Place in this tuple: how the stream names a strategy. Only ever append.
STRATEGIES = (
    "all",
    "biases",
    "biases+multipliers",
    "last-layer",
    "low-rank",
    "random",
    "learned-gaussian",
    "learned-laplace",
    "multipliers",
)
DEFAULT_LEARNED = "learned-laplace"
USAGE = "all, biases, multipliers, biases+multipliers, last-layer, low-rank[:RANK], random:N, learned[:N]"
MAX_RANK = 16
DIGEST_BYTES = 4


# Bytes of a video's frames from which on an update of low rank is tried instead of entries of learned importance. These
# gained more in a minute on a stream of 1.2 MB (results/adaptation_variants.md) and on smaller ones; larger ones, and
# longer runs, are not measured.
PAYING = ((5_000_000, 4), (20_000_000, 8))
# Below so many, none does: five frames of akiyo (22 kB) gained 0.75 % of J, ten 3.8 % (results/amortisation.md).
LEAST_PAYING = 25_000


def paying_rank(stream: int) -> int:
    """The greatest rank worth training for a video whose frames take so many bytes; 0 where low rank does not pay.

    The gain of an update is a share of the stream, its bits are not. Training shuts the components that do not pay.
    """
    return max((rank for size, rank in PAYING if stream >= size), default=0)


@dataclass(frozen=True)
class Strategy:
    """A strategy and what there is to know of it besides.

    count: entries of random and learned (0: not settled yet), the rank of low-rank. seed: of random. scores: first
    bytes of the digest of the scores that learned went by.
    """

    name: str = "all"
    count: int = 0
    seed: int = 0
    scores: bytes = b""

    def __str__(self) -> str:
        return f"{self.name}:{self.count}" if self.count else self.name

    @property
    def learned(self) -> str:
        """The objective whose scores it takes, or nothing."""
        return self.name.removeprefix("learned-") if self.name.startswith("learned-") else ""

    @classmethod
    def parse(cls, text: str, seed: int = 0) -> Strategy:
        """From what a user writes; raises UnsupportedInputError."""
        match = re.fullmatch(r"([a-z+-]+)(?::(\d{1,12}))?", text, re.ASCII)
        name = match[1] if match else ""
        name = DEFAULT_LEARNED if name == "learned" else name
        counted = name in ("low-rank", "random") or name.startswith("learned-")
        if name not in STRATEGIES or match is None or (match[2] and not counted):
            raise UnsupportedInputError(f"what may be updated is one of {USAGE}; not {text!r}")
        count = int(match[2]) if match[2] else 1 if name == "low-rank" else 0
        if name == "low-rank" and not 1 <= count <= MAX_RANK:
            raise UnsupportedInputError(f"low-rank takes a rank from 1 to {MAX_RANK}, like low-rank:2, not {count}")
        if (match[2] or name == "random") and not count:
            raise UnsupportedInputError(f"{name} needs a number of entries above zero, like {name}:10000")
        return cls(name, count, seed if name == "random" else 0)

    def to_bytes(self) -> bytes:
        """For the stream."""
        out = bytes([STRATEGIES.index(self.name)])
        if self.name == "low-rank" or self.learned:
            return out + varint(self.count) + self.scores
        return out + varint(self.count) + varint(self.seed) if self.name == "random" else out

    @classmethod
    def read(cls, fields: FieldReader) -> Strategy:
        """The opposite of `to_bytes`; raises CorruptBitstreamError for what no encoder writes."""
        code = fields.unsigned(1)
        if code >= len(STRATEGIES):
            raise CorruptBitstreamError(f"model update: unknown selection of parameters {code}: use a newer vidcodec")
        s = cls(STRATEGIES[code])
        if s.name == "random":
            s = replace(s, count=fields.varint(), seed=fields.varint())
        elif s.name == "low-rank":
            s = replace(s, count=fields.varint())
        elif s.learned:
            s = replace(s, count=fields.varint(), scores=fields.take(DIGEST_BYTES))
        if (s.name in ("random", "low-rank") or s.learned) and not s.count:
            raise CorruptBitstreamError("model update: it selects no parameter")
        if s.name == "low-rank" and s.count > MAX_RANK:
            raise CorruptBitstreamError(f"model update: a rank of {s.count} is out of bounds")
        return s
