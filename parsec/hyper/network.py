"""The network of the joint space, and its training: Adam on the cross-entropy, at one learning rate throughout.

Each block is a convolution, ReLU, batch normalisation where there is one, and a 2x2 maximum; then the mean over the map
or all of it, fully connected layers with ReLU, and a linear head (arXiv 2105.01015). Weights and biases begin uniform
within one over the root of their inputs, as in that paper's code. No augmentation, no schedule.

Every shape of network is a program of its own. A single program for all, of the largest widths with masks, would cost
each network what the largest costs, hundreds of times as much as a small one; compiling a shape costs seconds. So a
program is compiled once for each shape, and everything that is no shape is an argument of it: weights, learning rate,
epochs, labels or a teacher's outputs. Where the images are so few that training takes less than that, the compiler is
told not to try hard: half a second in place of five, for steps that take two to three times as long. Training again
for longer begins anew, and is charged in full.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from parsec.cells.convolution import convolve
from parsec.data.memory import Batches, normalise, steps_per_epoch, take
from parsec.evaluate.contract import Pause
from parsec.hyper.space import HyperParameters, map_sizes

# `params` and, with batch normalisation, `batch_stats`, as Flax nests them; numpy on the host, jax while it trains.
Variables = Mapping[str, Any]
# Images that a forward pass outside training looks at together.
_TOGETHER = 500
# Programs kept: a shape seldom comes back, and each takes some megabytes.
_PROGRAMS = 32
# Pixels of all training images up to which it does not pay to compile well, and how not to, on a CPU.
_FEW_PIXELS = 2**17
_LEAST_EFFORT = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


class Task(NamedTuple):
    """The images: to train on, to choose by, and for the report.

    Attributes:
      train: images that weights learn from.
      valid: those that are told to a search.
      test: those that nothing chooses by.
      classes: of the labels.
    """

    train: Batches
    valid: Batches
    test: Batches
    classes: int

    @property
    def image(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @property
    def brief(self) -> bool:
        """Whether compiling well would take longer than it saves."""
        return self.train.images[..., 0].size <= _FEW_PIXELS


class Trained(NamedTuple):
    """A trained network.

    Attributes:
      variables: numpy arrays.
      valid: accuracy on the validation images in percent; NaN where the training diverged.
      test: likewise on the test images.
    """

    variables: Variables
    valid: float
    test: float


class ConvNet(nn.Module):
    """The network of some hyper-parameters: images float32 [B, H, W, C] to logits [B, classes]."""

    hyper: HyperParameters
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns logits; with `train`, batch normalisation takes the batch's own statistics and keeps a mean."""
        hyper, zeros = self.hyper, nn.initializers.zeros_init()
        for at, (channels, pooled) in enumerate(zip(hyper.conv, hyper.pools, strict=True)):
            size = (hyper.kernel_size, hyper.kernel_size, x.shape[-1], channels)
            kernel = self.param(f"conv_{at}_kernel", zeros, size)
            bias = self.param(f"conv_{at}_bias", zeros, (channels,))
            # What reaches farther than the map is long reads nothing but the margin, and need not be computed.
            reach = min(hyper.kernel_size // 2, max(x.shape[1:3]) - 1)
            read = slice(hyper.kernel_size // 2 - reach, hyper.kernel_size // 2 + reach + 1)
            x = nn.relu(convolve(x, kernel[read, read]) + bias.reshape(1, 1, 1, -1))
            if hyper.batch_norm:
                norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=EPSILON, name=f"norm_{at}")
                x = norm(x)
            x = _halved(x) if pooled else x
        x = x.mean((1, 2)) if hyper.global_pooling else x.reshape(x.shape[0], -1)
        for at, units in enumerate((*hyper.fc, self.classes)):
            kernel = self.param(f"fc_{at}_kernel", zeros, (x.shape[-1], units))
            bias = self.param(f"fc_{at}_bias", zeros, (units,))
            x = x @ kernel + bias[None]
            x = nn.relu(x) if at < len(hyper.fc) else x
        return x


# Of batch normalisation, beside the variance.
EPSILON = 1e-5


def fresh(hyper: HyperParameters, image: tuple[int, int, int], classes: int, rng: np.random.Generator) -> Variables:
    """Returns a network's first variables, float32 numpy arrays named as in `ConvNet`; the generator is advanced."""
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}

    def layer(name: str, shape: tuple[int, ...]) -> None:
        bound = 1 / np.sqrt(np.prod(shape[:-1]))
        for kind, size in (("kernel", shape), ("bias", shape[-1:])):
            params[f"{name}_{kind}"] = rng.uniform(-bound, bound, size).astype(np.float32)

    inputs = image[2]
    for at, channels in enumerate(hyper.conv):
        layer(f"conv_{at}", (hyper.kernel_size, hyper.kernel_size, inputs, channels))
        if hyper.batch_norm:
            one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
            params[f"norm_{at}"], stats[f"norm_{at}"] = {"scale": one, "bias": zero}, {"mean": zero, "var": one}
        inputs = channels
    height, width = map_sizes(hyper, image[0], image[1])[-1]
    inputs *= 1 if hyper.global_pooling else height * width
    for at, units in enumerate((*hyper.fc, classes)):
        layer(f"fc_{at}", (inputs, units))
        inputs = units
    return {"params": params, **({"batch_stats": stats} if stats else {})}


