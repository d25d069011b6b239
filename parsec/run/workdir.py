"""The run directory: claimed by one process at a time, tied to one config, and never left half written.

A run directory holds config.json (the resolved config, its seed, digests of the data, the versions and the device),
metrics.jsonl, TensorBoard events, checkpoints/, timing.json and, once the run has finished, result.json; and what its
job names in the class attribute `WRITES` of its config. A file is written to a hidden one beside its place and renamed,
so that a reader or a crash sees the old file or the new one; only files of lines are appended to, and whoever reads
them leaves out a last line that is not whole. A directory that is not a run's is used only where none of these names is
taken.
"""

import contextlib
import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from parsec.config import changed_settings, to_json
from parsec.errors import UserError, shown
from parsec.files import write_bytes_atomic, writing

CONFIG, RESULT, TIMING, METRICS, CHECKPOINTS, TENSORBOARD = (
    "config.json",
    "result.json",
    "timing.json",
    "metrics.jsonl",
    "checkpoints",
    "tensorboard",
)
# Folders of the runs in the run directory of a transfer: two searches, and the training of the second one's cell.
SOURCE, TARGET, TRAINED = "source", "target", "train"
_LOCK = ".lock"
_VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "parsec-nas")


class Claim(NamedTuple):
    """A run directory held by this process.

    Attributes:
      path: the directory, absolute.
      notes: lines to show the user, such as versions that changed since the run began.
    """

    path: Path
    notes: tuple[str, ...]


def locate(workdir: str | Path) -> Path:
    """Returns a run directory's absolute path; a relative one is taken from the current directory.

    Raises:
      UserError: there is no such user's home, or no current directory.
    """
    try:
        return Path(workdir).expanduser().absolute()
    except RuntimeError as error:
        raise UserError(f"--workdir={shown(str(workdir))}: {error}") from None
    except FileNotFoundError:
        raise UserError(
            "the current directory was deleted; change to one that exists, or give an absolute path"
        ) from None


def inspect(path: Path, config: Any, digests: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """Returns config.json of the run that a directory holds, or None where a run may start; changes nothing.

    Args:
      path: the directory, which need not exist.
      config: the job's config dataclass. Settings that do not affect results may differ from those of the run.
      digests: name -> sha256 of what the run reads beside its config; None to leave them unchecked.

    Raises:
      UserError: where the path cannot be a directory, its run is of another config (the keys are named) or of other
        data, or files that this job would write are there already and no config.json.
    """
    with writing(path):
        _check_place(path)
        if not path.is_dir():
            return None
        if not (path / CONFIG).exists():
            taken = next((name for name in writes(config) if (path / name).exists()), None)
            if taken:
                raise UserError(f"{path} holds {taken} but no {CONFIG}: it is not a run's; choose another --workdir")
            return None
    stored = read_json(path / CONFIG)
    if not isinstance(stored, dict) or not isinstance(stored.get("config"), dict):
        raise UserError(f"{path / CONFIG} is not the config of a run; choose another --workdir")
    changed = changed_settings(stored["config"], config)
    if changed and not same_job(stored.get("job", _job(config)), _job(config)):
        raise UserError(f"{path} belongs to a run of another job, {stored['job']}; choose another --workdir")
    if changed:
        keys = "; ".join(f"{key} was {_short(before)}, now {_short(now)}" for key, (before, now) in changed.items())
        raise UserError(
            f"{path} belongs to a run with another config: {keys} (choose another --workdir, or give the old values)"
        )
    if digests is not None and isinstance(stored.get("digests"), dict):
        _check_digests(path, stored["digests"], digests)
    return stored


@contextlib.contextmanager
def claim(workdir: str | Path, config: Any, digests: Mapping[str, str] | None = None) -> Iterator[Claim]:
    """Holds a run directory for one process, creating it where needed.

    The lock is the operating system's: it goes when the process ends, however it ends. Load and check everything that
    the job needs before: whoever starts a job in error is then left with an untouched directory.

    Args:
      workdir: the directory; a relative path is taken from the current directory.
      config: the job's config dataclass.
      digests: name -> sha256 of what the run reads beside its config, such as its images or a table. They are stored
        in config.json, and the run goes on with no other.

    Yields:
      A `Claim`.

    Raises:
      UserError: when the directory cannot be written, another process holds it, or `inspect` refuses it. Nothing in the
        directory is changed then.
    """
    path = locate(workdir)
    inspect(path, config, digests)
    # Imported late: a refused directory is reported without waiting for JAX.
    from parsec.run.agreement import check_same

    check_same("data", json.dumps(dict(digests or {}), sort_keys=True))
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / _LOCK).open("a+")
    with lock:
        _lock(lock, path)
        # Again: another process may have begun a run here since.
        stored = inspect(path, config, digests)
        now = _describe_run(config, digests)
        if stored is None:
            write_json_atomic(path / CONFIG, now)
        notes = () if stored is None else _changed_machine(stored, now)
        yield Claim(path, notes)


