"""The NAS-Bench-101 space: cells of at most V vertices and nine edges, as aligned vectors of choices.

Ying et al., ICML 2019, arXiv 1902.09635. Vertices carry the operations here, so that the space is none of slots (see
`parsec.cells.space`); strategies see it through `parsec.cells.nasbench101.domain`, tables
through `lookup`.

An architecture is int32 [L], L = (V - 2) + V(V-1)/2, and its positions mean the same for cells of every size:

- entries 0 .. V-3, one for each interior vertex: an index into `OPERATIONS`, or `ABSENT` for a vertex that is not used;
- then one 0/1 entry for each edge (source, target) of the V-vertex frame, ordered by target and then source. The
  input is vertex 0 and the output always vertex V - 1, also where fewer interior vertices are used.

Every vector whose cell is valid after pruning is a valid architecture: edges of absent vertices are ignored, and so are
operations that no path runs. Many vectors describe one cell; `pool` holds its canonical one, `lookup` finds that row
for any of them, and everything that costs an evaluation should be counted by row. Canonical cells have their vertices
ordered by the longest distance from the input.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import ArrayLike
from parsec.cells.nasbench101_graphs import OPERATIONS, Graphs, automorphisms, graphs, prune
from parsec.cells.space import Choice
from parsec.errors import UserError

ABSENT = len(OPERATIONS)


@dataclass(frozen=True)
class Cells:
    """Every distinct cell of at most V vertices.

    Attributes:
      graphs: their graphs without operations.
      pool: canonical architectures in lexicographic order, int32 [N, L].
      packed: the same in 32 bits each, two for a vertex and one for an edge, first entry lowest, int32 [N].
      row_of: row of `pool` for a canonical graph and the operations of its vertices, read as digits base 3 from the
        first vertex up; digits of unused vertices do not matter, int32 [G, 3^(V-2)].
    """

    graphs: Graphs
    pool: np.ndarray
    packed: np.ndarray
    row_of: np.ndarray


def choices(max_vertices: int) -> tuple[Choice, ...]:
    """Returns the decisions of an architecture, in order."""
    vertices = tuple(Choice(f"vertex {v}", (*OPERATIONS, "absent")) for v in range(1, max_vertices - 1))
    pairs = [(i, j) for j in range(1, max_vertices) for i in range(j)]
    return vertices + tuple(Choice(f"edge {i}->{j}", ("no", "yes")) for i, j in pairs)


@lru_cache(maxsize=4)
def cells(max_vertices: int) -> Cells:
    """Returns every distinct cell of at most `max_vertices` (3 to 7) vertices; 0.1 s for six, 3 s for seven.

    There are 7, 91, 2,532, 64,542 and 423,624 of at most 3, 4, 5, 6 and 7 vertices.
    """
    built = graphs(max_vertices)
    slots = max_vertices - 2
    words = np.array(list(itertools.product(range(len(OPERATIONS)), repeat=slots)), np.int32)[:, ::-1]
    powers = len(OPERATIONS) ** np.arange(slots, dtype=np.int32)
    parts, first_of, start = [], [], 0
    for g in range(len(built.masks)):
        used = int(built.interior[g])
        # Digits of unused vertices are cleared, so that every word finds its cell; then the least word of its orbit.
        cleared = words * (np.arange(slots) < used)
        least = np.min([cleared[:, order] @ powers for order in automorphisms(built, g)], axis=0)
        kept, inverse = np.unique(least, return_inverse=True)
        first_of.append(start + inverse)
        operations = np.where(np.arange(slots) < used, words[kept], ABSENT)
        edges = np.broadcast_to(built.masks[g] >> np.arange(len(built.pairs)) & 1, (len(kept), len(built.pairs)))
        parts.append(np.concatenate([operations, edges], 1).astype(np.int32))
        start += len(kept)
    unsorted = np.concatenate(parts)
    order = np.lexsort(unsorted.T[::-1])
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    pool = unsorted[order]
    packed = (pool << _shifts(max_vertices)).sum(1, dtype=np.int32)
    found = Cells(graphs=built, pool=pool, packed=packed, row_of=place[np.stack(first_of)])
    for array in (found.pool, found.packed, found.row_of):
        array.setflags(write=False)
    return found


def lookup(max_vertices: int, architectures: ArrayLike) -> jax.Array:
    """Returns the row of `cells(max_vertices).pool` that holds each architecture's cell, -1 where it is invalid.

    Works on traced arrays.

    Args:
      max_vertices: V.
      architectures: int32 [..., L].

    Returns:
      Rows, int32 [...].
    """
    found = cells(max_vertices)
    built, slots = found.graphs, max_vertices - 2
    given = jnp.asarray(architectures)
    operations, bits = given[..., :slots], given[..., slots:]
    sizes = jnp.array([len(OPERATIONS) + 1] * slots + [2] * len(built.pairs), jnp.int32)
    inside = jnp.all((given >= 0) & (given < _broadcast(sizes, given)), -1)
    mask = _dot(bits & 1, 2 ** np.arange(len(built.pairs)))
    absent = _dot((operations == ABSENT).astype(jnp.int32), 2 ** np.arange(slots))
    mask = mask & jnp.asarray(built.keep)[absent]
    graph = jnp.asarray(built.graph_of)[mask].astype(jnp.int32)
    order = jnp.asarray(built.orders)[jnp.asarray(built.order_of)[mask].astype(jnp.int32)]
    # Unused vertices come last in the new order, where `row_of` takes any digit.
    digits = jnp.take_along_axis(operations % len(OPERATIONS), order, -1)
    word = _dot(digits, len(OPERATIONS) ** np.arange(slots))
    row = jnp.asarray(found.row_of)[jnp.maximum(graph, 0), word]
    return jnp.where(inside & (graph >= 0), row, -1)


def at_rows(max_vertices: int, chosen: ArrayLike) -> jax.Array:
    """Returns the canonical architectures of rows of the pool, int32 [..., L] for rows int32 [...]; works on traced
    rows.

    The packed form keeps compiled programs small: 2 MB of constants for seven vertices instead of 44.
    """
    packed = jnp.asarray(cells(max_vertices).packed)[jnp.asarray(chosen)][..., None]
    shifts = _shifts(max_vertices)
    width = np.where(np.arange(len(shifts)) < max_vertices - 2, 3, 1).astype(np.int32)
    spread = jnp.broadcast_to(packed, (*packed.shape[:-1], len(shifts)))
    return (spread >> _broadcast(jnp.asarray(shifts), spread)) & _broadcast(jnp.asarray(width), spread)


def encode(adjacency: np.ndarray, operations: Sequence[int] | np.ndarray, max_vertices: int) -> np.ndarray:
    """Returns the canonical architecture of a cell, int32 [L].

    Args:
      adjacency: 0/1, strictly upper triangular, [n, n].
      operations: index into `OPERATIONS` of each interior vertex, [n - 2].
      max_vertices: V of the encoding.

    Raises:
      UserError: the cell is malformed, invalid or, once pruned, has more than V vertices.
    """
    pruned, kept = prune(adjacency, np.asarray(operations, np.int32))
    n = len(pruned)
    if n > max_vertices:
        raise UserError(f"the cell has {n} vertices; the space allows {max_vertices}")
    row = int(rows(max_vertices, place(pruned[None], kept[None], max_vertices))[0])
    return cells(max_vertices).pool[row]


def decode(architecture: Sequence[int] | np.ndarray, max_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pruned cell of an architecture: adjacency uint8 [n, n] and operations int32 [n - 2].

    Args:
      architecture: int32 [L], canonical or not.
      max_vertices: V of the encoding.

    Raises:
      UserError: the architecture has the wrong length, an option out of range, or no valid cell.
    """
    given = np.asarray(architecture)
    wanted = choices(max_vertices)
    if given.shape != (len(wanted),):
        raise UserError(
            f"an architecture of at most {max_vertices} vertices has {len(wanted)} entries, not {given.size}"
        )
    for entry, choice in zip(given.tolist(), wanted, strict=True):
        if not 0 <= entry < len(choice.options):
            raise UserError(f"option {entry} of choice {choice.name!r} is outside 0..{len(choice.options) - 1}")
    slots = max_vertices - 2
    frame = np.zeros((max_vertices, max_vertices), np.uint8)
    frame.T[np.tril_indices(max_vertices, -1)] = given[slots:]
    kept = np.flatnonzero(np.concatenate([[True], given[:slots] != ABSENT, [True]]))
    return prune(frame[np.ix_(kept, kept)], given[kept[1:-1] - 1])


