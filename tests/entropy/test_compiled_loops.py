"""Machine code kept on disk never outlives what it was made of."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import vidcodec

PACKAGE = Path(vidcodec.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "@compiled" in path.read_text())


def names(node: ast.AST, context: type[ast.expr_context]) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, context)}


def borrowed(module: ast.Module) -> set[str]:
    """Constants of a module that come from another one of the package, or are computed from such."""
    found = set()
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vidcodec."):
            found |= {a.asname or a.name for a in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value and names(node.value, ast.Load) & found:
            found |= names(node, ast.Store)
    return found


def test_all_of_them_are_looked_at() -> None:
    assert {"logistics", "rans_kernels", "kernels", "exact"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_compiled_loops_read_constants_of_their_own_file_only(path: Path) -> None:
    module = ast.parse(path.read_text())
    loops = [
        node
        for node in module.body
        if isinstance(node, ast.FunctionDef) and {"compiled", "njit"} & set().union(*map(_load, node.decorator_list))
    ]
    assert loops
    for loop in loops:
        used = set().union(*(names(statement, ast.Load) for statement in loop.body))
        assert not used & borrowed(module), loop.name


def _load(node: ast.AST) -> set[str]:
    return names(node, ast.Load)
