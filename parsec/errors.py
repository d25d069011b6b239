"""Errors a user can mend: one line that says what was given, what is allowed and the nearest match.

`main.py` prints a `UserError` without a traceback and exits with code 2. Anything else that escapes is a bug of this
package and keeps its traceback.
"""

import difflib
from collections.abc import Iterable
from typing import Any

# Characters of a given value that an error repeats.
_SHOWN = 80


class UserError(Exception):
    """Something in the command, a file or the machine that its user can put right; the message is one line."""


def unknown(kind: str, given: str, allowed: Iterable[str]) -> UserError:
    """Returns the error for a name that is in no registry.

    Args:
      kind: what the name was to be, such as "strategy" or "config".
      given: the name as it was typed.
      allowed: every name that would have been accepted.

    Returns:
      A `UserError` naming the allowed names and, where one is close, the nearest.
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return UserError(f"unknown {kind} {shown(given)}; choose one of {', '.join(names)}{hint}")


def shown(value: Any) -> str:
    """Returns a value as an error repeats it: as Python writes it, cut where it would fill the screen."""
    try:
        text = repr(value)
    # An integer of more digits than Python agrees to write, or a list nested too deep.
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"


def one_line(error: BaseException, limit: int = 160) -> str:
    """Returns what an error of another library says, on one line of at most `limit` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
