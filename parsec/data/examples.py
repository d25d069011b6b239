"""Labelled images that are listed and not read: class folders and prepared records of any number, for streaming.

In memory are the names and labels of files at most; of records of TensorFlow Datasets not even those. They are read, in
any order and in any process, by `parsec.data.stream`.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from parsec.data.dataset import split_test, stratified
from parsec.data.folder import TEST_FRACTION, check_image_size, class_files, find_parts
from parsec.data.tfds import TEST_SPLITS, damaged, open_builder, prepare, splits_of
from parsec.errors import UserError
from parsec.files import expanded

IMAGENET = "imagenet"
_PREFIX, _FOLDER, _TFDS = "stream:", "images", "tfds:"
_IMAGENET_TFDS = "imagenet2012"


class Examples(Protocol):
    """Labelled images, encoded, that can be read in any order and passed to another process."""

    def __len__(self) -> int: ...

    def read(self, row: int) -> tuple[bytes | Path, int]:
        """Returns an image file, or its content, and its label."""
        ...

    def name(self, row: int) -> str:
        """Returns what the image is called in a message."""
        ...


class StreamedDataset(NamedTuple):
    """Labelled images for training and for a last test, none of them read yet.

    Attributes:
      name: what the dataset was asked for as.
      examples: of training.
      labels: int32 [N], or None where they are known only once an image is read.
      rows: int32 [N], those of `examples` to train on.
      test_examples: of the test.
      test_rows: int32 [M], those of `test_examples` to test on.
      class_names: one name for each label.
      digest: sha256 of the names and sizes of all files, as hexadecimal text.
    """

    name: str
    examples: Examples
    labels: np.ndarray | None
    rows: np.ndarray
    test_examples: Examples
    test_rows: np.ndarray
    class_names: tuple[str, ...]
    digest: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What the dataset's user should know; nothing before its images are read."""
        return ()


def is_streamed(name: str) -> bool:
    """Returns whether a dataset of that name is streamed."""
    return name == IMAGENET or name.startswith(_PREFIX)


def open_stream(name: str, data_dir: str, image_size: int) -> StreamedDataset:
    """Returns the dataset of that name, its files listed and none decoded.

    Args:
      name: "stream:images" for a folder of class folders, parted as `parsec.data.folder.load_images` says;
        "stream:tfds:NAME" for one of TensorFlow Datasets; or "imagenet", which is the latter's imagenet2012 where
        `data_dir` is empty or holds it prepared, and else the former.
      data_dir: the folder, or that of prepared datasets.
      image_size: side in pixels that images will be scaled to.

    Raises:
      UserError: unknown name, no size, or missing or damaged data.
    """
    check_image_size(image_size)
    if name == IMAGENET:
        prepared = not data_dir or any(expanded(data_dir).glob(f"{_IMAGENET_TFDS}/*/dataset_info.json"))
        return _open_tfds(name, _IMAGENET_TFDS, data_dir) if prepared else _open_folder(name, data_dir)
    kind = name.removeprefix(_PREFIX)
    if kind == _FOLDER:
        return _open_folder(name, data_dir)
    if kind.startswith(_TFDS):
        return _open_tfds(name, kind.removeprefix(_TFDS), data_dir)
    raise UserError(
        f"unknown dataset {name!r}; streamed are {IMAGENET}, {_PREFIX}{_FOLDER} and {_PREFIX}{_TFDS}NAME of TensorFlow "
        "Datasets"
    )


