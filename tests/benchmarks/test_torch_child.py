"""The child that PyTorch runs is the supernet's: same weights, same multiply-adds, same loss and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells import SPACES
from parsec.cells.costs import network_cost
from parsec.cells.network import Shape
from parsec.data.source import Batch
from parsec.errors import UserError
from parsec.supernet.objective import static_child
from parsec.supernet.supernet import child_weights, make_supernet

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from benchmarks.torch_child import TorchChild, log_likelihood, torch_images  # noqa: E402

SHAPES = {"darts": Shape(channels=4, cells=3, num_classes=5), "nasbench201": Shape(4, 1, 5)}


def every_operation(name: str) -> np.ndarray:
    """Returns an architecture in which each operation occurs."""
    space = SPACES[name]
    architecture = np.zeros(len(space.sizes), np.int32)
    seen = 0
    for at, choice in enumerate(space.choices):
        if choice.options == space.operations:
            architecture[at] = seen % len(space.operations)
            seen += 1
    assert seen >= len(space.operations)
    return architecture


@pytest.mark.parametrize("name", SHAPES)
def test_torch_child_equals_the_static_child(name: str, key: jax.Array):
    space, shape = SPACES[name], SHAPES[name]
    images, labels = jax.random.normal(key, (4, 8, 8, 3)), jnp.array([0, 1, 2, 3], jnp.int32)
    batch = Batch(images, labels)
    architecture = every_operation(name)
    genotype = space.decode(architecture)
    own = child_weights(space, shape, make_supernet(space, shape).init(key, images), genotype)
    run = static_child(space, genotype, shape)
    # It runs once: compiling it well would take longer than running it badly.
    once = jax.jit(
        jax.value_and_grad(lambda w: run(w, batch).log_likelihood),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    expected, gradient = once(own)

    child = TorchChild(space, genotype, shape, own)
    assert sum(p.numel() for p in child.parameters()) == sum(leaf.size for leaf in jax.tree.leaves(own))
    with FlopCounterMode(display=False) as counter:
        found = log_likelihood(
            child, torch_images(np.asarray(images), "cpu", "float32"), torch.tensor(np.asarray(labels)).long()
        )
    bias = shape.num_classes
    assert counter.get_total_flops() / 2 / 4 == network_cost(space, architecture, shape, (8, 8, 3)).flops - bias
    np.testing.assert_allclose(found.item(), float(expected), rtol=1e-4)
    found.backward()
    stem = child.parts["stem"].kernel.grad.permute(2, 3, 1, 0).numpy()
    scale = float(jnp.abs(gradient["stem"]["kernel"]).max())
    np.testing.assert_allclose(stem / scale, gradient["stem"]["kernel"] / scale, atol=2e-3)


def test_a_space_without_a_torch_network_is_refused():
    space = SPACES["darts"]
    other = type(space)("mine", space.choices, space.operations, space.cells, space.network)
    with pytest.raises(UserError, match="mine"):
        TorchChild(other, {}, SHAPES["darts"], {})
