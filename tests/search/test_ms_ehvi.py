"""MS-EHVI: what is expected to add most is asked for first, and of a batch the next adds to what came before it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells.domain import Domain, product_domain
from parsec.search.front import expected_gains, gains
from parsec.search.registry import make_strategy, read_options
from parsec.search.told import Told

PLAIN = product_domain((4,) * 6)
QUICK = {"initial": 8, "batch": 4, "candidates": 60, "capacity": 64, "draws": 64}


def scores_of(architectures: np.ndarray) -> np.ndarray:
    """Returns two objectives float32 [N, 2] that are opposed: sums of one half of the decisions and of the other."""
    rows = np.asarray(architectures)
    return np.stack([rows[:, :3].sum(1) + 1 - rows[:, 3:].sum(1) / 4, 10 - rows[:, :3].sum(1)], 1).astype(np.float32)


def told_of(domain: Domain, options: dict[str, int], key: jax.Array) -> Told:
    made = make_strategy("ms_ehvi", domain, options, 2)
    rows = np.random.default_rng(0).integers(0, 4, (40, 6), dtype=np.int32)
    state, _ = made.tell(made.init(key), rows, scores_of(rows))
    return state._replace(asked=jnp.int32(40))


def added(state: Told, asked: np.ndarray) -> float:
    """Returns the hypervolume that architectures add together, counted on a fine grid."""
    ticks = np.linspace(0.05, 11, 200)

    def covered(scores: np.ndarray) -> np.ndarray:
        return ((scores[:, None, None, 0] >= ticks[:, None]) & (scores[:, None, None, 1] >= ticks[None])).any(0)

    known = np.asarray(state.scores)[np.isfinite(np.asarray(state.scores)).all(1)]
    return float((covered(np.concatenate([known, scores_of(asked)])) & ~covered(known)).mean())


def test_a_batch_adds_more_together_than_the_best_of_it_four_times(key: jax.Array):
    state = told_of(PLAIN, QUICK, key)
    asked = np.asarray(jax.jit(make_strategy("ms_ehvi", PLAIN, QUICK, 2).ask)(key, state)[0])
    assert len(np.unique(asked, axis=0)) == 4
    alone = [added(state, asked[row : row + 1]) for row in range(4)]
    # Sums are known all but exactly, so that what is asked for first adds most of what is at hand.
    assert alone[0] > 0 and alone[0] >= max(alone) - 1e-3
    assert added(state, asked) > 1.5 * alone[0]


def test_nothing_remembered_is_asked_for_again_and_failures_do_not_count(key: jax.Array):
    state = told_of(PLAIN, QUICK, key)
    made = make_strategy("ms_ehvi", PLAIN, QUICK, 2)
    state, info = made.tell(state, np.zeros((1, 6), np.int32), np.array([[np.nan, 1]], np.float32))
    assert int(info["failed"]) == 1
    for step in range(5):
        asked, _ = jax.jit(made.ask)(jax.random.fold_in(key, step), state)
        same = (np.asarray(asked)[:, None] == np.asarray(state.architectures)[None]).all(-1)
        assert not same.any()


def test_expected_gains_are_the_mean_of_what_every_draw_gains(key: jax.Array):
    length, reached = jax.random.uniform(key, (5, 7, 3)), jnp.full((5, 3), 0.5)
    each = jnp.stack([jnp.maximum(own**2 - 0.25, 0.0).mean(1) for own in length])
    # Every point adds something in some draw here.
    assert np.asarray(expected_gains(length, reached, 2)) == pytest.approx(np.asarray(each.mean(0)), abs=1e-6)
    one = gains(length[0], jnp.full(3, 2.0), 2)
    assert (np.asarray(one) < 0).all() and np.asarray(one) == pytest.approx(np.asarray(length[0]).max(1) - 2, abs=1e-6)


def test_the_published_preset_asks_one_at_a_time():
    settings = read_options("ms_ehvi", {"preset": "paper"})
    assert (settings.batch, settings.initial) == (1, 10)
