"""PARSEC with replay: how it weighs the children that it remembers, and the prior that it starts from."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells.domain import product_domain
from parsec.errors import UserError
from parsec.search.contract import Strategy
from parsec.search.parsec_replay import prior_along
from parsec.search.registry import make_strategy
from parsec.search.told import Told, nothing_told, remember

DOMAIN = product_domain((3, 2, 4))
MASK = jnp.ones((2, 3), bool)


def play(made: Strategy, key: jax.Array, steps: int) -> Told:
    """Returns the state after so many asks of which (2, 0, 3) is the best."""
    state = made.init(key)
    for step in range(steps):
        asked, state = made.ask(jax.random.fold_in(key, step), state)
        scores = -jnp.abs(jnp.asarray(asked) - jnp.array([[2, 0, 3]])).sum(1).astype(jnp.float32)
        state, _ = made.tell(state, asked, scores[:, None])
    return state


def test_children_weigh_by_their_reach_along_a_direction() -> None:
    even = jnp.full((2, 3), 0.1)
    told = remember(
        nothing_told(8, 2, 2),
        jnp.array([[0, 0], [1, 0], [2, 1], [2, 2]], jnp.int32),
        jnp.array([[0.9, 0.1], [0.8, 0.1], [0.1, 0.9], [np.nan, 0.9]], jnp.float32),
    )
    steep, flat = jnp.array([1.0, 0.05]), jnp.array([0.05, 1.0])
    one = prior_along(told, steep, 1.0, MASK, even)
    # A single child decides, beside what is added to every option.
    np.testing.assert_allclose(np.exp(one), [[1.1, 0.1, 0.1], [1.1, 0.1, 0.1]], rtol=1e-3)
    np.testing.assert_allclose(np.exp(prior_along(told, flat, 1.0, MASK, even))[:, 2], [1.1, 0.1], rtol=1e-3)
    # Three scored ones at the size of three weigh the same, whatever they reach, and the failed one nothing.
    all_three = np.exp(prior_along(told, steep, 8.0, MASK, even))
    np.testing.assert_allclose(all_three, [[1.1, 1.1, 1.1], [2.1, 1.1, 0.1]], rtol=1e-3)
    between = np.exp(prior_along(told, steep, 2.0, MASK, even)) - 0.1
    np.testing.assert_allclose(between.sum(1), 2.0, rtol=1e-3)
    assert between[0, 0] > between[0, 1] > between[0, 2]


def test_of_one_objective_the_unit_does_not_matter() -> None:
    rows = jnp.array([[0, 0], [1, 0], [2, 1]], jnp.int32)
    scores, even = jnp.array([[0.3], [0.2], [0.1]], jnp.float32), jnp.full((2, 3), 0.1)

    def logits(scores: jax.Array) -> np.ndarray:
        return np.asarray(prior_along(remember(nothing_told(3, 2), rows, scores), jnp.ones(1), 2.0, MASK, even))

    np.testing.assert_allclose(logits(scores), logits(1000 * scores - 500), rtol=1e-3)


def test_it_must_remember_an_ask() -> None:
    with pytest.raises(UserError, match=r"parsec_replay\.capacity=4 is out of range; it must be at least children=8"):
        make_strategy("parsec_replay", DOMAIN, {"capacity": 4})


def test_a_carried_prior_is_what_it_draws_first_and_what_the_dirichlet_is_of(key: jax.Array) -> None:
    certain = np.zeros(DOMAIN.mask.shape, np.float32)
    certain[:, 1] = 50.0
    made = make_strategy("parsec_replay", replace(DOMAIN, initial=certain), {"smoothing": 0.5})
    state = made.init(key)
    asked, state = made.ask(key, state)
    np.testing.assert_array_equal(np.asarray(asked), np.ones((8, 3), np.int32))
    state, _ = made.tell(state, jnp.array([[2, 0, 0]], jnp.int32), jnp.zeros((1, 1), jnp.float32))
    assert made.logits is not None
    weights = np.exp(np.asarray(made.logits(key, state)))
    # One child, and half a child for each of a choice's options, all of them given to the certain one.
    np.testing.assert_allclose(weights[:, 1], [1.5, 1.0, 2.0], rtol=1e-5)
    np.testing.assert_allclose(weights[[0, 1, 2], [2, 0, 0]], 1.0, rtol=1e-5)


def test_its_prior_settles_on_the_best_architecture(key: jax.Array) -> None:
    made = make_strategy("parsec_replay", DOMAIN, {"initial": 8})
    state = play(made, key, 20)
    assert made.logits is not None
    assert np.asarray(made.logits(key, state)).argmax(1).tolist() == [2, 0, 3]


def test_an_option_that_a_carried_prior_excludes_stays_excluded(key: jax.Array) -> None:
    certain = np.zeros(DOMAIN.mask.shape, np.float32)
    certain[:, 1] = 200.0
    made = make_strategy("parsec_replay", replace(DOMAIN, initial=certain))
    state, _ = made.tell(made.init(key), jnp.array([[1, 1, 1]], jnp.int32), jnp.zeros((1, 1), jnp.float32))
    assert made.logits is not None
    share = np.asarray(jax.nn.softmax(jnp.where(DOMAIN.mask, jnp.asarray(made.logits(key, state)), -jnp.inf)))
    np.testing.assert_allclose(share[:, 1], 1.0, atol=1e-6)


def test_a_diverged_network_does_not_make_all_others_alike() -> None:
    rows = jnp.stack([jnp.arange(16) // 4, jnp.arange(16) % 4], 1).astype(jnp.int32)
    mask, even = jnp.ones((2, 4), bool), jnp.full((2, 4), 0.1)
    scores = jnp.arange(16, dtype=jnp.float32)

    def share(scores: jax.Array) -> np.ndarray:
        told = remember(nothing_told(16, 2), rows, scores[:, None])
        return np.asarray(jax.nn.softmax(prior_along(told, jnp.ones(1), 2.0, mask, even)))

    np.testing.assert_allclose(share(scores.at[0].set(-1e7)), share(scores), atol=1e-3)


def test_it_forgets_nothing_by_asking_again(key: jax.Array) -> None:
    made = make_strategy("parsec_replay", DOMAIN, {"capacity": 32})
    state = play(made, key, 60)
    kept = np.isfinite(np.asarray(state.scores)[:, 0])
    assert kept.sum() == int(state.told) <= 24 and np.nanmax(np.asarray(state.scores)) == 0.0


def test_what_is_remembered_is_distinct_and_the_last_and_a_failure_may_be_mended() -> None:
    rows = jnp.array([[0, 0], [1, 0], [0, 0], [2, 0], [-1, -1]], jnp.int32)
    told = remember(nothing_told(3, 2), rows, jnp.array([[1.0], [jnp.nan], [5.0], [3.0], [jnp.nan]]))
    assert np.asarray(told.architectures).tolist() == [[0, 0], [1, 0], [2, 0]] and int(told.told) == 3
    np.testing.assert_allclose(np.asarray(told.scores)[:, 0], [1.0, np.nan, 3.0])
    told = remember(told, rows[:2], jnp.array([[jnp.nan], [2.0]]))
    np.testing.assert_allclose(np.asarray(told.scores)[:, 0], [1.0, 2.0, 3.0])
    many = jnp.stack([jnp.arange(5), jnp.ones(5, jnp.int32)], 1).astype(jnp.int32)
    told = remember(told, many, jnp.arange(5.0)[:, None])
    assert sorted(np.asarray(told.scores)[:, 0].tolist()) == [2.0, 3.0, 4.0]
    for row, score in zip(np.asarray(told.architectures), np.asarray(told.scores), strict=True):
        assert row[0] == score[0] and row[1] == 1
