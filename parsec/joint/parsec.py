"""One step of PARSEC: shared weights and prior learn together from the same sampled children.

    key -> prior.sample -> architectures [K, L]
        -> each child's log-likelihood and gradient on the training batch    -> weighted gradient -> shared weights
        -> each child's log-likelihood on the validation batch -> importance weights -> prior's logits

Casale, Gordon, Fusi 2019, arXiv 1902.05116. The step is a pure function of its state, its key and its batches, and
knows no space and no dataset.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from parsec import prior as priors
from parsec.prior.importance import Reduction
from parsec.supernet.children import Children, run_children, weighted_gradient
from parsec.supernet.supernet import Batch, Supernet, Weights


class SearchState(NamedTuple):
    """What a search carries from step to step: the shared weights, their optimiser's state, and the prior."""

    weights: Weights
    optimizer: Any
    prior: priors.PriorState


class Rules(NamedTuple):
    """What a step is made of.

    Attributes:
      supernet: the program that runs a child.
      mask: which options exist, bool [L, O].
      optimizer: of the shared weights.
      prior_update: of the prior.
      num_children: K, the largest there can be.
      sample: `sample(key, logits, count) -> int32 [K, L]`, of which the first `count` rows are children.
      sample_budget: `sample_budget(logits) -> int32 []`, how many of the K rows are children at this step.
      reduction: how log-likelihoods become weights; with its temperature and floor.
      temperature: of "tempered".
      ess_floor: of "tempered".
      child_weights: what weights the children in the gradient, "train", "valid" or "uniform".
      warmup_steps: steps in which the prior rests and children are weighted uniformly.
    """

    supernet: Supernet
    mask: Any
    optimizer: optax.GradientTransformation
    prior_update: priors.PriorUpdate
    num_children: int
    sample: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    sample_budget: Callable[[jax.Array], jax.Array]
    reduction: Reduction
    temperature: float
    ess_floor: float
    child_weights: str
    warmup_steps: int


Info = dict[str, jax.Array]


def init_state(rules: Rules, key: jax.Array, images: jax.Array) -> SearchState:
    """Returns fresh shared weights under a uniform prior; `images` [B, H, W, C] give the shape only."""
    weights = rules.supernet.init(key, images)
    logits = jnp.zeros(rules.mask.shape, jnp.float32)
    return SearchState(weights, rules.optimizer.init(weights), rules.prior_update.init(logits))


def search_step(
    rules: Rules, state: SearchState, key: jax.Array, train: Batch, valid: Batch, step: jax.Array
) -> tuple[SearchState, Info]:
    """Returns the state after one step, and what happened in it.

    Args:
      rules: what the step is made of; static.
      state: before the step.
      key: of this step.
      train: batch for the shared weights.
      valid: batch for the prior.
      step: number of the step, int32 [].

    Returns:
      The new state, and loss and accuracy of the children on the training batch, valid_loss on the validation batch
      (NaN during warm-up), effective sample size, entropy of the prior in nats, number of children, and children
      that failed. The loss is NaN when all of them did; the state is then the old one.
    """
    warm = step < rules.warmup_steps
    count = rules.sample_budget(state.prior.logits)
    architectures = rules.sample(key, state.prior.logits, count)
    active = jnp.arange(rules.num_children) < count

    def on_validation() -> Children:
        return run_children(rules.supernet, state.weights, valid, architectures, count)

    def nothing() -> Children:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(on_validation))

    validated = jax.lax.cond(warm, nothing, on_validation)
    importance = _importance(rules, validated.log_likelihoods, len(valid.labels), active)
    level = _level(rules, state.weights, train, architectures, count, active, importance, warm)
    gradient, trained = weighted_gradient(rules.supernet, state.weights, train, architectures, count, level=level)
    failed_all = trained.failed >= count
    # A child that failed on either batch has no say in the prior.
    importance = jnp.where(jnp.isnan(trained.log_likelihoods), 0.0, importance)
    importance = importance / jnp.maximum(importance.sum(), 1e-12)
    weights, optimizer = _descend(rules, state, gradient, len(train.labels), ~failed_all)
    prior = rules.prior_update.update(state.prior, architectures, jnp.where(warm, 0.0, importance))

    finite = active & ~jnp.isnan(trained.log_likelihoods)
    ran = jnp.maximum(finite.sum(dtype=jnp.int32), 1).astype(jnp.float32) * len(train.labels)
    seen = jnp.maximum(jnp.isfinite(validated.log_likelihoods).sum(dtype=jnp.int32), 1).astype(jnp.float32)
    info = {
        "loss": jnp.where(failed_all, jnp.nan, -jnp.where(finite, trained.log_likelihoods, 0.0).sum() / ran),
        "accuracy": trained.correct.sum().astype(jnp.float32) / ran,
        "valid_loss": jnp.where(
            warm, jnp.nan, -jnp.nan_to_num(validated.log_likelihoods, neginf=0.0).sum() / (seen * len(valid.labels))
        ),
        "entropy": priors.entropy(prior.logits, rules.mask),
        "ess": jnp.where(warm, count.astype(jnp.float32), priors.effective_sample_size(importance)),
        "num_children": count,
        "failed": trained.failed + jnp.where(warm, 0, validated.failed),
    }
    return SearchState(weights, optimizer, prior), info


def _importance(rules: Rules, log_likelihoods: jax.Array, batch_size: int, active: jax.Array) -> jax.Array:
    reduced = priors.reduce_likelihood(
        log_likelihoods,
        batch_size,
        rules.reduction,
        temperature=rules.temperature,
        ess_floor=rules.ess_floor,
        active=active,
    )
    return priors.importance_weights(reduced, active)


def _level(
    rules: Rules,
    weights: Weights,
    train: Batch,
    architectures: jax.Array,
    count: jax.Array,
    active: jax.Array,
    importance: jax.Array,
    warm: jax.Array,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns what the children are weighted by in the gradient, in the form `weighted_gradient` takes."""
    size = len(train.labels)
    if rules.child_weights == "uniform":
        return lambda k, value: jnp.zeros_like(value)
    if rules.child_weights == "train" and rules.ess_floor <= 0:
        sharpness = {"sum": 1.0, "mean": 1.0 / size, "tempered": 1.0 / rules.temperature}[rules.reduction]
        return lambda k, value: jnp.where(warm, 0.0, value * sharpness)
    if rules.child_weights == "train":
        # The temperature depends on all the likelihoods at once, so this alone needs a pass of its own.
        first = run_children(rules.supernet, weights, train, architectures, count)
        importance = _importance(rules, first.log_likelihoods, size, active)
    return lambda k, value: jnp.where(warm, 0.0, jnp.log(importance[k]))


def _descend(
    rules: Rules, state: SearchState, gradient: Weights, batch_size: int, usable: jax.Array
) -> tuple[Weights, Any]:
    """Takes the optimiser's step on the mean negative log-likelihood; none where no child was usable."""
    # Optax multiplies Python floats by its int32 step count, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        descent = jax.tree.map(lambda leaf: -leaf / batch_size, gradient)
        change, moments = rules.optimizer.update(descent, state.optimizer, state.weights)
    moved = (optax.apply_updates(state.weights, change), moments)
    old = (state.weights, state.optimizer)
    return jax.tree.map(lambda new, before: jnp.where(usable, new, before), moved, old)
