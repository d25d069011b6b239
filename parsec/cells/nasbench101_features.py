"""One description of every NAS-Bench-101 cell, of fixed length, whose positions mean the same for cells of every size.

Beside the vertices and edges of the canonical frame it holds what they add up to: how many there are of each operation,
how deep the cell is and how deep in each operation, what is next to the input and to the output, and how many parameters
the benchmark's network has with this cell (Ying et al., ICML 2019, arXiv 1902.09635, section 2 and appendix: channels are
shared out among the vertices that feed the output). All of it follows from the graph; nothing is learnt or measured.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.nasbench101_graphs import MAX_EDGES, OPERATIONS
from parsec.search.contract import ArrayLike

_STEM_CHANNELS = 128
_STACKS = 3
_CELLS_PER_STACK = 3
_CLASSES = 10
_KERNEL_AREA = (9, 1, 0)
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
    operations = jax.nn.one_hot(given[:, : V - 2], len(OPERATIONS) + 1, dtype=jnp.float32)
    bits = given[:, V - 2 :].astype(jnp.float32)
    pairs = [(i, j) for j in range(1, V) for i in range(j)]
    edge = {pair: bits[:, e] for e, pair in enumerate(pairs)}
    runs = {v: operations[:, v - 1, : len(OPERATIONS)] for v in range(1, V - 1)}
    counts = operations[:, :, : len(OPERATIONS)].sum(1)

    # Along every path: operations of each kind (and edges) at most and at least, and the number of paths.
    columns = len(OPERATIONS) + 1
    most = {0: jnp.zeros((len(given), columns), jnp.float32)}
    least = {0: most[0]}
    paths = {0: jnp.ones(len(given), jnp.float32)}
    for v in range(1, V):
        here = jnp.ones((len(given), 1), jnp.float32)
        here = jnp.concatenate([runs[v] if v < V - 1 else jnp.zeros((len(given), columns - 1)), here], 1)
        present = jnp.stack([edge[u, v] for u in range(v)], 1)[:, :, None] > 0
        most[v] = jnp.where(present, jnp.stack([most[u] for u in range(v)], 1), -_FAR).max(1) + here
        least[v] = jnp.where(present, jnp.stack([least[u] for u in range(v)], 1), _FAR).min(1) + here
        paths[v] = sum(edge[u, v] * paths[u] for u in range(v))

    sequences, links = _sequences(edge, runs, V)
    widths = _relative_widths(edge, V)
    per_operation = sum(widths[v][:, None] * runs[v] for v in range(1, V - 1))
    weights = _convolution_weights(edge, runs, widths, V)
    scale = float(V - 2)
    single = [
        counts.sum(1) / scale,
        bits.sum(1) / MAX_EDGES,
        most[V - 1][:, -1] / (V - 1),
        least[V - 1][:, -1] / (V - 1),
        jnp.log2(paths[V - 1]) / (V - 2),
        sum(edge[u, V - 1] for u in range(V - 1)) / (V - 1),
        sum(edge[0, v] for v in range(1, V)) / (V - 1),
        jnp.log1p(weights) / np.log1p(9.0 * scale).astype(np.float32),
    ]
    return jnp.concatenate(
        [
            operations.reshape(len(given), -1),
            bits,
            counts / scale,
            most[V - 1][:, :-1] / scale,
            least[V - 1][:, :-1] / scale,
            sum(edge[0, v][:, None] * runs[v] for v in range(1, V - 1)) / scale,
            sum(edge[v, V - 1][:, None] * runs[v] for v in range(1, V - 1)) / scale,
            links.reshape(len(given), -1) / MAX_EDGES,
            *sequences,
            per_operation / scale,
            jnp.stack(single, 1),
        ],
        1,
    )


def parameters(pool: np.ndarray, max_vertices: int) -> np.ndarray:
    """Returns the trainable parameters of the benchmark's network for CIFAR-10 with each cell, int64 [B].

    A stem of one 3x3 convolution to 128 channels, three stacks of three cells with the channels doubled from stack to stack,
    and a linear classifier; every convolution has batch normalisation with scale and offset and no bias. The vertices that
    feed the output share its channels; every other vertex has the most channels of its successors; what a vertex reads from
    the cell's input is projected to its channels by a 1x1 convolution.

    Args:
      pool: canonical architectures, int32 [B, L].
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
    """Returns the channels of each vertex of a cell with `out` channels, int64 [B, V]; 0 where unused, `out` at the ends."""
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
        area = np.array([*_KERNEL_AREA, 0])[operations[:, v - 1]]
        total += np.where(area > 0, area * width * width + 2 * width, 0)
        total += np.where(adjacency[:, 0, v], incoming * width + 2 * width, 0)
    return total + np.where(adjacency[:, 0, -1], incoming * out + 2 * out, 0)


def _sequences(
    edge: dict[tuple[int, int], jax.Array], runs: dict[int, jax.Array], V: int
) -> tuple[list[jax.Array], jax.Array]:
    """Returns which sequences of one, two and three operations lie on some path from input to output, and the links between
    operations, float32 [B, 3, 3].
    """
    interior = range(1, V - 1)
    ones = sum(edge[0, v][:, None] * edge[v, V - 1][:, None] * runs[v] for v in interior)
    links = jnp.zeros((len(ones), len(OPERATIONS), len(OPERATIONS)), jnp.float32)
    twos = links
    threes = links[..., None] * jnp.zeros((1, 1, 1, len(OPERATIONS)), jnp.float32)
    for u, v in itertools.combinations(interior, 2):
        link = edge[u, v][:, None, None] * runs[u][:, :, None] * runs[v][:, None, :]
        links = links + link
        ends = (edge[0, u] * edge[v, V - 1])[:, None, None]
        twos = twos + ends * link
        for w in range(v + 1, V - 1):
            last = (edge[0, u] * edge[v, w] * edge[w, V - 1])[:, None] * runs[w]
            threes = threes + link[..., None] * last[:, None, None, :]
    whole = [jnp.minimum(found.reshape(len(ones), -1), 1.0) for found in (ones, twos, threes)]
    return whole, links


def _relative_widths(edge: dict[tuple[int, int], jax.Array], V: int) -> dict[int, jax.Array]:
    """Returns the channels of each vertex as a fraction of the cell's, each float32 [B]."""
    share = 1.0 / jnp.maximum(sum(edge[v, V - 1] for v in range(1, V - 1)), 1.0)
    widths: dict[int, jax.Array] = {}
    for v in range(V - 2, 0, -1):
        feeds = edge[v, V - 1] * share
        widths[v] = jnp.stack([feeds, *(edge[v, w] * widths[w] for w in range(v + 1, V - 1))]).max(0)
    return widths


def _convolution_weights(
    edge: dict[tuple[int, int], jax.Array], runs: dict[int, jax.Array], widths: dict[int, jax.Array], V: int
) -> jax.Array:
    """Returns the weights of a cell's convolutions over those of one full 1x1 convolution, float32 [B]."""
    total = edge[0, V - 1]
    for v in range(1, V - 1):
        area = _KERNEL_AREA[0] * runs[v][:, 0] + _KERNEL_AREA[1] * runs[v][:, 1]
        total = total + area * widths[v] ** 2 + edge[0, v] * widths[v]
    return total
