"""Reading data files that may be missing, cut short or of another kind; errors tell the file and its state."""

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np

from parsec.errors import UserError, one_line


def describe(path: Path) -> str:
    """Returns the file's path, size and sha256 as text for an error; the part that can be had of them."""
    try:
        return f"{path} ({path.stat().st_size:,} bytes, sha256 {file_digest(path)})"
    except OSError as error:
        return f"{path} ({error.strerror or error})"


def file_digest(path: Path) -> str:
    """Returns the sha256 of a file's content in hexadecimal; raises `OSError` where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def arrays_digest(*arrays: np.ndarray) -> str:
    """Returns the sha256 of arrays in hexadecimal: of their types, shapes and contents, wherever they came from."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def existing_folder(data_dir: str) -> Path:
    """Returns `data_dir` as a path.

    Raises:
      UserError: it is no folder that exists.
    """
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.is_file() else "does not exist"
        raise UserError(f"data_dir {data_dir!r} {kind}")
    return folder


def read_bytes(path: Path) -> bytes:
    """Returns the file's content.

    Raises:
      UserError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file by name; nothing in the file is ever executed.

    Raises:
      UserError: the file is missing, cut short, no .npz file, or holds pickled objects.
    """
    try:
        # numpy leaves a file that it opened itself and cannot read to the garbage collector.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UserError(f"not an .npz file: {describe(path)}")
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"damaged or no .npz file: {describe(path)}: {one_line(error)}") from error
