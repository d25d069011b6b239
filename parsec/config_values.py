"""The value of one setting: read from text, converted to its type, and checked against what is allowed.

`parsec.config` has the settings themselves; a key path names one in the errors here.
"""

import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from parsec.errors import UserError, shown, unknown

# Sizes and counts become int32 on the device.
LARGEST_INTEGER = 2**31 - 1
_SCALARS = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


def convert(value: Any, kind: Any, path: str) -> Any:
    """Returns the value as `kind`, accepting an int for a float and a list for a tuple; raises `UserError`."""
    kind, optional = _optional(kind)
    if optional and (value is None or (kind is float and value == math.inf)):
        return None
    if typing.get_origin(kind) is tuple:
        if isinstance(value, list | tuple):
            item = typing.get_args(kind)[0]
            return tuple(convert(entry, item, path) for entry in value)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif type(value) is kind:
        return value
    raise _mismatch(value, kind, optional, path)


def parse(text: str, kind: Any, path: str) -> Any:
    """Returns the value of a `kind` that a text on the command line means; raises `UserError`."""
    kind, optional = _optional(kind)
    if optional and text.lower() == "none":
        return None
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        inner = text.strip()
        if inner[:1] + inner[-1:] in ("()", "[]"):
            inner = inner[1:-1]
        entries = [entry.strip() for entry in inner.split(",")]
        return tuple(parse(entry.strip("'\"") if item is str else entry, item, path) for entry in entries if entry)
    if kind is bool:
        word = text.lower()
        if word in ("true", "yes", "on", "1") or word in ("false", "no", "off", "0"):
            return word in ("true", "yes", "on", "1")
        raise _mismatch(text, kind, optional, path)
    try:
        return kind(text)
    except ValueError:
        raise _mismatch(text, kind, optional, path) from None


def check_range(value: Any, metadata: Mapping[str, Any], path: str) -> None:
    """Raises `UserError` for a value outside the choices or the range of a field made by `parsec.config.option`."""
    choices, low, high = metadata.get("choices", ()), metadata.get("minimum"), metadata.get("maximum")
    for entry in value if isinstance(value, tuple) else (value,):
        if entry is None:
            continue
        if choices and entry not in choices:
            if isinstance(entry, str):
                raise unknown(f"value of {path}", entry, choices)
            raise UserError(f"{path}={shown(entry)} is not allowed; choose one of {', '.join(map(str, choices))}")
        if isinstance(entry, float) and not math.isfinite(entry):
            raise UserError(f"{path}={entry} is not a finite number")
        if high is None and type(entry) is int:
            high = LARGEST_INTEGER
        if (low is not None and entry < low) or (high is not None and entry > high):
            raise UserError(f"{path}={shown(entry)} is out of range; it must be{_range(low, high)}")


def name_of(kind: Any) -> str:
    """Returns what a type is called in a list of settings."""
    kind, optional = _optional(kind)
    name = f"list of {name_of(typing.get_args(kind)[0])}" if typing.get_origin(kind) is tuple else kind.__name__
    return f"{name} or none" if optional else name


def allowed(metadata: Mapping[str, Any]) -> str:
    """Returns what a list of settings says of the choices or the range of a field, with what parts it from the type."""
    choices = metadata.get("choices", ())
    if choices:
        return f": {', '.join(map(str, choices))}"
    return _range(metadata.get("minimum"), metadata.get("maximum"), lead=",")


def _mismatch(value: Any, kind: Any, optional: bool, path: str) -> UserError:
    wanted = _SCALARS.get(kind, "")
    if typing.get_origin(kind) is tuple:
        wanted = f"a list of {name_of(typing.get_args(kind)[0])}, separated by commas"
    return UserError(f"{path}={shown(value)} does not fit; it must be {wanted}{' or none' if optional else ''}")


def _optional(kind: Any) -> tuple[Any, bool]:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        inner = [entry for entry in typing.get_args(kind) if entry is not types.NoneType]
        return inner[0], True
    return kind, False


def _range(low: float | None, high: float | None, lead: str = "") -> str:
    parts = [f"at least {_number(low)}"] if low is not None else []
    parts += [f"at most {_number(high)}"] if high is not None else []
    return f"{lead} {' and '.join(parts)}" if parts else ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
