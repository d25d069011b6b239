"""Parameters that a network reads, against gradients of its static network and against the paths of its cell."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from parsec.cells import DARTS, NASBENCH201, Space
from parsec.cells.costs import cost_table, network_cost, table_costs
from parsec.cells.network import Shape, derive
from parsec.cells.operations import BatchStatistics
from parsec.cells.read_params import count_read

IMAGE = (8, 8, 3)
DARTS_SHAPE, SHAPE = Shape(channels=2, cells=3, num_classes=3), Shape(channels=2, cells=1, num_classes=3)


def part(path: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the slot of a cell that a parameter belongs to, or the part of the skeleton."""
    return path[:2] if path[0].startswith("cell") else path[:1]


def read_by_gradients(space: Space, architecture: np.ndarray, shape: Shape) -> int:
    """Returns the parameters of the parts that have a gradient."""
    genotype, images = space.decode(architecture), jax.random.normal(jax.random.key(1), (4, *IMAGE))
    network = derive(space, genotype, shape, norm=BatchStatistics)
    params = jax.jit(network.init)(jax.random.key(0), images)["params"]
    wanted = jax.random.normal(jax.random.key(2), (4, shape.num_classes))
    gradients = jax.jit(jax.grad(lambda params: (network.apply({"params": params}, images) * wanted).sum()))(params)
    moved = {part(path) for path, leaf in flatten_dict(gradients).items() if np.asarray(leaf).any()}
    affine = derive(space, genotype, shape, norm=lambda name: nn.BatchNorm(True, name=name))
    sizes = flatten_dict(jax.eval_shape(affine.init, jax.random.key(0), images)["params"])
    # The last normalisation has no parameters but those of its affine form.
    return sum(leaf.size for path, leaf in sizes.items() if part(path) in {*moved, ("last_norm",)})


def darts(normal: int, reduce: int) -> np.ndarray:
    """Returns a cell whose kinds read one of their inputs alone, or both, which is 2."""
    architecture = np.random.default_rng(4).integers(0, DARTS.sizes).astype(np.int32)
    for kind, alone in (("normal", normal), ("reduce", reduce)):
        for which, slot in enumerate(DARTS.cells[kind].slots):
            architecture[slot.operation] = DARTS.operations.index("dil_conv_3x3" if which % 3 == 0 else "skip_connect")
            if which < 2 or architecture[slot.source_choice] < 2:
                architecture[slot.source_choice] = which % 2 if alone == 2 else alone
    return architecture


@pytest.mark.parametrize(("normal", "reduce"), [(1, 0), (0, 1)])
def test_a_cell_that_no_later_one_reads_is_not_counted(normal: int, reduce: int) -> None:
    architecture, count = darts(normal, reduce), count_read(DARTS, DARTS_SHAPE, IMAGE)
    assert count(architecture[None]) == read_by_gradients(DARTS, architecture, DARTS_SHAPE)
    # Nor do the other rows of a call change it.
    several = np.stack([darts(2, 2), architecture, darts(2, reduce)])
    assert count(several)[1] == count(architecture[None])
    assert count(several)[0] == network_cost(DARTS, several[0], DARTS_SHAPE, IMAGE).params
    assert count(several)[1] < network_cost(DARTS, architecture, DARTS_SHAPE, IMAGE).params


# Edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3; 0 is none, 1 skips, 2 and 3 convolve.
@pytest.mark.parametrize("edges", [(3, 0, 2, 2, 3, 0), (0, 0, 3, 3, 3, 2)])
def test_an_edge_before_or_behind_a_none_is_not_counted(edges: tuple[int, ...]) -> None:
    architecture = np.array(edges, np.int32)
    count = count_read(NASBENCH201, SHAPE, IMAGE)(architecture[None])
    assert count == read_by_gradients(NASBENCH201, architecture, SHAPE)


def test_an_edge_counts_where_a_path_leads_through_it() -> None:
    every = np.stack(np.unravel_index(np.arange(5**6), [5] * 6), 1).astype(np.int32)
    paths = np.zeros((4, 6), bool)
    # Of the edges 0-1, 0-2, 1-2, 0-3, 1-3 and 2-3.
    for path, edges in enumerate(([3], [0, 4], [1, 5], [0, 2, 5])):
        paths[path, edges] = True
    open_paths = ((every != 0)[:, None] | ~paths[None]).all(-1)
    read = (open_paths[:, :, None] & paths[None]).any(1)
    table, counted = cost_table(NASBENCH201, SHAPE, IMAGE), count_read(NASBENCH201, SHAPE, IMAGE)(every)
    connected = open_paths.any(1)
    assert counted.dtype == np.int64
    np.testing.assert_array_equal(counted[connected], table_costs(table, every * read)[connected, 0])
    # Without a path the head reads the bias of the last normalisation, and nothing else is read.
    assert set(counted[~connected]) == {2 * 8 + 8 * 3 + 3}
