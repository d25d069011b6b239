"""PARSEC in one file: find a small network for handwritten digits, in the memory of a single network.

Probabilistic neural architecture search (Casale, Gordon, Fusi 2019, arXiv 1902.05116) learns two things side by side:
weights that all architectures share, and a prior over architectures. Every step samples a few architectures, the
"children", asks how likely each of them makes the labels of a batch, and moves the weights and the prior towards the
children that explain the labels best. JAX, Optax, NumPy and scikit-learn's digits are all it needs:

    python examples/minimal_parsec.py [--seed=0] [--steps=200]
"""

import argparse
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

# 1. THE SPACE. Four layers, each of them one of five operations on images [B, 8, 8, WIDTH]. An architecture is int32
# [LAYERS], the operation of each layer: 625 of them.
LAYERS, WIDTH, CLASSES = 4, 8, 10


def windows(x: jax.Array, fill: float) -> list[jax.Array]:
    """Returns the nine neighbours of every pixel, each [B, H, W, C]; `fill` lies outside the image."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
    return [padded[:, i : i + x.shape[1], j : j + x.shape[2]] for i in range(3) for j in range(3)]


def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns ReLU and a 3x3 convolution by a kernel [9 C, O]: one matrix product, quick even inside a loop."""
    return jnp.concatenate(windows(jax.nn.relu(x), 0.0), axis=-1) @ kernel


OPERATIONS = {
    "identity": lambda w, x: x,
    "average_3x3": lambda w, x: sum(windows(x, 0.0)) / 9,
    "maximum_3x3": lambda w, x: reduce(jnp.maximum, windows(x, -jnp.inf)),
    "convolution_1x1": lambda w, x: jax.nn.relu(x) @ w["small"],
    "convolution_3x3": lambda w, x: convolution(x, w["large"]),
}


# 2. THE SHARED WEIGHTS. Every layer has weights for every operation; a child uses those of the operations it is made
# of. The architecture is an ordinary array, so one compiled program runs all children: `switch` picks the operation.
def init_weights(rng: np.random.Generator) -> Any:
    """Returns a tree of float32 arrays."""

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(0, shape[-2] ** -0.5, shape), jnp.float32)

    layers = {"small": draw(LAYERS, WIDTH, WIDTH), "large": draw(LAYERS, 9 * WIDTH, WIDTH)}
    return {"stem": draw(9, WIDTH), "layers": layers, "head": draw(WIDTH, CLASSES)}


def normalise(x: jax.Array) -> jax.Array:
    """Returns x standardised by the statistics of the batch: averages over time would mix up the children."""
    centred = x - x.mean((0, 1, 2), keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean((0, 1, 2), keepdims=True) + 1e-5)


def class_logits(weights: Any, architecture: jax.Array, images: jax.Array) -> jax.Array:
    """Returns what one child makes of images [B, 8, 8, 1]: logits [B, CLASSES]."""

    def layer(x: jax.Array, operation_and_weights: Any) -> tuple[jax.Array, None]:
        operation, own = operation_and_weights
        return normalise(jax.lax.switch(operation, list(OPERATIONS.values()), own, x)), None

    start = normalise(convolution(images, weights["stem"]))
    x, _ = jax.lax.scan(layer, start, (architecture, weights["layers"]))
    return x.mean((1, 2)) @ weights["head"]


