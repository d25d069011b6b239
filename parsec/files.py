"""Data files, which may be missing, cut short or of another kind, read with errors that tell; files replaced whole."""

import contextlib
import hashlib
import math
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from parsec.errors import UserError, one_line, shown
from parsec.footprint import readable, require_memory

# What the arrays of an .npz file may take, and the packing above which a large file is taken for a trap.
LARGEST_NPZ = 2**33
_SUSPECT, _RATIO = 2**28, 100
# What numpy and zipfile raise on a damaged archive, found by cutting and flipping bytes.
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    RuntimeError,
    OverflowError,
    MemoryError,
    SyntaxError,
    NotImplementedError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
# Characters of a path that an error shows.
_LONG = 300
_NPY = b"\x93NUMPY"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


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
    folder = expanded(data_dir)
    try:
        if not folder.is_dir():
            kind = "is a file, not a folder" if folder.is_file() else "does not exist"
            raise UserError(f"data_dir {shown(data_dir)} {kind}")
    except OSError as error:
        raise UserError(f"data_dir {shown(data_dir)}: {error.strerror or error}") from error
    return folder


def expanded(path: str | Path) -> Path:
    """Returns the path with `~` and `~user` replaced by the home they stand for.

    Raises:
      UserError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{shown(str(path))}: {error}") from None


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Replaces the file by the content, on the disk before it takes its place; a crash leaves the old or the new one.

    Raises:
      UserError: where the file cannot be written; the old one stays.
    """
    with writing(path), replacing(path) as hidden, hidden.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an `OSError` raised inside into a `UserError` that names the path and the system's reason."""
    try:
        yield
    except OSError as error:
        where = str(error.filename if isinstance(error.filename, str) else path)
        where = where if len(where) <= _LONG else f"{where[:_LONG]}... ({len(where):,} characters)"
        raise UserError(f"cannot write {where}: {error.strerror or error}{_room(path)}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a hidden file beside the path, which takes its place once it is written: whoever reads finds it whole."""
    hidden = path.with_name(f".{path.name}")
    try:
        yield hidden
        hidden.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise


def cache_home() -> Path:
    """Returns the user's folder for caches; that for temporary files where there is no home."""
    home = os.path.expanduser("~")
    return Path(os.environ.get("XDG_CACHE_HOME") or (tempfile.gettempdir() if home == "~" else f"{home}/.cache"))


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

    What each array says of itself is compared with the size of its entry before anything is read, so that a file that
    promises more than it holds, or more than this machine does, costs neither time nor memory.

    Raises:
      UserError: the file is missing, cut short, no .npz file, holds objects, or would unpack to more than
        `LARGEST_NPZ` bytes or the free memory.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_NPY)) == _NPY:
                raise UserError(f"{describe(path)} is an .npy file of one array; an .npz file is needed (numpy.savez)")
            with zipfile.ZipFile(file) as archive:
                entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
                _check_unpacked(path, sum(entry.file_size for entry in entries))
                return {entry.filename.removesuffix(".npy"): _read_array(archive, entry) for entry in entries}
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except _UNREADABLE as error:
        kind = type(error).__name__
        raise UserError(f"damaged or no .npz file: {describe(path)}: {kind}: {one_line(error)}") from error


def _room(path: Path) -> str:
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            return f" ({shutil.disk_usage(folder).free / 2**20:.0f} MiB free)"
    return ""


def _check_unpacked(path: Path, declared: int) -> None:
    packed = path.stat().st_size
    if declared > LARGEST_NPZ or (declared > _SUSPECT and declared > _RATIO * packed):
        raise UserError(
            f"{describe(path)} would unpack to {readable(declared)}, {declared // max(packed, 1):,} times its size; "
            f"no file of data here is like that (at most {readable(LARGEST_NPZ)})"
        )
    require_memory({f"the arrays of {path}": declared}, "free some, or give a smaller file")


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """Returns one entry's array; raises `ValueError` where it is not as large as it says."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{entry.filename} is of the .npy version {version}")
        shape, _, dtype = _HEADERS[version](file)
        promised = file.tell() + math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError(f"{entry.filename} holds objects, which only a pickle can store")
    if promised != entry.file_size:
        raise ValueError(f"{entry.filename} promises {promised:,} bytes and holds {entry.file_size:,}")
    with archive.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
