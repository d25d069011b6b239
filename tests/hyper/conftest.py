"""A task of few small images, and the grid of small networks for them."""

import jax.numpy as jnp
import numpy as np
import pytest

from parsec.data.memory import Batches
from parsec.hyper.network import Task
from parsec.hyper.space import HyperSpace


@pytest.fixture(scope="session")
def task() -> Task:
    """Images of 9 x 9 whose class is which half is bright: 40 train, 20 judge, 20 test."""
    rng = np.random.default_rng(0)

    def part(count: int) -> Batches:
        images, labels = rng.integers(0, 90, (count, 9, 9, 2)), rng.integers(0, 2, count)
        images[labels == 1, :4] += 120
        images[labels == 0, 5:] += 120
        mean, std = np.full(2, 80, np.float32), np.full(2, 60, np.float32)
        return Batches(*map(jnp.asarray, (images.astype(np.uint8), labels.astype(np.int32), mean, std)))

    return Task(part(40), part(20), part(20), 2)


@pytest.fixture(scope="session")
def space() -> HyperSpace:
    """Widths 2 to 4, two rates, two batch sizes."""
    return HyperSpace((2, 3, 4), (2, 4), (0.001, 0.01), (10, 20))
