"""The folders of the package are layers: a module imports from its own folder and from those below it, and no other."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "parsec"
# From the ground up; `__init__` is what a user imports.
LAYERS = [
    "errors",
    "config_values",
    "config",
    "keys",
    "processes",
    "footprint",
    "files",
    "cells",
    "devices",
    "prior",
    "data",
    "supernet",
    "tables",
    "search",
    "transfer",
    "train",
    "joint",
    "evaluate",
    "export",
    "report",
    "hyper",
    "run",
    "__init__",
]


def imported(path: Path) -> Iterator[str]:
    """Yields the folder or module of the package behind each import of a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "parsec":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("parsec."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("parsec."))


def test_imports_run_one_way():
    upward = []
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in imported(path):
            if name != own and LAYERS.index(name) > LAYERS.index(own):
                upward.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not upward, upward
