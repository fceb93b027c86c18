"""What `import vidcodec` offers: a sorted list of names that all exist, quick to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vidcodec
from vidcodec import errors


def test_names_are_sorted_and_exist() -> None:
    assert vidcodec.__all__ == sorted(vidcodec.__all__)
    for name in vidcodec.__all__:
        assert getattr(vidcodec, name) is not None
    assert set(vidcodec.__all__) <= set(dir(vidcodec))


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="nosuch"):
        vidcodec.nosuch  # noqa: B018


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, vidcodec; print(sorted({'torch', 'numpy', 'av', 'compressai'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_error_is_one_of_ours_with_an_exit_code() -> None:
    kinds = [v for v in vars(errors).values() if isinstance(v, type)]
    assert len(kinds) > 10
    for kind in kinds:
        assert issubclass(kind, errors.VidcodecError)
        assert 1 <= kind.exit_code <= 8
        assert kind.__name__ in (errors.__doc__ or "")
