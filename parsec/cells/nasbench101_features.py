"""One description of every NAS-Bench-101 cell, of fixed length, whose positions mean the same for cells of every size.

Beside the vertices and edges of the canonical frame it holds what they add up to: how many there are of each operation,
how deep the cell is and how deep in each operation, what is next to the input and to the output, and how many
parameters the benchmark's network has with this cell (Ying et al., ICML 2019, arXiv 1902.09635, section 2 and
appendix: channels are shared out among the vertices that feed the output). All of it follows from the graph; nothing
is learnt or measured.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import ArrayLike
from parsec.cells.nasbench101_graphs import MAX_EDGES, OPERATIONS

_STEM_CHANNELS = 128
_STACKS = 3
_CELLS_PER_STACK = 3
_CLASSES = 10
_KERNEL_AREA = (9.0, 1.0, 0.0)
# Longer than any path, so that vertices without a path never win.
_FAR = 100.0


def adjacency_of(pool: np.ndarray, max_vertices: int) -> np.ndarray:
    """Returns the adjacency of canonical architectures int32 [B, L] in the frame of V vertices, bool [B, V, V]."""
    V = max_vertices
    frame = np.zeros((len(pool), V, V), bool)
    target, source = np.tril_indices(V, -1)
    frame[:, source, target] = pool[:, V - 2 :] > 0
    return frame


def feature_names(max_vertices: int) -> tuple[str, ...]:
    """Returns what each column of `cell_features` holds."""
    V, short = max_vertices, ("conv3x3", "conv1x1", "maxpool")
    interior = range(1, V - 1)
    return (
        *(f"vertex {v} is {o}" for v in interior for o in (*short, "absent")),
        *(f"edge {i}->{j}" for j in range(1, V) for i in range(j)),
        *(f"{o} vertices" for o in short),
        *(f"most {o} on a path" for o in short),
        *(f"fewest {o} on a path" for o in short),
        *(f"{o} next to the input" for o in short),
        *(f"{o} next to the output" for o in short),
        *(f"edges {a}->{b}" for a in short for b in short),
        *(f"path {'-'.join(path)}" for n in (1, 2, 3) for path in itertools.product(short, repeat=n)),
        *(f"channels of {o}" for o in short),
        "vertices",
        "edges",
        "longest path",
        "shortest path",
        "paths (log)",
        "in degree of the output",
        "out degree of the input",
        "parameters (log)",
    )


def cell_features(architectures: ArrayLike, max_vertices: int) -> jax.Array:
    """Returns the description of canonical architectures; works on traced arrays.

    Args:
      architectures: canonical, int32 [B, L].
      max_vertices: V.

    Returns:
      float32 [B, D], each column about 0 to 1; `feature_names` names them.
    """
    V = max_vertices
    given = jnp.asarray(architectures)
    vertices = jax.nn.one_hot(given[:, : V - 2], len(OPERATIONS) + 1, dtype=jnp.float32)
    bits = given[:, V - 2 :].astype(jnp.float32)
    target, source = np.tril_indices(V, -1)
    adjacency = jnp.zeros((len(given), V, V), jnp.float32).at[:, source, target].set(bits)
    runs = vertices[:, :, : len(OPERATIONS)]
    first, last, inner = adjacency[:, 0, 1:-1], adjacency[:, 1:-1, -1], adjacency[:, 1:-1, 1:-1]
    most, least, paths = _along_paths(adjacency, runs)
    widths = _relative_widths(inner, last)
    weights = _convolution_weights(adjacency, runs, widths)
    scale = float(V - 2)
    single = [
        runs.sum((1, 2)) / scale,
        bits.sum(1) / MAX_EDGES,
        most[:, -1] / (V - 1),
        least[:, -1] / (V - 1),
        jnp.log2(paths) / scale,
        adjacency[:, :, -1].sum(1) / (V - 1),
        adjacency[:, 0].sum(1) / (V - 1),
        jnp.log1p(weights) / math.log1p(10 * scale),
    ]
    columns = [
        vertices.reshape(len(given), -1),
        bits,
        runs.sum(1) / scale,
        most[:, :-1] / scale,
        least[:, :-1] / scale,
        jnp.einsum("bv,bvi->bi", first, runs) / scale,
        jnp.einsum("bv,bvi->bi", last, runs) / scale,
        jnp.einsum("buv,bui,bvj->bij", inner, runs, runs).reshape(len(given), -1) / MAX_EDGES,
        *_sequences(first, last, inner, runs),
        jnp.einsum("bv,bvi->bi", widths, runs) / scale,
        jnp.stack(single, 1),
    ]
    return jnp.concatenate(columns, 1)


def parameters(pool: np.ndarray, max_vertices: int) -> np.ndarray:
    """Returns the trainable parameters of the benchmark's network for CIFAR-10 with each cell, int64 [B].

    Equal to the published number when the vertices stand in the order in which the benchmark trained them. In another
    order the channels left over by a division may go to another vertex, which changes the number by about one percent.

    A stem of one 3x3 convolution to 128 channels, three stacks of three cells with the channels doubled from stack to
    stack, and a linear classifier; every convolution has batch normalisation with scale and offset and no bias. The
    vertices that feed the output share its channels; every other vertex has the most channels of its successors; what
    a vertex reads from the cell's input is projected to its channels by a 1x1 convolution.

    Args:
      pool: pruned architectures in any order of vertices, int32 [B, L].
      max_vertices: V.
    """
    adjacency = adjacency_of(pool, max_vertices)
    operations = pool[:, : max_vertices - 2]
    total = np.full(len(pool), 27 * _STEM_CHANNELS + 2 * _STEM_CHANNELS, np.int64)
    channels = _STEM_CHANNELS
    for stack in range(_STACKS):
        out = _STEM_CHANNELS << stack
        widths = vertex_channels(adjacency, out)
        for _ in range(_CELLS_PER_STACK):
            total += _cell_parameters(adjacency, operations, widths, channels, out)
            channels = out
    return total + channels * _CLASSES + _CLASSES


def vertex_channels(adjacency: np.ndarray, out: int) -> np.ndarray:
    """Returns the channels of each vertex of a cell with `out` channels, [B, V]: 0 where unused, `out` at both ends."""
    B, V, _ = adjacency.shape
    feeds = adjacency[:, 1:-1, -1]
    count = np.maximum(feeds.sum(1), 1)
    share, left = out // count, out % count
    widths = np.zeros((B, V), np.int64)
    # The first vertices that feed the output take one channel more until the remainder is used up.
    widths[:, 1:-1] = np.where(feeds, share[:, None] + (np.cumsum(feeds, 1) <= left[:, None]), 0)
    for v in range(V - 3, 0, -1):
        inherited = (adjacency[:, v, 1:-1] * widths[:, 1:-1]).max(1)
        widths[:, v] = np.where(feeds[:, v - 1], widths[:, v], inherited)
    widths[:, -1] = widths[:, 0] = out
    return widths


def _cell_parameters(
    adjacency: np.ndarray, operations: np.ndarray, widths: np.ndarray, incoming: int, out: int
) -> np.ndarray:
    total = np.zeros(len(adjacency), np.int64)
    for v in range(1, adjacency.shape[1] - 1):
        width = widths[:, v]
        area = np.array([*_KERNEL_AREA, 0], np.int64)[operations[:, v - 1]]
        total += np.where(area > 0, area * width * width + 2 * width, 0)
        total += np.where(adjacency[:, 0, v], incoming * width + 2 * width, 0)
    return total + np.where(adjacency[:, 0, -1], incoming * out + 2 * out, 0)


def _along_paths(adjacency: jax.Array, runs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the most and fewest operations of each kind, and last edges, on a path from input to output, both [B,
    4], and the number of paths [B]; all float32.
    """
    B, V, _ = adjacency.shape
    steps = jnp.pad(runs, ((0, 0), (1, 1), (0, 0)))
    steps = jnp.concatenate([steps, jnp.ones((B, V, 1), jnp.float32)], 2)
    most = least = jnp.zeros((B, 1, steps.shape[2]), jnp.float32)
    paths = jnp.ones((B, 1), jnp.float32)
    for v in range(1, V):
        present = adjacency[:, :v, v, None] > 0
        longest = jnp.where(present, most, -_FAR).max(1) + steps[:, v]
        shortest = jnp.where(present, least, _FAR).min(1) + steps[:, v]
        most = jnp.concatenate([most, longest[:, None]], 1)
        least = jnp.concatenate([least, shortest[:, None]], 1)
        paths = jnp.concatenate([paths, (adjacency[:, :v, v] * paths).sum(1, keepdims=True)], 1)
    return most[:, -1], least[:, -1], paths[:, -1]


