"""The lists of requirements agree, and nothing pins a version from above."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().split("\n") if line and not line.startswith(("#", "-r"))]


def test_requirements_agree_with_pyproject_and_have_lower_bounds_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(lines("requirements.txt")) == sorted(project["dependencies"])
    assert sorted(lines("requirements-test.txt")) == sorted(project["optional-dependencies"]["test"])
    everything = project["dependencies"] + [d for extra in project["optional-dependencies"].values() for d in extra]
    for requirement in everything:
        assert ">=" in requirement, requirement
        assert not any(bound in requirement for bound in ("<", "==", "~=")), requirement
    assert project["requires-python"] == ">=3.11"