def split_rows(dataset: StreamedDataset, valid_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Parts the training images into those to learn from and those for validation, as rows int32 of `examples`.

    Stratified where the labels are known, else at random.

    Raises:
      UserError: a fraction above 0 leaves a part with no image.
    """
    labels = np.zeros(len(dataset.rows), np.int32) if dataset.labels is None else dataset.labels
    train, valid = stratified(labels, valid_fraction, seed)
    if len(train) == 0 or (valid_fraction and len(valid) == 0):
        raise UserError(
            f"valid_fraction {valid_fraction} parts the {len(labels)} training images of {dataset.name!r} into "
            f"{len(train)} and {len(valid)}; neither may be empty"
        )
    return dataset.rows[train], dataset.rows[valid]


@dataclass(frozen=True)
class FolderExamples:
    """Files of class folders.

    Attributes:
      folder: that of the dataset.
      paths: of the files, from there.
      labels: int32 [N].
    """

    folder: str
    paths: tuple[str, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> tuple[Path, int]:
        """Returns the file's path and its label."""
        return Path(self.folder, self.paths[row]), int(self.labels[row])

    def name(self, row: int) -> str:
        """Returns the file's path from the dataset's folder."""
        return self.paths[row]


@dataclass(frozen=True)
class TfdsExamples:
    """Records of a split of TensorFlow Datasets.

    Attributes:
      source: a `tfds.data_source` whose images are left encoded.
      split: its name.
      image_key: of the image among the features.
      label_key: of the label.
    """

    source: Any
    split: str
    image_key: str
    label_key: str

    def __len__(self) -> int:
        return len(self.source)

    def read(self, row: int) -> tuple[bytes, int]:
        """Returns the encoded image and its label."""
        example = self.source[row]
        return example[self.image_key], int(example[self.label_key])

    def name(self, row: int) -> str:
        """Returns the record's place in its split."""
        return f"{self.split}[{row}]"


def _open_folder(name: str, data_dir: str) -> StreamedDataset:
    folder, root, classes, test_root, test_classes, _ = find_parts(data_dir)
    digest = hashlib.sha256()

    def examples(root: Path, names: tuple[str, ...]) -> FolderExamples:
        paths: list[str] = []
        labels: list[int] = []
        for each in names:
            files = class_files(root / each)
            if not files:
                raise UserError(f"class folder {root / each} holds no image: no file")
            for file in files:
                paths.append(str(file.relative_to(folder)))
                digest.update(os.fsencode(paths[-1]) + f"\0{file.stat().st_size}\n".encode())
            labels += [classes.index(each)] * len(files)
        return FolderExamples(str(folder), tuple(paths), np.array(labels, np.int32))

    train = examples(root, classes)
    if test_root is not None:
        test = examples(test_root, test_classes)
        rows, test_rows = _all_rows(train), _all_rows(test)
    else:
        test = train
        rows, test_rows = split_test(train.labels, TEST_FRACTION)
    return StreamedDataset(name, train, train.labels[rows], rows, test, test_rows, classes, digest.hexdigest())


def _open_tfds(name: str, plain: str, data_dir: str) -> StreamedDataset:
    import tensorflow_datasets as tfds

    builder, image_key, label_key = open_builder(plain, data_dir)
    if not builder.is_prepared():
        prepare(builder, plain)
    splits = splits_of(builder, plain)

    def examples(split: str) -> TfdsExamples:
        source = builder.as_data_source(split, decoders={image_key: tfds.decode.SkipDecoding()})
        return TfdsExamples(source, split, image_key, label_key)

    try:
        train = test = examples("train")
        # Labels of a test part that are kept secret are below 0.
        labelled = (examples(split) for split in TEST_SPLITS if split in splits)
        test = next((part for part in labelled if len(part) and part.read(0)[1] >= 0), train)
        rows, test_rows = _all_rows(train), _all_rows(test)
        folder = Path(builder.data_dir)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sizes = "".join(f"{path.relative_to(folder)}\0{path.stat().st_size}\n" for path in files)
    except Exception as error:
        raise damaged(builder, plain, error) from error
    if test is train:
        rows, test_rows = split_test(np.zeros(len(train), np.int32), TEST_FRACTION)
    digest = hashlib.sha256(sizes.encode()).hexdigest()
    classes = tuple(builder.info.features[label_key].names)
    return StreamedDataset(name, train, None, rows, test, test_rows, classes, digest)


def _all_rows(examples: Examples) -> np.ndarray:
    return np.arange(len(examples), dtype=np.int32)
