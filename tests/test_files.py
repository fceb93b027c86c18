"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidcodec.files import replacing, write_whole


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def stopped(path: Path, error: type[BaseException]) -> None:
    with replacing(path) as partial:
        partial.write_text("half of")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_was_there_stays_until_the_new_file_is_complete(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / ("long" * 60)
    path.write_text("old")
    with pytest.raises(error):
        stopped(path, error)
    assert path.read_text() == "old"
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_never_written_takes_no_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []
