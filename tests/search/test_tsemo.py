"""TSEMO: how far its draws are from what it expects, what its candidates are, and one objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells.domain import product_domain
from parsec.search.posterior import _mutated
from parsec.search.registry import make_strategy

PLAIN = product_domain((4,) * 6)
QUICK = {"initial": 8, "batch": 4, "candidates": 40, "capacity": 64}


@pytest.mark.parametrize("name", ["tsemo", "ms_ehvi"])
def test_one_objective_below_zero_is_climbed(name: str, key: jax.Array):
    made = make_strategy(name, PLAIN, QUICK)
    ask, tell, state = jax.jit(made.ask), jax.jit(made.tell), made.init(key)
    told = []
    for step in range(12):
        asked, state = ask(jax.random.fold_in(key, step), state)
        scores = np.asarray(asked).sum(1, dtype=np.float32) - 30
        state, _ = tell(state, asked, scores[:, None])
        told.extend(scores.tolist())
    # Of 48 uniform ones the best has 4 less in the mean.
    assert max(told) == -12 and np.mean(told[-8:]) > np.mean(told[:8]) + 3


def test_draws_are_as_far_from_what_is_expected_as_exploration_says(key: jax.Array):
    rows = np.random.default_rng(0).integers(0, 4, (48, 6), dtype=np.int32)
    scores = rows.sum(1) + 3 * np.random.default_rng(1).normal(size=48)
    expected = []
    for exploration in (0.0, 0.5, 3.0):
        made = make_strategy("tsemo", PLAIN, QUICK | {"batch": 16, "exploration": exploration})
        state, _ = made.tell(made.init(key), rows, scores[:, None].astype(np.float32))
        asked, _ = jax.jit(made.ask)(key, state._replace(asked=jnp.int32(48)))
        assert made.expect is not None
        told = np.asarray(made.expect(state, asked))
        # Without draws the batch is the candidates of which most is expected, in that order.
        assert exploration or (np.diff(told) <= 1e-4).all()
        expected.append(told.mean())
    assert expected[0] > expected[1] > expected[2]


def test_candidates_differ_from_their_parents_in_one_decision_or_more(key: jax.Array):
    parents = jnp.zeros((400, 6), jnp.int32)
    changed = (np.asarray(_mutated(PLAIN, key, parents)) != 0).sum(1)
    # A second mutation may take the first back; few do.
    assert (changed == 0).mean() < 0.05 and 0.1 < (changed > 1).mean() < 0.9 and changed.max() == 3
