"""Checkpoints of a run, by Orbax: written whole or not at all, verified when read, the last good one found.

Every array of a pytree is stored under its path in the tree, with a digest over all of them, so that a damaged file or
a checkpoint of something else is noticed and the step before it is used. This module is the only one that knows Orbax.
Of several processes (`parsec.run.multihost`), all of which have the whole state, process 0 writes and reads, and sends
the others what it read.
"""

import hashlib
import json
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from parsec.devices import place
from parsec.errors import UserError
from parsec.run.agreement import bytes_from_first, from_first, wait_for_all

# How many of the latest steps stay.
_KEPT = 2


class Restored(NamedTuple):
    """What `Checkpoints.restore_latest` found.

    Attributes:
      step: the step it was saved at.
      tree: the pytree, with the template's structure, on the template's devices.
      host: the JSON value saved beside it.
      notes: a line for every later checkpoint that could not be read.
    """

    step: int
    tree: Any
    host: Any
    notes: tuple[str, ...]


class Checkpoints:
    """The checkpoints of one run; a context manager, because Orbax must be closed before the process ends."""

    def __init__(self, directory: str | Path) -> None:
        """Opens a directory, creating it where needed and removing what an interrupted save left.

        Args:
          directory: where the steps lie, one folder each; a relative path is taken from the current directory.

        Raises:
          UserError: where the directory cannot be written.
        """
        self.directory = Path(directory).absolute()
        self._first = jax.process_index() == 0
        if not self._first:
            return
        # Saving is synchronous: when `save` returns the step is on the disk, and the caller may donate its buffers.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            create=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0}),
        )
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise UserError(f"cannot write {self.directory}: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._first:
            self._manager.close()

    def save(self, step: int, tree: Any, host: Any = None) -> None:
        """Writes a checkpoint and removes the oldest above the number kept.

        Args:
          step: the number of finished steps; a step that is there already is left as it is.
          tree: pytree of jax or numpy arrays, numbers and random keys.
          host: any JSON value.

        Raises:
          UserError: where the checkpoint cannot be written; the earlier ones stay.
          TypeError: for a leaf that is no array, or a host value that is not JSON.
        """
        if self._first:
            self._save(step, tree, host)
        wait_for_all("saved")

    def _save(self, step: int, tree: Any, host: Any) -> None:
        leaves = {path: _to_numpy(path, leaf) for path, leaf in _paths(tree)}
        text = json.dumps(host)
        described = {"host": json.loads(text), "leaves": _describe(leaves), "digest": _digest(leaves, text)}
        # Orbax stores neither an empty tree nor an array without entries; the description holds the latter's shape.
        stored = {"step": np.int64(step), **{f"tree.{path}": leaf for path, leaf in leaves.items() if leaf.size}}
        if step in self._manager.all_steps():
            return
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(arrays=ocp.args.StandardSave(stored), host=ocp.args.JsonSave(described)),
            )
        except Exception as error:
            # Only writing can fail here: the leaves were checked above.
            raise UserError(f"cannot write checkpoint {step} in {self.directory}: {_first_line(error)}") from error

    def restore_latest(self, template: Any) -> Restored | None:
        """Returns the latest checkpoint that can be read, or None where there is none at all.

        A later checkpoint that is damaged, or holds something else, is renamed to `unreadable-<step>` and noted.

        Args:
          template: pytree like the one saved. Jax arrays must agree in shape and dtype; a numpy array, being host-side
            state, may have grown, so only its dtype must agree.

        Raises:
          UserError: when there are checkpoints and none can be read; all of them stay where they are.
        """
        found = self._latest(template) if self._first else None
        told = json.loads(from_first("restored", json.dumps(None if found is None else [found.step, found.host])))
        if found is None and told is None:
            return None
        shapes = [(path, _to_numpy(path, leaf)) for path, leaf in _paths(template if found is None else found.tree)]
        sent = bytes_from_first(b"".join(leaf.tobytes() for _, leaf in shapes))
        if found is not None:
            return found
        values, at = [], 0
        for (path, like), (_, leaf) in zip(shapes, _paths(template), strict=True):
            value = np.frombuffer(sent, like.dtype, like.size, at).reshape(like.shape)
            values.append(_like(path, leaf, value))
            at += like.nbytes
        return Restored(told[0], jax.tree.unflatten(jax.tree.structure(template), values), told[1], ())

    def _latest(self, template: Any) -> Restored | None:
        steps = sorted(self._manager.all_steps(), reverse=True)
        failed: list[tuple[int, str]] = []
        for step in steps:
            try:
                tree, host = self._restore(step, template)
            except Exception as error:
                # A damaged file can raise anything inside Orbax and TensorStore.
                failed.append((step, _first_line(error)))
                continue
            for bad, _ in failed:
                self._set_aside(bad)
            notes = tuple(f"checkpoint {bad} is unreadable ({why}); going on from step {step}" for bad, why in failed)
            return Restored(step, tree, host, notes)
        if failed:
            step, why = failed[0]
            raise UserError(f"no checkpoint in {self.directory} can be read; {step}: {why}; choose another --workdir")
        return None

    def _restore(self, step: int, template: Any) -> tuple[Any, Any]:
        found = self._manager.restore(
            step, args=ocp.args.Composite(arrays=ocp.args.StandardRestore(), host=ocp.args.JsonRestore())
        )
        described, stored = found["host"], found["arrays"]
        leaves = {}
        for path, (dtype, shape) in described["leaves"].items():
            empty = np.zeros(shape, dtype) if 0 in shape else None
            leaves[path] = stored[f"tree.{path}"] if empty is None else empty
        if _describe(leaves) != described["leaves"] or described["digest"] != _digest(
            leaves, json.dumps(described["host"])
        ):
            raise ValueError("its digest does not match its contents")
        wanted = _paths(template)
        if [path for path, _ in wanted] != list(described["leaves"]):
            odd = sorted(set(dict(wanted)) ^ set(described["leaves"]))
            raise ValueError(f"it holds another state, differing in {odd[0] if odd else 'the order of its arrays'}")
        values = [_like(path, leaf, leaves[path]) for path, leaf in wanted]
        return jax.tree.unflatten(jax.tree.structure(template), values), described["host"]

    def _set_aside(self, step: int) -> None:
        folder = self.directory / str(step)
        try:
            folder.rename(folder.with_name(f"unreadable-{step}"))
        except OSError:
            self._manager.delete(step)
        self._manager.reload()


