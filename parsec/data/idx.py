"""Fashion-MNIST from its four IDX files, or through TensorFlow Datasets.

Source: H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms, 2017 (arXiv 1708.07747); 60,000 training and 10,000 test images of 28x28, grey. An IDX file opens with two
zero bytes, a byte for the type of its numbers (8 for uint8) and one for the number of axes, and the length of each axis
as a big-endian uint32; the numbers follow (Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database).
"""

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from parsec.data.dataset import Dataset, checked, resized
from parsec.data.tfds import load_tfds
from parsec.errors import UserError, one_line
from parsec.files import describe, existing_folder, read_bytes

NAME = "fashion_mnist"
CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# Images and labels of both parts; each may end in .gz.
FILES = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
_HOME = "github.com/zalandoresearch/fashion-mnist"
_UINT8, _LARGEST = 8, 2**30


def load_fashion_mnist(data_dir: str, image_size: int) -> Dataset:
    """Returns Fashion-MNIST with its official training and test parts.

    Args:
      data_dir: a folder that holds the four files of `FILES`, packed or not, or the folder `fashion_mnist` as
        TensorFlow Datasets prepares it. Empty: TensorFlow Datasets, which downloads what it has not yet.
      image_size: side in pixels; 0 keeps 28.

    Raises:
      UserError: there is no such data, or it is damaged; the file is named.
    """
    otherwise = f"put the four files of {_HOME} in a folder and give --config.data_dir=FOLDER"
    folder = existing_folder(data_dir) if data_dir else None
    if folder is None or (not any(_found(folder, name) for name in FILES) and (folder / NAME).is_dir()):
        return load_tfds(NAME, data_dir, image_size, generate=fashion_examples, otherwise=otherwise)
    paths = [_found(folder, name) for name in FILES]
    if missing := [name for name, path in zip(FILES, paths, strict=True) if path is None]:
        raise UserError(
            f"no {missing[0]} in data_dir {data_dir!r}, packed as .gz or not; the four files of {_HOME} are "
            f"{', '.join(FILES)}"
        )
    arrays = [read_idx(path, axes) for path, axes in zip(paths, (3, 1, 3, 1), strict=True) if path is not None]
    images, labels, test_images, test_labels = arrays
    dataset = Dataset(NAME, images[..., None], labels, test_images[..., None], test_labels, CLASSES)
    return resized(checked(dataset), image_size)


def read_idx(path: Path, axes: int) -> np.ndarray:
    """Returns the uint8 numbers of an IDX file, packed by gzip or not.

    Args:
      path: the file.
      axes: that it must have.

    Raises:
      UserError: it cannot be read, is no such file, or does not hold what it says.
    """
    content = read_bytes(path)
    if content[:2] == b"\x1f\x8b":
        try:
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(_LARGEST + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"damaged or no .gz file: {describe(path)}: {one_line(error)}") from error
    wanted = bytes((0, 0, _UINT8, axes))
    if content[:4] != wanted:
        raise UserError(
            f"{describe(path)} begins with {content[:4].hex() or 'nothing'}; an IDX file of uint8 with {axes} "
            f"{'axis' if axes == 1 else 'axes'} begins with {wanted.hex()}"
        )
    header = 4 + 4 * axes
    shape = tuple(np.frombuffer(content[4:header].ljust(4 * axes, b"\0"), ">u4").tolist())
    promised = header + math.prod(shape)
    if len(content) != promised:
        held = f"{len(content):,}" if len(content) <= _LARGEST else f"more than {_LARGEST:,}"
        raise UserError(
            f"{describe(path)} promises {promised:,} bytes for {list(shape)} and holds {held}: cut short, or damaged"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def fashion_examples(num_examples: int, data_path: Any, label_path: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields number and example, as TensorFlow Datasets prepares this dataset from its unpacked files.

    Its own reader needs TensorFlow for two things only: to open the files and to write PNG. The examples are the same.
    """
    images, labels = read_idx(Path(data_path), 3), read_idx(Path(label_path), 1)
    for index, (image, label) in enumerate(zip(images[:num_examples], labels[:num_examples], strict=True)):
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        png.seek(0)
        yield index, {"image": png, "label": int(label)}


def _found(folder: Path, name: str) -> Path | None:
    """Returns the file of that name in the folder, packed or not; None where there is neither."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
