"""Files of JSON lines that a run appends to, one for each thing that must not be done twice."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from parsec.errors import UserError
from parsec.run.workdir import write_text_atomic

T = TypeVar("T")


def read_lines(path: Path, parse: Callable[[Any], T], what: str) -> list[T]:
    """Returns what each line of a file says; nothing where there is no file.

    A last line that was cut short, because the process died while it wrote, is dropped from the file.

    Args:
      path: the file.
      parse: from a line's JSON value; raises `ValueError`, `KeyError` or `TypeError` for what is none.
      what: a line should be, for the error, such as "an entry of a journal".

    Raises:
      UserError: the file cannot be read, or a line is something else.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_text_atomic(path, whole)
    found = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            found.append(parse(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"line {number} of {path} is not {what}; choose another --workdir") from error
    return found


def plain(value: Any) -> Any:
    """Returns the value in JSON's types; float32 and narrower are written in their own shortest form, not float64's."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    array = np.asarray(value)
    if array.ndim:
        return [plain(entry) for entry in array]
    if array.dtype.kind in "iub":
        return array.item()
    number = float(array) if array.dtype == np.float64 else float(str(array.astype(np.float32)))
    return number if math.isfinite(number) else None


def numbers(values: Sequence[float | None]) -> np.ndarray:
    """Returns the numbers that `plain` wrote, float64 [N]; NaN for those that were not finite."""
    return np.array([math.nan if value is None else float(value) for value in values], np.float64)
