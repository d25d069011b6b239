"""Any image-classification dataset of TensorFlow Datasets, read without TensorFlow.

The files are array_record, which the `array_record` package reads by itself; the images are decoded by Pillow. Only
some datasets of the catalogue need TensorFlow, once, to be prepared; where a loader here knows a dataset's source
files (CIFAR), it prepares that without.
"""

import difflib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from parsec.data.dataset import Dataset, check_size, checked, resized, with_test_part
from parsec.data.images import decode, to_square
from parsec.errors import UserError, one_line

# `generate(...) -> (key, example) ...` of what the dataset's builder hands to its own, as of its source files.
Generate = Callable[..., Iterator[tuple[int, dict[str, Any]]]]

# The test part is the first of these whose labels are public, or else a part of the training images.
TEST_SPLITS = ("test", "validation")
TEST_FRACTION = 0.2
PREPARE_ELSEWHERE = "prepare it where there is a network and give --config.data_dir=FOLDER"
_CHUNK = 1024
_PATIENCE_SECONDS = 10


def load_tfds(
    name: str,
    data_dir: str,
    image_size: int,
    *,
    generate: Generate | None = None,
    otherwise: str = PREPARE_ELSEWHERE,
) -> Dataset:
    """Returns a dataset of the catalogue, downloaded and prepared first where it is not yet.

    Args:
      name: as the catalogue spells it, such as "mnist" or "cmaterdb/bangla".
      data_dir: folder of prepared datasets; empty for the usual one (TFDS_DATA_DIR or ~/tensorflow_datasets).
      image_size: side in pixels; 0 keeps the dataset's own, which must then be the same for every image.
      generate: replaces the dataset's own reader of its source files, to prepare it without TensorFlow.
      otherwise: what the error for data that cannot be fetched tells its reader to do.

    Returns:
      A `Dataset`; its test part is the split `test`, or else `validation`, whichever is first to have labels.

    Raises:
      UserError: no such dataset, not one of images with one label each, no network to fetch it, or damaged files.
    """
    import tensorflow_datasets as tfds  # half a second, which a run on other data need not spend

    builder, image_key, label_key = open_builder(name, data_dir)
    if not builder.is_prepared():
        prepare(builder, name, generate=generate, otherwise=otherwise)
    splits = splits_of(builder, name)
    num_channels = builder.info.features[image_key].shape[-1]

    def part(split: str) -> tuple[np.ndarray, np.ndarray]:
        try:
            source = builder.as_data_source(split, decoders={image_key: tfds.decode.SkipDecoding()})
            return _read(source, image_key, label_key, num_channels, image_size, name)
        except UserError:
            raise
        except Exception as error:
            raise damaged(builder, name, error) from error

    images, labels = part("train")
    test_images, test_labels = images[:0], labels[:0]
    for split in TEST_SPLITS:
        if split in splits and not len(test_labels):
            found = part(split)
            if len(found[1]) and found[1].min() >= 0:
                test_images, test_labels = found
    names = tuple(builder.info.features[label_key].names)
    dataset = checked(Dataset(name, images, labels, test_images, test_labels, names))
    return resized(dataset if len(test_labels) else with_test_part(dataset, TEST_FRACTION), image_size)


def open_builder(name: str, data_dir: str) -> tuple[Any, str, str]:
    """Returns the builder of a dataset and the names of the image and the label among its features.

    Args:
      name: as the catalogue spells it.
      data_dir: see `load_tfds`.

    Raises:
      UserError: no such dataset, or not one of images with one label each.
    """
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        close = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"TensorFlow Datasets has no {name!r}{hint}") from error
    except Exception as error:
        raise UserError(f"TensorFlow Datasets cannot open {name!r}: {one_line(error)}") from error
    return builder, *_keys(builder.info, name)


def splits_of(builder: Any, name: str) -> list[str]:
    """Returns the splits of a prepared dataset; raises `UserError` where there is none to train on."""
    splits = list(builder.info.splits)
    if "train" not in splits:
        raise UserError(f"tfds:{name} has no split 'train'; it has {', '.join(splits) or 'none'}")
    return splits


def damaged(builder: Any, name: str, error: Exception) -> UserError:
    """Returns the error for prepared files that cannot be read."""
    return UserError(
        f"cannot read the prepared {name} in {builder.data_dir}: {one_line(error)}; delete that folder to have "
        "it prepared again"
    )


