"""Equal cells in a row as one that is scanned: a program that does not grow with the depth of the network.

Cells in a row that read and make equal shapes are the same program on other weights. Scanned, it is compiled once, and
the weights of the row lie stacked in one group of the network's tree, [cells, ...]. Compiling 20 cells of the DARTS
space takes minutes otherwise. A tree is stacked and taken apart by its names alone, so that weights on a disk know
nothing of how they were trained.
"""

import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

# `run(suffix, carry, told) -> carry`: runs one cell, its modules' names ending in the suffix.
RunCell = Callable[[str, Any, Any], Any]

_GROUP = re.compile(r"scan_(.*?)(\d+)x(\d+)")


def scan_cells(run: RunCell, prefix: str, first: int, count: int, carry: Any, told: jax.Array | None) -> Any:
    """Returns the carry after equal cells in a row; to be called where submodules may be made.

    Args:
      run: runs one cell; it may not hold on to a module.
      prefix: what comes before a cell's number in the names of its modules, such as "" or "1_".
      first: number of the first cell.
      count: of the cells.
      carry: what the first cell reads.
      told: what the cells are told, [count, ...]; or None.
    """
    scanned = nn.scan(
        _Repeated, variable_axes={"params": 0, "batch_stats": 0}, split_rngs={"params": True}, length=count
    )
    return scanned(run, name=f"scan_{prefix}{first}x{count}")(carry, told)[0]


def unstack(tree: Any) -> Any:
    """Returns a network's tree of arrays with every group of scanned cells taken apart, as if none were scanned."""
    flat: dict[tuple[str, ...], Any] = {}
    leaves: dict[Any, Any] = dict(flatten_dict(tree))
    for path, leaf in leaves.items():
        at, group = _group(path)
        if group is None:
            flat[path] = leaf
            continue
        for place, name in enumerate(_names(group, path[at + 1])):
            flat[(*path[:at], name, *path[at + 2 :])] = leaf[place]
    return unflatten_dict(flat)


def stack(tree: Any, like: Any) -> Any:
    """Returns the inverse of `unstack`: the arrays of `tree` in the groups of `like`, another tree of that network."""
    flat: dict[Any, Any] = dict(flatten_dict(tree))
    wanted: dict[Any, Any] = dict(flatten_dict(like))
    found = {}
    for path in wanted:
        at, group = _group(path)
        if group is None:
            found[path] = flat[path]
        else:
            rows = [flat[(*path[:at], name, *path[at + 2 :])] for name in _names(group, path[at + 1])]
            found[path] = jnp.stack(rows)
    return unflatten_dict(found)


class _Repeated(nn.Module):
    run: RunCell

    @nn.compact
    def __call__(self, carry: Any, told: Any) -> tuple[Any, None]:
        return self.run("", carry, told), None


def _group(path: tuple[str, ...]) -> tuple[int, re.Match[str] | None]:
    """Returns where in a path a group of scanned cells is named, and what its name says."""
    for at, name in enumerate(path):
        match = _GROUP.fullmatch(name)
        if match:
            return at, match
    return -1, None


def _names(group: re.Match[str], module: str) -> list[str]:
    prefix, first, count = group.group(1), int(group.group(2)), int(group.group(3))
    return [f"{module}_{prefix}{at}" for at in range(first, first + count)]
