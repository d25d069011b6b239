"""The Meta-DNN of AlphaX: a small network that predicts an architecture's score from its encoding.

AlphaX trains a multilayer perceptron on the networks evaluated so far and lets it answer most rollouts (Wang et al.
2020, https://arxiv.org/abs/1903.11059). This one differs where the published one is weak: the encoding is aligned (a
position means the same for every architecture), targets are standardised, and nothing is trusted unchecked. It is a
cross-validation ensemble (Krogh and Vedelsby 1995): member m never trains on the rows of fold m, so that every
evaluated row is held out from one member. Those held-out predictions give the rank correlation, and decide whether the
Meta-DNN beats a constant. As long as a row stays in its fold, training may start from the last weights without leaking.

Everything that is traced has a fixed or quadrupling shape: training compiles once for each capacity.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

# `features(architectures int32 [n, L]) -> float32 [n, D]`, traceable.
Features = Callable[[Any], Any]

# Rows of the smallest training set; larger ones are padded to this times a power of sixteen, so that few compile.
_FIRST_CAPACITY = 1024
# Below this many rows held-out figures mean nothing and the Meta-DNN is never trusted.
_FEWEST_ROWS = 10


class Network(nn.Module):
    """A multilayer perceptron with one output.

    Attributes:
      widths: units of the hidden layers.
    """

    widths: tuple[int, ...] = (64, 64)

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Returns predictions float32 [n] from features float32 [n, D]."""
        hidden = features
        for width in self.widths:
            hidden = nn.relu(nn.Dense(width)(hidden))
        return nn.Dense(1)(hidden)[:, 0]


class Training(NamedTuple):
    """How a Meta-DNN is trained; static under jit.

    Attributes:
      widths: units of the hidden layers of each member.
      members: networks of the ensemble and folds of the held-out split; at least 2.
      steps: Adam steps at each training.
      batch: rows of a minibatch, drawn with replacement.
      learning_rate: Adam's, falling to zero along a cosine over `steps`.
    """

    widths: tuple[int, ...] = (64, 64)
    members: int = 5
    steps: int = 200
    batch: int = 64
    learning_rate: float = 1e-2


class MetaDNN(NamedTuple):
    """A Meta-DNN and what is known of its quality.

    Attributes:
      params: weights of the members, every leaf [members, ...].
      rows: int32 [], rows it was last trained on; 0 before the first training.
      correlation: float32 [], Spearman's rank correlation of held-out predictions and targets; NaN before.
      gain: float32 [], 1 - (held-out squared error / that of the training mean); NaN before.
      stamp: uint32 [4], a digest of the weights.
    """

    params: Any
    rows: np.ndarray
    correlation: np.ndarray
    gain: np.ndarray
    stamp: np.ndarray

    @property
    def trusted(self) -> bool:
        """Whether it beats a constant on held-out data."""
        return int(self.rows) >= _FEWEST_ROWS and float(self.gain) > 0.0


def new_meta_dnn(key: jax.Array, features: Features, length: int, training: Training) -> MetaDNN:
    """Returns an untrained Meta-DNN for architectures of `length` decisions."""
    params = _init(key, features, length, training)
    nan = np.array(np.nan, np.float32)
    return MetaDNN(params, np.zeros((), np.int32), nan, nan, _digest(params))


def train(
    key: jax.Array,
    meta: MetaDNN,
    features: Features,
    architectures: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    training: Training,
) -> MetaDNN:
    """Returns the Meta-DNN trained further on all rows, and its held-out figures.

    Args:
      key: draws the minibatches.
      meta: where training starts.
      features: the encoding.
      architectures: int32 [n, L].
      targets: float [n], standardised to about zero mean and unit deviation.
      folds: int32 [n], the member that does not see the row; the same at every training.
      training: the hyper-parameters.
    """
    n = len(targets)
    capacity = _FIRST_CAPACITY
    while capacity < n:
        capacity *= 16
    rows = np.zeros((capacity, architectures.shape[1]), np.int32)
    rows[:n] = architectures
    padded = np.zeros(capacity, np.float32)
    padded[:n] = targets
    padded_folds = np.zeros(capacity, np.int32)
    padded_folds[:n] = folds
    params, predictions = _train(key, meta.params, rows, padded, padded_folds, np.int32(n), features, training)
    held_out = np.asarray(predictions)[folds, np.arange(n)]
    correlation, gain = held_out_quality(held_out, padded[:n], folds)
    return MetaDNN(
        params,
        np.array(n, np.int32),
        np.array(correlation, np.float32),
        np.array(gain, np.float32),
        _digest(params),
    )


