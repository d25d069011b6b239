"""Weights of an evaluated child for the next one: every tensor that fits is copied, the rest starts fresh.

AlphaX's weight transfer (Wang, Zhao, Jinnai, Tian, Fonseca 2020, arXiv 1903.11059): a child differs from some earlier
one in few decisions, and whatever both have in common need not be trained from nothing. A tensor fits where both
children run the same operation in the same slot of the same cell on the same source, and its shape is the same; what
lies outside the cells fits by name and shape. So a parent of another width or depth gives what it can, or nothing.

A child's own weights are kept in a file: a tree named as in its static network (see `child_weights`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from parsec.cells.space import Genotype
from parsec.errors import UserError
from parsec.files import replacing, writing
from parsec.supernet.supernet import Weights


def nearest(architecture: np.ndarray, architectures: np.ndarray, scores: np.ndarray) -> int | None:
    """Returns the row of the evaluated architecture with the fewest differing choices, or None where there is none.

    Among equals the best score decides, then the later row.

    Args:
      architecture: int32 [L].
      architectures: the evaluated ones, int32 [N, L].
      scores: float64 [N]; a NaN is a failed evaluation, which nobody inherits from.
    """
    usable = np.flatnonzero(np.isfinite(scores))
    if not usable.size:
        return None
    differing = (architectures[usable] != architecture[None]).sum(1)
    return int(usable[np.lexsort((-usable, -scores[usable], differing))[0]])


def inherit(
    weights: Weights, kinds: Mapping[str, str], child: Genotype, parent: Genotype, parent_weights: Weights
) -> tuple[Weights, float]:
    """Returns the child's starting weights, and the share of its own numbers that it inherits.

    Args:
      weights: fresh, of the supernet; they are not changed.
      kinds: the kind of every cell by its name, of `parsec.supernet.supernet.cell_kinds`.
      child: the genotype to be trained.
      parent: the genotype inherited from.
      parent_weights: its trained weights, a tree of `child_weights`.

    Returns:
      A tree like `weights`, of numpy arrays, and a share in 0 .. 1.
    """
    started, theirs = _flat(weights), _flat(parent_weights)
    total = inherited = 0
    for path, leaf in started.items():
        kind = kinds.get(path[0])
        if kind is None:
            total += leaf.size
            if path in theirs and theirs[path].shape == leaf.shape:
                started[path] = np.array(theirs[path])
                inherited += leaf.size
            continue
        cell, operation, *name = path
        started[path] = filled = np.array(leaf)
        for at, edge in enumerate(child[kind].edges):
            if edge.operation != operation:
                continue
            total += filled[at].size
            own = theirs.get((cell, f"slot_{at}", *name))
            before = parent[kind].edges[at : at + 1] if kind in parent else ()
            if before == (edge,) and own is not None and own.shape == filled[at].shape:
                filled[at] = own
                inherited += filled[at].size
    # Operations without parameters are empty groups, which a tree for the supernet must keep.
    return unflatten_dict(flatten_dict(weights, keep_empty_nodes=True) | started), inherited / max(total, 1)


def save_child(path: Path, weights: Weights) -> None:
    """Writes a child's weights, a tree of arrays, whole or not at all; raises `UserError` where it cannot."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as hidden, hidden.open("wb") as file:
            named: Any = {"/".join(name): leaf for name, leaf in _flat(weights).items()}
            np.savez(file, **named)


def load_child(path: Path) -> Weights:
    """Returns what `save_child` wrote; raises `UserError` where the file is missing or damaged."""
    try:
        # Opened here, because np.load leaves a file that is no archive open.
        with path.open("rb") as stream, np.load(stream) as file:
            return unflatten_dict({tuple(name.split("/")): file[name] for name in file.files})
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise UserError(f"cannot read the weights of a trained child from {path}: {error}") from error


def _flat(tree: Any) -> dict[tuple[str, ...], np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(jax.device_get(tree)).items()}
