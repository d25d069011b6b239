"""Datasets by name, the test part of each fixed once, and the seeded rule that splits the rest."""

from collections.abc import Callable

from parsec.data.cifar import CIFAR10, CIFAR100, load_cifar10, load_cifar100, tfds_examples
from parsec.data.dataset import Dataset, channel_statistics, split
from parsec.data.digits import load_digits
from parsec.data.digits_on_photos import load_digits_on_photos
from parsec.data.examples import is_streamed
from parsec.data.folder import load_images
from parsec.data.idx import NAME as FASHION
from parsec.data.idx import fashion_examples, load_fashion_mnist
from parsec.data.tfds import load_tfds
from parsec.errors import UserError, unknown

# `loader(data_dir, image_size) -> Dataset`; its parts depend on nothing else.
Loader = Callable[[str, int], Dataset]

DATASETS: dict[str, Loader] = {
    "digits": load_digits,
    "digits_on_photos": load_digits_on_photos,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    FASHION: load_fashion_mnist,
    "images": load_images,
}
_PREFIX = "tfds:"
_WITHOUT_TENSORFLOW = {
    **{cifar.name: tfds_examples(cifar) for cifar in (CIFAR10, CIFAR100)},
    FASHION: fashion_examples,
}


def load(name: str, data_dir: str = "", image_size: int = 0) -> Dataset:
    """Returns the dataset of that name.

    Args:
      name: one of `DATASETS`, or "tfds:NAME" for any image-classification dataset of TensorFlow Datasets.
      data_dir: folder where its files lie; empty where it needs none or has a usual place.
      image_size: side of the square images in pixels; 0 keeps the dataset's own.

    Raises:
      UserError: unknown name, missing or damaged files; one line that names the file.
    """
    if is_streamed(name):
        raise UserError(
            f"dataset {name!r} is streamed, which only the training of one network (--config=imagenet_train) and a "
            f"search on shared weights (--config=imagenet_search) do; this needs images in memory, such as "
            f"--config.dataset=images or {_PREFIX}NAME"
        )
    if name.startswith(_PREFIX):
        plain = name.removeprefix(_PREFIX)
        dataset = load_tfds(plain, data_dir, image_size, generate=_WITHOUT_TENSORFLOW.get(plain))
        return dataset._replace(name=name)
    if name not in DATASETS:
        raise unknown("dataset", name, [*DATASETS, f"{_PREFIX}NAME"])
    return DATASETS[name](data_dir, image_size)


__all__ = ["DATASETS", "Dataset", "Loader", "channel_statistics", "load", "split"]
