"""vidcodec fetch: lists, downloads and checks; one line and a code where it cannot."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import Vidcodec
from file_server import Site, serving, y4m

AKIYO = y4m(352, 288, frames=2)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A mirror of four sequences without a known checksum."""
    monkeypatch.setenv("no_proxy", "*")
    names = ("news", "bus", "silent", "paris")
    with serving(Site({f"/{name}_cif.y4m": y4m(352, 288, 2, seed) for seed, name in enumerate(names)})) as site:
        yield site


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDCODEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_help_has_examples_and_imports_nothing_heavy(vidcodec: Vidcodec) -> None:
    assert "examples:\n  vidcodec fetch" in vidcodec("fetch", "--help").out
    code = (
        "import sys, vidcodec.cli as c; c.main(['fetch', '--help']); c.main(['fetch', '--list'])\n"
        "print(sorted({'torch', 'av', 'numpy', 'cv2', 'tqdm'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_sets_are_listed_with_what_is_here(vidcodec: Vidcodec, cache: Path) -> None:
    (cache / "kodak").mkdir(parents=True)
    (cache / "kodak" / "kodim07.png").write_bytes(b"x")
    outcome = vidcodec("fetch", "--list")
    assert outcome.code == 0
    assert "1 of 24 here" in outcome.out
    assert str(cache) in outcome.out
    sets = {s["name"]: s["here"] for s in vidcodec("fetch", "--list", "--json").result["sets"]}
    assert sets["kodak"] == 1
    assert sets["xiph-cif"] == 0


def test_sequences_are_listed_with_size_and_terms(vidcodec: Vidcodec, cache: Path) -> None:
    outcome = vidcodec("fetch", "--list", "xiph-720p")
    assert "xiph-720p/stockholm" in outcome.out
    assert "1280x720" in outcome.out
    assert "59.94" in outcome.out
    assert "[1] " in outcome.out
    [akiyo] = vidcodec("fetch", "--list", "xiph-cif/akiyo", "--json").result["sequences"]
    assert akiyo["address"] == "https://media.xiph.org/video/derf/y4m/akiyo_cif.y4m"
    assert akiyo["path"] == str(cache / "xiph-cif" / "akiyo_cif.y4m")
    assert (akiyo["rate"], akiyo["here"]) == ("30000/1001", False)


def test_several_sequences_are_fetched_once_each(vidcodec: Vidcodec, cache: Path, site: Site) -> None:
    words = ("fetch", "xiph-cif/news", "xiph-cif/bus", "xiph-cif/news", "--mirror", site.address, "--json")
    outcome = vidcodec(*words)
    assert outcome.code == 0
    first, second = outcome.result["files"]
    assert (first["name"], first["downloaded"]) == ("xiph-cif/news", True)
    assert second["sha256"] == hashlib.sha256(y4m(352, 288, 2, 1)).hexdigest()
    assert Path(second["path"]).read_bytes() == y4m(352, 288, 2, 1)
    assert [e["share"] for e in outcome.events if e.get("stage") == "xiph-cif/bus"][-1] == 1
    again = vidcodec(*words)
    assert [f["downloaded"] for f in again.result["files"]] == [False, False]
    assert len(site.requests) == 2


def test_a_person_reads_where_the_file_is(vidcodec: Vidcodec, tmp_path: Path, site: Site) -> None:
    outcome = vidcodec("fetch", "xiph-cif/news", "--mirror", site.address, "--cache", tmp_path / "here")
    assert outcome.out.split() == [
        "xiph-cif/news",
        "0.3",
        "MB",
        "downloaded",
        str(tmp_path / "here" / "xiph-cif" / "news_cif.y4m"),
    ]
    assert "xiph-cif/news: " in outcome.err


def test_one_that_fails_does_not_stop_the_others(vidcodec: Vidcodec, cache: Path, site: Site) -> None:
    outcome = vidcodec(
        "fetch",
        "xiph-cif/news",
        "xiph-cif/tempete",
        "xiph-cif/akiyo",
        "xiph-cif/bus",
        "--mirror",
        site.address,
        "--json",
    )
    site.files["/akiyo_cif.y4m"] = AKIYO
    assert outcome.code == 3
    assert [f["name"] for f in outcome.result["files"]] == ["xiph-cif/news", "xiph-cif/bus"]
    assert list(outcome.result["failed"]) == ["xiph-cif/tempete", "xiph-cif/akiyo"]
    assert "2 of 4 sequences could not be fetched" in outcome.err


def test_a_wrong_file_gets_one_line(vidcodec: Vidcodec, cache: Path, site: Site) -> None:
    site.files["/akiyo_cif.y4m"] = AKIYO
    outcome = vidcodec("fetch", "xiph-cif/akiyo", "--mirror", site.address)
    assert outcome.code == 3
    assert outcome.err.splitlines()[-1].startswith("vidcodec: error: ")
    assert "expected 0f7a1f99" in outcome.err
    assert not (cache / "xiph-cif" / "akiyo_cif.y4m").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "name what to fetch"),
        (("xiph-ciff",), 3, "did you mean xiph-cif?"),
        (("akiyo",), 3, "did you mean xiph-cif/akiyo?"),
        (("kodak", "--mirror", "ftp://example.org"), 2, "is no address"),
        (("kodak", "--mirror", "file:///etc"), 2, "is no address"),
        (("kodak", "--mirror", "https://"), 2, "is no address"),
        (("kodak", "--forse"), 2, "did you mean --force?"),
    ],
)
def test_wrong_arguments(vidcodec: Vidcodec, cache: Path, words: tuple[str, ...], code: int, said: str) -> None:
    outcome = vidcodec("fetch", *words)
    assert outcome.code == code
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
