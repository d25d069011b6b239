"""PARSEC: shared weights and prior learn together from the same sampled children.

    key -> prior.sample -> architectures [K, L]
        -> each child's log-likelihood and gradient on the training batch    -> weighted gradient -> shared weights
        -> each child's log-likelihood on the validation batch -> importance weights -> prior's logits

Beside the prior a control learns: it starts alike and is updated alike by the same importance weights, but these are
given to children of its own, of which they know nothing. Likelihoods shuffled among children would say no more, so that
the entropy it loses is what the prior loses to noise alone.

Casale, Gordon, Fusi 2019, arXiv 1902.05116. The step is a pure function of its state, its key and its batches, and
knows no space and no dataset.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from parsec import prior as priors
from parsec.data.source import Batch
from parsec.joint.contract import Info, Joint, Parts
from parsec.joint.descent import descend
from parsec.joint.sampling import Sampler, make_sampler
from parsec.joint.settings import JointSettings
from parsec.keys import fold
from parsec.prior.importance import Reduction
from parsec.supernet.children import Children, run_children, weighted_gradient
from parsec.supernet.objective import Child
from parsec.supernet.supernet import Weights


class SearchState(NamedTuple):
    """What a search carries from step to step: shared weights, their optimiser's state, the prior and its control."""

    weights: Weights
    optimizer: Any
    prior: priors.PriorState
    control: priors.PriorState


class Rules(NamedTuple):
    """What a step is made of.

    Attributes:
      child: runs one child.
      mask: which options exist, bool [L, O].
      optimizer: of the shared weights.
      prior_update: of the prior.
      sampler: draws the children of a step.
      reduction: how log-likelihoods become weights; with its temperature and floor.
      temperature: of "tempered".
      ess_floor: of "tempered".
      child_weights: what weights the children in the gradient, "train", "valid" or "uniform".
      warmup_steps: steps in which the prior rests and children are weighted uniformly.
      shares: of kinds of operations, as in `parsec.joint.contract.Parts`.
      mesh: likewise.
    """

    child: Child
    mask: np.ndarray
    optimizer: optax.GradientTransformation
    prior_update: priors.PriorUpdate
    sampler: Sampler
    reduction: Reduction
    temperature: float
    ess_floor: float
    child_weights: str
    warmup_steps: int
    shares: Mapping[str, np.ndarray]
    mesh: Mesh | None = None


def make(parts: Parts, settings: JointSettings) -> Joint:
    """Returns PARSEC over a supernet; see `parsec.joint.contract`."""
    prior, likelihood = settings.prior, settings.likelihood
    if prior.update == "adam":
        update = priors.adam_update(parts.mask, prior.learning_rate, b1=prior.b1)
    else:
        update = priors.natural_update(parts.mask, prior.learning_rate)
    update = priors.trust_initial(update, prior.learning_rate, prior.trust_radius)
    rules = Rules(
        child=parts.child,
        mask=parts.mask,
        optimizer=parts.optimizer,
        prior_update=update,
        sampler=make_sampler(parts.mask, settings.sampler),
        reduction=likelihood.reduction,  # type: ignore[arg-type]
        temperature=likelihood.temperature,
        ess_floor=likelihood.ess_floor if likelihood.reduction == "tempered" else 0.0,
        child_weights=likelihood.child_weights,
        warmup_steps=round(prior.warmup * parts.steps),
        shares=parts.shares,
        mesh=parts.mesh,
    )

    def init(key: jax.Array, images: jax.Array, logits: np.ndarray) -> SearchState:
        weights = parts.supernet.init(key, images)
        # Two of them: a step is given its state's memory, and may not be given the same twice.
        return SearchState(weights, parts.optimizer.init(weights), update.init(logits), update.init(logits.copy()))

    return Joint(
        init=init,
        step=partial(search_step, rules),
        architecture=lambda state: priors.mode(state.prior.logits, parts.mask),
        weights=lambda state: state.weights,
        logits=lambda state: state.prior.logits,
        control=lambda state: state.control.logits,
    )


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
      (NaN during warm-up), effective sample size, entropy of the prior and of its control in nats, `mode_KIND` for
      each kind of operation, its share of the prior's mode (NaN during warm-up), number of children, and children that
      failed. The loss is NaN when all of them did; the state is then the old one.
    """
    warm = step < rules.warmup_steps
    count = rules.sampler.budget(state.prior.logits)
    architectures = rules.sampler.sample(key, state.prior.logits, count)
    active = jnp.arange(rules.sampler.most) < count

    def on_validation() -> Children:
        return run_children(rules.child, state.weights, valid, architectures, count, rules.mesh)

    def nothing() -> Children:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(on_validation))

    validated = jax.lax.cond(warm, nothing, on_validation)
    importance = _importance(rules, validated.log_likelihoods, len(valid.labels), active)
    level = _level(rules, state.weights, train, architectures, count, active, importance, warm)
    gradient, trained = weighted_gradient(rules.child, state.weights, train, architectures, count, level, rules.mesh)
    failed_all = trained.failed >= count
    # A child that failed on either batch has no say in the prior.
    importance = jnp.where(jnp.isnan(trained.log_likelihoods), 0.0, importance)
    importance = importance / jnp.maximum(importance.sum(), 1e-12)
    old = (state.weights, state.optimizer)
    weights, optimizer = descend(rules.optimizer, *old, gradient, len(train.labels), ~failed_all)
    importance = jnp.where(warm, 0.0, importance)
    prior = rules.prior_update.update(state.prior, architectures, importance)
    strangers = rules.sampler.sample(fold(key, "control"), state.control.logits, count)
    control = rules.prior_update.update(state.control, strangers, importance)

    finite = active & ~jnp.isnan(trained.log_likelihoods)
    ran = jnp.maximum(finite.sum(dtype=jnp.int32), 1).astype(jnp.float32) * len(train.labels)
    validates = jnp.isfinite(validated.log_likelihoods)
    seen = jnp.maximum(validates.sum(dtype=jnp.int32), 1).astype(jnp.float32) * len(valid.labels)
    info = {
        "loss": jnp.where(failed_all, jnp.nan, -jnp.where(finite, trained.log_likelihoods, 0.0).sum() / ran),
        "accuracy": trained.correct.sum().astype(jnp.float32) / ran,
        "valid_loss": jnp.where(
            warm | ~validates.any(), jnp.nan, -jnp.where(validates, validated.log_likelihoods, 0.0).sum() / seen
        ),
        "entropy": priors.entropy(prior.logits, rules.mask),
        "control_entropy": priors.entropy(control.logits, rules.mask),
        "ess": jnp.where(warm, count.astype(jnp.float32), priors.effective_sample_size(importance)),
        "num_children": count,
        "failed": trained.failed + jnp.where(warm, 0, validated.failed),
    }
    mode = priors.mode(prior.logits, rules.mask)[:, None]
    for kind, share in rules.shares.items():
        info[f"mode_{kind}"] = jnp.where(warm, jnp.nan, jnp.take_along_axis(jnp.asarray(share), mode, 1).sum())
    return SearchState(weights, optimizer, prior, control), info


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
        first = run_children(rules.child, weights, train, architectures, count, rules.mesh)
        importance = _importance(rules, first.log_likelihoods, size, active)
    return lambda k, value: jnp.where(warm, 0.0, jnp.log(importance[k]))
