"""Fashion-MNIST from its four IDX files, packed or not, and every way in which one may be wrong."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parsec.data import load
from parsec.data.idx import CLASSES, FILES, fashion_examples, read_idx
from parsec.errors import UserError

COUNTS = (12, 12, 5, 5)


def content(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 256, (count, 28, 28), np.uint8) if "images" in name else rng.integers(0, 10, count, np.uint8)
        for name, count in zip(FILES, COUNTS, strict=True)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for at, (name, array) in enumerate(zip(FILES, arrays(), strict=True)):
        # Two as they are published, two unpacked.
        packed = at < 2
        written = gzip.compress(content(array)) if packed else content(array)
        (tmp_path / (f"{name}.gz" if packed else name)).write_bytes(written)
    return tmp_path


def test_both_parts_are_read_packed_or_not(folder: Path) -> None:
    dataset = load("fashion_mnist", str(folder))
    images, labels, test_images, test_labels = arrays()
    np.testing.assert_array_equal(dataset.images[..., 0], images)
    np.testing.assert_array_equal(dataset.test_images[..., 0], test_images)
    assert dataset.labels.tolist() == labels.tolist() and dataset.test_labels.tolist() == test_labels.tolist()
    assert dataset.class_names == CLASSES and dataset.images.shape == (12, 28, 28, 1)
    assert load("fashion_mnist", str(folder), 14).images.shape == (12, 14, 14, 1)


def _missing(folder: Path) -> None:
    (folder / FILES[3]).unlink()


def _empty(folder: Path) -> None:
    (folder / FILES[2]).write_bytes(b"")


def _cut(folder: Path) -> None:
    path = folder / FILES[2]
    path.write_bytes(path.read_bytes()[:-1])


def _longer(folder: Path) -> None:
    path = folder / FILES[2]
    path.write_bytes(path.read_bytes() + b"\0")


def _header_only(folder: Path) -> None:
    (folder / FILES[2]).write_bytes(content(np.zeros((1, 1, 1), np.uint8))[:9])


def _swapped(folder: Path) -> None:
    (folder / FILES[2]).write_bytes((folder / FILES[3]).read_bytes())


def _packed_cut(folder: Path) -> None:
    path = folder / f"{FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:-20])


def _out_of_range(folder: Path) -> None:
    (folder / FILES[3]).write_bytes(content(np.array([0, 1, 2, 3, 10], np.uint8)))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_missing, r"no t10k-labels-idx1-ubyte in data_dir .*packed as \.gz or not; the four files of"),
        (_empty, r"t10k-images-idx3-ubyte \(0 bytes.* begins with nothing; an IDX file of uint8 with 3 axes begins"),
        (_cut, r"promises 3,936 bytes for \[5, 28, 28\] and holds 3,935: cut short, or damaged"),
        (_longer, r"promises 3,936 bytes for \[5, 28, 28\] and holds 3,937"),
        (_header_only, r"holds 9: cut short"),
        (_swapped, r"begins with 00000801; an IDX file of uint8 with 3 axes begins with 00000803"),
        (_packed_cut, r"damaged or no \.gz file: .*train-images-idx3-ubyte\.gz"),
        (_out_of_range, r"the test part has a label 10; with 10 classes they run from 0 to 9"),
    ],
)
def test_a_damaged_folder_is_told_in_one_line(folder: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=said) as refused:
        load("fashion_mnist", str(folder))
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data_dir '.*none' does not exist"):
        load("fashion_mnist", str(tmp_path / "none"))


def test_examples_for_tensorflow_datasets_are_the_files_own(folder: Path) -> None:
    images, labels = read_idx(folder / f"{FILES[0]}.gz", 3), read_idx(folder / f"{FILES[1]}.gz", 1)
    examples = list(fashion_examples(12, folder / f"{FILES[0]}.gz", folder / f"{FILES[1]}.gz"))
    assert [index for index, _ in examples] == list(range(12))
    np.testing.assert_array_equal(np.stack([np.asarray(Image.open(each["image"])) for _, each in examples]), images)
    assert [each["label"] for _, each in examples] == labels.tolist()
