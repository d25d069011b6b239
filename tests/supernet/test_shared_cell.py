"""What a shared cell computes, slot by slot."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells.nasbench201 import NASBENCH201
from parsec.cells.operations import OPERATIONS, BatchStatistics, make_operation
from parsec.cells.space import CellLayout, Hard, Slot
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
    params = jax.jit(module.init)(key, (images,), route)["params"]
    weights = jax.tree.map(lambda leaf: leaf[3], params.get(operation, {}))
    made = make_operation(operation, channels=4, stride=1, norm=BatchStatistics)
    skip = 0.0 if operation == "none" else 0.25

    def by_hand(x: jax.Array) -> jax.Array:
        return made.apply({"params": weights}, x) + skip * x

    def by_cell(x: jax.Array) -> jax.Array:
        return module.apply({"params": params}, (x,), route)

    def both(compute: Callable[[jax.Array], jax.Array], x: jax.Array) -> tuple[jax.Array, jax.Array]:
        result, pull = jax.vjp(compute, x)
        return result, pull(jnp.cos(result))[0]

    (expected, to_images), (found, to_input) = (jax.jit(partial(both, each))(images) for each in (by_hand, by_cell))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(to_input, to_images, atol=1e-4)


ONE_SLOT = CellLayout(1, 1, (Slot(target=1, operation=0, source=0),))


@pytest.mark.parametrize(("stride", "dtype"), [(1, "float32"), (2, "bfloat16")])
def test_every_operation_in_a_cell_is_the_operation_itself_in_value_and_gradient(
    stride: int, dtype: str, key: jax.Array
):
    """One program runs them all, by an index that it is given."""
    names = tuple(OPERATIONS)
    module = SharedCell(ONE_SLOT, names, 4, stride, BatchStatistics)
    images = jax.random.normal(key, (3, 7, 7, 4)).astype(dtype)

    def route(at: jax.Array) -> Hard:
        return Hard(jnp.zeros(1, jnp.int32), at[None])

    params = jax.jit(module.init)(key, (images,), route(jnp.array(0)))["params"]

    @jax.jit
    def by_cell(params: dict, images: jax.Array, at: jax.Array) -> tuple:
        result, pull = jax.vjp(lambda p, x: module.apply({"params": p}, (x,), route(at)), params, images)
        return result, pull(jnp.cos(result))

    for at, name in enumerate(names):
        made = make_operation(name, channels=4, stride=stride, norm=BatchStatistics)
        own = jax.tree.map(lambda leaf: leaf[0], params.get(name, {}))

        @jax.jit
        def by_itself(params: dict, images: jax.Array, made: nn.Module = made) -> tuple:
            result, pull = jax.vjp(lambda p, x: made.apply({"params": p}, x), params, images)
            return result, pull(jnp.cos(result))

        expected, (to_own, to_images) = by_itself(own, images)
        found, (to_params, to_input) = by_cell(params, images, jnp.array(at))
        # Eight bits of mantissa, and sums of some hundred of them.
        close = 1e-4 if dtype == "float32" else 0.1
        assert found.dtype == jnp.dtype(dtype)
        for one, other, slack in ((found, expected, 1), (to_input, to_images, 5)):
            one, other = one.astype(jnp.float32), other.astype(jnp.float32)
            np.testing.assert_allclose(one, other, atol=slack * close, rtol=close, err_msg=name)
        for one, other in zip(jax.tree.leaves(to_params.get(name, {})), jax.tree.leaves(to_own), strict=True):
            scale = max(float(jnp.abs(other).max()), 1e-3)
            np.testing.assert_allclose(one[0] / scale, other / scale, err_msg=name, atol=5 * close)


def test_an_auxiliary_skip_leaves_a_strided_edge_alone(key: jax.Array):
    images = jax.random.normal(key, (2, 6, 6, 4))
    route = NASBENCH201.route("cell", jnp.full(6, 3, jnp.int32))
    params = cell(0.0, stride=2).init(key, (images,), route)["params"]
    edge = NASBENCH201.route("cell", jnp.array([3, 0, 0, 3, 0, 0], jnp.int32))
    with_skip, without = (cell(skip, stride=2).apply({"params": params}, (images,), edge) for skip in (1.0, 0.0))
    np.testing.assert_array_equal(with_skip, without)


def test_operations_without_weights_make_a_cell_too(key: jax.Array):
    images = jax.random.normal(key, (2, 5, 5, 4))
    route = NASBENCH201.route("cell", jnp.array([1, 0, 0, 1, 0, 0], jnp.int32))
    module = SharedCell(NASBENCH201.cells["cell"], ("none", "skip_connect"), 4, 1, BatchStatistics)
    params = module.init(key, (images,), route).get("params", {})
    found, pull = jax.vjp(lambda x: module.apply({"params": params}, (x,), route), images)
    np.testing.assert_allclose(found, images)
    np.testing.assert_allclose(pull(images)[0], images)
