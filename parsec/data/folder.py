"""Images of one's own: a folder with one subfolder for each class, in any format that Pillow reads."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from parsec.data.dataset import Dataset, check_size, checked, with_test_part
from parsec.data.images import decode, to_square
from parsec.errors import UserError
from parsec.files import existing_folder

# Of the images, for the test, where there is no test part.
TEST_FRACTION = 0.2
_TRAIN_FOLDERS, _TEST_FOLDERS = ("train", "training"), ("test", "testing", "val", "valid", "validation")
_NAMED = 10


class Parts(NamedTuple):
    """The parts of a folder of images.

    Attributes:
      folder: the whole.
      root: folder of the classes to train on.
      classes: their names, in order.
      test_root: folder of the classes of the test part, or None.
      test_classes: their names, in order; each is one of `classes`.
      left_out: names of other parts that the folder has.
    """

    folder: Path
    root: Path
    classes: tuple[str, ...]
    test_root: Path | None
    test_classes: tuple[str, ...]
    left_out: tuple[str, ...]


def load_images(data_dir: str, image_size: int) -> Dataset:
    """Returns the images under a folder, RGB, each a centred square.

    A folder is parted already where it has a subfolder `train` or `training`, in any case, that itself has subfolders:
    those are the classes, and the first of `test`, `testing`, `val`, `valid` and `validation` that exists is the test
    part, with the same classes; the others are left out. Otherwise the folder's own subfolders are the classes. Without
    a test part a fifth of the images, stratified, become it, always the same. Hidden files and folders are passed over;
    files lie in a class at any depth.

    Args:
      data_dir: the folder.
      image_size: side in pixels: the short side is scaled to it and the centre cut out.

    Returns:
      A `Dataset`; classes and files in the order of their names. `notes` counts and names the unreadable files.

    Raises:
      UserError: no folder, fewer than two classes, a class without a readable image, or a test class never trained on.
    """
    check_image_size(image_size)
    folder, root, classes, test_root, test_classes, left_out = find_parts(data_dir)
    images, labels, unreadable = _read_part(root, classes, image_size)
    test_images, test_labels = images[:0], labels[:0]
    if test_root is not None:
        test_images, local, more = _read_part(test_root, test_classes, image_size)
        test_labels = np.array([classes.index(name) for name in test_classes], np.int32)[local]
        unreadable += more
    names = [str(path.relative_to(folder)) for path in unreadable]
    notes = (f"{unreadable_files(names)} skipped: {named(names)}",) * bool(names)
    if test_root is not None:
        notes += (f"the test part is {test_root.name}" + f"; left out: {named(left_out)}" * bool(left_out),)
    dataset = checked(Dataset("images", images, labels, test_images, test_labels, classes, notes))
    return dataset if len(test_labels) else with_test_part(dataset, TEST_FRACTION)


def check_image_size(image_size: int) -> None:
    """Raises `UserError` where images of any size have no size to be scaled to."""
    if image_size < 1:
        raise UserError(f"image_size {image_size} is too small; give the side in pixels to which images are resized")


def find_parts(data_dir: str) -> Parts:
    """Returns the parts and classes of a folder, as `load_images` says, before any image is looked at.

    Raises:
      UserError: no folder, fewer than two classes, or a test class never trained on.
    """
    if not data_dir:
        raise UserError("this dataset needs --config.data_dir=FOLDER, a folder with one subfolder of images per class")
    folder = existing_folder(data_dir)
    inside = {name.lower(): name for name in _subfolders(folder)}
    train = next((folder / inside[name] for name in _TRAIN_FOLDERS if name in inside), folder)
    parted = train != folder and bool(_subfolders(train))
    root = train if parted else folder
    classes = _subfolders(root)
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise UserError(f"{root} needs a subfolder of images for each of at least 2 classes; it has {found}")
    others = [inside[name] for name in _TEST_FOLDERS if name in inside] if parted else []
    test_root = folder / others[0] if others else None
    test_classes = _subfolders(test_root) if test_root is not None else ()
    if strange := [name for name in test_classes if name not in classes]:
        raise UserError(f"{test_root} has the class {strange[0]!r}, which {root} has not")
    return Parts(folder, root, classes, test_root, test_classes, tuple(others[1:]))


def class_files(folder: Path) -> list[Path]:
    """Returns the files of a class, at any depth, hidden ones apart, in the order of their names."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def unreadable_files(names: Sequence[str]) -> str:
    """Returns how many files are unreadable, in words."""
    return "1 unreadable file" if len(names) == 1 else f"{len(names)} unreadable files"


def named(names: Sequence[str]) -> str:
    """Returns the first ten names, and how many more there are."""
    # A name may hold anything but "/": a line's end is shown, not printed.
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown


def _subfolders(folder: Path) -> tuple[str, ...]:
    try:
        found = (path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        return tuple(sorted(found))
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror or error}") from error


def _read_part(root: Path, classes: Sequence[str], image_size: int) -> tuple[np.ndarray, np.ndarray, list[Path]]:
    """Returns images uint8 [N, S, S, 3], labels int32 [N] as indices into `classes`, and the files left out."""

    def read(path: Path) -> np.ndarray | None:
        try:
            return np.asarray(to_square(decode(path, "RGB", image_size), image_size))
        # Pillow's decoders raise what a damaged byte leads them to; whichever it is, the file is unreadable.
        except Exception:
            return None

    images: list[np.ndarray] = []
    labels: list[int] = []
    unreadable: list[Path] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for label, name in enumerate(classes):
            paths = class_files(root / name)
            check_size(len(images) + len(paths), image_size, 3)
            before = len(images)
            for path, image in zip(paths, pool.map(read, paths), strict=True):
                if image is None:
                    unreadable.append(path)
                else:
                    images.append(image)
                    labels.append(label)
            if len(images) == before:
                endings = ", ".join(sorted({path.suffix.lower() or "no ending" for path in paths}))
                found = (
                    f"{len(paths)} files ({endings}), none of which Pillow reads: convert them" if paths else "no file"
                )
                raise UserError(f"class folder {root / name} holds no readable image: {found}")
    stacked = np.stack(images) if images else np.zeros((0, image_size, image_size, 3), np.uint8)
    return stacked, np.array(labels, np.int32), unreadable
