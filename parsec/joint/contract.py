"""The contract of joint searches: shared weights and architecture learn together, step by step.

Where a strategy (`parsec.search.contract`) proposes architectures and is told scores, a joint search sees batches. It
is three pure functions that close over a supernet's child and an optimiser. PARSEC is one; relaxed searches (DARTS,
SNAS, GDAS) and policies (UNAS) keep the same contract.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from parsec.data.source import Batch
from parsec.supernet.objective import Child
from parsec.supernet.supernet import Supernet, Weights

# A pytree; what is in it is the search's own affair.
State = Any
# Diagnostics of one step, by name; scalars.
Info = Mapping[str, jax.Array]


class Parts(NamedTuple):
    """What a joint search is made of.

    Attributes:
      supernet: whose weights are shared.
      child: runs one of its children.
      mask: which options exist, bool [L, O].
      optimizer: of the shared weights.
      steps: of the whole search.
      shares: of kinds of operations, by name: what each option adds to the share that the kind has among an
        architecture's operations, float32 [L, O].
      mesh: the devices of the step, whose groups the children are shared out among; None runs them all on each.
    """

    supernet: Supernet
    child: Child
    mask: np.ndarray
    optimizer: optax.GradientTransformation
    steps: int
    shares: Mapping[str, np.ndarray] = MappingProxyType({})
    mesh: Mesh | None = None


class Joint(NamedTuple):
    """How weights and architecture learn together.

    Attributes:
      init: `init(key, images, logits) -> state`: fresh weights for images [B, H, W, C], of which only the shape and
        dtype are used, and the distribution over architectures that `logits` float32 [L, O] say.
      step: `step(state, key, train, valid, index) -> (state, info)` with batches for the weights and for the
        architecture and the step's number int32 []; plain `jax.numpy`. `info["loss"]` is NaN where the step failed
        altogether; the state is then the old one.
      architecture: `architecture(state) -> int32 [L]`, the one it would report now.
      weights: `weights(state)`, the shared weights.
      logits: `logits(state) -> float32 [L, O]`, or None where nothing is learnt about architectures.
      control: `control(state) -> float32 [L, O]`, the logits that the same search learns where likelihoods say nothing
        of architectures; None where it keeps no such control.
    """

    init: Callable[[jax.Array, jax.Array, np.ndarray], State]
    step: Callable[[State, jax.Array, Batch, Batch, jax.Array], tuple[State, Info]]
    architecture: Callable[[State], jax.Array]
    weights: Callable[[State], Weights]
    logits: Callable[[State], jax.Array] | None
    control: Callable[[State], jax.Array] | None = None