def finished_result(workdir: str | Path, config: Any) -> Any | None:
    """Returns what result.json holds where a run of this config is finished, else None; changes nothing.

    With it a job reports a finished run before it loads anything, even where the data is gone.

    Raises:
      UserError: for a directory that `inspect` refuses, or a result.json that cannot be read.
    """
    path = locate(workdir)
    if inspect(path, config) is None or not (path / RESULT).is_file():
        return None
    return read_json(path / RESULT)


def same_job(stored: Any, job: str) -> bool:
    """Whether a run's job, "module:function", is this one: the module may have had another name when it began."""
    return str(stored).rpartition(":")[2] == job.rpartition(":")[2]


def writes(config: Any) -> tuple[str, ...]:
    """Returns the names in a run directory that the job of a config writes, config.json apart."""
    return METRICS, CHECKPOINTS, RESULT, TIMING, TENSORBOARD, *getattr(config, "WRITES", ())


def write_json_atomic(path: Path, value: Any) -> None:
    """Replaces the file by the value as indented JSON; a crash leaves the old file or the new one, whole.

    Raises:
      UserError: where the file cannot be written; the old one stays.
    """
    write_text_atomic(path, json.dumps(value, indent=2) + "\n")


def write_text_atomic(path: Path, text: str) -> None:
    """Replaces the file by the text, as `write_bytes_atomic` does."""
    write_bytes_atomic(path, text.encode())


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
      UserError: where the file is missing or is not JSON, or is nested deeper than any of ours.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); remove it or choose another --workdir") from error


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


def _check_place(path: Path) -> None:
    """Raises `UserError` where something that is no directory is in the way, or `OSError` for an impossible name."""
    for place in (path, *path.parents):
        try:
            mode = place.stat().st_mode
        except FileNotFoundError:
            if place.is_symlink():
                raise UserError(f"{place} is a link to nothing; choose another --workdir") from None
            continue
        except NotADirectoryError:
            continue
        except OSError as error:
            if error.errno == errno.ELOOP and not place.is_symlink():
                continue
            if error.errno == errno.ELOOP:
                raise UserError(f"{place} is a link that leads back to itself; choose another --workdir") from None
            raise
        if not stat.S_ISDIR(mode):
            raise UserError(f"{place} is a file, not a directory; choose another --workdir")
        return


def _check_digests(path: Path, before: Mapping[str, Any], now: Mapping[str, str]) -> None:
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            was, found = (str(digests.get(name, "none"))[:12] for digests in (before, now))
            raise UserError(
                f"{path} belongs to a run with another {name}: its sha256 was {was}, now {found}; give what the run "
                "began with, or choose another --workdir"
            )


def _describe_run(config: Any, digests: Mapping[str, str] | None) -> dict[str, Any]:
    # Imported late: a refused directory is reported without waiting for JAX.
    import jax

    settings = json.loads(to_json(config))
    return {
        "job": _job(config),
        "config": settings,
        "seed": settings.get("seed"),
        **({} if digests is None else {"digests": dict(digests)}),
        "versions": versions(),
        "device": {
            "platform": jax.default_backend(),
            "kind": jax.devices()[0].device_kind,
            "count": len(jax.devices()),
        },
    }


def _job(config: Any) -> str:
    return getattr(config, "JOB", type(config).__name__)


def _short(value: Any) -> str:
    return shown(value) if isinstance(value, list | dict) else str(value)[:200]


def _changed_machine(stored: dict[str, Any], now: dict[str, Any]) -> tuple[str, ...]:
    """Returns a note for every version or device property that differs; the run goes on, but may not be bit-equal."""
    notes = []
    for group in ("versions", "device"):
        before = stored.get(group)
        before = before if isinstance(before, dict) else {}
        for name in before | now[group]:
            if before.get(name) != now[group].get(name):
                notes.append(f"{group} {name} was {before.get(name)}, now {now[group].get(name)}")
    return tuple(notes)
