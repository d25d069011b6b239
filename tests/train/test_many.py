"""Training in one program: equal to training each network by itself, whatever runs beside it, on any devices."""

from collections.abc import Callable
from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsec.cells.network import BuildCell, Head, Shape, Stem
from parsec.cells.operations import BatchStatistics, Norm
from parsec.cells.space import CellLayout, Choice, Slot, Space
from parsec.data.memory import Batches, draw, normalise
from parsec.data.source import Batch
from parsec.errors import UserError
from parsec.supernet.objective import ChildResult, classification, static_child
from parsec.supernet.supernet import child_weights, make_supernet
from parsec.train.each import Outcome, Parts, train_each
from parsec.train.many import Trainer, eval_starts, make_trainer, make_trainer_of
from parsec.train.recipe import Recipe
from parsec.train.residual import ResidualNetwork

OPERATIONS = ("none", "skip_connect", "nor_conv_3x3")


class TinyNetwork(nn.Module):
    """A stem, one cell, a head."""

    shape: Shape
    build_cell: BuildCell
    norm: Norm

    @nn.compact
    def __call__(self, images: jax.Array, routes: dict | None = None) -> jax.Array:
        x = Stem(self.shape.channels, self.shape.stem_stride, self.norm, self.shape.dtype, name="stem")(images)
        cell = self.build_cell("cell", self.shape.channels, 1, "cell")
        return Head(self.shape.num_classes, name="head")(cell((x,), (routes or {}).get("cell")))


SPACE = Space(
    name="tiny",
    choices=tuple(Choice(f"slot_{at}", OPERATIONS) for at in range(3)),
    operations=OPERATIONS,
    cells={"cell": CellLayout(1, 2, (Slot(1, 0, 0), Slot(2, 1, 0), Slot(2, 2, 1)))},
    network=TinyNetwork,
)
SHAPE = Shape(channels=3, cells=1, num_classes=3)
RECIPE = Recipe(steps=6, batch_size=8, learning_rate=0.1)
ARCHITECTURES = np.array([[2, 1, 2], [1, 2, 1], [2, 2, 2], [0, 0, 0], [2, 1, 2]], np.int32)
KEYS = jax.random.split(jax.random.key(3), 2)


