"""The layout: every module imports only from its own package or from floors below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "vidcodec"
FLOORS = {
    "errors": 1,
    "denormals": 1,
    "files": 1,
    "rate": 1,
    "version": 1,
    "video": 2,
    "bitstream": 2,
    "entropy": 2,
    "checkpoint": 2,
    "executor": 2,
    "latents": 3,
    "updates": 3,
    "families": 4,
    "codec": 5,
    "postfilter": 5,
    "player": 6,
    "training": 6,
    "evaluation": 6,
    "cli": 7,
    "__main__": 8,
    "__init__": 8,
}
MODULES = sorted(ROOT.rglob("*.py"))


def imports_of(tree: ast.AST, path: Path) -> list[str]:
    """Dotted names that a piece of a file imports, `from a import b` as a.b."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def imported_packages(path: Path) -> set[str]:
    """What a file imports right below `vidcodec`, anywhere in it; names of the package itself are `__init__`'s."""
    parts = [name.split(".") for name in imports_of(ast.parse(path.read_text()), path)]
    ours = {p[1] if len(p) > 1 else "__init__" for p in parts if p[0] == "vidcodec"}
    return {p if p in FLOORS else "__init__" for p in ours}


def module_of(path: Path) -> str:
    parts = ("vidcodec", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def loaded_at_once(path: Path, known: set[str]) -> set[str]:
    """The modules that importing a file imports: not those of its functions, nor those for type checkers alone."""
    at_once = [
        node
        for node in ast.parse(path.read_text()).body
        if not isinstance(node, (ast.FunctionDef, ast.If)) and not isinstance(node, ast.ClassDef)
    ]
    names = [name for node in at_once for name in imports_of(node, path)]
    found = {name if name in known else name.rpartition(".")[0] for name in names}
    return (found & known) - {module_of(path)}


def home(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    own = home(path)
    assert own in FLOORS, f"{own} has no floor"
    wrong = {p for p in imported_packages(path) if p != own and FLOORS[p] >= FLOORS[own]}
    assert not wrong, f"{path} imports from {', '.join(sorted(wrong))}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = {module_of(p) for p in MODULES}
    graph = {module_of(p): loaded_at_once(p, known) for p in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_imports_are_seen(tmp_path: Path) -> None:
    assert imported_packages(ROOT / "codec" / "steps.py") >= {"codec", "errors", "latents", "rate", "updates"}
    bare = tmp_path / "bare.py"
    bare.write_text("import vidcodec\n\ndef f():\n    from vidcodec import __version__\n")
    assert imported_packages(bare) == {"__init__"}
    assert loaded_at_once(ROOT / "codec" / "steps.py", {"vidcodec.rate", "vidcodec.cli"}) == {"vidcodec.rate"}


def test_the_decoder_imports_no_encoder() -> None:
    program = """
import sys, torch
from vidcodec.codec import decode
from vidcodec.families import load_family
for name in ("msp", "lossless"):
    load_family(name, None, torch.device("cpu"))
words = ("encode.", "steps", "refin", "quantising", "finetune", "optim", "curvature", "ratecontrol", "deciding")
print([m for m in sys.modules if m.startswith("vidcodec.") and any(word in m + "." for word in words)])
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
