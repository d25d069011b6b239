"""Images that are streamed: read and decoded while the network trains, in threads or processes, never held in memory.

In memory are the names and labels of files at most. Which examples make up a batch, and how each is cropped, is a
function of the seed and the step's number alone: the order is a permutation of all examples, made new for every epoch,
that can be asked for single places. Grain (https://github.com/google/grain) permutes, reads ahead and shares the work
out; how many processes decode changes no batch.

An image that cannot be read is passed over. In training the next readable one, in the order of the part, stands in for
it; in an evaluation it does not count. Either way it is reported by name.
"""

import contextlib
import gc
import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import parent_process, resource_tracker
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np

from parsec.data.dataset import split_test, stratified
from parsec.data.folder import TEST_FRACTION, check_image_size, class_files, find_parts
from parsec.data.images import decode, random_crop, to_centre
from parsec.data.memory import Batches, steps_per_epoch
from parsec.data.source import RawBatch
from parsec.data.tfds import TEST_SPLITS, damaged, open_builder, prepare, splits_of
from parsec.errors import UserError
from parsec.files import expanded

IMAGENET = "imagenet"
# The usual mean and deviation of ImageNet's channels, in units of the pixels.
MEAN, STD = 255 * np.array([0.485, 0.456, 0.406], np.float32), 255 * np.array([0.229, 0.224, 0.225], np.float32)
_PREFIX, _FOLDER, _TFDS = "stream:", "images", "tfds:"
_IMAGENET_TFDS = "imagenet2012"
# Batches that are decoded side by side in one process, each by a thread; at most twice as many wait to be taken.
_MOST_THREADS = 8
# Batches that each of several processes keeps ready.
_READY = 1

# `feed(index) -> what step `index` is fed`; steps are asked for in their order.
Feed = Callable[[int], Batches | RawBatch]


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


class StreamedPart(NamedTuple):
    """One part of a dataset, and how it is read.

    Attributes:
      examples: the whole.
      rows: int32 [N], those of the part.
      image_size: side in pixels.
      crop_area: least share of an image's area that a random crop keeps in training; 1 cuts the centre out.
      workers: processes that decode; 0 decodes in threads of this one.
      seed: of order and crops.
      report: is given the names of images that could not be read, as soon as their batch is taken.
      most_unreadable: images in a row that may be passed over; beyond them an image stays black, and all are reported.
    """

    examples: Examples
    rows: np.ndarray
    image_size: int
    crop_area: float = 1.0
    workers: int = 0
    seed: int = 0
    report: Callable[[list[str]], None] = lambda names: None
    most_unreadable: int = 0

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.rows)


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


@contextlib.contextmanager
def feeding(part: Batches | StreamedPart, batch_size: int) -> Iterator[Feed]:
    """Yields what gives each training step its images: all of them where they are in memory, or the step's own batch.

    Batches are read ahead of the steps, from the first that is asked for on; whoever asks out of turn waits.

    Args:
      part: the images.
      batch_size: B.

    Raises:
      UserError: the batch is empty, or larger than the data; or, of a feed, a decoding process died.
    """
    if isinstance(part, Batches):
        in_memory: Batches = part
        yield lambda index: in_memory
        return
    steps_per_epoch(part.num_examples, batch_size)
    places = _grain().MapDataset.range(part.num_examples).seed(part.seed).shuffle()
    batches = places.random_map(_ForTraining(*_read_by(part), part.crop_area, part.most_unreadable + 1))
    batches = batches.batch(batch_size, drop_remainder=True).repeat()
    readers: list[Any] = []
    expected = -1

    def feed(index: int) -> RawBatch:
        nonlocal expected
        if index != expected:
            # One at a time: each holds processes and batches.
            _close(readers)
            readers.append(_read_ahead(batches[index:], part.workers))
        images, labels, at, missed = _next(readers[0])
        expected = index + 1
        _report(part, at, missed)
        return _raw(images, labels)

    try:
        yield feed
    finally:
        _close(readers)


def stream_once(part: StreamedPart, batch_size: int) -> Iterator[tuple[RawBatch, np.ndarray]]:
    """Yields every image of a part once, in order, for an evaluation.

    Args:
      part: the images; `crop_area` and `seed` mean nothing here.
      batch_size: B.

    Yields:
      A batch of B, and weights float32 [B]: 1, and 0 for an image that cannot be read, or that fills the last batch up.

    Raises:
      UserError: a decoding process died.
    """
    batches = _grain().MapDataset.range(part.num_examples).map(_ForEvaluation(*_read_by(part))).batch(batch_size)
    readers = [_read_ahead(batches, part.workers)]
    try:
        for _ in range(len(batches)):
            images, labels, at, missed = _next(readers[0])
            _report(part, at, missed)
            weights = (missed == 0).astype(np.float32)
            filled = batch_size - len(labels)
            images = np.pad(images, ((0, filled), (0, 0), (0, 0), (0, 0)))
            yield _raw(images, np.pad(labels, (0, filled))), np.pad(weights, (0, filled))
    finally:
        _close(readers)


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


