"""The training of one child in the supernet's program is that child's own, compiled once, and inherits where told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells import get_space
from parsec.cells.network import Shape
from parsec.data import channel_statistics, load
from parsec.data.memory import Batches, training_batches
from parsec.evaluate.contract import Evaluated, Evaluator, Pause, no_pause
from parsec.evaluate.training import child_file, training_evaluator
from parsec.supernet.supernet import child_weights
from parsec.train.inherit import load_child
from parsec.train.many import Trained, Trainer, make_trainer
from parsec.train.recipe import Recipe

SPACE = get_space("nasbench201")
SHAPE = Shape(channels=2, cells=1, num_classes=10)
STEPS = 60
ONE = np.array([3, 1, 0, 3, 0, 3], np.int32)
OTHER = np.array([2, 1, 0, 3, 0, 3], np.int32)
NOTHING = Evaluated(np.zeros((0, 6), np.int32), np.zeros((0, 1)))


class Parts(NamedTuple):
    trainer: Trainer
    valid: Batches

    def evaluator(self, folder: Path | None, **changes: Any) -> Callable[[np.ndarray, Evaluated, Pause], float]:
        made = self.many(folder, **changes)
        return lambda architecture, *asked: float(made.evaluate(architecture[None], *asked)[0, 0])

    def many(self, folder: Path | None, trainer: Trainer | None = None, **changes: Any) -> Evaluator:
        options: dict[str, Any] = {
            "steps": STEPS,
            "objectives": ("valid_accuracy",),
            "bonus": lambda architectures: np.zeros(len(architectures)),
            "cost": lambda architectures: architectures[:, 0].astype(np.float64),
            "key": jax.random.key(3),
            "folder": folder,
        }
        return training_evaluator(SPACE, SHAPE, trainer or self.trainer, self.valid, **(options | changes))

    def fresh(self, key: jax.Array) -> Any:
        return self.trainer.fresh(key[None])


@pytest.fixture(scope="module")
def images() -> tuple[Batches, Batches]:
    dataset = load("digits")
    statistics = channel_statistics(dataset.images)
    train, valid = (training_batches(dataset, np.arange(a, b), *statistics) for a, b in ((0, 640), (640, 1280)))
    return train, valid


@pytest.fixture(scope="module")
def parts(images: tuple[Batches, Batches]) -> Parts:
    recipe = Recipe(0, 32, 0.2, weight_decay=3e-4, nesterov=False, eval_batch_size=64)
    return Parts(make_trainer(SPACE, SHAPE, recipe, images[0], devices=jax.devices()[:1]), images[1])


def test_children_learn_deterministically_and_keep_their_weights(parts: Parts, tmp_path: Path):
    evaluate = parts.evaluator(tmp_path)
    accuracy = evaluate(ONE, NOTHING, no_pause)
    untrained = parts.fresh(jax.random.key(3))
    assert accuracy > parts.trainer.score(untrained, ONE[None], parts.valid).accuracy[0] + 20
    assert evaluate(ONE, NOTHING, no_pause) == accuracy
    kept = load_child(child_file(tmp_path, 0))
    assert set(kept["cell_0_0"]) == {"slot_0", "slot_3", "slot_5"}


def test_slots_that_a_child_does_not_use_have_no_say_in_its_training(parts: Parts):
    weights = jax.device_get(parts.fresh(jax.random.key(0)))
    littered = dict(weights)
    for cell in ("cell_0_0", "cell_1_0", "cell_2_0"):
        littered[cell] = weights[cell] | {"nor_conv_1x1": {"kernel": 100 + weights[cell]["nor_conv_1x1"]["kernel"]}}
    genotype, own = SPACE.decode(ONE), []
    for start in (weights, littered):
        trained = parts.trainer.train(start, ONE[None], jax.random.key(1)[None], STEPS, no_pause).weights
        own.append(child_weights(SPACE, SHAPE, jax.tree.map(lambda leaf: np.asarray(leaf)[0], trained), genotype))
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
    def explode(*asked: Any) -> Trained:
        trained = parts.trainer.train(*asked)
        return trained._replace(weights=jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf), trained.weights))

    evaluate = parts.evaluator(tmp_path, trainer=parts.trainer._replace(train=explode))
    assert np.isnan(evaluate(ONE, NOTHING, no_pause))
    assert not child_file(tmp_path, 0).exists()


def test_children_side_by_side_score_what_each_scores_alone(parts: Parts, images: tuple[Batches, Batches]):
    recipe = Recipe(0, 32, 0.2, weight_decay=3e-4, nesterov=False, eval_batch_size=64)
    trainer = make_trainer(SPACE, SHAPE, recipe, images[0], devices=jax.devices()[:2])
    both = parts.many(None, trainer=trainer, objectives=("valid_log_likelihood", "valid_accuracy", "value"))
    assert both.together == 2
    rows = np.stack([ONE, OTHER])
    told = both.evaluate(rows, NOTHING, no_pause)
    alone = parts.evaluator(None)
    before = Evaluated(ONE[None], np.array([[0.0]]))
    np.testing.assert_array_equal(told[:, 1], [alone(ONE, NOTHING, no_pause), alone(OTHER, before, no_pause)])
    # One child alone takes one place of two.
    np.testing.assert_array_equal(both.evaluate(rows[1:], before, no_pause), told[1:])
    assert (told[:, 0] < 0).all() and (told[:, 0] > -2).all()


def test_what_is_added_to_the_likelihood_is_told_beside_it(parts: Parts):
    made = parts.many(None, objectives=("value", "valid_log_likelihood"), bonus=lambda rows: rows[:, 0])
    value, likelihood = made.evaluate(ONE[None], NOTHING, no_pause)[0]
    assert value == pytest.approx(likelihood + ONE[0])


def test_a_stop_is_heard_between_stretches_of_steps(parts: Parts, tmp_path: Path):
    calls = iter(range(10))

    def stop() -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parts.evaluator(tmp_path)(ONE, NOTHING, stop)
    assert next(calls) == 2
    assert not any(tmp_path.iterdir())
