"""Labelled images in memory, and the seeded rules that part them.

Everything here is numpy on the host: a dataset is loaded and parted once, before anything is compiled. Images stay
uint8 until a batch is drawn, so that CIFAR-10 takes 180 MB and not 720.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from parsec.data.images import to_square
from parsec.errors import UserError, shown
from parsec.files import arrays_digest
from parsec.footprint import require_memory

# Of the rule that sets a test part aside; never that of a run.
_TEST_SEED = 0


class Dataset(NamedTuple):
    """Labelled images for training, and for a last test where there are any.

    Attributes:
      name: what the dataset was asked for as.
      images: uint8 [N, H, W, C]; C is 1 or 3.
      labels: int32 [N], each in 0 .. len(class_names) - 1.
      test_images: uint8 [M, H, W, C]; M may be 0.
      test_labels: int32 [M].
      class_names: one name for each label.
      notes: what its user should know of how it was read, a line each; such as files left out.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The sha256 of the images and labels, as hexadecimal text."""
        return arrays_digest(self.images, self.labels, self.test_images, self.test_labels)


def checked(dataset: Dataset) -> Dataset:
    """Returns the dataset, its arrays as the types that `Dataset` promises.

    Raises:
      UserError: the images are no uint8 [N, H, W, 1 or 3], the two parts differ in shape, a part has another number of
        labels than of images, a label is out of range, or there are no training images of two classes.
    """
    shape = dataset.images.shape[1:]
    for part, images, labels in (
        ("training", dataset.images, dataset.labels),
        ("test", dataset.test_images, dataset.test_labels),
    ):
        where = f"dataset {dataset.name!r}: the {part} part"
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            given = f"{images.dtype} {list(images.shape)}"
            raise UserError(f"{where} holds {given}; images must be uint8 [N, height, width, 1 or 3]")
        if images.shape[1:] != shape:
            raise UserError(f"{where} has images of {list(images.shape[1:])}, the training part of {list(shape)}")
        check_labels(labels, len(images), len(dataset.class_names), where)
    if len(dataset.images) == 0:
        raise UserError(f"dataset {dataset.name!r} has no training image")
    if len(seen := np.unique(dataset.labels)) < 2:
        only = dataset.class_names[int(seen[0])]
        raise UserError(
            f"dataset {dataset.name!r} has training images of one class only, {only!r}; it needs two or more"
        )
    return dataset._replace(
        labels=np.asarray(dataset.labels, np.int32), test_labels=np.asarray(dataset.test_labels, np.int32)
    )


def check_labels(labels: np.ndarray, num_images: int, num_classes: int, where: str) -> None:
    """Raises a `UserError` opening with `where` unless `labels` are `num_images` integers in 0 .. num_classes - 1."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"{where} has labels {labels.dtype} {list(labels.shape)}; they must be integers [N]")
    if len(labels) != num_images:
        raise UserError(f"{where} has {num_images} images and {len(labels)} labels")
    if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        worst = labels.max() if labels.max() >= num_classes else labels.min()
        raise UserError(f"{where} has a label {worst}; with {num_classes} classes they run from 0 to {num_classes - 1}")


def stratified(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Parts examples in two, every class in the same proportion.

    The examples are put in order of class, shuffled within each, and taken at equal distances along that order: the
    number taken is `fraction` of all to the nearest one, and of each class to within one. A class is never taken whole.

    Args:
      labels: integers [N].
      fraction: of the examples to take, at least 0 and less than 1.
      seed: the same seed gives the same parts, on every machine.

    Returns:
      Ascending indices int32 of the examples left and of those taken.

    Raises:
      UserError: the fraction is out of range.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"a part of {fraction} of the examples was asked for; it must be at least 0 and less than 1")
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))
    marks = np.floor(np.arange(len(labels) + 1) * fraction + 0.5)
    taken = np.zeros(len(labels), bool)
    taken[order] = np.diff(marks) > 0
    for label in np.unique(labels):
        members = order[labels[order] == label]
        if taken[members].all():
            taken[members[0]] = False
    return np.flatnonzero(~taken).astype(np.int32), np.flatnonzero(taken).astype(np.int32)


