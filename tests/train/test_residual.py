"""The plain residual network has the parameters that its formula says, and about as many as it is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells.network import Shape
from parsec.cells.scan import stack
from parsec.train.derived import Blueprint, init_variables, make_network, network_costs, variable_shapes
from parsec.train.residual import Size, choose_size, count_params


@pytest.mark.parametrize("size", [Size(2, 5), Size(3, 16)])
def test_the_formula_counts_the_network(size: Size):
    shape = Shape(size.channels, size.blocks, num_classes=7)
    cost = network_costs(Blueprint("resnet", "resnet", shape), (16, 16, 3))
    assert cost.params == count_params(size, 7, 3)


@pytest.mark.parametrize("wanted", [20_000, 300_000, 3_349_342])
def test_a_size_is_near_what_is_asked_for(wanted: int):
    found = count_params(choose_size(wanted, 10, 3), 10, 3)
    assert abs(found / wanted - 1) < 0.08


def test_a_dropped_block_passes_on_what_comes_in(key: jax.Array):
    blueprint = Blueprint("resnet", "resnet", Shape(4, 3, 5))
    network = make_network(blueprint, train=False)
    variables = init_variables(make_network(blueprint, train=True), key, (8, 8, 3))
    images = jax.random.normal(key, (2, 8, 8, 3))
    kept = np.ones((9, 1, 2), np.float32)
    kept[1:3] = 0  # the two blocks that keep the first stage's shape
    apply = jax.jit(network.apply)
    dropped = apply(variables, images, None, jnp.asarray(kept))
    # Without what they add: their last kernel is zero.
    for name in ("block_0_1", "block_0_2"):
        variables["params"][name]["kernel_1"] = jnp.zeros_like(variables["params"][name]["kernel_1"])
    np.testing.assert_allclose(dropped, apply(variables, images), rtol=1e-5)
    scanned = make_network(blueprint, train=False, scan=True)
    like = variable_shapes(scanned, (8, 8, 3))
    np.testing.assert_allclose(dropped, jax.jit(scanned.apply)(stack(variables, like), images), rtol=1e-4, atol=1e-5)