def log_likelihood(weights: Any, architecture: jax.Array, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns log p(labels | images, architecture), a sum over the batch."""
    losses = optax.softmax_cross_entropy_with_integer_labels(class_logits(weights, architecture, images), labels)
    return -losses.sum()


# 3. THE IMPORTANCE WEIGHTS. A sum of logs over a batch tells children apart far more sharply than one batch can know,
# and one child would take all; so the likelihoods are tempered before softmax turns them into weights that sum to one.
TEMPERATURE = 8.0


def weighted_gradient(
    weights: Any, architectures: jax.Array, images: jax.Array, labels: jax.Array, sharpness: jax.Array
) -> tuple[Any, jax.Array]:
    """Returns sum_k w_k grad l_k with w = softmax(sharpness * l) over children [K, LAYERS], and l [K].

    The children run one after another, each forgotten before the next: memory does not grow with K. Softmax needs all
    the likelihoods, so the sum so far is kept relative to the largest one seen, and rescaled when a larger one comes.
    """

    def child(carry: Any, architecture: jax.Array) -> tuple[Any, jax.Array]:
        total, norm, largest = carry
        value, gradient = jax.value_and_grad(log_likelihood)(weights, architecture, images, labels)
        highest = jnp.maximum(largest, sharpness * value)
        keep, share = jnp.exp(largest - highest), jnp.exp(sharpness * value - highest)
        total = jax.tree.map(lambda old, new: old * keep + new * share, total, gradient)
        return (total, norm * keep + share, highest), value

    start = (jax.tree.map(jnp.zeros_like, weights), jnp.float32(0), jnp.float32(-jnp.inf))
    (total, norm, _), values = jax.lax.scan(child, start, architectures)
    return jax.tree.map(lambda leaf: leaf / norm, total), values


# 4. ONE STEP. The children of one sample teach the weights on training images, and the prior on validation images.
class State(NamedTuple):
    """Shared weights, the prior's logits [LAYERS, options], and the states of their two optimisers."""

    weights: Any
    logits: jax.Array
    weights_optimizer: Any
    logits_optimizer: Any


LEARN_WEIGHTS, LEARN_PRIOR, CHILDREN = optax.adam(1e-2), optax.adam(0.05), 6


@jax.jit
def step(state: State, key: jax.Array, train: Any, valid: Any, warm: Any) -> tuple[State, dict[str, jax.Array]]:
    """Returns the next state; while `warm`, all children count alike and the prior rests."""
    images, labels = train
    architectures = jax.random.categorical(key, state.logits, shape=(CHILDREN, LAYERS))
    sharpness = jnp.where(warm, 0.0, 1 / TEMPERATURE)
    gradient, train_values = weighted_gradient(state.weights, architectures, images, labels, sharpness)
    values = jax.lax.map(lambda a: log_likelihood(state.weights, a, *valid), architectures)
    importance = jax.nn.softmax(values * sharpness)
    # Empirical Bayes: the gradient of log sum_a p(y|a) p(a | logits) is E[one_hot(a)] under the posterior, which the
    # weighted children stand for, minus E[one_hot(a)] under the prior, which is its probabilities.
    chosen = jax.nn.one_hot(architectures, len(OPERATIONS))
    ascent = jnp.einsum("k,klo->lo", importance, chosen) - jax.nn.softmax(state.logits)

    descend = partial(jax.tree.map, jnp.negative)
    change, weights_optimizer = LEARN_WEIGHTS.update(descend(gradient), state.weights_optimizer)
    shift, logits_optimizer = LEARN_PRIOR.update(descend(jnp.where(warm, 0.0, ascent)), state.logits_optimizer)
    entropy = -(jax.nn.softmax(state.logits) * jax.nn.log_softmax(state.logits)).sum()
    info = {"loss": -train_values.mean() / len(labels), "ess": 1 / jnp.square(importance).sum(), "entropy": entropy}
    weights: Any = optax.apply_updates(state.weights, change)
    logits: Any = optax.apply_updates(state.logits, shift)
    return State(weights, logits, weights_optimizer, logits_optimizer), info


def main(seed: int = 0, steps: int = 200) -> dict[str, Any]:
    """Searches, prints what it finds, and returns it: the cell, accuracies in percent, and the course of the search."""
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    pixels, digits = load_digits(return_X_y=True)
    order = rng.permutation(len(digits))
    images = (np.asarray(pixels, np.float32)[order].reshape(-1, 8, 8, 1) - 4.9) / 6.0
    labels = np.asarray(digits, np.int32)[order]
    train, valid, held_out = np.split(np.arange(len(labels)), [900, 1400])

    weights, logits = init_weights(rng), jnp.zeros((LAYERS, len(OPERATIONS)))
    state = State(weights, logits, LEARN_WEIGHTS.init(weights), LEARN_PRIOR.init(logits))
    losses = []
    for at in range(steps):
        batches = [(images[rows], labels[rows]) for rows in (rng.choice(train, 64), rng.choice(valid, 64))]
        state, info = step(state, jax.random.fold_in(key, at), *batches, at < steps // 3)
        losses.append(float(info["loss"]))
        if at % max(steps // 10, 1) == 0 or at == steps - 1:
            print(f"step {at:4d}  " + "  ".join(f"{name} {float(value):.3f}" for name, value in info.items()))

    @jax.jit
    def accuracy(architecture: jax.Array) -> jax.Array:
        found = class_logits(state.weights, architecture, jnp.asarray(images[held_out])).argmax(-1)
        return 100 * (found == labels[held_out]).mean()

    # 5. THE RESULT. The most probable architecture, beside random ones under the very same weights.
    mode = state.logits.argmax(-1)
    others = rng.integers(0, len(OPERATIONS), (50, LAYERS))
    mode_accuracy, random_accuracy = float(accuracy(mode)), float(np.mean([accuracy(jnp.asarray(a)) for a in others]))
    cell = [list(OPERATIONS)[int(option)] for option in mode]
    print(f"found {' -> '.join(cell)}")
    print(f"held-out accuracy {mode_accuracy:.1f} %; of 50 random children {random_accuracy:.1f} % in the mean")
    probabilities = np.asarray(jax.nn.softmax(state.logits))
    return {"cell": cell, "accuracy": mode_accuracy, "random_accuracy": random_accuracy, "losses": losses} | {
        "probabilities": probabilities
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="PARSEC on scikit-learn's digits.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200)
    main(**vars(parser.parse_args()))