def _paths(tree: Any) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree.flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(path: str, leaf: Any) -> np.ndarray:
    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    if array.dtype.kind in "OUSM":
        raise TypeError(f"leaf {path} is a {type(leaf).__name__}; a checkpoint's tree holds arrays and numbers")
    return array


def _like(path: str, template: Any, value: np.ndarray) -> Any:
    """Returns the stored array as what the template has at this place, or raises `ValueError` where they disagree."""
    wanted = _to_numpy(path, template)
    host_side = isinstance(template, np.ndarray)
    if value.dtype != wanted.dtype or (value.shape != wanted.shape and not host_side):
        raise ValueError(
            f"{path} is {value.dtype} {list(value.shape)}, this run needs {wanted.dtype} {list(wanted.shape)}"
        )
    if isinstance(template, jax.Array):
        if _is_key(template):
            value = jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(template))
        return place(value, template.sharding)
    if isinstance(template, np.ndarray | np.generic):
        return value if host_side else value[()]
    return type(template)(value.item())


def _describe(leaves: dict[str, np.ndarray]) -> dict[str, list[Any]]:
    return {path: [str(leaf.dtype), list(leaf.shape)] for path, leaf in leaves.items()}


def _digest(leaves: dict[str, np.ndarray], host: str) -> str:
    digest = hashlib.blake2b(host.encode(), digest_size=16)
    for path, leaf in leaves.items():
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:200]
