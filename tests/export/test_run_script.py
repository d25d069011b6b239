"""load_and_run.py needs little, says what `--predict` says, and refuses a damaged program."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_network import CELLS

from parsec.data.images import CENTRE, decode, to_square
from parsec.export.run_script import run_script
from parsec.jobs.train.export import PROGRAM, SCRIPT
from parsec.jobs.train.predict import _read, predict

IMAGES = ("clear.png", "grey.png", "more/colour.png", "palette.gif", "turned.jpg")


def test_the_script_imports_neither_this_package_nor_anything_of_a_search(exported: Path):
    tree = ast.parse((exported / SCRIPT).read_text())
    named = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    named |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert named == {"hashlib", "sys", "pathlib", "jax", "numpy", "PIL"}
    assert sum(1 for line in (exported / SCRIPT).read_text().splitlines() if line) <= 22


def test_the_script_says_of_every_kind_of_image_what_predict_says(exported: Path, photos: Path):
    paths = [photos / name for name in IMAGES]
    command = [sys.executable, "-I", str(exported / SCRIPT), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    expected = list(predict(exported, paths))
    assert done.stdout.splitlines() == [f"{row.path}: {row.name} {row.probability:.4f}" for row in expected]
    assert len({f"{row.probability:.3f}" for row in expected}) == len(IMAGES)


def test_a_damaged_program_is_refused_by_the_script(directory: Path):
    content = bytearray((directory / PROGRAM).read_bytes())
    content[len(content) // 2] ^= 1
    (directory / PROGRAM).write_bytes(content)
    command = [sys.executable, "-I", str(directory / SCRIPT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (1, "model.stablehlo is damaged, or of another training\n")


@pytest.mark.parametrize("share", [1.0, CENTRE])
@pytest.mark.parametrize("name", IMAGES)
def test_pillows_own_cut_is_that_of_the_test(photos: Path, name: str, share: float):
    from PIL import ImageOps

    image = decode(photos / name, "RGB", 8)
    fitted = ImageOps.fit(image, (8, 8), Image.Resampling.BILINEAR, (1 - share) / 2)
    np.testing.assert_array_equal(np.asarray(fitted), np.asarray(to_square(image, 8, share)))
    # What `--predict` shows a network, and the script that stands beside it.
    metadata = CELLS._replace(centre=share)
    np.testing.assert_array_equal(_read(photos / name, metadata), np.asarray(to_square(image, 8, share)))
    assert f"BILINEAR, {(1 - share) / 2})" in run_script(metadata, PROGRAM, b"")
