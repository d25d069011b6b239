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


def test_the_derived_network_of_the_page_runs():
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS[1]], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "(2, 10)", done.stderr
