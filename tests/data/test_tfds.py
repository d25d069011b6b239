import contextlib
import io
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import download_manager

from parsec.data import load
from parsec.errors import UserError

_NO_NETWORK = urllib.error.URLError(OSError(-2, "Name or service not known"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attempt to reach a server fails at once."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise _NO_NETWORK

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for what the archive on the server holds."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: contextlib.nullcontext())
    fetch = lambda self, url: folder  # noqa: E731
    monkeypatch.setattr(download_manager.DownloadManager, "download_and_extract", fetch)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "prepared"))
    return folder


def _write_cifar10(folder: Path, count: int = 8) -> dict[bytes, int]:
    """Writes binary batches and returns the label of each image by its bytes."""
    (folder / "cifar-10-batches-bin").mkdir()
    rng = np.random.default_rng(0)
    labels = {}
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        rows = rng.integers(0, 256, (count, 3073), np.uint8)
        rows[:, 0] %= 10
        (folder / "cifar-10-batches-bin" / name).write_bytes(rows.tobytes())
        for row in rows:
            labels[row[1:].reshape(3, 32, 32).transpose(1, 2, 0).tobytes()] = int(row[0])
    (folder / "cifar-10-batches-bin" / "batches.meta.txt").write_text("\n".join(f"thing{i}" for i in range(10)) + "\n")
    return labels


def test_cifar10_is_prepared_and_read_without_tensorflow(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known = _write_cifar10(served)
    dataset = load("cifar10")
    assert dataset.images.shape == (40, 32, 32, 3) and dataset.test_images.shape == (8, 32, 32, 3)
    for images, labels in ((dataset.images, dataset.labels), (dataset.test_images, dataset.test_labels)):
        assert [known[image.tobytes()] for image in images] == labels.tolist()
    assert dataset.class_names == tuple(f"thing{i}" for i in range(10))
    assert "tensorflow" not in sys.modules
    files = [path.name for path in (tmp_path / "prepared" / "cifar10").rglob("*") if "array_record" in path.name]
    assert len(files) == 2
    # From now on neither the network nor the source is needed, and its folder may be given.
    monkeypatch.setattr(download_manager.DownloadManager, "download_and_extract", None)
    for again in (load("cifar10"), load("cifar10", str(tmp_path / "prepared")), load("tfds:cifar10", image_size=8)):
        np.testing.assert_array_equal(again.labels, dataset.labels)


def test_cifar100_is_prepared_with_its_fine_labels(served: Path):
    rng = np.random.default_rng(0)
    (served / "cifar-100-binary").mkdir()
    rows = rng.integers(0, 256, (12, 3074), np.uint8)
    rows[:, 0], rows[:, 1] = 3, 80 + np.arange(12)
    (served / "cifar-100-binary" / "train.bin").write_bytes(rows.tobytes())
    (served / "cifar-100-binary" / "test.bin").write_bytes(rows[:4].tobytes())
    for name, count in (("coarse", 20), ("fine", 100)):
        lines = "\n".join(f"{name}{i}" for i in range(count))
        (served / "cifar-100-binary" / f"{name}_label_names.txt").write_text(lines + "\n")
    dataset = load("cifar100")
    assert sorted(dataset.labels.tolist()) == list(range(80, 92)) and dataset.class_names[80] == "fine80"


def test_a_damaged_source_is_named(served: Path):
    _write_cifar10(served)
    path = served / "cifar-10-batches-bin" / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="cannot fetch and prepare cifar10") as caught:
        load("cifar10")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 1000])
def test_damaged_prepared_files_are_named(served: Path, tmp_path: Path, keep: int):
    _write_cifar10(served)
    load("cifar10")
    for path in (tmp_path / "prepared").rglob("*train.array_record*"):
        path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"cannot read the prepared cifar10 in .*delete that folder") as caught:
        load("cifar10")
    assert "\n" not in str(caught.value)


def test_without_network_one_line_says_how_to_get_the_data(no_network: None, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    with pytest.raises(UserError) as caught:
        load("cifar10")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "cifar10",
        "no answer from www.cs.toronto.edu (Name or",
        "cifar-10-python.tar.gz",
        "--config.data_dir=FOLDER",
        "digits_search",
    ):
        assert part in message


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="has no 'mnits'; did you mean 'mnist'"):
        load("tfds:mnits")


def test_what_holds_no_labelled_images_is_refused():
    with pytest.raises(UserError, match="does not hold images with one class label each; its features are"):
        load("tfds:imdb_reviews")


def _store(tmp_path: Path, name: str, images: dict[str, list[np.ndarray]], labels: dict[str, list[int]]) -> None:
    """Prepares a dataset of one's own as TensorFlow Datasets does."""

    def examples(split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (image, label) in enumerate(zip(images[split], labels[split], strict=True)):
            file = io.BytesIO()
            Image.fromarray(image.squeeze()).save(file, "PNG")
            file.seek(0)
            yield i, {"picture": file, "kind": label}

    channels = next(iter(images.values()))[0].shape[-1]
    with tfds.core.registered.skip_registration():

        class Made(tfds.core.GeneratorBasedBuilder):
            name = "made"
            VERSION = tfds.core.Version("1.0.0")

            def _info(self) -> tfds.core.DatasetInfo:
                features = {
                    "picture": tfds.features.Image(shape=(None, None, channels)),
                    "kind": tfds.features.ClassLabel(names=["good", "bad"]),
                }
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                return {split: examples(split) for split in images}

            def _generate_examples(self) -> None:
                raise NotImplementedError

        Made.name = name
        Made(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_dataset_of_ones_own_is_read_and_parted(tmp_path: Path, channels: int):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (6, 6, channels), np.uint8) for _ in range(20)]
    _store(tmp_path, "made", {"train": images}, {"train": [0, 1] * 10})
    dataset = load("tfds:made", str(tmp_path))
    assert dataset.name == "tfds:made" and dataset.class_names == ("good", "bad")
    assert dataset.images.shape == (16, 6, 6, channels) and np.bincount(dataset.test_labels).tolist() == [2, 2]
    rows = {image.tobytes() for image in (*dataset.images, *dataset.test_images)}
    assert rows == {image.tobytes() for image in images}


def test_images_of_different_sizes_need_a_size(tmp_path: Path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (6 + i, 9, 3), np.uint8) for i in range(4)]
    parts = {"train": images, "validation": images[:2]}
    _store(tmp_path, "ragged", parts, {"train": [0, 1, 0, 1], "validation": [1, 1]})
    with pytest.raises(UserError, match="differ in size"):
        load("tfds:ragged", str(tmp_path))
    dataset = load("tfds:ragged", str(tmp_path), 5)
    assert dataset.images.shape == (4, 5, 5, 3) and dataset.test_labels.tolist() == [1, 1]


def test_importing_the_data_does_not_import_the_slow_libraries():
    code = "import sys, parsec.data; print([m for m in ('tensorflow_datasets', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