def _keys(info: Any, name: str) -> tuple[str, str]:
    """Returns the names of the image and the label among the dataset's features."""
    import tensorflow_datasets as tfds

    features = info.features if isinstance(info.features, tfds.features.FeaturesDict) else {}
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    supervised = info.supervised_keys or ("image", "label")
    if supervised[0] in images and supervised[1] in labels:
        return supervised[0], supervised[1]
    if len(images) == 1 and len(labels) == 1:
        return images[0], labels[0]
    found = ", ".join(str(key) for key in features) or "none"
    raise UserError(f"tfds:{name} does not hold images with one class label each; its features are {found}")


def prepare(builder: Any, name: str, *, generate: Generate | None = None, otherwise: str = PREPARE_ELSEWHERE) -> None:
    """Downloads and prepares a dataset; see `load_tfds` for the arguments.

    Raises:
      UserError: no network, files that have to be fetched by hand, or damaged ones.
    """
    root = Path(builder._data_dir_root).expanduser()
    by_hand, manual = builder.MANUAL_DOWNLOAD_INSTRUCTIONS, root / "downloads" / "manual"
    if by_hand and not (manual.is_dir() and any(manual.iterdir())):
        raise UserError(
            f"{name} is not prepared in {root} and has to be fetched by hand ({' '.join(by_hand.split())}); put the "
            f"files into {manual} and run: tfds build {name} --data_dir={root} --file_format=array_record (needs "
            "TensorFlow, once), or unpack them into a folder for each class and give --config.data_dir=FOLDER"
        )
    unreachable = _unreachable(builder)
    advice = f"{otherwise}, or run --config=digits_search, which needs no data"
    if unreachable:
        raise UserError(f"{name} is not on this machine and cannot be fetched: {unreachable}; {advice}")
    if generate is not None:
        builder._generate_examples = generate
    try:
        builder.download_and_prepare()
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise UserError(
            f"preparing tfds:{name} needs TensorFlow, once (pip install tensorflow-cpu); reading it afterwards does not"
        ) from error
    # Whatever the download, the source files or the disk may do; the cause is what helps its user.
    except Exception as error:
        raise UserError(f"cannot fetch and prepare {name}: {one_line(error)}; {advice}") from error


def _unreachable(builder: Any) -> str:
    """Returns why the dataset's source cannot be reached; empty where it can, or where it was downloaded before.

    Asked first because the downloader itself tries a dead network for minutes.
    """
    urls = list(builder.url_infos)
    downloads = Path(builder._data_dir_root).expanduser() / "downloads" / builder.name
    done = [
        path for path in downloads.glob("*") if path.is_file() and ".tmp" not in path.name and path.suffix != ".INFO"
    ]
    if not urls or done:
        return ""
    try:
        with urllib.request.urlopen(urllib.request.Request(urls[0], method="HEAD"), timeout=_PATIENCE_SECONDS):
            return ""
    except urllib.error.HTTPError:
        # An answer, if not the one hoped for: the network is there.
        return ""
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return f"no answer from {urlsplit(urls[0]).hostname} ({getattr(reason, 'strerror', None) or reason})"


def _read(
    source: Any, image_key: str, label_key: str, num_channels: int, image_size: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [N, H, W, C] and labels int32 [N] of one split, a `tfds.data_source`."""
    if image_size:
        check_size(len(source), image_size, num_channels)
    images, labels = [], np.empty(len(source), np.int32)
    mode = "L" if num_channels == 1 else "RGB"
    for start in range(0, len(source), _CHUNK):
        indices = range(start, min(start + _CHUNK, len(source)))
        for index, example in zip(indices, source.__getitems__(list(indices)), strict=True):
            image = decode(example[image_key], mode)
            image = to_square(image, image_size) if image_size and image.size != (image_size,) * 2 else image
            images.append(np.asarray(image).reshape(image.height, image.width, -1))
            labels[index] = example[label_key]
            if images[-1].shape != images[0].shape:
                raise UserError(f"the images of tfds:{name} differ in size; give the side to resize to as image_size")
    return np.stack(images) if images else np.zeros((0, 1, 1, num_channels), np.uint8), labels
