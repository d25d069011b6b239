import gzip
import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parsec.data import load
from parsec.data.cifar import CIFAR10, CIFAR100, Cifar, decode_residual
from parsec.errors import UserError

_TRAIN, _TEST = 5 * 6, 4


def _made(cifar: Cifar) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_TRAIN + _TEST, 32, 32, 3), np.uint8)
    return images, rng.integers(0, cifar.num_classes, _TRAIN + _TEST)


def _names(cifar: Cifar) -> list[str]:
    return [f"thing{i}" for i in range(cifar.num_classes)]


def _residual(images: np.ndarray) -> np.ndarray:
    planes = images.transpose(3, 0, 1, 2).copy()
    planes[0] -= planes[1]
    planes[2] -= planes[1]
    for axis in (3, 2):
        first = np.zeros_like(planes.take([0], axis))
        planes = np.diff(planes, axis=axis, prepend=first)
    return planes


def _write_images_npz(cifar: Cifar, folder: Path) -> None:
    images, labels = _made(cifar)
    np.savez(folder / f"{cifar.name}_train.npz", images=images[:_TRAIN], labels=labels[:_TRAIN])
    np.savez(folder / f"{cifar.name}_test.npz", images=images[_TRAIN:], labels=labels[_TRAIN:])


def _write_residual_npz(cifar: Cifar, folder: Path) -> None:
    images, labels = _made(cifar)
    names = np.array(_names(cifar)).astype("S")
    for part, where in (("train", slice(_TRAIN)), ("test", slice(_TRAIN, None))):
        residual = _residual(images[where])
        file = folder / f"{cifar.name}_{part}.npz"
        np.savez_compressed(file, residual=residual, label=labels[where], label_names=names)


