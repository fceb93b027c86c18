"""Which vidcodec this is, and where it lies."""

from pathlib import Path

__version__ = "0.2.0"
PACKAGE = Path(__file__).resolve().parent
