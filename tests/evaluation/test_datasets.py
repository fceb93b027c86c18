"""What stands for sequences: sets by name, single ones, local files and folders; and manifests that can be trusted."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from vidcodec.errors import InputError
from vidcodec.evaluation.datasets import default_cache, find, known_datasets, load, read_manifest

MANIFEST = """
name = "mine"
title = "Mine"
page = "https://example.org/"
base = "https://example.org/files/"
terms = "mine"
[defaults]
width = 32
[sequences]
one = { file = "one.y4m", rate = "30000/1001", frames = 7 }
"""


def test_a_manifest_says_what_is_known_and_no_more() -> None:
    [entry] = read_manifest(MANIFEST, "here").entries
    assert (entry.id, entry.address) == ("mine/one", "https://example.org/files/one.y4m")
    assert (entry.width, entry.height, entry.rate, entry.frames) == (32, None, Fraction(30000, 1001), 7)
    assert (entry.sha256, entry.terms) == (None, "mine")
    assert entry.path(Path("cache")) == Path("cache/mine/one.y4m")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"one.y4m"', '"../../.ssh/authorized_keys"'),
        ('"one.y4m"', '"/etc/passwd"'),
        ('"one.y4m"', '".profile"'),
        ('"one.y4m"', '"a\\\\b"'),
        ('"one.y4m"', '""'),
        ('"one.y4m"', "7"),
        ('"mine"\ntitle', '"../mine"\ntitle'),
        ("one =", '"../one" ='),
        ("https://example.org/files/", "file:///etc/"),
        ("https://example.org/files/", "https://example.org/files"),
        ("https://example.org/files/", "ftp://example.org/"),
        ("frames = 7", "frames = -7"),
        ("frames = 7", "frames = true"),
        ("frames = 7", 'sha256 = "abc"'),
        ("30000/1001", "1/0"),
        ("30000/1001", "fast"),
        ("terms =", "other ="),
        ("[sequences]", "[sequence]"),
        ('{ file = "one.y4m", rate = "30000/1001", frames = 7 }', "7"),
        ("[defaults]", "[defaults"),
    ],
)
def test_a_manifest_that_leads_astray_is_refused(old: str, new: str) -> None:
    assert old in MANIFEST
    with pytest.raises(InputError, match="here is no manifest of sequences"):
        read_manifest(MANIFEST.replace(old, new, 1), "here")


def test_the_sets_that_ship_are_whole() -> None:
    sets = known_datasets()
    assert set(sets) == {"xiph-cif", "xiph-4cif", "xiph-720p", "xiph-1080p", "kodak"}
    sizes = {"xiph-cif": (352, 288), "xiph-4cif": (704, 576), "xiph-720p": (1280, 720), "xiph-1080p": (1920, 1080)}
    for name, dataset in sets.items():
        entries = dataset.entries
        assert len({e.name for e in entries}) == len({e.file for e in entries}) == len(entries) >= 5
        assert all(e.dataset == name and e.terms and e.address.startswith("https://") for e in entries)
        assert all((e.width, e.height) == sizes.get(name, (e.width, e.height)) for e in entries)
    kodak = sets["kodak"].entries
    assert len(kodak) == 24
    assert all(e.sha256 and {e.width, e.height} == {768, 512} and e.frames == 1 for e in kodak)
    assert len({e.sha256 for e in kodak}) == 24


def test_the_folder_at_the_top_shows_the_same_manifests() -> None:
    top = Path(__file__).parents[2] / "datasets"
    assert {path.stem for path in top.glob("*.toml")} == set(known_datasets())


def test_sets_and_sequences_are_found_by_name() -> None:
    assert len(find("kodak")) == 24
    assert [e.file for e in find("xiph-cif/akiyo")] == ["akiyo_cif.y4m"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kodac", "did you mean kodak?"),
        ("akiyo", "did you mean xiph-cif/akiyo?"),
        ("xiph-cif/formean", "did you mean foreman?"),
        ("xiph-cif/../kodak", "has no sequence"),
        ("zzz", "vidcodec fetch --list"),
    ],
)
def test_unknown_names_get_a_guess(name: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        find(name)
    assert said in str(caught.value)


def test_sequences_that_were_not_fetched_say_how_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"xiph-cif/akiyo is not in .*: run vidcodec fetch xiph-cif/akiyo"):
        load("xiph-cif/akiyo", tmp_path)
    (tmp_path / "kodak").mkdir()
    (tmp_path / "kodak" / "kodim05.png").write_bytes(b"x")
    with pytest.raises(InputError, match="23 of 24 sequences of kodak are not in"):
        load("kodak", tmp_path)


def test_fetched_sequences_are_loaded_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xiph-cif").mkdir()
    (tmp_path / "xiph-cif" / "akiyo_cif.y4m").write_bytes(b"x")
    monkeypatch.setenv("VIDCODEC_CACHE", str(tmp_path))
    [akiyo] = load("xiph-cif/akiyo")
    assert (akiyo.name, akiyo.dataset, akiyo.path) == ("akiyo", "xiph-cif", tmp_path / "xiph-cif" / "akiyo_cif.y4m")


def test_a_local_file_is_one_sequence(tmp_path: Path) -> None:
    path = tmp_path / "my clip.mkv"
    path.write_bytes(b"x")
    [clip] = load(path)
    assert (clip.name, clip.path, clip.dataset) == ("my clip", path, None)


def test_a_folder_gives_its_videos_and_pictures_in_natural_order(tmp_path: Path) -> None:
    for name in ("b10.png", "b2.PNG", "a.mkv", "a.mp4", "notes.txt", ".hidden.png", "x.y4m.part", "x.sha256"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.mp4").mkdir()
    assert [(s.name, s.path.name) for s in load(str(tmp_path))] == [
        ("a.mkv", "a.mkv"),
        ("a.mp4", "a.mp4"),
        ("b2", "b2.PNG"),
        ("b10", "b10.png"),
    ]


def test_a_folder_without_any_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no video or picture"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["nope.mp4", "folder/nope", "./xiph-cif"])
def test_a_missing_path_says_so(name: str) -> None:
    with pytest.raises(InputError, match="does not exist: check the name"):
        load(name)


def test_what_exists_goes_before_a_set_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kodak").mkdir()
    (tmp_path / "kodak" / "mine.png").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert [s.name for s in load("kodak")] == ["mine"]


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIDCODEC_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache() == tmp_path / ".cache" / "vidcodec" / "datasets"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache() == Path("/xdg/vidcodec/datasets")
    monkeypatch.setenv("VIDCODEC_CACHE", "~/mine")
    assert default_cache() == tmp_path / "mine"


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, vidcodec.evaluation.fetching, vidcodec.evaluation.datasets as d; d.known_datasets()\n"
        "print(sorted({'torch', 'numpy', 'av', 'compressai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