def make_part(seed: int, count: int) -> Batches:
    """Returns images whose brightest third of rows tells the class, under noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.int32)
    images = rng.integers(0, 160, (count, 6, 6, 1))
    for at, label in enumerate(labels):
        images[at, 2 * label : 2 * label + 2] += 90
    return Batches(
        *map(jnp.asarray, (images.astype(np.uint8), labels, np.full(1, 90, np.float32), np.full(1, 60, np.float32)))
    )


PARTS = Parts(make_part(0, 24), make_part(1, 21), make_part(2, 10))


@cache
def programs_by_hand(run: Callable[[Any, Batch], ChildResult], steps: int) -> tuple[Any, Any, Any]:
    """Returns an optimiser, a step with it and the count of right answers, compiled once for all seeds."""
    rates = jnp.array([0.1 * (1 + np.cos(np.pi * index / steps)) / 2 for index in range(steps)], jnp.float32)
    optimizer = optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(lambda step: rates[jnp.asarray(step)], 0.9, nesterov=True)
    )

    @jax.jit
    def step(weights: Any, state: Any, index: jax.Array, key: jax.Array) -> tuple[Any, Any, jax.Array]:
        batch = draw(PARTS.train, jax.random.fold_in(key, 1), index, 8)
        loss, slope = jax.value_and_grad(lambda weights: -run(weights, batch).log_likelihood / 8)(weights)
        updates, state = optimizer.update(slope, state, weights)
        return optax.apply_updates(weights, updates), state, loss

    @jax.jit
    def count(weights: Any, part: Batches) -> jax.Array:
        return run(weights, Batch(normalise(part.images, part.mean, part.std), part.labels)).correct

    return optimizer, step, count


def trained_by_hand(
    run: Callable[[Any, Batch], ChildResult], weights: Any, key: jax.Array, steps: int = 6
) -> tuple[Any, list[float]]:
    """Returns the mean loss of the last three steps, and the accuracies in percent on the two held-out parts."""
    optimizer, step, count = programs_by_hand(run, steps)
    state: Any = optimizer.init(weights)
    losses = []
    for index in range(steps):
        weights, state, loss = step(weights, state, jnp.array(index), key)
        losses.append(float(loss))
    parts = (PARTS.valid, PARTS.test)
    accuracies = [100 * int(count(weights, part)) / len(part.labels) for part in parts if part is not None]
    return np.mean(losses[-3:]), accuracies


def outcome_of(trainer: Trainer, architectures: np.ndarray, parts: Parts = PARTS, steps: int = 6) -> Outcome:
    return train_each(trainer, architectures, KEYS, steps, parts.valid, parts.test)


@cache
def trainer_of(recipe: Recipe = RECIPE, devices: int = 1) -> Trainer:
    return make_trainer(SPACE, SHAPE, recipe, PARTS.train, devices=jax.devices()[:devices])


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return trainer_of()


@pytest.fixture(scope="module")
def outcome(trainer: Trainer) -> Outcome:
    return outcome_of(trainer, ARCHITECTURES)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_run_equals_the_networks_own_training(outcome: Outcome, row: int):
    genotype = SPACE.decode(ARCHITECTURES[row])
    run = static_child(SPACE, genotype, SHAPE)
    for seed, key in enumerate(KEYS):
        drawn = make_supernet(SPACE, SHAPE).init(jax.random.fold_in(key, 0), jnp.zeros((8, 6, 6, 1)))
        loss, accuracies = trained_by_hand(run, child_weights(SPACE, SHAPE, drawn, genotype), key)
        np.testing.assert_allclose(outcome.loss[row, seed], loss, rtol=2e-4)
        np.testing.assert_allclose([outcome.valid[row, seed], outcome.test[row, seed]], accuracies, atol=1e-4)


def test_training_learns(outcome: Outcome):
    assert (outcome.valid[:3] > 50).all()
    assert (outcome.loss[:3] < np.log(3)).all()


def test_runs_share_nothing(trainer: Trainer, outcome: Outcome):
    np.testing.assert_array_equal(outcome.loss[0], outcome.loss[4])
    backwards = outcome_of(trainer, ARCHITECTURES[::-1])
    np.testing.assert_array_equal(backwards.loss[::-1], outcome.loss)
    assert len(set(outcome.loss[:3].ravel().tolist())) == 6


def test_a_network_without_connections_always_answers_alike(outcome: Outcome):
    for part, values in ((PARTS.valid, outcome.valid[3]), (PARTS.test, outcome.test[3])):
        assert part is not None
        shares = 100 * np.bincount(part.labels, minlength=3) / len(part.labels)
        assert all(np.isclose(shares, value, atol=1e-4).any() for value in values)


def test_any_number_of_devices_gives_the_same(outcome: Outcome):
    assert len(jax.devices()) == 4
    spread = outcome_of(trainer_of(devices=4), ARCHITECTURES)
    jax.tree.map(np.testing.assert_array_equal, spread, outcome)


def test_trainings_of_any_length_are_one_program_each_with_its_own_cosine(trainer: Trainer):
    genotype, key = SPACE.decode(ARCHITECTURES[0]), KEYS[0]
    drawn = make_supernet(SPACE, SHAPE).init(jax.random.fold_in(key, 0), jnp.zeros((8, 6, 6, 1)))
    run = static_child(SPACE, genotype, SHAPE)
    loss, accuracies = trained_by_hand(run, child_weights(SPACE, SHAPE, drawn, genotype), key, steps=30)
    found = outcome_of(trainer, ARCHITECTURES[:1], steps=30)
    # Thirty steps are two stretches.
    np.testing.assert_allclose(found.loss[0, 0], loss, rtol=2e-3)
    np.testing.assert_allclose([found.valid[0, 0], found.test[0, 0]], accuracies, atol=1e-4)


def test_a_stop_is_heard_between_stretches_of_steps(trainer: Trainer):
    calls = []

    def stop() -> None:
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_each(trainer, ARCHITECTURES[:1], KEYS[:1], 60, None, None, pause=stop)


def test_a_log_likelihood_is_the_mean_of_the_images(trainer: Trainer):
    weights = trainer.fresh(KEYS[:1])
    part = PARTS.valid
    assert part is not None
    run = static_child(SPACE, SPACE.decode(ARCHITECTURES[0]), SHAPE)
    own = child_weights(SPACE, SHAPE, jax.tree.map(lambda leaf: leaf[0], weights), SPACE.decode(ARCHITECTURES[0]))
    value = jax.jit(run)(own, Batch(normalise(part.images, part.mean, part.std), part.labels)).log_likelihood
    scores = trainer.score(weights, ARCHITECTURES[:1], part)
    np.testing.assert_allclose(scores.log_likelihood, value / len(part.labels), rtol=1e-5)


def test_a_dataset_without_a_test_part(trainer: Trainer, outcome: Outcome):
    without = outcome_of(trainer, ARCHITECTURES[:1], PARTS._replace(test=None))
    np.testing.assert_array_equal(without.valid, outcome.valid[:1])
    assert np.isnan(without.test).all()


@pytest.mark.parametrize("steps", [6, 1])
def test_a_run_that_diverges_is_nan_throughout(steps: int):
    # After one step its loss is that of fresh weights, and only the weights tell.
    wild = Recipe(steps=0, batch_size=8, learning_rate=3e38, weight_decay=0.0)
    found = outcome_of(trainer_of(wild), ARCHITECTURES[:1], steps=steps)
    assert all(np.isnan(values).all() for values in found)


def test_outputs_that_are_no_numbers_are_nan_throughout(trainer: Trainer):
    def overflow(*asked: Any) -> Any:
        scores = trainer.score(*asked)
        return scores._replace(accuracy=np.full_like(scores.accuracy, np.nan))

    found = outcome_of(trainer._replace(score=overflow), ARCHITECTURES[:1], PARTS._replace(test=None))
    assert all(np.isnan(values).all() for values in found)


def test_one_network_of_its_own_is_trained_likewise():
    network = ResidualNetwork(SHAPE, BatchStatistics)
    trainer = make_trainer_of(network, "float32", RECIPE, PARTS.train)
    found = outcome_of(trainer, np.zeros((1, 1), np.int32))
    assert found.loss.shape == (1, 2)

    def run(weights: Any, batch: Batch) -> ChildResult:
        outputs: Any = network.apply({"params": weights}, batch.images)
        return classification(outputs, batch)

    image = jax.ShapeDtypeStruct((8, 6, 6, 1), jnp.float32)
    weights = network.lazy_init(jax.random.fold_in(KEYS[1], 0), image)["params"]
    loss, accuracies = trained_by_hand(run, weights, KEYS[1])
    np.testing.assert_allclose(found.loss[0, 1], loss, rtol=2e-4)
    np.testing.assert_allclose([found.valid[0, 1], found.test[0, 1]], accuracies, atol=1e-4)


def test_batches_that_do_not_fit_are_refused():
    for wrong, words in (
        (Recipe(6, 25, 0.1), "batch_size=25 is larger than the 24 images"),
        (Recipe(6, 8, 0.1, eval_batch_size=0), "eval_batch_size 0 is too small"),
        (Recipe(6, 8, 0.1, drop_path=0.2), "drop_path 0.2 means nothing"),
    ):
        with pytest.raises(UserError, match=words):
            trainer_of(wrong)


@pytest.mark.parametrize("limit", [4, 10])
def test_evaluating_in_batches_counts_every_image_once(outcome: Outcome, limit: int):
    # This network's answer does not depend on the batch that an image is normalised in.
    recipe = Recipe(steps=6, batch_size=8, learning_rate=0.1, eval_batch_size=limit)
    found = outcome_of(trainer_of(recipe), ARCHITECTURES[3:4])
    np.testing.assert_array_equal(found.valid, outcome.valid[3:4])
    np.testing.assert_array_equal(found.test, outcome.test[3:4])


@given(st.integers(1, 500), st.integers(1, 600))
def test_batches_cover_every_example_and_stay_in_range(count: int, limit: int):
    starts, size = eval_starts(count, limit)
    assert size == min(limit, count) and len(starts) == -(-count // size)
    covered = np.unique((starts[:, None] + np.arange(size)).ravel())
    np.testing.assert_array_equal(covered, np.arange(count))
