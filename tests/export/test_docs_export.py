"""The page on exports: its commands and its program run on a network, and print what the page says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text()


def test_the_commands_of_the_page_run(directory: Path, photos: Path, tmp_path: Path):
    (tmp_path / "runs").mkdir()
    directory.rename(tmp_path / "runs" / "mine")
    (tmp_path / "photos").symlink_to(photos)
    (tmp_path / "more").mkdir()
    Image.fromarray(np.full((9, 9, 3), 80, np.uint8)).save(tmp_path / "more" / "cat.jpg")
    commands = [line.split() for line in re.findall(r"^    python (\S.*)$", PAGE, re.MULTILINE)]
    assert [command[0] for command in commands] == ["main.py", "runs/mine/load_and_run.py", "main.py"]
    # The forms of the extras are tested where they are installed, and would take their time here.
    commands[2].append("stablehlo")
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    runs = [[str(ROOT / "main.py"), *words[1:]] if words[0] == "main.py" else words for words in commands]
    printed = []
    for words in (*runs, *(["-c", program] for program in programs)):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (shlex.join(words), done.stderr)
        printed.append(done.stdout.splitlines())
    assert printed[0][-1] == printed[1][0]
    assert printed[0][-1].startswith("more/cat.jpg: ")
    assert len((tmp_path / "classes.csv").read_text().splitlines()) == 1 + len(printed[0])
    assert printed[2] == [f"{tmp_path}/runs/mine/{n}" for n in ("model.stablehlo", "load_and_run.py", "export.json")]
    assert printed[3] == ["(5, 3)"]
