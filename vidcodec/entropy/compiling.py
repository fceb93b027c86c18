"""Loops compiled to machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable) -> Any:
    """njit, kept on disk where there is a place to keep it.

    What is kept is made anew when the function's own file changes, and holds the globals it reads as they were: so
    they have to be defined in that file, not imported.
    """
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(nogil=True)(function)