def predict(meta: MetaDNN, features: Features, architectures: np.ndarray, training: Training) -> np.ndarray:
    """Returns every member's prediction in units of the targets, float32 [members, n], for int32 [n, L]."""
    n = len(architectures)
    # Few shapes, so that few programs are compiled.
    capacity = 16
    while capacity < n:
        capacity *= 2
    rows = np.zeros((capacity, architectures.shape[1]), np.int32)
    rows[:n] = architectures
    return np.asarray(_predict(meta.params, rows, features, training))[:, :n]


def held_out_quality(predictions: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> tuple[float, float]:
    """Returns the rank correlation and the gain over a constant of held-out predictions.

    Args:
      predictions: float [n], each by a model that never saw its row.
      targets: float [n].
      folds: int [n], the fold of every row; the constant is the mean target of the other folds.

    Returns:
      Spearman's correlation, NaN if either side is constant, and 1 - SSE / SSE of the constant, 0 if the targets are
      equal.
    """
    sums, counts = np.bincount(folds, weights=targets), np.bincount(folds)
    constant = ((targets.sum() - sums) / np.maximum(len(targets) - counts, 1))[folds]
    baseline = float(((targets - constant) ** 2).sum())
    gain = 1.0 - float(((targets - predictions) ** 2).sum()) / baseline if baseline > 0 else 0.0
    return rank_correlation(predictions, targets), gain


def rank_correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Returns Spearman's rank correlation of two float [n] with ties averaged; NaN if either is constant."""
    a, b = _ranks(left), _ranks(right)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / scale if scale > 0 else float("nan")


def _digest(params: Any) -> np.ndarray:
    content = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params))
    return np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), np.uint32).copy()


def _ranks(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") - 1) / 2.0


@partial(jax.jit, static_argnums=(1, 2, 3))
def _init(key: jax.Array, features: Features, length: int, training: Training) -> Any:
    example = features(jnp.zeros((1, length), jnp.int32))
    network = Network(training.widths)
    return jax.vmap(lambda k: network.init(k, example))(jax.random.split(key, training.members))


def _outputs(training: Training) -> Callable[[Any, Any], jax.Array]:
    # `Module.apply` is typed for modules with several outputs.
    return cast(Callable[[Any, Any], jax.Array], Network(training.widths).apply)


@partial(jax.jit, static_argnums=(6, 7))
def _train(
    key: jax.Array,
    params: Any,
    architectures: jax.Array,
    targets: jax.Array,
    folds: jax.Array,
    n: jax.Array,
    features: Features,
    training: Training,
) -> tuple[Any, jax.Array]:
    outputs = _outputs(training)
    encoded = features(architectures)
    optimiser = optax.adam(optax.cosine_decay_schedule(training.learning_rate, training.steps))

    def loss(weights: Any, at: jax.Array, member: jax.Array) -> jax.Array:
        error = outputs(weights, encoded[at]) - targets[at]
        kept = (folds[at] != member).astype(jnp.float32)
        return jnp.sum(kept * error**2) / training.batch

    def fit(key: jax.Array, weights: Any, member: jax.Array) -> Any:
        def step(carry: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], None]:
            weights, state = carry
            at = jax.random.randint(key, (training.batch,), 0, n, jnp.int32)
            gradient = jax.grad(loss)(weights, at, member)
            # Optax multiplies Python floats by its int32 step count, which strict promotion refuses.
            with jax.numpy_dtype_promotion("standard"):
                updates, state = optimiser.update(gradient, state, weights)
            return (optax.apply_updates(weights, updates), state), None

        keys = jax.random.split(key, training.steps)
        return jax.lax.scan(step, (weights, optimiser.init(weights)), keys)[0][0]

    members = jnp.arange(training.members, dtype=jnp.int32)
    params = jax.vmap(fit)(jax.random.split(key, training.members), params, members)
    return params, jax.vmap(lambda weights: outputs(weights, encoded))(params)


@partial(jax.jit, static_argnums=(2, 3))
def _predict(params: Any, architectures: jax.Array, features: Features, training: Training) -> jax.Array:
    outputs = _outputs(training)
    encoded = features(architectures)
    return jax.vmap(lambda weights: outputs(weights, encoded))(params)
