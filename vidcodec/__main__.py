"""`python -m vidcodec` is the same as `vidcodec`."""

import sys

from vidcodec.cli import main

if __name__ == "__main__":
    sys.exit(main())
