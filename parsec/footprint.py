"""Memory judged before it is taken, so that a size beyond this machine is refused with the number, not by a crash.

What is estimated is less than what is taken: only what certainly does not fit is refused.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from parsec.errors import UserError

# The limit of a control group and what it uses, in the second and the first form of that interface.
_GROUPS = tuple(
    (Path("/sys/fs/cgroup", limit), Path("/sys/fs/cgroup", used))
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    )
)
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def require_memory(needs: Mapping[str, int], advice: str, *, free: int | None = None) -> None:
    """Raises `UserError` where things do not fit in memory together.

    Args:
      needs: what they are -> their bytes.
      advice: what to do about it, as the end of a sentence.
      free: bytes that may be taken; this machine's by default.
    """
    free = free_memory() if free is None else free
    total = sum(needs.values())
    if free is None or total <= free:
        return
    parts = ", ".join(f"{name} {readable(size)}" for name, size in sorted(needs.items(), key=lambda item: -item[1]))
    raise UserError(f"this needs {readable(total)} of memory ({parts}), and {readable(free)} are free; {advice}")


def free_memory() -> int | None:
    """Returns the bytes that this process may still take on the host, or None where the system does not say."""
    found = [_available(), _left_in_group()]
    known = [size for size in found if size is not None]
    return min(known) if known else None


def readable(size: int) -> str:
    """Returns a number of bytes in the unit that suits it, such as "1.5 GiB"."""
    power = min(max(size.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    # Integers beyond what a float holds are told by their power of two.
    value = size / 2 ** (10 * power) if size.bit_length() < 1000 else None
    if value is None or value >= 1e6:
        return f"2^{size.bit_length() - 1} bytes"
    return f"{value:.1f} {_UNITS[power]}" if power else f"{size} bytes"


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _left_in_group() -> int | None:
    """Returns what the control group that a container runs in leaves, or None where it sets no limit."""
    for limit, used in _GROUPS:
        try:
            left = int(limit.read_text()) - int(used.read_text())
        # "max" is no number, and no limit.
        except (OSError, ValueError):
            continue
        # Pages of files that were read count as used, and are given back when they are needed.
        return left + _cached(used)
    return None


def _cached(used: Path) -> int:
    try:
        lines = used.with_name("memory.stat").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.split()[0] in ("inactive_file", "active_file"))
    except (OSError, ValueError, IndexError):
        return 0
