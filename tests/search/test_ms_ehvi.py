"""MS-EHVI: what is expected to add most is asked for first, and of a batch the next adds to what came before it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells.domain import Domain, product_domain
from parsec.errors import UserError
from parsec.search.front import added, directions, gains, lengths, uncrowded
from parsec.search.ms_ehvi import choose_batch
from parsec.search.posterior import AtHand
from parsec.search.registry import make_strategy, read_options
from parsec.search.told import Told

PLAIN = product_domain((4,) * 6)
QUICK = {"initial": 8, "batch": 4, "candidates": 60, "capacity": 64, "draws": 64}


def scores_of(architectures: np.ndarray) -> np.ndarray:
    """Returns two objectives float32 [N, 2]: the first half of the decisions is for one and against the other."""
    rows = np.asarray(architectures)
    return np.stack([rows[:, :3].sum(1) + 1 - rows[:, 3:].sum(1) / 4, 10 - rows[:, :3].sum(1)], 1).astype(np.float32)


def told_of(domain: Domain, options: dict[str, int], key: jax.Array) -> Told:
    made = make_strategy("ms_ehvi", domain, options, 2)
    rows = np.random.default_rng(0).integers(0, 4, (40, 6), dtype=np.int32)
    state, _ = made.tell(made.init(key), rows, scores_of(rows))
    return state._replace(asked=jnp.int32(40))


def volume_added(state: Told, asked: np.ndarray) -> float:
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
    alone = [volume_added(state, asked[row : row + 1]) for row in range(4)]
    # Sums are known all but exactly, so that what is asked for first adds most of what is at hand.
    assert alone[0] > 0 and alone[0] >= max(alone) - 1e-3
    assert volume_added(state, asked) > 1.5 * alone[0]


def test_of_a_batch_the_next_adds_to_what_those_before_it_reach():
    along = directions(2, 256)
    # One is evaluated; of the pool the first two are nearly the same, the third is elsewhere, the last is remembered.
    scores = jnp.array([[0.1, 0.1], [0.8, 0.4], [0.79, 0.39], [0.3, 0.7], [0.9, 0.9]], jnp.float32)
    pool = jnp.arange(4, dtype=jnp.int32)[:, None]
    hand = AtHand(pool, jnp.array([True, True, True, False]), scores, jnp.zeros((2, 5, 5)), jnp.array([True]))
    chosen = choose_batch(hand, jnp.stack([scores] * 3), lambda told: lengths(told, along), 3, 2)
    assert chosen.tolist() == [0, 2, 1]
    # In the mean over draws: the second is best in one of three, and by much.
    lucky = scores.at[2].set(jnp.array([3.0, 3.0]))
    chosen = choose_batch(hand, jnp.stack([scores, scores, lucky]), lambda told: lengths(told, along), 1, 2)
    assert chosen.tolist() == [1]


@pytest.mark.parametrize("name", ["ms_ehvi", "tsemo"])
def test_what_is_left_of_a_small_space_is_asked_for(name: str, key: jax.Array):
    domain = product_domain((2,) * 3)
    made = make_strategy(name, domain, {"initial": 2, "batch": 2, "candidates": 60, "capacity": 8}, 2)
    every = np.array(np.unravel_index(np.arange(8), (2,) * 3)).T.astype(np.int32)
    # The two that are left promise least.
    scores = np.stack([every.sum(1) + 1.0, every.sum(1) + 2.0], 1).astype(np.float32)
    state, _ = made.tell(made.init(key), every[2:], scores[2:])
    asked, _ = jax.jit(made.ask)(key, state._replace(asked=jnp.int32(6)))
    assert sorted(np.asarray(asked).tolist()) == every[:2].tolist()


@pytest.mark.parametrize("name", ["ms_ehvi", "tsemo"])
def test_the_first_samples_follow_no_score(name: str, key: jax.Array):
    options = {key: value for key, value in QUICK.items() if key != "draws"}
    made = make_strategy(name, PLAIN, options, 2)
    rows = np.random.default_rng(0).integers(0, 4, (40, 6), dtype=np.int32)
    asks = {}
    for asked in (4, 40):
        for sign in (1, -1):
            state, _ = made.tell(made.init(key), rows, 12 + sign * scores_of(rows))
            asks[asked, sign] = np.asarray(jax.jit(made.ask)(key, state._replace(asked=jnp.int32(asked)))[0]).tolist()
    assert asks[4, 1] == asks[4, -1] != asks[40, 1] != asks[40, -1]


def test_nothing_remembered_is_asked_for_again_and_failures_say_nothing(key: jax.Array):
    before = told_of(PLAIN, QUICK, key)
    made = make_strategy("ms_ehvi", PLAIN, QUICK, 2)
    state, info = made.tell(before, np.zeros((1, 6), np.int32), np.array([[np.nan, 1e6]], np.float32))
    assert int(info["failed"]) == 1 and made.expect is not None
    rows = np.eye(6, dtype=np.int32)
    assert np.asarray(made.expect(state, rows)) == pytest.approx(np.asarray(made.expect(before, rows)), abs=1e-2)
    for step in range(5):
        asked, _ = jax.jit(made.ask)(jax.random.fold_in(key, step), state)
        same = (np.asarray(asked)[:, None] == np.asarray(state.architectures)[None]).all(-1)
        assert not same.any()


def test_what_adds_in_no_draw_is_told_by_how_it_falls_short(key: jax.Array):
    length = jax.random.uniform(key, (7, 3))
    volume, short = added(length, jnp.array([0.5, 0.5, 2.0]), 2)
    each = [sum(max(float(own[at]) ** 2 - 0.25, 0.0) for at in (0, 1)) / 3 for own in np.asarray(length)]
    assert np.asarray(volume) == pytest.approx(np.array(each), abs=1e-6)
    told = np.asarray(uncrowded(jnp.array([0.2, 0.0]), jnp.array([0.1, -0.3])))
    assert told == pytest.approx(np.array([0.2, -0.3])) and np.asarray(short)[0] == pytest.approx(
        (np.asarray(length)[0] - np.array([0.5, 0.5, 2.0])).max(), abs=1e-6
    )
    assert np.asarray(gains(length, jnp.full(3, 2.0), 2)) == pytest.approx(np.asarray(length).max(1) - 2, abs=1e-6)


@pytest.mark.parametrize("name", ["ms_ehvi", "tsemo"])
def test_more_at_once_than_are_remembered_is_refused(name: str):
    with pytest.raises(UserError, match=rf"{name}\.capacity=2 is out of range; it must be at least batch=4"):
        make_strategy(name, PLAIN, {"capacity": 2, "batch": 4}, 2)


def test_the_published_preset_asks_one_at_a_time():
    settings = read_options("ms_ehvi", {"preset": "paper"})
    assert (settings.batch, settings.initial) == (1, 10)
