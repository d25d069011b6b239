import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.data.permutation import permute


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 1437, 50_000])
def test_every_key_gives_a_bijection(size: int):
    whole = jax.jit(lambda key: permute(key, jnp.arange(size, dtype=jnp.int32), size))
    for seed in range(3):
        values = np.asarray(whole(jax.random.key(seed)))
        assert values.dtype == np.int32
        np.testing.assert_array_equal(np.sort(values), np.arange(size))


def test_single_places_agree_with_the_whole(key: jax.Array):
    at = jax.jit(lambda places: permute(key, places, 1000))
    places = np.array([999, 0, 500, 17], np.int32)
    np.testing.assert_array_equal(at(places), np.asarray(at(np.arange(1000, dtype=np.int32)))[places])


def test_small_sizes_reach_every_order_about_equally():
    draw = jax.jit(jax.vmap(lambda key: permute(key, jnp.arange(4, dtype=jnp.int32), 4)))
    orders = np.asarray(draw(jax.random.split(jax.random.key(5), 24_000)))
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    # 1,000 expected each; chi-square with 23 degrees of freedom stays below 60 but in 1 of 30,000 draws.
    assert ((counts - 1000.0) ** 2 / 1000).sum() < 60


def test_a_place_holds_every_value_about_equally_over_keys():
    size, keys = 50, 20_000
    draw = jax.jit(jax.vmap(lambda key: permute(key, jnp.array([0, 1, 49], jnp.int32), size)))
    values = np.asarray(draw(jax.random.split(jax.random.key(6), keys)))
    for column in values.T:
        counts = np.bincount(column, minlength=size)
        # 49 degrees of freedom: mean 49, deviation 9.9.
        assert ((counts - keys / size) ** 2 / (keys / size)).sum() < 100


def test_neighbouring_places_are_unrelated(key: jax.Array):
    size = 50_000
    whole = jax.jit(lambda key: permute(key, jnp.arange(size, dtype=jnp.int32), size))
    values = np.asarray(whole(key)).astype(np.float64)
    # For independent draws a correlation has the deviation 1 / sqrt(50,000) = 0.0045.
    for lag in (1, 2, 223, 224, 225):
        assert abs(np.corrcoef(values[lag:], values[:-lag])[0, 1]) < 0.025
    assert abs(np.corrcoef(values, np.arange(size))[0, 1]) < 0.025
    epochs = [np.asarray(whole(jax.random.fold_in(key, i))) for i in range(2)]
    assert (epochs[0] == epochs[1]).sum() < 12, "two permutations agree in one place on average"
    assert abs(np.corrcoef(epochs[0], epochs[1])[0, 1]) < 0.025
