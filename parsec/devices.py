"""The devices that one network is trained on, and how a batch is divided among them.

They form a mesh of one axis. A batch's examples are divided along it; all else lies whole on every device. A program
still reads as if one machine saw the whole batch: the sums over devices that the batch's statistics, its loss and the
gradients take are the compiler's (Xu et al. 2021, GSPMD, arXiv 2105.04663). So the number of devices changes results by
rounding alone. Without a mesh, a program is for the first device.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from parsec.cells.convolution import use_platform
from parsec.errors import UserError

T = TypeVar("T")
AXIS = "batch"


def batch_mesh(count: int, batches: Mapping[str, int]) -> Mesh:
    """Returns the mesh of a config's devices, the first of those there are.

    Args:
      count: of devices, config.devices; 0 for all.
      batches: sizes of the batches that are to be divided, by the names of their settings.

    Raises:
      UserError: there are fewer devices, or a batch cannot be divided evenly.
    """
    there = jax.devices()
    if count > len(there):
        raise UserError(
            f"config.devices={count} is more than there are; give at most {len(there)}, or 0 for as many as there are"
        )
    used = count or len(there)
    for name, size in batches.items():
        if size % used:
            nearest = max(n for n in range(1, used) if all(each % n == 0 for each in batches.values()))
            given = f"config.devices={count}" if count else f"config.devices=0, {used} here,"
            raise UserError(
                f"{given} does not divide {name}={size} evenly; give --config.devices={nearest}, or another batch"
            )
    return Mesh(np.array(there[:used]), (AXIS,))


def whole(mesh: Mesh | None = None) -> NamedSharding:
    """Returns the placement of what every device holds whole."""
    return NamedSharding(mesh or _first(), PartitionSpec())


def divided(mesh: Mesh | None = None) -> NamedSharding:
    """Returns the placement of arrays [B, ...] whose examples are divided among the devices."""
    return NamedSharding(mesh or _first(), PartitionSpec(AXIS))


def divide(batch: T, mesh: Mesh | None = None) -> T:
    """Returns a batch's arrays [B, ...] within a program, divided among its devices."""
    return jax.lax.with_sharding_constraint(batch, divided(mesh))


def traced_for(mesh: Mesh | None, function: Callable[..., T]) -> Callable[..., T]:
    """Returns the function, traced in the forms that are fastest on the mesh's devices, whatever traces it."""
    platform = (mesh or _first()).devices.flat[0].platform

    @wraps(function)
    def traced(*arguments: Any) -> T:
        with use_platform(platform):
            return function(*arguments)

    return traced


def _first() -> Mesh:
    return Mesh(np.array(jax.devices()[:1]), (AXIS,))
