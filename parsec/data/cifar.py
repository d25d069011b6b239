"""CIFAR-10 and CIFAR-100 from files of every official form, or through TensorFlow Datasets.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; 50,000 training and 10,000 test
images of 32x32, RGB. The official python batches are pickles (read by `parsec.data.unpickle`, which runs nothing of
them); the binary batches are records of one label byte (CIFAR-100: coarse, then fine) and 3,072 pixels, channel first.
"""

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from parsec.data.dataset import Dataset, check_labels, checked, resized
from parsec.data.tfds import Generate, load_tfds
from parsec.data.unpickle import unpickle
from parsec.errors import UserError, one_line, shown
from parsec.files import describe, existing_folder, read_bytes, read_npz
from parsec.footprint import readable

_PIXELS = 32 * 32 * 3
# CIFAR-100's pickled training batch, the largest of all, is 155 MB.
_LARGEST_MEMBER = 2**28
_HOME = "www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class Form:
    """One official form of the files.

    Attributes:
      folder: the folder that the archive unpacks to.
      archive: the archive's name.
      train: names of the training files, in order.
      test: name of the test file.
      names: name of the file with the class names.
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    names: str

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that is read."""
        return (*self.train, self.test, self.names)


@dataclass(frozen=True)
class Cifar:
    """What tells one of the two datasets from the other.

    Attributes:
      name: of the dataset, and the beginning of its .npz files.
      num_classes: 10 or 100.
      python: the pickled form.
      binary: the form of plain records.
      label_key: of the labels in a pickled batch.
      names_key: of the class names in the pickled description.
      label_bytes: before the pixels of a binary record; the last of them is the label.
    """

    name: str
    num_classes: int
    python: Form
    binary: Form
    label_key: bytes
    names_key: bytes
    label_bytes: int


