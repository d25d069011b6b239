"""The memory that a training needs, told before anything is compiled or computed.

What is counted: the weights with their gradients, moments and copies, and what the forward pass keeps for the backward
pass, read off the traced program. XLA fuses some of it away and adds buffers of its own, so the figure is an estimate:
within a factor of about two, which tells a network that fits from one that never can.
"""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from parsec.errors import UserError
from parsec.train.derived import Blueprint, make_network, variable_shapes
from parsec.train.recipe import Recipe


def training_bytes(recipe: Recipe, blueprint: Blueprint, image: tuple[int, int, int], *, validates: bool) -> int:
    """Returns the bytes that training a network needs at once; nothing is computed.

    Args:
      recipe: of training.
      blueprint: of the network; its depth costs no time here.
      image: height, width and channels of the images.
      validates: whether a copy of the best weights is kept.
    """
    network = make_network(blueprint, train=True, auxiliary=recipe.auxiliary_weight > 0, scan=True)
    variables = variable_shapes(network, image)
    images = jax.ShapeDtypeStruct((recipe.batch_size, *image), jnp.dtype(blueprint.shape.dtype))

    def kept(variables: Any, images: jax.Array) -> Any:
        def forward(params: Any) -> Any:
            return network.apply({**variables, "params": params}, images, mutable=["batch_stats"])[0]

        return jax.vjp(forward, variables["params"])[1]

    # Weights, gradients and moments; then the copies.
    copies = 3 + (recipe.average > 0) + validates
    return copies * _bytes(variables) + _bytes(jax.eval_shape(kept, variables, images))


def check_fits(needed: int, what: str) -> None:
    """Raises `UserError` where a training needs more memory than the device or machine has; `what` opens the line."""
    available = available_bytes()
    if available and needed > available:
        raise UserError(
            f"{what} needs about {needed / 2**30:,.1f} GiB and there are {available / 2**30:,.1f} GiB; "
            "lower --config.data.batch_size, --config.network.channels, --config.network.cells or the image size"
        )


def available_bytes() -> int:
    """Returns the memory of the device that trains, or of the machine where that is its own; 0 where it is unknown."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    limits = [_meminfo(), *_cgroup_limits()]
    return min((limit for limit in limits if limit), default=0)


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def _meminfo() -> int:
    """Returns the machine's memory and swap, as Linux tells it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("MemTotal:", "SwapTotal:")))
    except (OSError, ValueError, IndexError):
        return 0


def _cgroup_limits() -> list[int]:
    found = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return found
