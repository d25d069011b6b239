"""Reading the pickled batches of CIFAR without trusting them.

A pickle is a program: loading one can run anything. The official batches hold a dictionary of strings, integers, lists
and one uint8 array, so those are all that is admitted here. Not even numpy's own functions are called: the two classes
below stand in for its dtype and array, and take nothing but a shape and the bytes. Two functions stand in for those by
which Python 3 writes bytes in the protocols of Python 2.
"""

import io
import pickle
from typing import Any

import numpy as np


def unpickle(content: bytes) -> dict[Any, Any]:
    """Returns the dictionary that the pickle holds, its keys and Python 2 strings as bytes, its arrays uint8.

    Args:
      content: a pickle of a dictionary of strings, numbers, containers and uint8 arrays.

    Raises:
      pickle.UnpicklingError: it is damaged, holds no dictionary, or names anything but a uint8 array.
    """
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except pickle.UnpicklingError:
        raise
    # The pickle machine raises whatever a damaged byte leads it to: EOFError, KeyError, IndexError, TypeError ...
    except Exception as error:
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error
    if not isinstance(batch, dict):
        raise pickle.UnpicklingError(f"it holds a {type(batch).__name__}, not a dictionary")
    return {
        name.encode() if isinstance(name, str) else name: value.array if isinstance(value, _Array) else value
        for name, value in batch.items()
    }


class _Uint8:
    """Stands for `numpy.dtype`: only uint8, whatever its state says."""

    def __init__(self, code: str | bytes, *flags: Any):
        del flags
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}; only uint8 arrays are read")

    def __setstate__(self, state: Any) -> None:
        del state


class _Array:
    """Stands for `numpy.ndarray`: a uint8 array of a shape and as many bytes."""

    array = np.zeros(0, np.uint8)

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Uint8, bool, bytes]) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Uint8):
            raise pickle.UnpicklingError("it holds an array of an unknown type; only uint8 arrays are read")
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(subtype: Any, shape: Any, code: Any) -> _Array:
    """Returns the empty array that the pickle then fills; it has no other say."""
    del subtype, shape, code
    return _Array()


def _encode(text: str | bytes, encoding: str | bytes = "latin1") -> bytes:
    """Stands for `_codecs.encode`, by which Python 3 writes bytes to be read by Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes a {type(text).__name__} as {encoding!r}; only bytes are read")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stands for `bytes`, by which Python 3 writes the empty one."""
    return b""


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Uint8,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can call nothing but the stand-ins above."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}; only uint8 arrays are read")
        return _ADMITTED[module_name, global_name]
