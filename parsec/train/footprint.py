"""The memory that a training needs, told before anything is compiled or computed.

What is counted: the weights with their gradients, moments and copies, and what the forward pass keeps for the backward
pass, read off the traced program. XLA keeps less of the latter than the program asks for, so only a share is counted:
what is refused certainly does not fit.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from parsec.footprint import require_memory
from parsec.train.derived import Blueprint, make_network, variable_shapes
from parsec.train.recipe import Recipe

# Share of what the program keeps that XLA keeps too.
_SURE = 0.5


def training_needs(
    recipe: Recipe, blueprint: Blueprint, image: tuple[int, int, int], *, validates: bool, devices: int = 1
) -> dict[str, int]:
    """Returns the bytes that each device needs at once to train a network, by what needs them; nothing is computed.

    Args:
      recipe: of training.
      blueprint: of the network; its depth costs no time here.
      image: height, width and channels of the images.
      validates: whether a copy of the best weights is kept.
      devices: that a batch is divided among.
    """
    network = make_network(blueprint, train=True, auxiliary=recipe.auxiliary_weight > 0, scan=True)
    variables = variable_shapes(network, image)
    images = jax.ShapeDtypeStruct((recipe.batch_size // devices, *image), jnp.dtype(blueprint.shape.dtype))

    def kept(variables: Any, images: jax.Array) -> Any:
        def forward(params: Any) -> Any:
            return network.apply({**variables, "params": params}, images, mutable=["batch_stats"])[0]

        return jax.vjp(forward, variables["params"])[1]

    # Weights, gradients and moments; then the copies.
    copies = 3 + (recipe.average > 0) + validates
    return {
        "weights, gradients, moments and copies": copies * _bytes(variables),
        "what the forward pass keeps": int(_SURE * _bytes(jax.eval_shape(kept, variables, images))),
    }


def check_memory(needs: dict[str, int]) -> None:
    """Raises `UserError` where what a training needs does not fit in the memory of its device, or of this machine."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    require_memory(
        needs,
        "lower config.data.batch_size, config.network.channels, config.network.cells or config.data.image_size",
        free=statistics.get("bytes_limit"),
    )


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))
