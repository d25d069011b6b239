"""Shared weights alone: every step trains uniform children, and nothing is learnt about architectures.

What single-path searches train before anything is chosen (Guo et al. 2020, arXiv 1904.00420), and what strategies that
are told the scores of children search on.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec import prior as priors
from parsec.data.source import Batch
from parsec.joint.contract import Info, Joint, Parts
from parsec.joint.descent import descend
from parsec.joint.sampling import make_sampler
from parsec.joint.settings import JointSettings
from parsec.supernet.children import weighted_gradient
from parsec.supernet.supernet import Weights


class SharedState(NamedTuple):
    """The shared weights, their optimiser's state, and the logits that children are drawn by, float32 [L, O]."""

    weights: Weights
    optimizer: Any
    logits: jax.Array


def make(parts: Parts, settings: JointSettings) -> Joint:
    """Returns the search that learns weights only; of the settings it reads the sampler's."""
    sampler = make_sampler(parts.mask, settings.sampler)

    def init(key: jax.Array, images: jax.Array, logits: np.ndarray) -> SharedState:
        weights = parts.supernet.init(key, images)
        return SharedState(weights, parts.optimizer.init(weights), jnp.asarray(logits))

    def step(
        state: SharedState, key: jax.Array, train: Batch, valid: Batch, index: jax.Array
    ) -> tuple[SharedState, Info]:
        del valid, index
        count = sampler.budget(state.logits)
        architectures = sampler.sample(key, state.logits, count)
        gradient, children = weighted_gradient(
            parts.child,
            state.weights,
            train,
            architectures,
            count,
            level=lambda k, value: jnp.zeros_like(value),
            mesh=parts.mesh,
        )
        failed_all = children.failed >= count
        old = (state.weights, state.optimizer)
        weights, moments = descend(parts.optimizer, *old, gradient, len(train.labels), ~failed_all)
        finite = jnp.isfinite(children.log_likelihoods)
        ran = jnp.maximum(finite.sum(dtype=jnp.int32), 1).astype(jnp.float32) * len(train.labels)
        info = {
            "loss": jnp.where(failed_all, jnp.nan, -jnp.where(finite, children.log_likelihoods, 0.0).sum() / ran),
            "accuracy": children.correct.sum().astype(jnp.float32) / ran,
            "num_children": count,
            "failed": children.failed,
        }
        return SharedState(weights, moments, state.logits), info

    return Joint(
        init=init,
        step=step,
        architecture=lambda state: priors.mode(state.logits, parts.mask),
        weights=lambda state: state.weights,
        logits=None,
    )