@dataclass(frozen=True)
class _ForTraining:
    """Reads the image at a place of a part, cropped at random: (pixels, label, place, images passed over)."""

    examples: Examples
    rows: np.ndarray
    image_size: int
    crop_area: float
    most: int

    def __call__(self, place: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        for missed in range(min(self.most, len(self.rows))):
            # Whatever a damaged file or record leads to, it is unreadable.
            with contextlib.suppress(Exception):
                content, label = self.examples.read(int(self.rows[(place + missed) % len(self.rows)]))
                image = random_crop(decode(content, "RGB"), self.image_size, self.crop_area, rng)
                return _element(np.asarray(image), label, place, missed)
        return _element(_black(self.image_size), 0, place, min(self.most, len(self.rows)))


@dataclass(frozen=True)
class _ForEvaluation:
    """Reads the image at a place of a part, its centre: (pixels, label, place, 1 where it cannot be read)."""

    examples: Examples
    rows: np.ndarray
    image_size: int

    def __call__(self, place: int) -> tuple[np.ndarray, ...]:
        with contextlib.suppress(Exception):
            content, label = self.examples.read(int(self.rows[place]))
            # What is cut away of the short side is left out of the draft too.
            image = to_centre(decode(content, "RGB", -(-self.image_size * 256 // 224)), self.image_size)
            return _element(np.asarray(image), label, place, 0)
        return _element(_black(self.image_size), 0, place, 1)


def _element(pixels: np.ndarray, *numbers: int) -> tuple[np.ndarray, ...]:
    return pixels, *(np.array(number, np.int32) for number in numbers)


def _black(size: int) -> np.ndarray:
    return np.zeros((size, size, 3), np.uint8)


def _read_by(part: StreamedPart) -> tuple[Examples, np.ndarray, int]:
    return part.examples, part.rows, part.image_size


def _raw(images: np.ndarray, labels: np.ndarray) -> RawBatch:
    return RawBatch(*map(jnp.asarray, (images, labels, MEAN, STD)))


def _report(part: StreamedPart, at: np.ndarray, missed: np.ndarray) -> None:
    """Reports the images passed over: so many from each place on; raises `UserError` where those are all there are."""
    places = [int(place) + beyond for place, count in zip(at, missed, strict=True) for beyond in range(int(count))]
    if places:
        part.report([part.examples.name(int(part.rows[place % part.num_examples])) for place in places])
    if (missed >= part.num_examples).any():
        raise UserError(f"none of the {part.num_examples} images of a part can be read")


def _read_ahead(batches: Any, workers: int) -> Any:
    """Returns an iterator over a map dataset that decodes ahead, in `workers` processes or else in threads."""
    grain = _grain()
    if workers:
        # Python's own helper; to start it would unblock what `_next` blocks.
        resource_tracker.ensure_running()
        ahead = batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_READY)
        return iter(ahead.mp_prefetch(options, worker_init_fn=_begin_worker))
    threads = min(os.cpu_count() or 1, _MOST_THREADS)
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


def _next(reader: Any) -> tuple[np.ndarray, ...]:
    # The first call starts the processes, and they inherit what is blocked: a Ctrl-C is for the one that trains.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return next(reader)
    except RuntimeError as error:
        # Grain's word for it; the functions that read raise nothing.
        if "terminated unexpectedly" not in str(error):
            raise
        raise UserError(
            "a process that decodes images died, for lack of memory or of room in /dev/shm; lower "
            "--config.data.workers, or set it to 0"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _close(readers: list[Any]) -> None:
    while readers:
        readers.pop().close()
    # Grain's iterators are cycles; one that outlives the interpreter complains.
    gc.collect()


def _begin_worker(worker: int, workers: int) -> None:
    """Has a process that decodes end when the one that it works for does, however that is."""
    del worker, workers
    parent = parent_process()

    def end_too() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_too, daemon=True).start()


def _grain() -> Any:
    # Two seconds, which a run on images in memory need not spend.
    import grain
    from absl import flags

    # Grain asks for flags of its own when it starts a process, whoever the program's command line belongs to.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    return grain


def _open_folder(name: str, data_dir: str) -> StreamedDataset:
    folder, root, classes, test_root, test_classes = find_parts(data_dir)
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