def _sequences(first: jax.Array, last: jax.Array, inner: jax.Array, runs: jax.Array) -> list[jax.Array]:
    """Returns which sequences of one, two and three operations are whole paths, float32 [B, 3], [B, 9] and [B, 27]."""
    start = first[:, :, None] * runs
    end = last[:, :, None] * runs
    pairs = jnp.einsum("bui,buv,bvj->bvij", start, inner, runs)
    found = (
        jnp.einsum("bv,bvi->bi", last, start),
        jnp.einsum("bv,bvij->bij", last, pairs),
        jnp.einsum("bvij,bvw,bwk->bijk", pairs, inner, end),
    )
    return [jnp.minimum(paths.reshape(len(runs), -1), 1.0) for paths in found]


def _relative_widths(inner: jax.Array, last: jax.Array) -> jax.Array:
    """Returns the channels of each interior vertex as a fraction of the cell's, float32 [B, V-2]."""
    feeds = last / jnp.maximum(last.sum(1, keepdims=True), 1.0)
    widths = feeds
    for v in range(feeds.shape[1] - 2, -1, -1):
        inherited = (inner[:, v] * widths).max(1)
        widths = widths.at[:, v].set(jnp.maximum(feeds[:, v], inherited))
    return widths


def _convolution_weights(adjacency: jax.Array, runs: jax.Array, widths: jax.Array) -> jax.Array:
    """Returns the weights of a cell's convolutions over those of one full 1x1 convolution, float32 [B]."""
    area = runs @ jnp.array(_KERNEL_AREA, jnp.float32)
    projections = (adjacency[:, 0, 1:-1] * widths).sum(1) + adjacency[:, 0, -1]
    return (area * widths**2).sum(1) + projections