def _rows(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def _write_python(cifar: Cifar, folder: Path) -> None:
    place = folder / cifar.python.folder
    place.mkdir()
    images, labels = _made(cifar)
    parts = np.split(np.arange(_TRAIN), len(cifar.python.train))
    for name, where in (
        *zip(cifar.python.train, parts, strict=True),
        (cifar.python.test, np.arange(_TRAIN, len(labels))),
    ):
        batch = {b"data": _rows(images[where]), cifar.label_key: labels[where].tolist(), b"filenames": [b"a.png"]}
        (place / name).write_bytes(pickle.dumps(batch, 3))
    names = [name.encode() for name in _names(cifar)]
    (place / cifar.python.names).write_bytes(pickle.dumps({cifar.names_key: names}, 3))


def _write_binary(cifar: Cifar, folder: Path) -> None:
    place = folder / cifar.binary.folder
    place.mkdir()
    images, labels = _made(cifar)
    parts = np.split(np.arange(_TRAIN), len(cifar.binary.train))
    for name, where in (
        *zip(cifar.binary.train, parts, strict=True),
        (cifar.binary.test, np.arange(_TRAIN, len(labels))),
    ):
        coarse = [np.full((len(where), 1), 7, np.uint8)] if cifar.label_bytes == 2 else []
        rows = np.concatenate([*coarse, labels[where, None].astype(np.uint8), _rows(images[where])], 1)
        (place / name).write_bytes(rows.tobytes())
    (place / cifar.binary.names).write_text("\n".join(_names(cifar)) + "\n\n")


def _packed(write: Callable[[Cifar, Path], None]) -> Callable[[Cifar, Path], None]:
    def pack(cifar: Cifar, folder: Path) -> None:
        write(cifar, folder)
        form = cifar.python if write is _write_python else cifar.binary
        with tarfile.open(folder / form.archive, "w:gz") as tar:
            tar.add(folder / form.folder, form.folder)
        for path in (folder / form.folder).iterdir():
            path.unlink()
        (folder / form.folder).rmdir()

    return pack


_FORMS = {
    "images npz": _write_images_npz,
    "residual npz": _write_residual_npz,
    "python batches": _write_python,
    "binary batches": _write_binary,
    "python archive": _packed(_write_python),
    "binary archive": _packed(_write_binary),
}


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("cifar", [CIFAR10, CIFAR100], ids=lambda cifar: cifar.name)
def test_every_form_gives_the_same_images(cifar: Cifar, form: str, tmp_path: Path):
    _FORMS[form](cifar, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    dataset = load(cifar.name, str(tmp_path))
    images, labels = _made(cifar)
    np.testing.assert_array_equal(dataset.images, images[:_TRAIN])
    np.testing.assert_array_equal(dataset.test_images, images[_TRAIN:])
    np.testing.assert_array_equal(dataset.labels, labels[:_TRAIN])
    np.testing.assert_array_equal(dataset.test_labels, labels[_TRAIN:])
    assert dataset.labels.dtype == np.int32 and dataset.name == cifar.name
    named = form != "images npz"
    assert dataset.class_names == tuple(_names(cifar) if named else map(str, range(cifar.num_classes)))
    assert dataset.notes == ("30 training and 4 test images; the full set has 50,000 and 10,000",)
    assert sorted(tmp_path.rglob("*")) == before, "reading writes nothing"


@pytest.mark.parametrize("write", [_write_python, _write_binary])
def test_the_folder_of_batches_may_be_given_itself(write: Callable[[Cifar, Path], None], tmp_path: Path):
    write(CIFAR10, tmp_path)
    folder = next(tmp_path.iterdir())
    np.testing.assert_array_equal(load("cifar10", str(folder)).images, _made(CIFAR10)[0][:_TRAIN])


def test_images_can_be_made_smaller(tmp_path: Path):
    _write_images_npz(CIFAR10, tmp_path)
    assert load("cifar10", str(tmp_path), 16).images.shape == (30, 16, 16, 3)


def _refused(tmp_path: Path, *parts: str, name: str = "cifar10") -> str:
    with pytest.raises(UserError) as caught:
        load(name, str(tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_a_folder_without_the_data_says_what_it_may_hold(tmp_path: Path):
    _refused(tmp_path, "cifar10_train.npz", "cifar-10-batches-py/", "cifar-10-binary.tar.gz", str(tmp_path))
    _refused(tmp_path / "none", "does not exist")
    (tmp_path / "file").write_text("")
    _refused(tmp_path / "file", "is a file, not a folder")


def test_half_a_pair_of_npz_is_refused(tmp_path: Path):
    _write_images_npz(CIFAR10, tmp_path)
    (tmp_path / "cifar10_test.npz").unlink()
    _refused(tmp_path, "cifar10_test.npz is missing")


@pytest.mark.parametrize("keep", [0, 10, 3000, -1])
def test_a_truncated_npz_is_named_with_its_size_and_hash(keep: int, tmp_path: Path):
    _write_residual_npz(CIFAR10, tmp_path)
    path = tmp_path / "cifar10_train.npz"
    content = path.read_bytes()[:keep]
    path.write_bytes(content)
    _refused(tmp_path, str(path), f"{len(content):,} bytes", hashlib.sha256(content).hexdigest())


def test_a_changed_byte_in_an_npz_is_noticed(tmp_path: Path):
    _write_residual_npz(CIFAR10, tmp_path)
    path = tmp_path / "cifar10_train.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    _refused(tmp_path, str(path), "damaged")


def test_an_npz_of_pickled_objects_is_refused(tmp_path: Path):
    _write_images_npz(CIFAR10, tmp_path)
    np.savez(tmp_path / "cifar10_train.npz", images=np.array([{}], object), labels=np.zeros(1, int))
    _refused(tmp_path, "cifar10_train.npz", "images.npy holds objects")


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({"images": np.zeros((2, 3, 32, 32), np.uint8), "labels": np.zeros(2, int)}, ["must be uint8 [N, 32, 32, 3]"]),
        ({"images": np.zeros((2, 32, 32, 3)), "labels": np.zeros(2, int)}, ["float64"]),
        ({"residual": np.zeros((3, 2, 16, 16), np.uint8), "label": np.zeros(2, int)}, ["must be uint8 [3, N, 32, 32]"]),
        ({"images": np.zeros((2, 32, 32, 3), np.uint8), "labels": np.zeros(3, int)}, ["2 images and 3 labels"]),
        ({"images": np.zeros((2, 32, 32, 3), np.uint8), "labels": np.array([0, 10])}, ["a label 10", "from 0 to 9"]),
        ({"images": np.zeros((2, 32, 32, 3), np.uint8), "labels": np.array([0, -1])}, ["a label -1"]),
        ({"images": np.zeros((2, 32, 32, 3), np.uint8), "labels": np.zeros(2)}, ["labels float64"]),
        ({"x": np.zeros(1), "y": np.zeros(1)}, ["holds x, y", "images and labels"]),
    ],
)
def test_an_npz_of_other_arrays_is_refused(arrays: dict[str, np.ndarray], parts: list[str], tmp_path: Path):
    _write_images_npz(CIFAR10, tmp_path)
    np.savez(tmp_path / "cifar10_train.npz", **arrays)
    _refused(tmp_path, "cifar10_train.npz", *parts)


def test_damaged_python_batches_are_refused(tmp_path: Path):
    _write_python(CIFAR10, tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    _refused(tmp_path, "data_batch_3", "damaged", f"{len(content) - 100:,} bytes")
    path.write_bytes(pickle.dumps({b"data": np.zeros((2, 5), np.uint8), b"labels": [0, 0]}, 3))
    _refused(tmp_path, "data_batch_3", "it must be [N, 3072]")
    path.write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 12]}, 3))
    _refused(tmp_path, "data_batch_3", "a label 12")
    path.write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [0, 12]}, 3))
    _refused(tmp_path, "data_batch_3", "lacks")
    path.unlink()
    _refused(tmp_path, "data_batch_3", "cannot read")


