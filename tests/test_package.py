"""`import parsec`: the names it promises, each from where it lives, and nothing loaded before it is asked for."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import parsec

ROOT = Path(__file__).parent.parent


def test_every_name_is_the_one_that_its_module_has():
    assert sorted(parsec.__all__) == sorted({*parsec._HOMES, "__version__"})
    for name, home in parsec._HOMES.items():
        assert getattr(parsec, name) is getattr(sys.modules[home], name)
    assert set(parsec.__all__) <= set(dir(parsec))
    with pytest.raises(AttributeError, match="no attribute 'SPACE'"):
        _ = parsec.SPACE


def test_type_checkers_see_the_same_names():
    source = (ROOT / "parsec" / "__init__.py").read_text()
    seen = {
        line.split(" as ")[1]: line.split()[1] for line in source.splitlines() if line.startswith("    from parsec")
    }
    assert seen == parsec._HOMES


def test_importing_it_loads_neither_jax_nor_numpy():
    code = "import sys, parsec; sys.exit(any(name in sys.modules for name in ('jax', 'numpy', 'parsec.cells')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert parsec.__version__ == project["version"]
    try:
        installed = importlib.metadata.version(project["name"])
    except importlib.metadata.PackageNotFoundError:
        return
    assert installed == parsec.__version__
