"""The NAS-Bench-101 space as strategies see it: samples, neighbours, legal prefixes and features of distinct cells.

Ying et al., ICML 2019, arXiv 1902.09635. The encoding is described in `parsec.cells.nasbench101_cells`.
"""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import ArrayLike, Domain
from parsec.cells.nasbench101_cells import at_rows, cells, choices, lookup, rows
from parsec.cells.nasbench101_features import cell_features
from parsec.cells.nasbench101_neighbours import neighbour_rows
from parsec.errors import UserError


@lru_cache(maxsize=4)
def domain(max_vertices: int) -> Domain:
    """Returns what strategies may know of the cells of at most `max_vertices` (3 to 7) vertices.

    - `sample` draws uniformly from the pool, so that every distinct cell is equally likely, whatever its size.
    - `mutate` and `neighbours`: one operation changed, one edge added or removed (then pruned), or one absent vertex
      put to use between two others; results are canonical, distinct and differ from the cell itself. Removing an edge
      may prune several vertices at once, so that a cell need not be a neighbour of each of its neighbours; every cell
      can be reached from every other.
    - `valid` holds for every vector that describes a valid cell, canonical or not.
    - `legal` allows only prefixes of canonical architectures, so that a tree meets each cell exactly once; a prefix
      that no canonical architecture has allows nothing.
    - `features` are those of `nasbench101_features.cell_features`, zeros for an invalid vector.
    """
    found = cells(max_vertices)
    sizes = tuple(len(choice.options) for choice in choices(max_vertices))
    near = neighbour_rows(max_vertices)
    ranks = _ranks(found.pool, sizes)

    def sample(key: jax.Array, n: int) -> jax.Array:
        return at_rows(max_vertices, jax.random.randint(key, (n,), 0, len(found.pool), jnp.int32))

    def mutate(key: jax.Array, architecture: ArrayLike) -> jax.Array:
        row = lookup(max_vertices, architecture)
        start, end = jnp.asarray(near.starts)[row], jnp.asarray(near.starts)[row + 1]
        at = jax.random.randint(key, (), start, end, jnp.int32)
        return at_rows(max_vertices, jnp.asarray(near.rows)[at])

    def neighbours(architecture: np.ndarray) -> np.ndarray:
        row = int(rows(max_vertices, np.asarray(architecture, np.int32)[None])[0])
        if row < 0:
            raise UserError("an invalid NAS-Bench-101 cell has no neighbours")
        return found.pool[near.rows[near.starts[row] : near.starts[row + 1]]]

    def legal(prefix: tuple[int, ...]) -> np.ndarray:
        at = len(prefix)
        unit = int(np.prod(sizes[at + 1 :], dtype=np.int64))
        low = int(_ranks(np.array([(*prefix, *[0] * (len(sizes) - at))], np.int32), sizes)[0])
        edges = np.searchsorted(ranks, low + unit * np.arange(sizes[at] + 1, dtype=np.int64))
        return np.diff(edges) > 0

    return Domain(
        sizes=sizes,
        sample=sample,
        mutate=mutate,
        neighbours=neighbours,
        valid=lambda architectures: lookup(max_vertices, architectures) >= 0,
        legal=legal,
        features=canonical_features(max_vertices),
        pool=found.pool,
    )


@lru_cache(maxsize=4)
def canonical_features(max_vertices: int) -> Callable[[ArrayLike], jax.Array]:
    """Returns the function from architectures int32 [B, L] to the features of their canonical cells, float32 [B, D].

    Invalid architectures get zeros. Works on traced arrays.
    """

    @jax.jit
    def features(architectures: ArrayLike) -> jax.Array:
        row = lookup(max_vertices, architectures)
        described = cell_features(at_rows(max_vertices, jnp.maximum(row, 0)), max_vertices)
        return jnp.where((row >= 0)[:, None], described, 0.0)

    return features


def _ranks(architectures: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Returns the place of each architecture in lexicographic order of all vectors, int64 [B]."""
    radix = np.concatenate([np.cumprod(np.array(sizes[:0:-1], np.int64))[::-1], [1]]).astype(np.int64)
    return architectures.astype(np.int64) @ radix
