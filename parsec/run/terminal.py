"""How a command ends, and standard output as it may be: ASCII only, a pipe whose reader has left, a full disk."""

import codecs
import contextlib
import errno
import os
import signal
import sys

from parsec.errors import UserError, shown
from parsec.run.signals import INTERRUPTED, StoppedError

# What drawings and figures are made of, for terminals that lack it.
_ASCII = {
    "─": "-",
    "│": "|",
    "┌": "+",
    "┐": "+",
    "└": "+",
    "┘": "+",
    "├": "+",
    "┤": "+",
    "┬": "+",
    "┴": "+",
    "┼": "+",
    "●": "o",
    "◀": "<",
    "±": "+-",
}
_HANDLER = "parsec.ascii"
# What is wrong with a machine or a path, and its user can mend; any other OSError is a bug and keeps its traceback.
MENDABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EIO),
}


def make_printable() -> None:
    """Has standard output and error write what their encoding lacks in ASCII, rather than fail."""
    codecs.register_error(_HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)  # pyright: ignore[reportAttributeAccessIssue]


def flush_output() -> None:
    """Hands what was printed to the operating system; raises `OSError` where it is not taken."""
    if sys.stdout is not None:
        sys.stdout.flush()


def output_error() -> OSError | None:
    """Returns why standard output takes nothing, or None where it does; to know, it ends the line there."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    try:
        os.write(descriptor, b"\n")
    except OSError as error:
        return error
    return None


def say(line: str) -> None:
    """Prints a line on standard error, where that can be had; an empty one is not printed."""
    with contextlib.suppress(OSError):
        if line:
            print(line, file=sys.stderr, flush=True)


def outcome(error: BaseException, interrupt: int | None) -> tuple[int, str] | None:
    """Returns the exit code and the line that answer an error, or None for a bug, which keeps its traceback."""
    if isinstance(error, StoppedError):
        return 128 + error.signal, f"{error}; the same command resumes it"
    # A library may have made another error of an interrupt.
    if interrupt is not None or isinstance(error, KeyboardInterrupt):
        return 128 + (interrupt or signal.SIGINT), INTERRUPTED
    if isinstance(error, UserError):
        return 2, f"error: {' '.join(str(error).split())}"
    if isinstance(error, OSError) and error.filename is None and (lost := output_error()):
        # What is still in memory would be written, and refused, when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(lost, BrokenPipeError):
            return 128 + signal.SIGPIPE, ""
        return 2, f"error: cannot write to standard output: {lost.strerror}"
    if isinstance(error, OSError) and error.filename is not None and error.errno in MENDABLE:
        return 2, f"error: cannot read or write {shown(str(error.filename))}: {error.strerror}"
    return None


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(character, "?") for character in error.object[error.start : error.end]), error.end
