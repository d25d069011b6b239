"""The page on spaces: its config of one's own runs, and its network maps images to logits."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "spaces.md").read_text(), re.DOTALL)
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def test_an_operation_of_ones_own_is_searched_counted_and_drawn(tmp_path: Path):
    config = tmp_path / "my_search.py"
    config.write_text(BLOCKS[0])
    command = [sys.executable, "main.py", f"--config={config}", "--config.steps=3", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"gated_conv_1x1"' in (tmp_path / "run" / "prior.json").read_text()
    assert (tmp_path / "run" / "cell.png").stat().st_size > 1000


def test_a_config_that_knows_the_space_trains_its_cells(tmp_path: Path):
    """It is asked for the whole of its settings; a training of the quick kind takes minutes."""
    for name, block in zip(("my_search", "my_train"), BLOCKS, strict=False):
        (tmp_path / f"{name}.py").write_text(block)
    program = (
        "from parsec.command.config_files import load_config; from parsec.cells import SPACES; "
        "config = load_config('my_train.py').config; print(type(config).__name__, 'gated' in SPACES)"
    )
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([".", str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "TrainConfig True", done.stderr


def test_the_derived_network_of_the_page_runs():
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS[2]], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "(2, 10)", done.stderr
