"""The run directory: claimed by one process at a time, tied to one config, and never left half written.

A run directory holds config.json (the resolved config, its seed, the versions and the device), metrics.jsonl,
TensorBoard events, checkpoints/, timing.json and, once the run has finished, result.json. Everything but the metrics is
written to a hidden file beside its place and renamed, so that a reader or a crash sees the old file or the new one.
"""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from parsec.config import differences, flatten, to_json
from parsec.errors import UserError

CONFIG, RESULT, TIMING, METRICS, CHECKPOINTS = (
    "config.json",
    "result.json",
    "timing.json",
    "metrics.jsonl",
    "checkpoints",
)
_LOCK = ".lock"
_VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "parsec-nas")


class Claim(NamedTuple):
    """A run directory held by this process.

    Attributes:
      path: the directory, absolute.
      fresh: whether the run starts here; False where an earlier process began it.
      finished: whether result.json is there.
      notes: lines to show the user, such as versions that changed since the run began.
    """

    path: Path
    fresh: bool
    finished: bool
    notes: tuple[str, ...]


@contextlib.contextmanager
def claim(workdir: str | Path, config: Any) -> Iterator[Claim]:
    """Holds a run directory for one process, creating it where needed.

    The lock is the operating system's: it goes when the process ends, however it ends.

    Args:
      workdir: the directory; a relative path is taken from the current directory.
      config: the job's config dataclass.

    Yields:
      A `Claim`.

    Raises:
      UserError: when the directory cannot be written, another process holds it, its config differs (the keys are
        named), or it holds files of a run but no config.json. Nothing in the directory is changed then.
    """
    path = Path(workdir).expanduser().absolute()
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / _LOCK).open("a+")
    with lock:
        _lock(lock, path)
        stored = _read_config(path)
        notes: tuple[str, ...] = ()
        if stored is None:
            described = _describe_run(config)
            write_json_atomic(path / CONFIG, described)
        else:
            changed = differences(stored["config"], config)
            if changed:
                raise UserError(f"{path} belongs to a run with another config: {_compare(stored, config, changed)}")
            notes = _changed_machine(stored, _describe_run(config))
        yield Claim(path, stored is None, (path / RESULT).is_file(), notes)


def write_json_atomic(path: Path, value: Any) -> None:
    """Replaces the file by the value as indented JSON; a crash leaves the old file or the new one, whole.

    Raises:
      UserError: where the file cannot be written; the old one stays.
    """
    write_text_atomic(path, json.dumps(value, indent=2) + "\n")


def write_text_atomic(path: Path, text: str) -> None:
    """Replaces the file by the text, as `write_json_atomic` does."""
    hidden = path.with_name(f".{path.name}.tmp")
    with writing(path):
        try:
            with hidden.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                hidden.unlink()
            raise


def append(path: Path, text: str) -> None:
    """Adds text to the end of a file and hands it to the operating system before returning.

    Raises:
      UserError: where the file cannot be written.
    """
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


def read_json(path: Path) -> Any:
    """Returns the value in a JSON file.

    Raises:
      UserError: where the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); remove it or choose another --workdir") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an `OSError` raised inside into a `UserError` that names the path and the system's reason."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path
        raise UserError(f"cannot write {where}: {error.strerror or error}{_room(path)}") from error


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that results depend on, by name."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _lock(lock: Any, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        raise UserError(f"{path} is in use by {holder}; wait for it or choose another --workdir") from None
    except OSError as error:
        raise UserError(f"cannot lock {path}: {error.strerror}") from error
    with writing(path):
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()


def _read_config(path: Path) -> dict[str, Any] | None:
    file = path / CONFIG
    if not file.exists():
        orphans = [name for name in (METRICS, CHECKPOINTS, RESULT, TIMING) if (path / name).exists()]
        if orphans:
            raise UserError(f"{path} holds {orphans[0]} but no {CONFIG}; choose another --workdir")
        return None
    stored = read_json(file)
    if not isinstance(stored, dict) or not isinstance(stored.get("config"), dict):
        raise UserError(f"{file} is not the config of a run; choose another --workdir")
    return stored


def _describe_run(config: Any) -> dict[str, Any]:
    # Imported late: a refused directory is reported without waiting for JAX.
    import jax

    settings = json.loads(to_json(config))
    return {
        "job": getattr(config, "JOB", type(config).__name__),
        "config": settings,
        "seed": settings.get("seed"),
        "versions": versions(),
        "device": {
            "platform": jax.default_backend(),
            "kind": jax.devices()[0].device_kind,
            "count": len(jax.devices()),
        },
    }


def _compare(stored: dict[str, Any], config: Any, changed: list[str]) -> str:
    before, now = dict(flatten(stored["config"])), dict(flatten(json.loads(to_json(config))))
    shown = [f"{key} was {before.get(key, 'absent')}, now {now.get(key, 'absent')}" for key in changed]
    return f"{'; '.join(shown)} (choose another --workdir, or give the old values)"


def _changed_machine(stored: dict[str, Any], now: dict[str, Any]) -> tuple[str, ...]:
    """Returns a note for every version or device property that differs; the run goes on, but may not be bit-equal."""
    notes = []
    for group in ("versions", "device"):
        before = stored.get(group) or {}
        for name in before | now[group]:
            if before.get(name) != now[group].get(name):
                notes.append(f"{group} {name} was {before.get(name)}, now {now[group].get(name)}")
    return tuple(notes)


def _room(path: Path) -> str:
    for folder in (path, *path.parents):
        if folder.is_dir():
            return f" ({shutil.disk_usage(folder).free / 2**20:.0f} MiB free)"
    return ""
