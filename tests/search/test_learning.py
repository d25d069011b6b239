"""What sets each strategy apart, checked by hand on a few steps."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec import prior
from parsec.cells.domain import product_domain
from parsec.search.registry import make_strategy
from parsec.tables.table import make_table, table_domain

DOMAIN = product_domain((3, 2, 3))


def scores(*values: float) -> jax.Array:
    return jnp.array(values, jnp.float32)[:, None]


def test_evolution_drops_its_oldest_member_not_its_worst(key: jax.Array) -> None:
    strategy = make_strategy("regularized_evolution", DOMAIN, {"population": 3})
    state = strategy.init(key)
    rows = jnp.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0]])
    for row, score in zip(rows, (9.0, 1.0, 2.0, 3.0), strict=True):
        state, _ = strategy.tell(state, row[None, :], scores(score))
    assert sorted(state.scores.tolist()) == [1.0, 2.0, 3.0]


def test_evolution_mutates_the_best_of_its_sample(key: jax.Array) -> None:
    strategy = make_strategy("regularized_evolution", DOMAIN, {"population": 2, "sample": 40})
    state = strategy.init(key)
    for _ in range(2):
        _, state = strategy.ask(key, state)
    state, _ = strategy.tell(state, jnp.array([[0, 0, 0]]), scores(1.0))
    state, _ = strategy.tell(state, jnp.array([[2, 1, 2]]), scores(2.0))
    for at in range(5):
        child, _ = strategy.ask(jax.random.fold_in(key, at), state)
        assert int((child[0] != jnp.array([2, 1, 2])).sum(dtype=jnp.int32)) == 1


def test_evolution_bears_a_batch_of_unlike_children_and_buries_those_that_a_whole_population_follows(
    key: jax.Array,
) -> None:
    strategy = make_strategy("regularized_evolution", DOMAIN, {"population": 3, "sample": 40, "batch": 5})
    first, state = strategy.ask(key, strategy.init(key))
    assert first.shape == (5, 3) and int(state.asked) == 5
    state, _ = strategy.tell(state, first, scores(9.0, 8.0, 1.0, 3.0, 2.0))
    assert sorted(state.scores.tolist()) == [1.0, 2.0, 3.0] and int(state.born) == 5
    children, _ = strategy.ask(key, state)
    assert ((np.asarray(children) != np.asarray(first[3])).sum(1) == 1).all()
    assert len(np.unique(children, axis=0)) > 1


def test_a_batch_of_evolution_begins_with_what_is_left_of_the_uniform_ones(key: jax.Array) -> None:
    strategy = make_strategy("regularized_evolution", product_domain((50,) * 4), {"population": 6, "batch": 4})
    asked, state = strategy.ask(key, strategy.init(key))
    state, _ = strategy.tell(state, asked, scores(1.0, 2.0, 3.0, 4.0))
    following, _ = strategy.ask(jax.random.fold_in(key, 1), state)
    # Two more make the population; the others have a member for a parent.
    changed = (np.asarray(following)[:, None] != np.asarray(asked)[None]).sum(-1).min(1)
    assert (changed[:2] > 1).all() and (changed[2:] == 1).all()


def test_reinforce_climbs_the_gradient_of_the_log_probability(key: jax.Array) -> None:
    strategy = make_strategy("reinforce", DOMAIN, {"learning_rate": 0.01, "momentum": 0.5})
    state = strategy.init(key)
    first, second = jnp.array([[1, 0, 2]]), jnp.array([[2, 1, 0]])
    state, info = strategy.tell(state, first, scores(4.0))
    # The first reward is its own baseline, so nothing is learnt from it.
    assert float(info["advantage"]) == 0.0
    before = state.params
    state, info = strategy.tell(state, second, scores(10.0))
    # Bias-corrected: (0.25 * 4 + 0.5 * 10) / 0.75 = 8.
    assert float(info["advantage"]) == pytest.approx(2.0)
    gradient = jax.grad(lambda logits: prior.log_probability(logits, DOMAIN.mask, second)[0])(before)
    moved = state.params - before
    assert (jnp.sign(moved) == jnp.sign(gradient)).all()


@pytest.mark.parametrize("trace", [0.0, 0.25, 1.0])
def test_q_learning_moves_values_toward_their_targets(trace: float, key: jax.Array) -> None:
    strategy = make_strategy("q_learning", DOMAIN, {"learning_rate": 0.5, "trace": trace})
    state = strategy.init(key)
    # The first score is its own average, so its reward is the neutral 0.5 and nothing moves.
    state, _ = strategy.tell(state, jnp.array([[1, 0, 2]]), scores(4.0))
    np.testing.assert_allclose(state.values, 0.5, atol=0.01)
    # The averages' weights are 0.95 and 1 in units of 0.05; the first score's distance was 0.
    average = (0.95 * 4 + 8) / 1.95
    spread = (8 - average) / 1.95
    reward = 1 / (1 + np.exp(-(8 - average) / spread))
    state, _ = strategy.tell(state, jnp.array([[2, 1, 0]]), scores(8.0))
    assert float(state.values[2, 1, 0]) == pytest.approx(0.5 + 0.5 * (reward - 0.5), abs=0.01)
    # Earlier decisions follow the best value of the next state, 0.5 before this episode, and the reward.
    for value in (state.values[0, 0, 2], state.values[1, 2, 1]):
        assert float(value) == pytest.approx(0.5 + 0.5 * trace * (reward - 0.5), abs=0.01)
    visited = jnp.zeros_like(state.values).at[jnp.array([0, 1, 2]), jnp.array([0, 2, 1]), jnp.array([2, 1, 0])].set(1)
    np.testing.assert_allclose(jnp.where(visited > 0, 0.5, state.values), 0.5, atol=0.01)


def test_parsec_is_blind_to_the_unit_of_the_score(key: jax.Array) -> None:
    strategy = make_strategy("parsec", DOMAIN, {"children": 4})
    asked, state = strategy.ask(key, strategy.init(key))
    told = scores(0.91, 0.93, 0.90, 0.94)
    fractions, _ = strategy.tell(state, asked, told)
    percents, _ = strategy.tell(state, asked, 100 * told - 7)
    np.testing.assert_allclose(fractions.prior.logits, percents.prior.logits, atol=1e-3)


def test_parsec_learns_nothing_from_equal_or_single_scores(key: jax.Array) -> None:
    strategy = make_strategy("parsec", DOMAIN, {"children": 2})
    state = strategy.init(key)
    one = jnp.array([[0, 1, 1], [1, 0, 2]])
    after, info = strategy.tell(state, one, scores(3.0, jnp.nan))
    assert int(info["failed"]) == 1
    np.testing.assert_array_equal(after.prior.logits, state.prior.logits)
    # Nor does a child without another say how far apart children are.
    assert (float(after.spread), float(after.weight)) == (float(state.spread), float(state.weight))
    after, info = strategy.tell(state, one, scores(3.0, 3.0))
    assert float(info["ess"]) == pytest.approx(2.0)


def test_parsec_moves_the_prior_toward_the_better_child(key: jax.Array) -> None:
    strategy = make_strategy("parsec", DOMAIN, {"children": 2})
    state = strategy.init(key)
    children = jnp.array([[0, 1, 1], [1, 0, 2]])
    for _ in range(5):
        state, _ = strategy.tell(state, children, scores(1.0, 2.0))
    assert prior.mode(state.prior.logits, DOMAIN.mask).tolist() == [1, 0, 2]


@pytest.mark.parametrize("name", ["parsec", "parsec_adaptive"])
def test_a_strategy_that_carries_a_prior_draws_from_it_and_trusts_it_as_told(name: str, key: jax.Array) -> None:
    known = np.where(DOMAIN.mask, np.random.default_rng(0).normal(0, 0.5, DOMAIN.mask.shape), 0).astype(np.float32)
    known[0] = np.where(DOMAIN.mask[0], [0, 30, 0], 0)
    domain = replace(DOMAIN, initial=known)
    states = {}
    for radius in (0, 1e-3, None):
        strategy = make_strategy(name, domain, {"trust_radius": radius})
        asked, state = strategy.ask(key, strategy.init(key))
        asked = np.asarray(asked)
        assert (asked[asked[:, 0] >= 0][:, 0] == 1).all()
        told = jnp.arange(len(asked), dtype=jnp.float32)[:, None]
        states[radius], _ = strategy.tell(state, asked, jnp.where(jnp.asarray(asked)[:, :1] >= 0, told, jnp.nan))
    kept, near, free = (np.asarray(states[radius].prior.logits) for radius in (0, 1e-3, None))
    np.testing.assert_array_equal(kept, known)
    assert 0 < np.abs(near - known).max() < 0.02 < np.abs(free - known).max()


def test_local_search_climbs_to_a_local_optimum_then_starts_again(key: jax.Array) -> None:
    rows = np.stack(np.unravel_index(np.arange(18), DOMAIN.sizes), 1)
    # One peak, and every climb ends there.
    table = make_table("peak", np.array(DOMAIN.sizes), rows, {"score": -np.abs(rows - [2, 1, 1]).sum(1)})
    domain = table_domain(table)
    strategy = make_strategy("local_search", domain)
    state, best, climbs = strategy.init(key), -np.inf, []
    ask, tell = jax.jit(strategy.ask), jax.jit(strategy.tell)
    for step in range(60):
        asked, state = ask(jax.random.fold_in(key, step), state)
        score = table.columns["score"][table.find(np.asarray(asked))]
        if int(state.climbs) > len(climbs):
            if climbs:
                assert best == 0.0, "a climb was given up before its optimum"
            climbs.append(step)
            best = -np.inf
        best = max(best, float(score[0]))
        state, _ = tell(state, asked, jnp.asarray(score, jnp.float32)[:, None])
    assert len(climbs) > 2


def test_bananas_proposes_what_is_new_and_distinct(key: jax.Array) -> None:
    domain = product_domain((4, 4, 4))
    strategy = make_strategy("bananas", domain, {"batch": 5, "initial": 5, "candidates": 40, "hidden": 16})
    ask, tell = jax.jit(strategy.ask), jax.jit(strategy.tell)
    state, seen = strategy.init(key), set()
    for step in range(6):
        asked, state = ask(jax.random.fold_in(key, step), state)
        rows = [tuple(row) for row in np.asarray(asked).tolist()]
        if step:
            assert len(set(rows)) == len(rows) and not seen & set(rows)
        seen |= set(rows)
        state, _ = tell(state, asked, jnp.asarray(np.asarray(asked).sum(1), jnp.float32)[:, None])
    assert (3, 3, 3) in seen


def test_bananas_proposes_what_its_predictor_ranks_first(key: jax.Array) -> None:
    """On a sum of six options, of 300 candidates the five predicted best are far above the parents they came from."""
    domain = product_domain((4,) * 6)
    strategy = make_strategy("bananas", domain, {"batch": 5, "candidates": 200, "capacity": 128})
    rows = jnp.asarray(domain.sample(key, 100))
    told = rows.sum(1).astype(jnp.float32)
    state, _ = strategy.tell(strategy.init(key)._replace(asked=jnp.array(100)), rows, told[:, None])
    asked, _ = jax.jit(strategy.ask)(jax.random.key(1), state)
    parents = jnp.sort(told)[-10:]
    assert float(asked.sum(1).mean()) > float(parents.mean()) + 0.5
    assert float(asked.sum(1).min()) >= float(parents.min())