def test_damaged_binary_batches_are_refused(tmp_path: Path):
    _write_binary(CIFAR10, tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    _refused(tmp_path, "test_batch.bin", "no whole number of records of 3,073 bytes")
    path.write_bytes(b"\xff" + content[1:])
    _refused(tmp_path, "test_batch.bin", "a label 255")


@pytest.mark.parametrize("keep", [0, 50, 40_000])
def test_a_truncated_archive_is_named_with_its_size_and_hash(keep: int, tmp_path: Path):
    _packed(_write_python)(CIFAR10, tmp_path)
    path = tmp_path / "cifar-10-python.tar.gz"
    content = path.read_bytes()[:keep]
    path.write_bytes(content)
    _refused(tmp_path, str(path), f"{keep:,} bytes", hashlib.sha256(content).hexdigest())


def test_batches_that_python_3_wrote_for_python_2_are_read(tmp_path: Path):
    _write_python(CIFAR10, tmp_path)
    place = tmp_path / CIFAR10.python.folder
    expected = load("cifar10", str(tmp_path))
    for as_text in (False, True):
        for path in list(place.iterdir()):
            batch = pickle.loads(path.read_bytes())
            if as_text:
                batch = {name.decode() if isinstance(name, bytes) else name: value for name, value in batch.items()}
                batch = {
                    name: [entry.decode() if isinstance(entry, bytes) else entry for entry in value]
                    if isinstance(value, list)
                    else value
                    for name, value in batch.items()
                }
            path.write_bytes(pickle.dumps(batch, 2))
        found = load("cifar10", str(tmp_path))
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert found.class_names == expected.class_names == tuple(_names(CIFAR10))


def test_labels_that_are_no_integers_are_refused(tmp_path: Path):
    _write_python(CIFAR10, tmp_path)
    path = tmp_path / CIFAR10.python.folder / "data_batch_2"
    batch = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps({**batch, b"labels": [[1, 2], *batch[b"labels"][1:]]}, 3))
    _refused(tmp_path, "data_batch_2", "'labels' holds something else than integers")


def test_images_of_one_class_only_are_refused(tmp_path: Path):
    images, _ = _made(CIFAR10)
    for part in ("train", "test"):
        np.savez(tmp_path / f"cifar10_{part}.npz", images=images, labels=np.full(len(images), 4))
    _refused(tmp_path, "one class only, '4'")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_a_link_in_an_archive_is_refused(tmp_path: Path, kind: bytes):
    with tarfile.open(tmp_path / CIFAR10.python.archive, "w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        member.type, member.linkname = kind, "data_batch_1"
        archive.addfile(member)
    _refused(tmp_path, "data_batch_1 as a link or folder", "sha256")


def test_an_archive_that_unpacks_to_far_too_much_is_refused_before_it_is_unpacked(tmp_path: Path):
    member = tarfile.TarInfo("padding")
    member.size = 2**40
    with gzip.open(tmp_path / CIFAR10.python.archive, "wb") as archive:
        archive.write(member.tobuf() + bytes(2048))
    _refused(tmp_path, "'padding' of 1.0 TiB", "256.0 MiB")


def test_a_size_that_no_memory_holds_is_refused_with_the_number(tmp_path: Path):
    _write_images_npz(CIFAR10, tmp_path)
    with pytest.raises(UserError, match=r"needs .*TiB.*34 images of 1,000,000 x 1,000,000 pixels.*image_size"):
        load("cifar10", str(tmp_path), image_size=1_000_000)


def test_an_archive_of_something_else_is_refused(tmp_path: Path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("elsewhere/data_batch_1.bin"), io.BytesIO())
    _refused(tmp_path, "lacks data_batch_2.bin", str(path))


@pytest.mark.shared_data
def test_the_real_images_are_decoded_exactly(shared_data: Path):
    with np.load(shared_data / "cifar10_test.npz") as archive:
        images = decode_residual(archive["residual"])
    found = hashlib.sha256(images.tobytes()).hexdigest()
    assert found == "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04"


@pytest.mark.shared_data
@pytest.mark.slow
def test_the_whole_of_cifar10_is_loaded(shared_data: Path):
    dataset = load("cifar10", str(shared_data))
    assert dataset.images.shape == (50_000, 32, 32, 3) and dataset.test_images.shape == (10_000, 32, 32, 3)
    found = hashlib.sha256(dataset.images.tobytes()).hexdigest()
    assert found == "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a"
    assert (
        np.bincount(dataset.labels).tolist() == [5000] * 10 and np.bincount(dataset.test_labels).tolist() == [1000] * 10
    )
    assert dataset.class_names[:3] == ("airplane", "automobile", "bird") and dataset.notes == ()