def to_text(architecture: Sequence[int] | np.ndarray, max_vertices: int) -> str:
    """Returns a readable line: the operations in order, then the edges, such as `conv3x3-bn-relu; 0->1 1->2`."""
    adjacency, operations = decode(architecture, max_vertices)
    edges = " ".join(f"{i}->{j}" for i, j in np.argwhere(adjacency).tolist())
    return f"{' '.join(OPERATIONS[o] for o in operations)}; {edges}"


def place(adjacency: np.ndarray, operations: np.ndarray, max_vertices: int) -> np.ndarray:
    """Returns cells of one size in the frame of V vertices, not yet canonical; nothing is checked.

    Args:
      adjacency: 0/1, strictly upper triangular, [B, n, n] with n <= V.
      operations: [B, n - 2].
      max_vertices: V.

    Returns:
      Architectures, int32 [B, L].
    """
    n, V = adjacency.shape[1], max_vertices
    to = np.array([*range(n - 1), V - 1])
    frame = np.zeros((len(adjacency), V, V), np.int32)
    frame[:, to[:, None], to] = adjacency
    target, source = np.tril_indices(V, -1)
    used = np.full((len(adjacency), V - 2), ABSENT, np.int32)
    used[:, : n - 2] = operations
    return np.concatenate([used, frame[:, source, target]], 1)


