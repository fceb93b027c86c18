"""Frames of one video coded by other processes, here or on the nodes of a cluster: the file is the same.

Two Ray nodes on this machine, where Ray is installed; one of them is killed in the end.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from vidcodec.codec.encode import encode_video
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.shares import options_of, told_options
from vidcodec.errors import InputError, UnsupportedInputError
from vidcodec.executor import Call, Executor, LocalExecutor, Outcome, Task, open_executor, run_tasks
from vidcodec.executor.calls import Busy
from vidcodec.executor.local import LocalCall
from vidcodec.video import Sampling

MakeClip = Callable[..., Path]
with_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture
def options(tiny_weights: Path) -> EncodeOptions:
    return EncodeOptions(sampling=Sampling(fps=None), weights=tiny_weights, device="cpu", preset="fast", quality=60)


def is_the_same(clip: Path, folder: Path, options: EncodeOptions, executor: Executor) -> list[str]:
    """Encodes alone and with an executor; the notes of the latter."""
    alone = encode_video(clip, folder / "alone.vdc", options)
    shared = encode_video(clip, folder / "shared.vdc", options, executor=executor)
    assert shared.output.read_bytes() == alone.output.read_bytes()
    assert sorted(p.name for p in folder.iterdir()) == ["alone.vdc", "shared.vdc"]
    return shared.notes


class Watching(LocalExecutor):
    """Two processes; kills the first one that it starts, if asked to."""

    def __init__(self, *, killing: bool = False) -> None:
        super().__init__(2)
        self.killing, self.started = killing, 0

    def start(self, call: Call) -> LocalCall:
        running = super().start(call)
        self.started += 1
        if self.killing and self.started == 1:
            running.process.kill()
        return running


def test_a_process_that_is_lost_changes_nothing(make_clip: MakeClip, options: EncodeOptions, tmp_path: Path) -> None:
    executor = Watching(killing=True)
    notes = is_the_same(make_clip(frames=4), tmp_path, options, executor)
    assert [n for n in notes if n.startswith("one of 2 processes failed, its frames are coded here")]
    assert executor.started == 2


@pytest.mark.usefixtures("workers_here")
@pytest.mark.parametrize(
    ("changes", "codings"),
    [
        ({"key_seconds": 1.0}, 1),
        ({"steps": 2, "refine": "lof", "refine_steps": 1, "quantizer": "rdoq"}, 3),
        ({"lossless": True, "weights": None, "quality": None}, 1),
    ],
    ids=["chains", "adapted and refined", "lossless"],
)
def test_every_coding_is_shared(
    make_clip: MakeClip, options: EncodeOptions, tmp_path: Path, changes: dict[str, object], codings: int
) -> None:
    executor = Watching()
    notes = is_the_same(make_clip(frames=4), tmp_path, EncodeOptions(**{**vars(options), **changes}), executor)
    assert executor.started == 2 * codings
    assert not [n for n in notes if "failed" in n]


def test_a_time_limit_is_refused(options: EncodeOptions, tmp_path: Path) -> None:
    limited = EncodeOptions(**{**vars(options), "max_minutes": 1.0})
    with pytest.raises(UnsupportedInputError, match="max_minutes"):
        encode_video(tmp_path / "clip.mkv", tmp_path / "o.vdc", limited, executor=LocalExecutor())


def test_options_arrive_as_they_are(tmp_path: Path) -> None:
    for o in (
        EncodeOptions(),
        EncodeOptions(sampling=Sampling(2.5, start=3, duration=1.5), weights=tmp_path, work=tmp_path, target_psnr=33.3),
        EncodeOptions(sampling=Sampling(None, keyframes=True), max_minutes=2.0, lossless=True),
    ):
        assert options_of(told_options(o)) == o


# --------------------------------------------------------------------------- two nodes

AS_OTHERS = {"RAY_worker_niceness": "0"}  # and not after everything else that runs here
NODE = """
import os, time

def where(report, folder):
    name = os.environ["NODE"]
    open(os.path.join(folder, f"begun-{name}"), "a").close()
    time.sleep(2.0)
    return name
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(address, folder of the module above) of a cluster of the nodes 'a' and 'b', of one core each."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "node_of_call.py").write_text(NODE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as session:  # sockets: a short name
        head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={session}")
        try:
            for name, words in (("a", head), ("b", (f"--address=127.0.0.1:{port}",))):
                path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
                env = {**os.environ, "NODE": name, "CLUSTER": str(folder), "PYTHONPATH": path, **AS_OTHERS}
                usual = ("--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats")
                command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *usual]
                subprocess.run(command, env=env, check=True, capture_output=True, timeout=300)
            yield f"127.0.0.1:{port}", folder
        finally:
            for pid in processes(f"CLUSTER={folder}"):
                os.kill(pid, signal.SIGKILL)


def processes(*variables: str) -> list[int]:
    """Those with these in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if folder.name.isdecimal() and all(v.encode() in environment for v in variables):
            found.append(int(folder.name))
    return found


@with_ray
def test_both_nodes_code_frames_of_one_video(
    cluster: tuple[str, Path], make_clip: MakeClip, options: EncodeOptions, tmp_path: Path
) -> None:
    with open_executor(1, 1, cluster[0]) as executor:
        assert executor.slots == 2
        notes = is_the_same(make_clip(frames=5), tmp_path, options, executor)
    assert not [n for n in notes if "failed" in n]


@with_ray
def test_calls_of_a_lost_node_run_on_the_other_one(cluster: tuple[str, Path]) -> None:
    """The last one with this cluster."""
    address, folder = cluster
    found: dict[int, Outcome] = {}

    def task() -> Task[Outcome]:
        return (yield Call("node_of_call:where", {"folder": str(folder)}))

    def tick(busy: list[Busy[int, Outcome]]) -> None:
        if (folder / "begun-b").exists():
            for pid in processes(f"CLUSTER={folder}", "NODE=b"):
                os.kill(pid, signal.SIGKILL)

    with open_executor(1, 1, address) as executor:
        run_tasks(executor, dict.fromkeys(range(3), task), lambda key, outcome, _: found.update({key: outcome}), tick)
    assert (folder / "begun-b").exists()
    assert list(found.values()) == [Outcome("a")] * 3


@with_ray
def test_no_cluster_is_told() -> None:
    with pytest.raises(InputError, match="no Ray cluster"):
        open_executor(1, 1, "127.0.0.1:1")


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "vidcodec.executor.cluster", raising=False)
    with pytest.raises(InputError, match=r"vidcodec\[ray\]"):
        open_executor(1, 1, "auto")
