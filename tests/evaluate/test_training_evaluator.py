"""The training of one child in the supernet's program is that child's own, compiled once, and inherits where told."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from parsec.cells import get_space
from parsec.cells.network import Shape
from parsec.data import channel_statistics, load
from parsec.data.memory import training_batches
from parsec.evaluate.contract import Evaluated, Pause, no_pause
from parsec.evaluate.supernet import Score, make_score
from parsec.evaluate.training import Train, child_file, make_train, training_evaluator
from parsec.supernet.objective import make_child
from parsec.supernet.supernet import Supernet, child_weights, make_supernet
from parsec.train.inherit import load_child

SPACE = get_space("nasbench201")
SHAPE = Shape(channels=2, cells=1, num_classes=10)
STEPS = 60
ONE = np.array([3, 1, 0, 3, 0, 3], np.int32)
OTHER = np.array([2, 1, 0, 3, 0, 3], np.int32)
NOTHING = Evaluated(np.zeros((0, 6), np.int32), np.zeros((0, 1)))


class Parts(NamedTuple):
    supernet: Supernet
    train: Train
    score: Score
    images: jax.ShapeDtypeStruct

    def evaluator(self, folder: Path | None) -> Callable[[np.ndarray, Evaluated, Pause], float]:
        made = training_evaluator(
            SPACE,
            SHAPE,
            self.supernet,
            self.train,
            self.score,
            images=self.images,
            key=jax.random.key(3),
            folder=folder,
        )
        assert made.objectives == ("valid_accuracy",)
        return lambda *asked: float(made.evaluate(*asked)[0])


@pytest.fixture(scope="module")
def parts() -> Parts:
    dataset = load("digits")
    statistics = channel_statistics(dataset.images)
    train, valid = (training_batches(dataset, np.arange(a, b), *statistics) for a, b in ((0, 640), (640, 1280)))
    supernet = make_supernet(SPACE, SHAPE)
    optimizer = optax.chain(optax.add_decayed_weights(3e-4), optax.sgd(0.2, 0.9))
    options = {"steps": STEPS, "batch_size": 32, "augmentation": "none", "dtype": "float32"}
    one_child = make_train(make_child(SPACE, supernet), optimizer, train, key=jax.random.key(1), **options)
    score = make_score(make_child(SPACE, supernet), valid, batch_size=64, num_images=640, dtype="float32", seed=0)
    return Parts(supernet, one_child, score, jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32))


def test_children_learn_deterministically_and_keep_their_weights(parts: Parts, tmp_path: Path):
    evaluate = parts.evaluator(tmp_path)
    accuracy = evaluate(ONE, NOTHING, no_pause)
    untrained = parts.supernet.init(jax.random.fold_in(jax.random.key(3), 0), jnp.zeros((2, 8, 8, 1)))
    assert accuracy > parts.score(untrained, ONE).accuracy + 20
    assert evaluate(ONE, NOTHING, no_pause) == accuracy
    kept = load_child(child_file(tmp_path, 0))
    assert set(kept["cell_0_0"]) == {"slot_0", "slot_3", "slot_5"}


def test_slots_that_a_child_does_not_use_have_no_say_in_its_training(parts: Parts):
    weights = parts.supernet.init(jax.random.key(0), jnp.zeros((2, 8, 8, 1)))
    littered = dict(weights)
    for cell in ("cell_0_0", "cell_1_0", "cell_2_0"):
        littered[cell] = weights[cell] | {"nor_conv_1x1": {"kernel": 100 + weights[cell]["nor_conv_1x1"]["kernel"]}}
    genotype = SPACE.decode(ONE)
    own = [child_weights(SPACE, SHAPE, parts.train(start, ONE, no_pause), genotype) for start in (weights, littered)]
    jax.tree.map(np.testing.assert_array_equal, *own)


def test_a_child_that_inherits_starts_ahead_of_one_that_does_not(parts: Parts, tmp_path: Path):
    evaluate = parts.evaluator(tmp_path)
    first = evaluate(ONE, NOTHING, no_pause)
    before = Evaluated(ONE[None], np.array([[first]]))
    inherited = evaluate(OTHER, before, no_pause)
    fresh = parts.evaluator(None)(OTHER, before, no_pause)
    assert inherited > fresh
    assert child_file(tmp_path, 1).exists()


def test_a_child_that_diverges_is_nan_and_leaves_no_weights(parts: Parts, tmp_path: Path):
    def explode(weights: dict, architecture: np.ndarray, pause: Callable[[], None]) -> dict:
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf), weights)

    evaluate = parts._replace(train=explode).evaluator(tmp_path)
    assert np.isnan(evaluate(ONE, NOTHING, no_pause))
    assert not child_file(tmp_path, 0).exists()


def test_a_stop_is_heard_between_stretches_of_steps(parts: Parts, tmp_path: Path):
    calls = iter(range(10))

    def stop() -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parts.evaluator(tmp_path)(ONE, NOTHING, stop)
    assert next(calls) == 2
    assert not any(tmp_path.iterdir())
