"""How many children a step has, and how they are drawn from the prior."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec import prior as priors
from parsec.joint.settings import SamplerSettings


class Sampler(NamedTuple):
    """Draws the children of a step.

    Attributes:
      most: K, the largest number of children there can be.
      budget: `budget(logits) -> int32 []`, how many of the K rows are children at this step.
      sample: `sample(key, logits, count) -> int32 [K, L]`, of which the first `count` rows are children.
    """

    most: int
    budget: Callable[[jax.Array], jax.Array]
    sample: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def make_sampler(mask: np.ndarray, settings: SamplerSettings) -> Sampler:
    """Returns the sampler of a prior with logits float32 [L, O] under a mask, bool [L, O]."""
    most = settings.num_children

    def budget(logits: jax.Array) -> jax.Array:
        if settings.budget == "fixed":
            return jnp.array(most, jnp.int32)
        return priors.adaptive_count(logits, mask, settings.children_per_nat, most)

    def sample(key: jax.Array, logits: jax.Array, count: jax.Array) -> jax.Array:
        if settings.stratified:
            return priors.sample_stratified(key, logits, mask, most, count)
        return priors.sample(key, logits, mask, most)

    return Sampler(most, budget, sample)
