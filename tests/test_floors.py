"""The layout: every module imports only from its own package or from floors below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "vidcodec"
FLOORS = {
    "errors": 1,
    "denormals": 1,
    "files": 1,
    "video": 2,
    "bitstream": 2,
    "entropy": 2,
    "models": 3,
    "quantize": 3,
    "adapt": 4,
    "codec": 5,
    "postfilter": 5,
    "training": 6,
    "evaluation": 6,
    "batch": 6,
    "cli": 7,
    "__main__": 8,
    "__init__": 8,
}
MODULES = sorted(ROOT.rglob("*.py"))


def imported_packages(path: Path) -> set[str]:
    """Names right below `vidcodec` that a file imports, anywhere in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {p[1] for p in parts if p[0] == "vidcodec" and len(p) > 1 and p[1] in FLOORS}


def home(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    own = home(path)
    assert own in FLOORS, f"{own} has no floor"
    wrong = {p for p in imported_packages(path) if p != own and FLOORS[p] >= FLOORS[own]}
    assert not wrong, f"{path} imports from {', '.join(sorted(wrong))}"


def test_imports_are_seen() -> None:
    assert imported_packages(ROOT / "codec" / "encode.py") >= {"adapt", "errors", "models", "quantize", "video"}
