"""What a shared cell computes, slot by slot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells.nasbench201 import NASBENCH201
from parsec.cells.operations import BatchStatistics, make_operation
from parsec.supernet.shared_cell import SharedCell


def cell(auxiliary_skip: float, stride: int = 1) -> SharedCell:
    layout = NASBENCH201.cells["cell"]
    return SharedCell(layout, NASBENCH201.operations, 4, stride, BatchStatistics, auxiliary_skip)


@pytest.mark.parametrize("operation", NASBENCH201.operations)
def test_an_auxiliary_skip_stands_beside_every_operation_but_none(operation: str, key: jax.Array):
    """One edge leads from input to output; its result is the operation's, and the input's share unless that is none."""
    images = jax.random.normal(key, (2, 5, 5, 4))
    architecture = np.zeros(6, np.int32)
    architecture[3] = NASBENCH201.operations.index(operation)  # the edge from node 0 to node 3
    route = NASBENCH201.route("cell", jnp.asarray(architecture))
    module = cell(0.25)
    params = module.init(key, (images,), route)["params"]
    weights = jax.tree.map(lambda leaf: leaf[3], params.get(operation, {}))
    made = make_operation(operation, channels=4, stride=1, norm=BatchStatistics)
    skip = 0.0 if operation == "none" else 0.25

    def by_hand(x: jax.Array) -> jax.Array:
        return made.apply({"params": weights}, x) + skip * x

    def by_cell(x: jax.Array) -> jax.Array:
        return module.apply({"params": params}, (x,), route)

    expected, pull = jax.vjp(by_hand, images)
    found, pull_found = jax.vjp(by_cell, images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(pull_found(expected)[0], pull(expected)[0], atol=1e-4)


def test_an_auxiliary_skip_leaves_a_strided_edge_alone(key: jax.Array):
    images = jax.random.normal(key, (2, 6, 6, 4))
    route = NASBENCH201.route("cell", jnp.full(6, 3, jnp.int32))
    params = cell(0.0, stride=2).init(key, (images,), route)["params"]
    edge = NASBENCH201.route("cell", jnp.array([3, 0, 0, 3, 0, 0], jnp.int32))
    with_skip, without = (cell(skip, stride=2).apply({"params": params}, (images,), edge) for skip in (1.0, 0.0))
    np.testing.assert_array_equal(with_skip, without)
