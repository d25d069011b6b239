import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.data import channel_statistics, load, split
from parsec.data.memory import (
    Batches,
    batch_indices,
    draw,
    held_out_batches,
    normalise,
    steps_per_epoch,
    sweep,
    take,
    training_batches,
)
from parsec.errors import UserError


@pytest.mark.parametrize(("num_examples", "batch_size"), [(10, 10), (23, 5), (1438, 64)])
def test_an_epoch_visits_every_example_at_most_once(num_examples: int, batch_size: int, key: jax.Array):
    steps = steps_per_epoch(num_examples, batch_size)
    at = jax.jit(lambda step: batch_indices(key, step, num_examples, batch_size))
    epochs = []
    for epoch in range(3):
        drawn = np.concatenate([at(epoch * steps + i) for i in range(steps)])
        assert drawn.dtype == np.int32 and drawn.min() >= 0 and drawn.max() < num_examples
        assert len(np.unique(drawn)) == len(drawn) == steps * batch_size
        epochs.append(drawn)
    assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])


def test_over_epochs_every_example_is_drawn_though_each_leaves_some_out(key: jax.Array):
    at = jax.jit(jax.vmap(lambda step: batch_indices(key, step, 23, 10)))
    counts = np.bincount(np.asarray(at(jnp.arange(400, dtype=jnp.int32))).ravel(), minlength=23)
    # 200 epochs of 20 out of 23: 174 each, with a deviation near 4.8.
    assert counts.sum() == 4000 and counts.min() > 145 and counts.max() < 200


def test_a_batch_needs_only_the_key_and_the_step(key: jax.Array):
    inside = jax.lax.scan(lambda _, step: (None, batch_indices(key, step, 100, 7)), None, jnp.arange(30))[1]
    alone = jax.jit(lambda step: batch_indices(key, step, 100, 7))
    for step in (0, 13, 14, 29):
        np.testing.assert_array_equal(alone(step), inside[step])


@pytest.mark.parametrize(("batch_size", "message"), [(0, "at least 1"), (11, "larger than the 10 images")])
def test_an_impossible_batch_is_refused(batch_size: int, message: str, key: jax.Array):
    with pytest.raises(UserError, match=message):
        batch_indices(key, 0, 10, batch_size)


def test_normalised_training_images_have_mean_zero_and_deviation_one():
    dataset = load("digits")
    mean, std = channel_statistics(dataset.images)
    scale = jax.jit(normalise, static_argnums=3)
    normal = scale(dataset.images, mean, std, jnp.float32)
    assert normal.dtype == jnp.float32
    assert abs(float(normal.mean())) < 1e-4 and abs(float(normal.std()) - 1) < 1e-4
    half = scale(dataset.images[:9], mean, std, jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), normal[:9], atol=0.02)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_draw_gives_the_right_images_to_the_labels(dtype: jnp.dtype, key: jax.Array):
    dataset = load("digits")
    train, _ = split(dataset, 0.5, 0)
    mean, std = channel_statistics(dataset.images[train])
    part = training_batches(dataset, train, mean, std)
    plain = jax.jit(lambda part, step: draw(part, key, step, 32, dtype=dtype))
    known = {image.tobytes(): label for image, label in zip(dataset.images[train], dataset.labels[train], strict=True)}
    images, labels = plain(part, 5)
    assert images.dtype == dtype and images.shape == (32, 8, 8, 1) and labels.dtype == jnp.int32
    pixels = np.rint(np.asarray(images.astype(jnp.float32)) * std + mean)
    if dtype == jnp.float32:
        assert [known[image.tobytes()] for image in pixels.astype(np.uint8)] == labels.tolist()
    moved = jax.jit(lambda part, step: draw(part, key, step, 32, augmentation="shift", dtype=dtype))(part, 5)
    np.testing.assert_array_equal(moved[1], labels)
    assert not np.array_equal(moved[0].astype(jnp.float32), images.astype(jnp.float32))
    assert not np.array_equal(plain(part, 6)[1], labels)
    assert plain._cache_size() == 1


def test_the_augmentation_differs_between_epochs_of_the_same_image(key: jax.Array):
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1), np.uint8)
    part = Batches(jnp.asarray(image), jnp.zeros(1, jnp.int32), jnp.zeros(1), jnp.ones(1))
    once = jax.jit(lambda step: draw(part, key, step, 1, augmentation="crop_flip")[0])
    # Nine places, mirrored or not.
    assert len({np.asarray(once(step)).tobytes() for step in range(60)}) > 14


def test_held_out_batches_and_take():
    dataset = load("digits")
    part = held_out_batches(dataset, *channel_statistics(dataset.images))
    images, labels = take(part, jnp.array([3, 358], jnp.int32))
    np.testing.assert_array_equal(images, dataset.test_images[[3, 358]])
    np.testing.assert_array_equal(labels, dataset.test_labels[[3, 358]])


@pytest.mark.parametrize(("num_examples", "batch_size"), [(10, 5), (11, 5), (3, 8), (1, 1)])
def test_a_sweep_counts_every_example_once(num_examples: int, batch_size: int):
    indices, weights = sweep(num_examples, batch_size)
    assert indices.shape == weights.shape == (-(-num_examples // batch_size), batch_size)
    np.testing.assert_array_equal(np.bincount(indices.ravel(), weights.ravel()), np.ones(num_examples))
    with pytest.raises(UserError, match="at least 1"):
        sweep(0, batch_size)
