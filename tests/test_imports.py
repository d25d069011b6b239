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
    "settings",
    "jobs",
    "command",
    "__init__",
]
# The folders and single modules of `jobs`, likewise.
JOBS = ["footprint", "latency_model", "train", "search", "retrain", "tables", "hyper", "latency", "images", "transfer"]


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """Yields the modules of the package that a file imports as their names in it, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "parsec":
            yield from ((*str(node.module).split("."), alias.name)[1:] for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")[1:]) for alias in node.names if alias.name.startswith("parsec."))


def test_imports_run_one_way():
    upward = []
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).with_suffix("").parts
        for name in imported(path):
            layers, at = (JOBS, 1) if own[0] == name[0] == "jobs" and own != ("jobs", "__init__") else (LAYERS, 0)
            if layers.index(name[at]) > layers.index(own[at]):
                upward.append(f"{path.relative_to(PACKAGE)} imports {'.'.join(name)}")
    assert not upward, upward
