"""Numbers too small for the processor's fast path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Within, this thread takes subnormal floats as zero: young networks train many times faster so.

    Afterwards it does what it did before: other code may count on them.
    """
    import torch

    before = float(torch.tensor([1e-40]).mul(1.0)) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
