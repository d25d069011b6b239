"""The joint space: a small convolutional network and its training, in 13 hyper-parameters.

Izquierdo et al. 2021, "Bag of baselines for multi-objective joint neural architecture search and hyperparameter
optimization" (arXiv 2105.01015). One to three convolutions and one to three fully connected layers, each of a width of
its own; one kernel size; batch normalisation and global average pooling or not; Adam's learning rate and the batch
size. Widths, learning rate and batch size lie on a logarithmic scale in the paper. Strategies choose among options, so
that here each of these has a stated number of levels on that scale, integers rounded.

A width counts only where its layer exists. A vector whose other widths are all option 0 is canonical: only these are
valid, so that no network has two vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import ArrayLike, Domain, product_domain
from parsec.cells.space import Choice
from parsec.errors import UserError

T = TypeVar("T")
MOST_LAYERS = 3
KERNEL_SIZES = (3, 5, 7)
# Places in a vector: of the depths, and of the first width that each governs.
_CONV_DEPTH, _CONV, _KERNEL, _NORM, _POOLING, _FC_DEPTH, _FC, _RATE, _BATCH = 0, 1, 4, 5, 6, 7, 8, 11, 12


@dataclass(frozen=True)
class HyperParameters:
    """A network and its training.

    Attributes:
      conv: channels of each convolution.
      pools: whether a 2x2 maximum follows each convolution. It does in every network of the grid; a layer that
        BULK&CUT inserts has none, or the function would change.
      kernel_size: of all convolutions.
      batch_norm: whether each convolution's rectified output is normalised.
      global_pooling: whether the fully connected layers read the mean over the last map, and not all of it.
      fc: units of each fully connected layer, before the linear head.
      learning_rate: Adam's.
      batch_size: images in a step.
    """

    conv: tuple[int, ...]
    pools: tuple[bool, ...]
    kernel_size: int
    batch_norm: bool
    global_pooling: bool
    fc: tuple[int, ...]
    learning_rate: float
    batch_size: int


@dataclass(frozen=True)
class HyperSpace:
    """The grid of options that strategies choose from.

    Attributes:
      conv: numbers of channels, rising.
      fc: numbers of units, rising.
      rates: learning rates, rising.
      batches: batch sizes, rising.
    """

    conv: tuple[int, ...]
    fc: tuple[int, ...]
    rates: tuple[float, ...]
    batches: tuple[int, ...]

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """The 13 decisions by the paper's names, their options as text."""
        depths, switch = _texts(range(1, MOST_LAYERS + 1)), ("false", "true")
        return (
            Choice("n_conv_l", depths),
            *(Choice(f"n_conv_{at}", _texts(self.conv)) for at in range(MOST_LAYERS)),
            Choice("kernel_size", _texts(KERNEL_SIZES)),
            Choice("batch_norm", switch),
            Choice("global_avg_pooling", switch),
            Choice("n_fc_l", depths),
            *(Choice(f"n_fc_{at}", _texts(self.fc)) for at in range(MOST_LAYERS)),
            Choice("lr_init", tuple(f"{rate:.3g}" for rate in self.rates)),
            Choice("batch_size", _texts(self.batches)),
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Options of each choice; 13 of them."""
        return tuple(len(choice.options) for choice in self.choices)

    @property
    def cardinality(self) -> int:
        """Number of valid vectors."""
        widths = [sum(len(each) ** depth for depth in range(1, MOST_LAYERS + 1)) for each in (self.conv, self.fc)]
        return widths[0] * widths[1] * len(KERNEL_SIZES) * 4 * len(self.rates) * len(self.batches)

    def decode(self, vector: Sequence[int] | np.ndarray) -> HyperParameters:
        """Returns what a vector int32 [13] stands for.

        Raises:
          UserError: it is none of this space, or not the canonical one of its network.
        """
        given = np.asarray(vector)
        if given.shape != (len(self.sizes),) or not np.issubdtype(given.dtype, np.integer):
            raise UserError(f"the joint space has {len(self.sizes)} integers, not {given.dtype} {list(given.shape)}")
        for choice, option in zip(self.choices, given.tolist(), strict=True):
            if not 0 <= option < len(choice.options):
                raise UserError(f"option {option} of choice {choice.name!r} is outside 0..{len(choice.options) - 1}")
        if idle := [at for at in np.flatnonzero(~_active(given)).tolist() if given[at]]:
            raise UserError(f"choice {self.choices[idle[0]].name!r} is of a layer that does not exist; it must be 0")
        convs, fcs = int(given[_CONV_DEPTH]) + 1, int(given[_FC_DEPTH]) + 1
        return HyperParameters(
            conv=tuple(self.conv[option] for option in given[_CONV : _CONV + convs]),
            pools=(True,) * convs,
            kernel_size=KERNEL_SIZES[given[_KERNEL]],
            batch_norm=bool(given[_NORM]),
            global_pooling=bool(given[_POOLING]),
            fc=tuple(self.fc[option] for option in given[_FC : _FC + fcs]),
            learning_rate=self.rates[given[_RATE]],
            batch_size=self.batches[given[_BATCH]],
        )


def integer_levels(ends: Sequence[int], count: int, name: str) -> tuple[int, ...]:
    """Returns `count` integers from the first end to the second, evenly spaced on a logarithmic scale and rounded.

    Raises:
      UserError: there are not two ends, or no integers between, or two levels round to the same integer; it names the
        setting, `name`.
    """
    low, high = _ends(ends, name)
    if low >= high:
        raise UserError(f"config.{name} runs from {low} to {high}; the second must be larger")
    levels = np.unique(np.rint(np.geomspace(low, high, count)).astype(int)).tolist()
    if len(levels) < count:
        raise UserError(
            f"config.{name} has {count} levels from {low} to {high}, of which only {len(levels)} are different integers"
        )
    return tuple(levels)


def real_levels(ends: Sequence[float], count: int, name: str) -> tuple[float, ...]:
    """Returns `count` numbers from the first end to the second, evenly spaced on a logarithmic scale; `UserError`."""
    low, high = _ends(ends, name)
    if not 0 < low < high:
        raise UserError(f"config.{name} runs from {low:g} to {high:g}; both are positive, the second larger")
    return tuple(float(f"{level:.6g}") for level in np.geomspace(low, high, count))


def hyper_domain(space: HyperSpace) -> Domain:
    """Returns what strategies may know of the space.

    A sample takes every decision that counts uniformly, as the paper's conditional space is sampled, and is so not
    uniform over the networks: most of those have the most layers. A neighbour differs in one decision; a layer that
    this adds takes the width of the last one before it.
    """
    sizes, free = space.sizes, product_domain(space.sizes)
    size = jnp.array(sizes, jnp.int32)

    def sample(key: jax.Array, n: int) -> jax.Array:
        drawn = jnp.asarray(free.sample(key, n))
        return jnp.where(_active(drawn), drawn, 0)

    def mutate(key: jax.Array, architecture: ArrayLike) -> jax.Array:
        which, step = jax.random.split(key)
        before = jnp.asarray(architecture)
        # At most one option would leave nothing to step to.
        able = _active(before) & (size > 1)
        at = jnp.argmax(jnp.where(able, jax.random.uniform(which, able.shape), -1.0))
        moved = (before[at] + jax.random.randint(step, (), 1, size[at], jnp.int32)) % size[at]
        return _settled(before, before.at[at].set(moved))

    def neighbours(architecture: np.ndarray) -> np.ndarray:
        before = np.asarray(architecture, np.int32)
        rows = []
        for at in np.flatnonzero(_active(before)).tolist():
            for option in range(sizes[at]):
                if option != before[at]:
                    after = before.copy()
                    after[at] = option
                    rows.append(np.asarray(_settled(before, after)))
        return np.stack(rows)

    def legal(prefix: tuple[int, ...]) -> np.ndarray:
        at = len(prefix)
        options = np.arange(sizes[at])
        idle = _OWNER[at] >= 0 and prefix[_OWNER[at]] < _LEAST[at]
        return options == 0 if idle else options >= 0

    def features(architectures: ArrayLike) -> jax.Array:
        given = jnp.asarray(architectures)
        scaled = 2 * given.astype(jnp.float32) / jnp.maximum(size - 1, 1).astype(jnp.float32)[None] - 1
        active = _active(given)
        return jnp.concatenate([jnp.where(active, scaled, 0.0), active[:, _LEAST > 0].astype(jnp.float32)], 1)

    return Domain(
        sizes=sizes,
        sample=sample,
        mutate=mutate,
        neighbours=neighbours,
        valid=lambda given: (jnp.where(_active(jnp.asarray(given)), 0, jnp.asarray(given)) == 0).all(-1),
        legal=legal,
        features=features,
    )


def map_sizes(hyper: HyperParameters, height: int, width: int) -> list[tuple[int, int]]:
    """Returns height and width of the map after each convolution and its maximum, which leaves out an odd last row."""
    found = []
    for pooled in hyper.pools:
        height, width = (height // 2, width // 2) if pooled else (height, width)
        found.append((height, width))
    return found


def parameter_count(hyper: HyperParameters, image: tuple[int, int, int], classes: int) -> int:
    """Returns how many numbers the network learns, exactly.

    Args:
      hyper: of the network.
      image: height, width and channels.
      classes: outputs of the head.
    """
    count, inputs = 0, image[2]
    for channels in hyper.conv:
        count += (hyper.kernel_size**2 * inputs + 1) * channels + 2 * channels * hyper.batch_norm
        inputs = channels
    height, width = map_sizes(hyper, image[0], image[1])[-1]
    inputs *= 1 if hyper.global_pooling else height * width
    for units in (*hyper.fc, classes):
        count += (inputs + 1) * units
        inputs = units
    return count


def extreme_counts(space: HyperSpace, image: tuple[int, int, int], classes: int) -> tuple[int, int]:
    """Returns the parameters of the smallest network of a space and of its largest."""
    found = []
    for pick in (min, max):
        counts = [
            parameter_count(
                HyperParameters(
                    (pick(space.conv),) * convs, (True,) * convs, kernel, norm, pooling, (pick(space.fc),) * fcs, 1.0, 1
                ),
                image,
                classes,
            )
            for convs in range(1, MOST_LAYERS + 1)
            for fcs in range(1, MOST_LAYERS + 1)
            for kernel in KERNEL_SIZES
            for norm in (False, True)
            for pooling in (False, True)
        ]
        found.append(pick(counts))
    return found[0], found[1]


def to_text(hyper: HyperParameters) -> str:
    """Returns the hyper-parameters as one line; `+` joins convolutions that no maximum parts."""
    conv = "".join(f"{width}{' ' if pooled else '+'}" for width, pooled in zip(hyper.conv, hyper.pools, strict=True))
    ending = ["batch norm"] * hyper.batch_norm + ["global pooling"] * hyper.global_pooling
    kernel = f"{hyper.kernel_size}x{hyper.kernel_size}"
    return ", ".join(
        [
            f"conv {conv.strip()} of {kernel}",
            *ending,
            f"fc {' '.join(map(str, hyper.fc))}",
            f"lr {hyper.learning_rate:.3g}",
            f"batch {hyper.batch_size}",
        ]
    )


# Of each choice, the depth that governs it, or -1, and the least option of that depth with which it counts.
_OWNER = np.full(13, -1, np.int32)
_LEAST = np.zeros(13, np.int32)
for _depth, _first in ((_CONV_DEPTH, _CONV), (_FC_DEPTH, _FC)):
    _OWNER[_first : _first + MOST_LAYERS] = _depth
    _LEAST[_first : _first + MOST_LAYERS] = range(MOST_LAYERS)


def _active(given: ArrayLike) -> ArrayLike:
    """Returns which choices count, bool [..., 13], for vectors [..., 13]; those of other layers do not."""
    least = np.where(_OWNER >= 0, _LEAST, 0).reshape((1,) * (given.ndim - 1) + (-1,))
    return given[..., np.maximum(_OWNER, 0)] >= least


def _settled(before: ArrayLike, after: ArrayLike) -> jax.Array:
    """Returns `after`, one decision away from `before`, int32 [13] both, as a canonical vector."""
    old, new = jnp.asarray(before), jnp.asarray(after)
    first = np.where(_OWNER == _CONV_DEPTH, _CONV, _FC)
    last = old[first + old[np.maximum(_OWNER, 0)]]
    grown = _active(new) & ~_active(old)
    return jnp.where(_active(new), jnp.where(grown, last, new), 0)


def _ends(ends: Sequence[T], name: str) -> tuple[T, T]:
    if len(ends) != 2:
        raise UserError(f"config.{name} has {len(ends)} numbers; it is the least and the largest")
    return ends[0], ends[1]


def _texts(values: Sequence[int] | range) -> tuple[str, ...]:
    return tuple(map(str, values))
