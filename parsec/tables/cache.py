"""Arrays that take minutes to work out, kept between runs in the user's cache folder.

The folder is `$XDG_CACHE_HOME/parsec`, or `~/.cache/parsec`. It can be deleted at any time: a file that is missing,
damaged or cannot be written only costs the time to work it out again.
"""

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from parsec.files import cache_home

_DAMAGED = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


def cached(name: str, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the arrays kept under a name, or computes and keeps them.

    Args:
      name: file name without suffix; it must tell apart everything the arrays depend on.
      compute: returns the arrays by name.
    """
    path = cache_folder() / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except _DAMAGED:
        arrays = compute()
    # A name of its own and a rename, so that another process never reads half a file.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
    return arrays


def cache_folder() -> Path:
    """Returns the folder of kept arrays; it may not exist yet."""
    return cache_home() / "parsec"