def train(
    hyper: HyperParameters,
    task: Task,
    variables: Variables,
    epochs: int,
    seed: tuple[int, ...],
    pause: Pause,
    teacher: np.ndarray | None = None,
) -> Trained:
    """Returns a network trained from given variables.

    Args:
      hyper: of the network and its training.
      task: the images.
      variables: to begin with.
      epochs: passes over the training images; a remainder that fills no batch is left out of each.
      seed: of the order of the images in each epoch.
      pause: called before each epoch; may raise.
      teacher: logits of the training images, float32 [N, classes], whose mean squared error is minimised in place of
        the labels' cross-entropy; None for the labels.

    Raises:
      UserError: the batch is larger than the training images.
    """
    programs = _programs(replace(hyper, learning_rate=0.0), task.classes, task.brief)
    shape = (task.train.num_examples, task.classes)
    targets = jnp.asarray(np.zeros(shape, np.float32) if teacher is None else teacher)
    taught = jnp.asarray(teacher is not None)
    count, batch = task.train.num_examples, hyper.batch_size
    steps = steps_per_epoch(count, batch)
    state = programs.begin(dict(variables))
    rate = jnp.asarray(hyper.learning_rate, jnp.float32)
    for epoch in range(epochs):
        pause()
        order = np.random.default_rng([*seed, epoch]).permutation(count)[: steps * batch]
        state = programs.epoch(
            state, task.train, targets, taught, rate, jnp.asarray(order.reshape(steps, batch).astype(np.int32))
        )
    learnt = jax.device_get(state.variables)
    valid, test = (accuracy(outputs(hyper, learnt, task, part), part) for part in (task.valid, task.test))
    whole = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(learnt))
    return Trained(learnt, *((valid, test) if whole and np.isfinite(valid) else (float("nan"), float("nan"))))


def outputs(hyper: HyperParameters, variables: Variables, task: Task, part: Batches) -> np.ndarray:
    """Returns a network's logits for the images of a part of the task in order, float32 [N, classes]."""
    forward = _programs(replace(hyper, learning_rate=0.0), task.classes, task.brief).forward
    found = []
    for start in range(0, part.num_examples, _TOGETHER):
        # The last images once more, where too few are left.
        places = np.minimum(np.arange(start, start + _TOGETHER), part.num_examples - 1).astype(np.int32)
        raw = part._replace(images=np.asarray(part.images)[places], labels=np.asarray(part.labels)[places])
        found.append(np.asarray(forward(dict(variables), raw)))
    return np.concatenate(found)[: part.num_examples]


def accuracy(logits: np.ndarray, part: Batches) -> float:
    """Returns the share of images whose largest logit is their label's, in percent; NaN where one is not finite."""
    if not np.isfinite(logits).all():
        return float("nan")
    return float(100 * (logits.argmax(1) == np.asarray(part.labels)).mean())


class _State(NamedTuple):
    variables: Variables
    moments: Any


class _Programs(NamedTuple):
    begin: Any
    epoch: Any
    forward: Any


@lru_cache(maxsize=_PROGRAMS)
def _programs(hyper: HyperParameters, classes: int, brief: bool) -> _Programs:
    """Returns the compiled programs of one shape of network, `hyper` but for its learning rate."""
    network, optimizer = ConvNet(hyper, classes), optax.scale_by_adam()

    def begin(variables: Variables) -> _State:
        moments = jax.eval_shape(optimizer.init, variables["params"])
        return _State(variables, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), moments))

    def step(
        state: _State, part: Batches, targets: jax.Array, taught: jax.Array, rate: jax.Array, indices: jax.Array
    ) -> _State:
        images, labels = take(part, indices)
        images, wanted = normalise(images, part.mean, part.std), jnp.take(targets, indices, 0, mode="clip")

        def loss(params: Any) -> tuple[jax.Array, Any]:
            given = {**state.variables, "params": params}
            logits, changed = network.apply(given, images, True, mutable=["batch_stats"])
            # One branch alone: a share of 0 of a loss that overflows would be NaN.
            return jax.lax.cond(
                taught,
                lambda: jnp.square(logits - wanted).mean(),
                lambda: optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(),
            ), changed

        gradient, changed = jax.grad(loss, has_aux=True)(state.variables["params"])
        # Optax may multiply Python floats by its int32 step count, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            updates, moments = optimizer.update(gradient, state.moments)
        params = jax.tree.map(lambda weight, update: weight - rate * update, state.variables["params"], updates)
        return _State({**state.variables, **changed, "params": params}, moments)

    def epoch(
        state: _State, part: Batches, targets: jax.Array, taught: jax.Array, rate: jax.Array, order: jax.Array
    ) -> _State:
        def one(at: jax.Array, state: _State) -> _State:
            return step(state, part, targets, taught, rate, order[at])

        return jax.lax.fori_loop(0, len(order), one, state)

    def forward(variables: Variables, part: Batches) -> jax.Array:
        return jnp.asarray(network.apply(variables, normalise(part.images, part.mean, part.std), False))

    effort = _LEAST_EFFORT if brief and jax.default_backend() == "cpu" else None
    return _Programs(begin, jax.jit(epoch, compiler_options=effort), jax.jit(forward, compiler_options=effort))


def _halved(x: jax.Array) -> jax.Array:
    """Returns the maximum of each 2x2 square of images [B, H, W, C]; an odd last row or column is left out."""
    height, width = x.shape[1] // 2, x.shape[2] // 2
    squares = x[:, : 2 * height, : 2 * width].reshape(x.shape[0], height, 2, width, 2, x.shape[3])
    # In pairs: the gradient of a maximum over axes divides by how many places equal it, which are none where the
    # compiler computes these twice and rounds otherwise.
    rows = jnp.maximum(squares[:, :, 0], squares[:, :, 1])
    return jnp.maximum(rows[:, :, :, 0], rows[:, :, :, 1])
