"""Classes of image files by a trained network: `python main.py --predict=RUN_DIR FILES_OR_FOLDER [--out=FILE.csv]`.

What runs is the exported program of the run directory, on whatever device there is. Images are decoded and cut square
as they are for training (`parsec.data.images`).
"""

import csv
import io
import math
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from parsec.data.images import decode, to_square
from parsec.errors import UserError, one_line, shown
from parsec.export.stablehlo import load_program
from parsec.files import expanded, write_bytes_atomic
from parsec.jobs.train.export import PROGRAM, network_directory, read_export
from parsec.train.model_file import Metadata, load_metadata

_BATCH = 64
_NAMED = 5


class Prediction(NamedTuple):
    """What the network takes an image for.

    Attributes:
      path: of the file.
      name: of the class, or None where the file could not be read.
      probability: of that class, 0 .. 1; 0 where the file could not be read.
      reason: why the file could not be read, or empty.
    """

    path: Path
    name: str | None
    probability: float
    reason: str


def run_predict(directory: str, given: Sequence[str], out: str | None) -> None:
    """Prints class and probability of each image, a line each; names and counts files that cannot be read.

    Args:
      directory: run directory of a finished training, or of a run with such a stage.
      given: image files, and folders that are searched at any depth, hidden files apart.
      out: a .csv file for file, class and probability, or None.

    Raises:
      UserError: the directory or its export is unusable, nothing was given, no file could be read, or `out` cannot be
        written or does not end in .csv, which no image does.
    """
    target = None if out is None else _csv_path(out)
    if not given:
        raise UserError(f"--predict={directory} needs image files or folders after it")
    paths = list(_files(given))
    if not paths:
        raise UserError(f"there is no file in {', '.join(map(shown, given))}")
    rows, unread = [], []
    for found in predict(network_directory(directory), paths):
        if found.name is None:
            unread.append(found)
            continue
        rows.append(found)
        print(f"{_printable(found.path)}: {found.name} {found.probability:.4f}", flush=True)
    if not rows:
        some = ", ".join(f"{_printable(found.path)} ({found.reason})" for found in unread[:_NAMED])
        more = f" and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
        raise UserError(f"no image could be read of {len(unread)}: {some}{more}")
    for found in unread:
        print(f"cannot read {_printable(found.path)}: {found.reason}", file=sys.stderr)
    if unread:
        print(f"{len(rows)} images read, {len(unread)} files left out", file=sys.stderr)
    if target is not None:
        write_bytes_atomic(target, _table(rows).encode(errors="surrogateescape"))


def predict(directory: Path, paths: Sequence[Path]) -> Iterator[Prediction]:
    """Yields what a trained network takes image files for, in their order; unreadable ones too.

    Raises:
      UserError: the directory holds no trained network, or it or its export is damaged.
    """
    metadata = load_metadata(directory)
    network = load_program(read_export(directory, PROGRAM))
    batch = min(_BATCH, len(paths))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), batch):
            some = paths[start : start + batch]
            read = list(pool.map(lambda path: _read(path, metadata), some))
            # Always as many images, so that one program is compiled.
            pixels = np.zeros((batch, *metadata.image), np.uint8)
            for at, image in enumerate(read):
                if not isinstance(image, str):
                    pixels[at] = image
            probabilities = np.asarray(network(pixels))
            for path, image, row in zip(some, read, probabilities, strict=False):
                if isinstance(image, str):
                    yield Prediction(path, None, 0.0, image)
                else:
                    best = int(row.argmax())
                    yield Prediction(path, metadata.class_names[best], float(row[best]), "")


def _read(path: Path, metadata: Metadata) -> np.ndarray | str:
    """Returns pixels uint8 [H, W, C], or why the file cannot be read."""
    height, width, channels = metadata.image
    try:
        image = decode(path, "L" if channels == 1 else "RGB", math.ceil(max(height, width) / metadata.centre))
        if height == width:
            image = to_square(image, height, metadata.centre)
        else:
            image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR, (1 - metadata.centre) / 2)
        return np.asarray(image, np.uint8).reshape(metadata.image)
    except OSError as error:
        return error.strerror or "no image that Pillow reads"
    # Pillow's decoders raise what a damaged byte leads them to; whichever it is, the file is unreadable.
    except Exception as error:
        return one_line(error)


def _files(given: Sequence[str]) -> Iterator[Path]:
    """Yields the files named, and those in the folders named, in the order of their names."""
    for name in given:
        path = expanded(name)
        if not path.is_dir():
            yield path
            continue
        inside = (file for file in path.rglob("*") if file.is_file())
        yield from sorted(file for file in inside if not any(p.startswith(".") for p in file.relative_to(path).parts))


def _csv_path(out: str) -> Path:
    path = expanded(out)
    if path.suffix != ".csv":
        raise UserError(f"--out={out} must be the name of a .csv file")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UserError(f"cannot write --out={out}: {'it is a folder' if path.is_dir() else 'there is no such folder'}")
    return path


def _table(rows: Sequence[Prediction]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "class", "probability"))
    writer.writerows((found.path, found.name, f"{found.probability:.6f}") for found in rows)
    return text.getvalue()


def _printable(path: Path) -> str:
    # A name may hold anything but "/": a line's end is shown, not printed.
    return str(path) if str(path).isprintable() else repr(str(path))
