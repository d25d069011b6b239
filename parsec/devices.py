"""The devices that one network is trained on, and how a batch and a step's children are divided among them.

They form a mesh of groups, along the axis "children", each of several devices, along the axis "batch". A batch's
examples are divided among the devices of a group, and every group has all of them; all else lies whole on every device.
A program still reads as if one machine saw the whole batch: the sums over devices that the batch's statistics, its loss
and the gradients take are the compiler's (Xu et al. 2021, GSPMD, arXiv 2105.04663). Only the children of a search's
step are shared out among the groups by hand (`parsec.supernet.children`); any other program has one group, or does the
same in all. So the number of devices changes results by rounding alone. Without a mesh, a program is for the first
device.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from parsec.cells.convolution import use_platform
from parsec.errors import UserError

T = TypeVar("T")
CHILDREN, AXIS = "children", "batch"


def batch_mesh(count: int, batches: Mapping[str, int], groups: int = 1) -> Mesh:
    """Returns the mesh of a config's devices, the first of those there are.

    Args:
      count: of devices, config.devices; 0 for all.
      batches: sizes of the batches that are to be divided, by the names of their settings.
      groups: that the devices form, config.sampler.groups.

    Raises:
      UserError: there are fewer devices, or they or a batch cannot be divided evenly.
    """
    there = jax.devices()
    if count > len(there):
        raise UserError(
            f"config.devices={count} is more than there are; give at most {len(there)}, or 0 for as many as there are"
        )
    used = count or len(there)
    if jax.process_count() > 1 and used != len(there):
        raise UserError(
            f"config.devices={count} leaves out some of the {len(there)} devices of {jax.process_count()} processes; "
            "give 0, or no number"
        )
    given = f"config.devices={count}" if count else f"config.devices=0, {used} here,"
    if used % groups:
        nearest = max(n for n in range(1, groups) if used % n == 0)
        raise UserError(
            f"config.sampler.groups={groups} does not divide {used} devices evenly; give "
            f"--config.sampler.groups={nearest}, or another --config.devices"
        )
    each = used // groups
    for name, size in batches.items():
        if size % each:
            nearest = groups * max(n for n in range(1, each) if all(other % n == 0 for other in batches.values()))
            given += f" in {groups} groups" * (groups > 1)
            raise UserError(
                f"{given} does not divide {name}={size} evenly; give --config.devices={nearest}, or another batch"
            )
    return grid(there[:used], groups)


def grid(devices: Sequence[Any], groups: int = 1) -> Mesh:
    """Returns the mesh of these devices, which the groups divide."""
    return Mesh(np.array(devices).reshape(groups, -1), (CHILDREN, AXIS))


def groups_of(mesh: Mesh | None) -> int:
    """Returns how many groups of devices a mesh has."""
    return 1 if mesh is None else mesh.shape[CHILDREN]


def whole(mesh: Mesh | None = None) -> NamedSharding:
    """Returns the placement of what every device holds whole."""
    return NamedSharding(mesh or _first(), PartitionSpec())


def divided(mesh: Mesh | None = None) -> NamedSharding:
    """Returns the placement of arrays [B, ...] whose examples are divided among the devices."""
    return NamedSharding(mesh or _first(), PartitionSpec(AXIS))


def place(tree: Any, where: Sharding) -> Any:
    """Returns arrays on their devices, as `jax.device_put` does; of several processes each gives the same, whole."""
    if where.is_fully_addressable:
        return jax.device_put(tree, where)
    return jax.tree.map(lambda leaf: _place(leaf, where), tree)


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


def _place(leaf: Any, where: Sharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_place(jax.random.key_data(leaf), where), impl=jax.random.key_impl(leaf))
    # Not by `jax.device_put`, which would compare all of it between the processes.
    array = np.asarray(leaf)
    return jax.make_array_from_callback(array.shape, where, lambda part: array[part])


def _first() -> Mesh:
    return grid(jax.local_devices()[:1])