def split(dataset: Dataset, valid_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Parts the training images into those for the weights and those for validation.

    Args:
      dataset: the dataset; its test part is not touched.
      valid_fraction: of the training images, for validation; greater than 0 and less than 1.
      seed: see `stratified`.

    Returns:
      (train indices, valid indices), ascending int32, into `dataset.images`.

    Raises:
      UserError: the fraction is out of range, or leaves a part with no image.
    """
    train, valid = stratified(dataset.labels, valid_fraction, seed)
    if len(train) == 0 or len(valid) == 0:
        raise UserError(
            f"valid_fraction {valid_fraction} parts the {len(dataset.labels)} training images of {dataset.name!r} into "
            f"{len(train)} and {len(valid)}; neither may be empty"
        )
    return train, valid


def split_test(labels: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Parts the examples of labels [N] into those to train on and those of the test, ascending int32, stratified.

    Always the same: a search at one seed and a training at another must never see each other's test part.
    """
    return stratified(labels, fraction, _TEST_SEED)


def with_test_part(dataset: Dataset, fraction: float) -> Dataset:
    """Returns the dataset with `fraction` of its training images, by `split_test`, as its test part instead."""
    kept, taken = split_test(dataset.labels, fraction)
    return dataset._replace(
        images=dataset.images[kept],
        labels=dataset.labels[kept],
        test_images=dataset.images[taken],
        test_labels=dataset.labels[taken],
    )


def class_sizes(dataset: Dataset) -> str:
    """Returns, in words, how many classes there are, which is the smallest, which the largest, and what is untested."""
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    tested = np.bincount(dataset.test_labels, minlength=len(dataset.class_names))
    least, most = ((shown(dataset.class_names[at]), counts[at]) for at in (counts.argmin(), counts.argmax()))
    words = f"{len(counts)}, from {least[0]} with {least[1]} to {most[0]} with {most[1]} to learn from"
    untested = [shown(name) for name, count in zip(dataset.class_names, tested, strict=True) if not count]
    if untested:
        words += f"; none for the test of {', '.join(untested[:3])}{' and others' * (len(untested) > 3)}"
    return words


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns each channel's mean and standard deviation, float32 [C], in units of the pixels (0 .. 255).

    Args:
      images: uint8 [N, H, W, C], the training part only. A channel that never varies is given the deviation 1.
    """
    # A histogram of the 256 values is exact and needs no floating-point copy of the images.
    values = np.arange(256, dtype=np.float64)
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[3])])
    shares = counts / counts.sum(1, keepdims=True)
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
    return mean.astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32)


def resized(dataset: Dataset, image_size: int) -> Dataset:
    """Returns the dataset with square images of `image_size` pixels; 0 leaves them as they are.

    Raises:
      UserError: the size is negative, or the images of that size do not fit in memory.
    """
    if image_size < 0:
        raise UserError(
            f"image_size {image_size} is negative; give the side in pixels, or 0 to leave images as they are"
        )
    if image_size == 0 or dataset.images.shape[1:3] == (image_size, image_size):
        return dataset
    check_size(len(dataset.images) + len(dataset.test_images), image_size, dataset.images.shape[3])
    return dataset._replace(
        images=_resize_all(dataset.images, image_size), test_images=_resize_all(dataset.test_images, image_size)
    )


def check_size(count: int, image_size: int, channels: int) -> None:
    """Raises `UserError` where `count` square images uint8 of that side do not fit in memory."""
    things = f"{count:,} images of {image_size:,} x {image_size:,} pixels"
    require_memory({things: count * image_size**2 * channels}, "choose a smaller --config.data.image_size")


def _resize_all(images: np.ndarray, size: int) -> np.ndarray:
    small = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for i, image in enumerate(images):
        squeezed = image[..., 0] if image.shape[2] == 1 else image
        small[i] = np.asarray(to_square(Image.fromarray(squeezed), size)).reshape(small.shape[1:])
    return small
