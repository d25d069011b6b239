"""The network of one genotype as it is trained and used: what it is on paper, and the Flax module of it.

A blueprint names everything that a network's weights depend on. Its module comes in two forms with the same weights
under the same names: scanned, which compiles in the time of its different cells and is trained; and plain, which is
read, exported and used. `parsec.cells.scan.stack` and `unstack` turn the weights of one into those of the other.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from parsec.cells import SPACES, Space, get_space
from parsec.cells.batch_norm import BatchNorm
from parsec.cells.costs import Cost, module_cost
from parsec.cells.genotypes import from_text
from parsec.cells.network import Shape, StaticCell
from parsec.errors import UserError, unknown
from parsec.train.residual import RESIDUAL, STAGES, ResidualNetwork

# The trainable and the averaged arrays of a network: {"params": tree, "batch_stats": tree}.
Variables = Any


class Blueprint(NamedTuple):
    """What a network is.

    Attributes:
      space: key of `parsec.cells.SPACES`, or "resnet" for the plain residual network.
      genotype: the text of its cells, or "resnet".
      shape: its size; `cells` of a residual network are the blocks of a stage.
    """

    space: str
    genotype: str
    shape: Shape


def make_network(blueprint: Blueprint, *, train: bool, auxiliary: bool = False, scan: bool = False) -> nn.Module:
    """Returns the network, called as `network.apply(variables, images, None, factors)`; images float [B, H, W, C].

    Args:
      blueprint: what it is.
      train: whether it normalises by the batch at hand and updates its running averages; `factors` drop paths then.
      auxiliary: whether it has a second head; it then returns both heads' logits.
      scan: whether equal cells in a row are scanned.

    Raises:
      UserError: the space is unknown, the genotype is not one of it, or its network has no auxiliary head.
    """
    norm = partial(BatchNorm, use_running_average=not train)
    if blueprint.space == RESIDUAL:
        return ResidualNetwork(blueprint.shape, norm, auxiliary, scan)
    space = known_space(blueprint.space)
    genotype = space.decode(from_text(space, blueprint.genotype))

    def build_cell(kind: str, channels: int, stride: int, name: str) -> StaticCell:
        return StaticCell(genotype[kind], channels, stride, norm, name=name)

    # A space of one's own need not know how to be scanned, nor have a second head.
    known = getattr(space.network, "__dataclass_fields__", {})
    if auxiliary and "auxiliary" not in known:
        raise UserError(f"the network of {space.name} has no auxiliary head; set its weight to 0")
    offered = {"auxiliary": auxiliary, "scan": scan}
    extra = {name: value for name, value in offered.items() if name in known and value}
    return space.network(shape=blueprint.shape, build_cell=build_cell, norm=norm, **extra)


def init_variables(network: nn.Module, key: jax.Array, image: tuple[int, int, int]) -> Variables:
    """Returns fresh variables, float32, of a network in training form for images [H, W, C]."""
    example = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    # Lazily: only what the parameters need is run, so nothing the size of the network is compiled.
    return dict(network.lazy_init(key, example))


def variable_shapes(network: nn.Module, image: tuple[int, int, int]) -> Variables:
    """Returns the shapes and dtypes of `init_variables`; nothing is computed."""
    example = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    return dict(jax.eval_shape(network.init, jax.random.key(0), example))


def network_costs(blueprint: Blueprint, image: tuple[int, int, int], *, auxiliary: bool = False) -> Cost:
    """Returns the parameters and multiply-adds on one image [H, W, C], with or without the auxiliary head."""
    network = make_network(blueprint, train=False, auxiliary=auxiliary, scan=True)
    return module_cost(network, jax.ShapeDtypeStruct((1, *image), jnp.float32))


def dropped_paths(blueprint: Blueprint) -> tuple[int, int]:
    """Returns how many cells a network has, and how many paths that can be dropped in each; none where it cannot."""
    shape = blueprint.shape
    if blueprint.space == RESIDUAL:
        return STAGES * shape.cells, 1
    space = known_space(blueprint.space)
    cells = {"darts": shape.cells, "nasbench201": 3 * shape.cells}.get(space.name, 0)
    return cells, max(len(layout.slots) for layout in space.cells.values())


def known_space(name: str) -> Space:
    """Returns the space of that name; raises `UserError` naming those there are, "resnet" included."""
    if name not in SPACES:
        raise unknown("space", name, [*SPACES, RESIDUAL])
    return get_space(name)
