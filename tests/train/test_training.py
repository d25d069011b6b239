"""The pieces of final training: optimiser, batches, dropped paths, the best weights, the average, and the memory."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from parsec.cells.network import Shape, StaticCell, corner_means
from parsec.cells.operations import BatchStatistics
from parsec.cells.space import Cell, Edge
from parsec.data.examples import open_stream
from parsec.data.memory import Batches, batch_indices, take
from parsec.data.source import RawBatch
from parsec.data.stream import StreamedPart, stream_once
from parsec.errors import UserError
from parsec.keys import fold
from parsec.train import footprint, training
from parsec.train.derived import Blueprint
from parsec.train.recipe import Recipe, cross_entropy, descend, learning_rate, make_optimizer, training_batch
from parsec.train.training import TrainState, judge, keep_paths

RECIPE = Recipe(steps=10, batch_size=4, learning_rate=0.5, nesterov=False, clip=1.0, weight_decay=0.1)


def test_a_step_clips_then_decays_then_adds_momentum():
    optimizer = make_optimizer(RECIPE)
    weights: Any = {"w": jnp.array([3.0, -1.0])}
    moments = optimizer.init(weights)
    slope = jnp.array([30.0, 40.0])
    trace, expected = np.zeros(2), np.array([3.0, -1.0])
    for index in range(3):
        weights, moments, value, beside = descend(optimizer, lambda w: ((w["w"] * slope).sum(), "x"), weights, moments)
        trace = 0.9 * trace + np.array([0.6, 0.8]) + 0.1 * expected
        expected = expected - 0.25 * (1 + np.cos(np.pi * index / 10)) * trace
        np.testing.assert_allclose(weights["w"], expected, rtol=1e-5)
    assert beside == "x" and value.shape == ()


def test_the_learning_rate_ends_where_it_is_told():
    recipe = Recipe(steps=8, batch_size=1, learning_rate=0.3, final_learning_rate=0.1)
    np.testing.assert_allclose([learning_rate(recipe, at) for at in (0, 4, 8)], [0.3, 0.2, 0.1], rtol=1e-6)


def test_smoothed_labels_are_spread_over_all_classes():
    logits, labels = jnp.array([[2.0, 0.0, -1.0]]), jnp.array([0], jnp.int32)
    log = jax.nn.log_softmax(logits)[0]
    np.testing.assert_allclose(cross_entropy(logits, labels), -log[0], rtol=1e-6)
    expected = -(0.9 * log[0] + 0.1 * log.mean())
    np.testing.assert_allclose(cross_entropy(logits, labels, 0.1), expected, rtol=1e-6)


def test_cutout_hides_a_square_in_a_share_of_the_batch(key: jax.Array):
    images = jnp.full((6, 8, 8, 1), 200, jnp.uint8)
    part = Batches(images, jnp.arange(6, dtype=jnp.int32), jnp.zeros(1), jnp.ones(1))
    recipe = Recipe(steps=1, batch_size=6, learning_rate=0.1, cutout=4)
    batch = jax.jit(lambda index: training_batch(recipe, part, key, index, "float32").images)
    first, second = (np.asarray(batch(index)) for index in (0, 1))
    hidden = [(images == 0).sum((1, 2, 3)) for images in (first, second)]
    assert all(4 <= int(count) <= 16 for count in hidden[0])
    assert not np.array_equal(first, second)


def test_a_batch_that_was_read_is_finished_as_one_drawn_from_memory(key: jax.Array):
    images = jax.random.randint(key, (6, 8, 8, 1), 0, 256).astype(jnp.uint8)
    part = Batches(images, jnp.arange(6, dtype=jnp.int32), jnp.full(1, 3.0), jnp.full(1, 2.0))
    recipe = Recipe(steps=1, batch_size=4, learning_rate=0.1, augmentation="crop_flip", cutout=4)
    rows = batch_indices(fold(key, "order"), 2, 6, 4)
    read = RawBatch(*take(part, rows), part.mean, part.std)
    batch = jax.jit(lambda given, index: training_batch(recipe, given, key, index, "float32"))
    drawn, finished = batch(part, 2), batch(read, 2)
    jax.tree.map(np.testing.assert_array_equal, drawn, finished)
    assert not np.array_equal(finished.images, batch(read, 3).images)


def test_paths_are_dropped_image_by_image_and_the_rest_made_up_for(key: jax.Array):
    factors = keep_paths(key, jnp.array(0.2, jnp.float32), (50, 8, 40))
    assert set(np.unique(np.asarray(factors)).tolist()) == {0.0, 1.25}
    assert abs(float(factors.mean()) - 1) < 0.02
    # Each path of each cell and image is dropped by itself.
    assert float(factors.std(0).min()) > 0


def test_an_input_that_is_passed_on_is_never_dropped(key: jax.Array):
    cell = Cell(1, 1, (Edge(0, 1, "skip_connect"), Edge(0, 1, "avg_pool_3x3")))
    module = StaticCell(cell, 3, 1, BatchStatistics)
    x = jax.random.normal(key, (2, 4, 4, 3))
    whole = module.apply({}, (x,))
    none = module.apply({}, (x,), jnp.zeros((2, 2)))
    np.testing.assert_array_equal(none, x)
    half = module.apply({}, (x,), jnp.array([[0.0, 0.0], [2.0, 0.0]]))
    np.testing.assert_allclose(half[0], x[0] + 2 * (whole[0] - x[0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(half[1], x[1])


@pytest.mark.parametrize("size", [8, 7, 3, 2])
def test_corner_means_are_the_published_poolings(size: int, key: jax.Array):
    x = jax.random.normal(key, (2, size, size, 3))
    window = min(5, size - 1)
    expected = jax.lax.reduce_window(
        x, 0.0, jax.lax.add, (1, window, window, 1), (1, size - window, size - window, 1), "VALID"
    )
    np.testing.assert_allclose(corner_means(x), expected / window**2, rtol=1e-5, atol=1e-6)


def make_state(value: float, average: float | None, best: float) -> TrainState:
    def tree(number: float) -> dict:
        return {"params": {"w": jnp.full(2, number)}}

    return TrainState(
        tree(value), None, None if average is None else tree(average), tree(0.0),
        jnp.full((), best, jnp.float32), jnp.full((), -1, jnp.float32),
    )  # fmt: skip


@pytest.mark.parametrize(("average", "used"), [(None, 3.0), (7.0, 7.0)])
def test_the_best_weights_are_kept_and_later_equals_do_not_replace_them(average: float | None, used: float):
    part: Any = None
    for accuracy, before, best in ((60.0, 50.0, used), (50.0, 50.0, 0.0), (40.0, 50.0, 0.0)):
        state = judge(make_state(3.0, average, before), lambda v, p: jnp.full((), accuracy, jnp.float32), part)  # noqa: B023
        assert float(state.best["params"]["w"][0]) == best
        assert float(state.best_accuracy) == max(accuracy, before)
        assert float(state.valid_accuracy) == accuracy
    assert float(judge(make_state(3.0, average, 1.0), lambda v, p: v["params"]["w"][0], part).valid_accuracy) == used


def test_the_average_follows_fast_at_first_and_then_by_its_decay():
    recipe = Recipe(steps=1, batch_size=1, learning_rate=0.1, average=0.9)
    old, new = {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}
    for index, share in ((0, 0.9), (10**6, 0.1)):
        found: Any = training._averaged(recipe, old, new, jnp.array(index, jnp.int32))
        np.testing.assert_allclose(found["w"], share, rtol=1e-5)
    assert training._averaged(recipe, None, new, jnp.array(0, jnp.int32)) is None


def test_memory_is_told_without_computing_and_grows_with_the_batch():
    blueprint = Blueprint("resnet", "resnet", Shape(8, 3, 10))
    first, second = (
        footprint.training_needs(Recipe(1, batch, 0.1), blueprint, (16, 16, 3), validates=False) for batch in (8, 16)
    )
    kept = "what the forward pass keeps"
    # 20 layers keep their inputs, 8 x 16 x 16 numbers of each of the first stage's seven; half of it counts.
    assert second[kept] - first[kept] > 0.5 * 8 * 7 * 8 * 16 * 16 * 4
    assert second[kept] < 2.01 * first[kept]
    assert first["weights, gradients, moments and copies"] == second["weights, gradients, moments and copies"]
    huge = Blueprint("resnet", "resnet", Shape(50_000, 3, 10))
    assert sum(footprint.training_needs(Recipe(1, 8, 0.1), huge, (16, 16, 3), validates=True).values()) > 1e12


def test_too_much_memory_is_refused_with_the_number():
    footprint.check_memory({"weights": 1})
    with pytest.raises(UserError, match=r"this needs 1\.0 PiB of memory \(weights 1\.0 PiB\), and .* are free; lower"):
        footprint.check_memory({"weights": 2**50})


def test_optax_and_recipe_agree_without_clipping():
    plain = Recipe(steps=4, batch_size=1, learning_rate=0.1, weight_decay=0.0)
    weights = jnp.array([1.0, 2.0])
    ours, theirs = make_optimizer(plain), optax.sgd(0.1, 0.9, nesterov=True)
    updates, _ = ours.update(weights, ours.init(weights), weights)
    expected, _ = theirs.update(weights, theirs.init(weights), weights)
    np.testing.assert_allclose(updates, expected, rtol=1e-6)


def test_streamed_images_are_evaluated_as_those_in_memory_and_unreadable_ones_do_not_count(
    tmp_path: Path, key: jax.Array
):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(10):
            pixels = np.random.default_rng(i).integers(0, 256, (12, 12, 3), np.uint8)
            Image.fromarray(pixels if label == "a" else pixels // 2).save(tmp_path / label / f"{i}.png")
    dataset = open_stream("stream:images", str(tmp_path), 8)
    part = StreamedPart(dataset.examples, dataset.rows, 8)
    blueprint = Blueprint("resnet", "resnet", Shape(2, 1, 2))
    network = training.make_network(blueprint, train=True, scan=True)
    variables = dict(jax.jit(network.init)(key, jnp.zeros((1, 8, 8, 3))))
    evaluate = training.make_evaluate(blueprint, 5)

    def in_memory(wanted: slice) -> float:
        ((raw, _),) = stream_once(part, 16)
        # A blurred colour tells the classes apart better than chance does; which way is as good as any.
        return float(evaluate(variables, Batches(raw.images[wanted], raw.labels[wanted], raw.mean, raw.std)))

    whole, without = in_memory(slice(16)), in_memory(slice(1, 16))
    assert 0 < whole < 100 and whole != without
    assert float(evaluate(variables, part)) == whole
    (tmp_path / part.examples.name(int(part.rows[0]))).write_bytes(b"no image")
    assert float(evaluate(variables, part)) == without
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the 16 images of a part can be read"):
        evaluate(variables, part)


def test_trainings_of_any_length_and_seed_are_one_program(monkeypatch: pytest.MonkeyPatch, key: jax.Array):
    compiled = []
    jit = jax.jit
    monkeypatch.setattr(training.jax, "jit", lambda f, **how: compiled.append(jit(f, **how)) or compiled[-1])
    blueprint = Blueprint("resnet", "resnet", Shape(2, 1, 4))
    part = Batches(jnp.zeros((8, 8, 8, 1), jnp.uint8), jnp.zeros(8, jnp.int32), jnp.zeros(1), jnp.ones(1))
    texts = []
    for steps in (10, 20):
        recipe = Recipe(steps=steps, batch_size=4, learning_rate=0.5, drop_path=0.5)
        network = training.make_network(blueprint, train=True, scan=True)
        variables = jax.eval_shape(network.init, key, jnp.zeros((1, 8, 8, 1)))
        state = jax.eval_shape(lambda v, r=recipe: training.init_state(r, v, validates=False), dict(variables))
        training.make_step(recipe, blueprint, jax.random.key(steps))
        index = jnp.zeros((), jnp.int32)
        texts.append(compiled[-1].lower(state, index, jnp.asarray(steps, jnp.float32), (key, key), part).as_text())
    assert texts[0] == texts[1]
