"""One tiny trained network, exported once for all tests of exports and predictions."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_network import CELLS, save_random

from parsec.jobs.train.export import export_model


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a network and its export; not to be changed."""
    folder = save_random(tmp_path_factory.mktemp("exported"), CELLS)
    export_model(folder)
    return folder


@pytest.fixture
def directory(exported: Path, tmp_path: Path) -> Path:
    """A copy of that directory, to be damaged."""
    return Path(shutil.copytree(exported, tmp_path / "run"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many kinds, two files that are none, and one that is hidden."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (30, 41, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "clear.png")
    Image.fromarray(pixels[..., :3]).save(folder / "more" / "colour.png")
    Image.fromarray(pixels[..., 0]).save(folder / "grey.png")
    Image.fromarray(pixels[..., :3]).quantize(16).save(folder / "palette.gif")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels[..., :3]).resize((200, 120)).save(folder / "turned.jpg", exif=turned)
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes((folder / "grey.png").read_bytes())
    return folder
