"""Latency of networks on this device: measured of some cells, and predicted of every other one.

A network's time is nearly a sum over its operations (Cai, Zhu, Han 2019, ProxylessNAS, arXiv 1812.00332), so that a
ridge regression (Hoerl and Kennard 1970, Technometrics 12, 55-67) on the encoding predicts it: an effect for each
option of each choice, and one for each number that options have in common, such as how often an operation occurs. How
far it may be believed is measured on cells that it was not fitted to.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict

from parsec.cells.domain import add_up
from parsec.cells.network import Shape, derive
from parsec.cells.space import Space
from parsec.errors import UserError
from parsec.prior.categorical import one_hot

# Fewer cells leave too few in each of five parts to say how well the others predict them.
LEAST_CELLS = 10
# A call that is shorter than this is timed with others of its kind, so that the clock's grain does not matter.
_LEAST_SECONDS = 0.005
_FOLDS = 5
_PENALTIES = np.logspace(-3, 3, 13)

# Runs a network once and waits for it.
Call = Callable[[], Any]


class LatencyModel(NamedTuple):
    """What a network of a space takes on one device, milliseconds for one batch.

    Attributes:
      intercept: of a network whose effects sum to zero.
      effects: of each option, float64 [L, O]; zero where masked.
      held_out: what is predicted of each measured network by a model that was not fitted to it, float64 [N].
    """

    intercept: float
    effects: np.ndarray
    held_out: np.ndarray


def compile_network(
    space: Space, architecture: np.ndarray, shape: Shape, image: tuple[int, int, int], batch: int
) -> Call:
    """Returns the static network of one cell, compiled for this device, with made-up weights and images.

    Args:
      space: of the cell.
      architecture: int32 [L].
      shape: of the network.
      image: height, width and channels.
      batch: images at a time.
    """
    network = derive(space, space.decode(architecture), shape, train=False)
    images = jnp.asarray(np.random.default_rng(0).standard_normal((batch, *image), np.float32))
    variables = _made_up(jax.eval_shape(network.init, jax.random.key(0), images))
    program = jax.jit(network.apply).lower(variables, images).compile()
    return lambda: jax.block_until_ready(program(variables, images))


def measure(calls: Sequence[Call], rounds: int) -> Iterator[np.ndarray]:
    """Yields after each round the seconds of one call of each, float64 [N]; the calls take turns.

    Each is run twice beforehand, and once untimed before it is timed: what ran before it leaves caches that are cold.
    The order is another one in each round.
    """
    repeats = []
    for call in calls:
        call()
        repeats.append(max(math.ceil(_LEAST_SECONDS / max(_seconds(call, 1), 1e-9)), 1))
    for turn in range(rounds):
        seconds = np.zeros(len(calls))
        for at in np.random.default_rng(turn).permutation(len(calls)):
            calls[at]()
            seconds[at] = _seconds(calls[at], repeats[at])
        yield seconds


def fit_latency(space: Space, architectures: np.ndarray, milliseconds: np.ndarray) -> LatencyModel:
    """Returns the model of measured latencies.

    Args:
      space: of the cells.
      architectures: int32 [N, L], at least 10 different ones.
      milliseconds: measured, float64 [N].

    Raises:
      UserError: for fewer cells.
    """
    if len(architectures) < LEAST_CELLS:
        raise UserError(f"a model of latencies needs at least {LEAST_CELLS} different cells, not {len(architectures)}")
    mask = space.mask
    options = np.asarray(one_hot(architectures, mask), np.float64).reshape(len(architectures), -1)
    common = space.common.reshape(len(space.common), -1).astype(np.float64)
    features = np.concatenate([options, options @ common.T], 1)
    folds = KFold(_FOLDS, shuffle=True, random_state=0)
    held_out = np.asarray(cross_val_predict(RidgeCV(_PENALTIES), features, milliseconds, cv=folds))
    model = RidgeCV(_PENALTIES).fit(features, milliseconds)
    weights = np.asarray(model.coef_, np.float64)
    effects = (weights[: mask.size] + weights[mask.size :] @ common).reshape(mask.shape)
    return LatencyModel(float(model.intercept_), np.where(mask, effects, 0.0), held_out)


def predict_latency(model: LatencyModel, architectures: np.ndarray) -> np.ndarray:
    """Returns predicted milliseconds, float64 [N], of architectures int32 [N, L]."""
    return model.intercept + add_up(model.effects, architectures)


def _made_up(shapes: Any) -> Any:
    """Returns variables as a fresh network has them, of these shapes, without compiling its initialisation."""
    rng = np.random.default_rng(0)

    def make(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = str(getattr(path[-1], "key", ""))
        if name == "kernel":
            fan_in = math.prod(leaf.shape[:-1])
            return (rng.standard_normal(leaf.shape) / math.sqrt(fan_in)).astype(leaf.dtype)
        return np.full(leaf.shape, 1 if name in ("scale", "var") else 0, leaf.dtype)

    return jax.tree_util.tree_map_with_path(make, shapes)


def _seconds(call: Call, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - began) / count