CIFAR10 = Cifar(
    name="cifar10",
    num_classes=10,
    python=Form(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        names="batches.meta",
    ),
    binary=Form(
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test="test_batch.bin",
        names="batches.meta.txt",
    ),
    label_key=b"labels",
    names_key=b"label_names",
    label_bytes=1,
)
CIFAR100 = Cifar(
    name="cifar100",
    num_classes=100,
    python=Form("cifar-100-python", "cifar-100-python.tar.gz", ("train",), "test", "meta"),
    binary=Form("cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), "test.bin", "fine_label_names.txt"),
    label_key=b"fine_labels",
    names_key=b"fine_label_names",
    label_bytes=2,
)


def load_cifar10(data_dir: str, image_size: int) -> Dataset:
    """Returns CIFAR-10; see `load_cifar`."""
    return load_cifar(CIFAR10, data_dir, image_size)


def load_cifar100(data_dir: str, image_size: int) -> Dataset:
    """Returns CIFAR-100 with its 100 fine labels; see `load_cifar`."""
    return load_cifar(CIFAR100, data_dir, image_size)


def load_cifar(cifar: Cifar, data_dir: str, image_size: int) -> Dataset:
    """Returns CIFAR with its official training and test parts.

    Args:
      cifar: which of the two.
      data_dir: a folder; the first of these in it is read: NAME_train.npz with NAME_test.npz (uint8 `images`
        [N, 32, 32, 3] with `labels` [N], or the `residual` form of `decode_residual` with `label`), the folder of
        python or binary batches (the folder itself may be given), the archive of either, and what TensorFlow Datasets
        prepared there. Empty: TensorFlow Datasets, which downloads what it has not yet.
      image_size: side in pixels; 0 keeps 32.

    Raises:
      UserError: there is no such data, or it is damaged; the file is named.
    """
    if not data_dir:
        return _load_prepared(cifar, "", image_size)
    folder = existing_folder(data_dir)
    npz = [folder / f"{cifar.name}_{part}.npz" for part in ("train", "test")]
    if any(path.exists() for path in npz):
        return resized(_read_npz_pair(cifar, *npz), image_size)
    for form, read in ((cifar.python, _read_python), (cifar.binary, _read_binary)):
        for place in (folder / form.folder, folder):
            if (place / form.train[0]).is_file():
                return resized(read(cifar, lambda name, place=place: read_bytes(place / name), str(place)), image_size)
    for form, read in ((cifar.python, _read_python), (cifar.binary, _read_binary)):
        if (folder / form.archive).is_file():
            members = _unpack(folder / form.archive, form.files)
            return resized(read(cifar, members.__getitem__, str(folder / form.archive)), image_size)
    if (folder / cifar.name).is_dir():
        return _load_prepared(cifar, data_dir, image_size)
    raise UserError(
        f"no {cifar.name} in data_dir {data_dir!r}; it may hold {npz[0].name} and {npz[1].name}, "
        f"{cifar.python.folder}/, {cifar.binary.folder}/, {cifar.python.archive}, {cifar.binary.archive}, "
        f"or {cifar.name}/ as TensorFlow Datasets prepares it"
    )


def tfds_examples(cifar: Cifar) -> Generate:
    """Returns the reader of the binary batches with which TensorFlow Datasets prepares this dataset.

    Its own reader needs TensorFlow for two things only: to open the files and to write PNG. The examples are the same.
    """

    def generate(prefix: str, paths: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        index = 0
        for path in map(Path, paths):
            for image, label in zip(*read_records(path.read_bytes(), cifar.label_bytes, describe(path)), strict=True):
                coarse = {"coarse_label": int(label[0])} if cifar.label_bytes == 2 else {}
                png = io.BytesIO()
                Image.fromarray(image).save(png, "PNG")
                png.seek(0)
                yield index, {"id": f"{prefix}{index:05d}", "image": png, "label": int(label[-1]), **coarse}
                index += 1

    return generate


def decode_residual(residual: np.ndarray) -> np.ndarray:
    """Returns the images whose residuals were stored, exactly.

    Each plane holds the differences along both axes, modulo 256, of green, and of red and blue less green; deflate
    packs those better than pixels.

    Args:
      residual: uint8 [3, N, H, W].

    Returns:
      uint8 [N, H, W, 3], RGB.
    """
    planes = np.cumsum(np.cumsum(residual, 2, dtype=np.uint8), 3, dtype=np.uint8)
    images = np.ascontiguousarray(planes.transpose(1, 2, 3, 0))
    images[..., 0] += images[..., 1]
    images[..., 2] += images[..., 1]
    return images


def _load_prepared(cifar: Cifar, data_dir: str, image_size: int) -> Dataset:
    otherwise = f"put {cifar.python.archive} from {_HOME} in a folder and give --config.data_dir=FOLDER"
    return load_tfds(cifar.name, data_dir, image_size, generate=tfds_examples(cifar), otherwise=otherwise)


def _read_npz_pair(cifar: Cifar, train: Path, test: Path) -> Dataset:
    parts, names = [], None
    for path in (train, test):
        if not path.is_file():
            raise UserError(f"{path} is missing; it belongs to {train.name if path == test else test.name} beside it")
        arrays = read_npz(path)
        if "label_names" in arrays:
            names = tuple(str(name) for name in arrays["label_names"].astype(str))
        if {"residual", "label"} <= arrays.keys():
            images, labels, shape, image_key = arrays["residual"], arrays["label"], (3, None, 32, 32), "residual"
        elif {"images", "labels"} <= arrays.keys():
            images, labels, shape, image_key = arrays["images"], arrays["labels"], (None, 32, 32, 3), "images"
        else:
            found = ", ".join(sorted(arrays)) or "nothing"
            raise UserError(f"{describe(path)} holds {found}; it must hold images and labels, or residual and label")
        if images.dtype != np.uint8 or len(images.shape) != 4 or not _fits(images.shape, shape):
            wanted = "[" + ", ".join("N" if size is None else str(size) for size in shape) + "]"
            given = f"{images.dtype} {list(images.shape)}"
            raise UserError(f"{describe(path)}: {image_key} is {given}; it must be uint8 {wanted}")
        images = decode_residual(images) if image_key == "residual" else images
        check_labels(labels, len(images), cifar.num_classes, describe(path))
        parts.append((images, labels))
    return _assemble(cifar, parts[0], parts[1], names or _numbered(cifar))


def _read_python(cifar: Cifar, read: Callable[[str], bytes], place: str) -> Dataset:
    def batch(name: str) -> tuple[np.ndarray, np.ndarray]:
        content = read(name)
        where = f"{name} of {place} ({len(content):,} bytes)"
        found = _unpickled(content, where)
        pixels, labels = found.get(b"data"), found.get(cifar.label_key)
        if not isinstance(pixels, np.ndarray) or not isinstance(labels, list):
            raise UserError(f"{where} lacks the array 'data' or the list {cifar.label_key.decode()!r} of a CIFAR batch")
        if pixels.ndim != 2 or pixels.shape[1] != _PIXELS:
            raise UserError(f"{where}: data is {list(pixels.shape)}; it must be [N, {_PIXELS}]")
        if not all(type(label) is int for label in labels):
            raise UserError(f"{where}: {cifar.label_key.decode()!r} holds something else than integers")
        targets = np.array(labels)
        check_labels(targets, len(pixels), cifar.num_classes, where)
        return _channels_last(pixels), targets

    train = _joined(batch(name) for name in cifar.python.train)
    test = batch(cifar.python.test)
    found = _unpickled(read(cifar.python.names), f"{cifar.python.names} of {place}").get(cifar.names_key, [])
    names = found if isinstance(found, list) else []
    texts = (name.decode("ascii", "replace") if isinstance(name, bytes) else name for name in names)
    return _assemble(cifar, train, test, tuple(name for name in texts if isinstance(name, str)))


def _read_binary(cifar: Cifar, read: Callable[[str], bytes], place: str) -> Dataset:
    def batch(name: str) -> tuple[np.ndarray, np.ndarray]:
        content = read(name)
        where = f"{name} of {place} ({len(content):,} bytes)"
        images, labels = read_records(content, cifar.label_bytes, where)
        check_labels(labels[:, -1], len(images), cifar.num_classes, where)
        return images, labels[:, -1]

    train = _joined(batch(name) for name in cifar.binary.train)
    test = batch(cifar.binary.test)
    names = read(cifar.binary.names).decode("ascii", "replace").split()
    return _assemble(cifar, train, test, tuple(names))


def read_records(content: bytes, label_bytes: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images uint8 [N, 32, 32, 3] and label bytes uint8 [N, label_bytes] of a file of binary records.

    Raises:
      UserError: the size is no whole number of records; it opens with `where`.
    """
    record = label_bytes + _PIXELS
    if len(content) == 0 or len(content) % record:
        raise UserError(f"{where} is no whole number of records of {record:,} bytes: cut short, or another format")
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return _channels_last(rows[:, label_bytes:]), rows[:, :label_bytes]


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _unpickled(content: bytes, where: str) -> dict:
    try:
        return unpickle(content)
    except pickle.UnpicklingError as error:
        raise UserError(f"{where} is damaged or no CIFAR batch: {one_line(error)}") from error


def _unpack(archive: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Returns the wanted members of a .tar.gz by their last name, read in one pass; nothing is written to the disk."""
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(read_bytes(archive)), mode="r:gz") as tar:
            for member in tar:
                name = member.name.rsplit("/", 1)[-1]
                # Before the next member is looked for, which unpacks this one.
                if member.size > _LARGEST_MEMBER:
                    raise UserError(
                        f"{describe(archive)} holds {shown(name)} of {readable(member.size)}; no file of CIFAR is "
                        f"larger than {readable(_LARGEST_MEMBER)}"
                    )
                if name in names and not member.isfile():
                    raise UserError(f"{describe(archive)} holds {name} as a link or folder, not as a file")
                if name in names and (file := tar.extractfile(member)) is not None:
                    members[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"damaged or no .tar.gz archive: {describe(archive)}: {one_line(error)}") from error
    if missing := [name for name in names if name not in members]:
        raise UserError(f"{describe(archive)} lacks {', '.join(missing)}: cut short, or another archive")
    return members


def _joined(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return all(size is None or size == given for given, size in zip(shape, wanted, strict=True))


def _numbered(cifar: Cifar) -> tuple[str, ...]:
    return tuple(str(label) for label in range(cifar.num_classes))


def _assemble(
    cifar: Cifar,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    names: tuple[str, ...],
) -> Dataset:
    notes = ()
    if (len(train[0]), len(test[0])) != (50_000, 10_000):
        notes = (f"{len(train[0]):,} training and {len(test[0]):,} test images; the full set has 50,000 and 10,000",)
    if len(names) != cifar.num_classes:
        names = _numbered(cifar)
    return checked(Dataset(cifar.name, train[0], train[1], test[0], test[1], names, notes))
