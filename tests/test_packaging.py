"""The lists of requirements agree, and nothing pins a version from above."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().split("\n") if line and not line.startswith(("#", "-r"))]


def test_requirements_agree_with_pyproject_and_have_lower_bounds_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # requirements.txt is for the commands of the README, and so holds what they may use beside the package's own needs.
    assert sorted(lines("requirements.txt")) == sorted(project["dependencies"] + extras["tensorboard"])
    assert sorted(lines("requirements-test.txt")) == sorted(extras["test"])
    everything = project["dependencies"] + [d for extra in project["optional-dependencies"].values() for d in extra]
    for requirement in everything:
        assert ">=" in requirement, requirement
        assert not any(bound in requirement for bound in ("<", "==", "~=")), requirement
    assert project["requires-python"] == ">=3.11"


def test_the_licence_is_the_one_that_is_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (name,) = project["license-files"]
    text = (ROOT / name).read_text()
    assert project["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert text.rstrip().endswith("limitations under the License.")
    # The nine sections, definitions to additional liability.
    assert [line.split(".")[0] for line in text.splitlines() if line[3:4].isdigit() and line[4:6] == ". "] == [
        f"   {number}" for number in range(1, 10)
    ]
    assert "Apache-2.0" in (ROOT / "README.md").read_text()