def resized(architectures: np.ndarray, old: int, new: int) -> np.ndarray:
    """Returns canonical architectures of one frame in a frame of another size, int32 [B, new L], not yet canonical.

    Args:
      architectures: canonical, int32 [B, old L], with at most `new` vertices in use.
      old: V of the architectures.
      new: V wanted.
    """
    frame = np.zeros((len(architectures), old, old), np.uint8)
    target, source = np.tril_indices(old, -1)
    frame[:, source, target] = architectures[:, old - 2 :]
    n = min(old, new)
    kept = np.array([*range(n - 1), old - 1])
    return place(frame[:, kept[:, None], kept], architectures[:, : n - 2], new)


def rows(max_vertices: int, architectures: np.ndarray) -> np.ndarray:
    """Returns `lookup` of many architectures as numpy, int32 [B], in chunks that fit the cache."""
    chunk = 1 << 16
    parts = [architectures[i : i + chunk] for i in range(0, len(architectures), chunk)]
    padded = [np.pad(p, ((0, -len(p) % 256), (0, 0))) for p in parts]
    run = _compiled_lookup(max_vertices)
    return np.concatenate([np.asarray(run(q))[: len(p)] for p, q in zip(parts, padded, strict=True)])


@lru_cache(maxsize=4)
def _compiled_lookup(max_vertices: int) -> Callable[[np.ndarray], jax.Array]:
    return jax.jit(lambda architectures: lookup(max_vertices, architectures))


def _shifts(max_vertices: int) -> np.ndarray:
    slots, edges = max_vertices - 2, max_vertices * (max_vertices - 1) // 2
    return np.concatenate([2 * np.arange(slots), 2 * slots + np.arange(edges)]).astype(np.int32)


def _dot(digits: jax.Array, weights: np.ndarray) -> jax.Array:
    return (digits * _broadcast(jnp.asarray(weights, jnp.int32), digits)).sum(-1, dtype=jnp.int32)


def _broadcast(vector: jax.Array, like: jax.Array) -> jax.Array:
    return jnp.broadcast_to(vector, like.shape)
