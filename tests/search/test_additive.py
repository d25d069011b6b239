"""The additive model learns effects that are there, shares what choices have in common, and nothing from noise."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec import prior
from parsec.cells import get_space
from parsec.cells.domain import Domain, add_up, product_domain
from parsec.errors import UserError
from parsec.search.additive_model import fit, make_basis
from parsec.search.registry import make_strategy
from parsec.search.told import Told

SPACE = get_space("darts")
DOMAIN = product_domain(tuple(map(int, SPACE.sizes)), common=SPACE.common)
APART = product_domain(DOMAIN.sizes)
NOISE = 0.5


def told(scores: np.ndarray, architectures: np.ndarray, domain: Domain = DOMAIN) -> tuple[Told, np.ndarray]:
    """Returns the state after scores [N] of architectures int32 [N, L], and the prior's logits."""
    strategy = make_strategy("additive", domain, {"capacity": 128})
    state, _ = strategy.tell(strategy.init(jax.random.key(0)), architectures, scores.astype(np.float32)[:, None])
    assert strategy.logits is not None
    return state, np.asarray(strategy.logits(jax.random.key(1), state))


def drawn(seed: int, count: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, SPACE.sizes, (count, len(SPACE.sizes)), dtype=np.int32)


def convolutions(architectures: np.ndarray) -> np.ndarray:
    """Returns how many operations of the normal cell are the option 3."""
    return (architectures[:, 1:16:2] == 3).sum(1)


def test_scores_that_are_noise_leave_the_prior_uniform():
    strategy = make_strategy("additive", DOMAIN, {"capacity": 96})
    uniform = np.log(SPACE.sizes).sum()
    assert strategy.logits is not None

    @jax.jit
    def learnt(architectures: jax.Array, scores: jax.Array) -> jax.Array:
        state, _ = strategy.tell(strategy.init(jax.random.key(0)), architectures, scores)
        return jnp.asarray(strategy.logits(jax.random.key(1), state))

    lost = []
    for seed in range(60):
        noise = np.random.default_rng(seed).normal(size=(96, 1)).astype(np.float32)
        lost.append(uniform - float(prior.entropy(learnt(drawn(seed), noise), SPACE.mask)))
    assert np.mean(np.array(lost) < 2) >= 0.95 and np.median(lost) < 0.2


def test_what_is_known_beforehand_is_taken_off_the_scores_and_told_with_what_is_expected():
    known = np.zeros(SPACE.mask.shape, np.float32)
    known[1:16:2, 4] = 2.0
    domain, architectures, other = replace(DOMAIN, known=known), drawn(11), drawn(12, 400)
    scores = convolutions(architectures) + NOISE * np.random.default_rng(13).normal(size=96)
    summed = known[np.arange(32), architectures].sum(1)
    state, logits = told(scores + summed, architectures, domain)
    np.testing.assert_allclose(logits, told(scores, architectures)[1], atol=1e-3)
    strategy = make_strategy("additive", domain, {"capacity": 128})
    assert strategy.effects is not None
    effects = np.asarray(strategy.effects(state))
    expected = effects[np.arange(32), other].sum(1)
    true = convolutions(other) + known[np.arange(32), other].sum(1)
    # In the unit of the scores: a slope of one, as far as shrinkage allows.
    assert np.corrcoef(expected, true)[0, 1] > 0.95 and 0.8 < np.polyfit(true, expected, 1)[0] < 1.1
    # Where the scores say nothing, what is known is all that is expected.
    silent, _ = told(summed, architectures, domain)
    np.testing.assert_allclose(strategy.effects(silent), known, atol=1e-3)
    # And children are asked for by both.
    asked, _ = strategy.ask(jax.random.key(2), state._replace(asked=jnp.int32(24)))
    assert (np.asarray(asked)[:, 1:16:2] == 4).mean() > 0.8


def test_draws_are_as_far_from_the_mean_as_exploration_says():
    architectures = drawn(14)
    state, _ = told(convolutions(architectures) + NOISE * np.random.default_rng(15).normal(size=96), architectures)
    expected = []
    for exploration in (0.0, 0.25, 1.0):
        options = {"capacity": 128, "batch": 16, "exploration": exploration}
        strategy = make_strategy("additive", DOMAIN, options)
        assert strategy.effects is not None
        effects = np.asarray(strategy.effects(state))
        asked = np.asarray(strategy.ask(jax.random.key(2), state._replace(asked=jnp.int32(24)))[0])
        if not exploration:
            # The others of a batch are new, and so about as far from it as there is something new.
            assert asked[0].tolist() == np.asarray(prior.mode(effects, SPACE.mask)).tolist()
        expected.append(add_up(effects, asked).mean())
    assert expected[1] > expected[2]


def test_a_carried_prior_is_drawn_from_and_believed_until_scores_say_otherwise():
    true = np.where(SPACE.mask, np.random.default_rng(16).normal(size=SPACE.mask.shape), 0).astype(np.float32)
    true -= np.where(SPACE.mask, (true.sum(1) / SPACE.mask.sum(1))[:, None], 0)
    few, many, other = drawn(17, 16), drawn(18, 128), drawn(19, 400)
    noise = 2 * np.random.default_rng(20).normal(size=128)

    def expects(initial: np.ndarray | None, architectures: np.ndarray) -> float:
        domain = replace(DOMAIN, initial=initial)
        state, _ = told(add_up(true, architectures) + noise[: len(architectures)], architectures, domain)
        effects = make_strategy("additive", domain, {"capacity": 128}).effects
        assert effects is not None
        return float(np.corrcoef(add_up(np.asarray(effects(state)), other), add_up(true, other))[0, 1])

    assert expects(true, few) > 0.9 > 0.5 > expects(None, few)
    # Many scores outvote a prior that has the wrong sign in all, and lose little by it.
    assert expects(-true, few) < 0 and expects(-true, many) > expects(None, many) - 0.1 > 0.5
    silent = drawn(21)
    _, logits = told(np.random.default_rng(22).normal(size=96), silent, replace(DOMAIN, initial=true))
    assert np.corrcoef(logits[SPACE.mask], true[SPACE.mask])[0, 1] > 0.9
    certain = np.where(SPACE.mask, 30 * (np.arange(SPACE.mask.shape[1]) == 1), 0).astype(np.float32)
    strategy = make_strategy("additive", replace(DOMAIN, initial=certain), {"batch": 4})
    asked, _ = strategy.ask(jax.random.key(0), strategy.init(jax.random.key(1)))
    np.testing.assert_array_equal(asked, 1)


def test_what_operations_have_in_common_is_learnt_of_all_of_them():
    architectures = drawn(5)
    rng = np.random.default_rng(6)
    scores = convolutions(architectures) + NOISE * rng.normal(size=96)
    state, logits = told(scores, architectures)
    assert prior.mode(logits, SPACE.mask)[1:16:2].tolist() == [3] * 8
    other = drawn(7, 400)
    predicted = np.asarray(prior.log_probability(logits, SPACE.mask, other))
    assert np.corrcoef(predicted, convolutions(other))[0, 1] > 0.8
    posterior = fit(
        make_basis(DOMAIN), DOMAIN.mask, state.architectures, state.scores[:, 0], jnp.zeros(DOMAIN.mask.shape)
    )
    assert float(posterior.signal) >= 0.5 and float(posterior.common) >= 0.75
    # Where nothing is known to be alike, every choice has to be learnt by itself.
    alone = np.asarray(prior.log_probability(told(scores, architectures, APART)[1], SPACE.mask, other))
    assert np.corrcoef(alone, convolutions(other))[0, 1] < 0.75


def test_sources_are_the_same_for_nodes_that_have_fewer_and_more_of_them():
    architectures = drawn(8)
    scores = (architectures[:, 0:16:2] == 1).sum(1) + NOISE * np.random.default_rng(9).normal(size=96)
    _, logits = told(scores, architectures)
    assert prior.mode(logits, SPACE.mask)[0:16:2].tolist() == [1] * 8
    other = drawn(10, 400)
    predicted = np.asarray(prior.log_probability(logits, SPACE.mask, other))
    assert np.corrcoef(predicted, (other[:, 0:16:2] == 1).sum(1))[0, 1] > 0.8


def test_later_asks_are_better_than_the_first_and_all_new():
    strategy = make_strategy("additive", DOMAIN, {"batch": 8, "initial": 24})
    ask, tell = jax.jit(strategy.ask), jax.jit(strategy.tell)
    state, key, seen = strategy.init(jax.random.key(0)), jax.random.key(3), []
    for step in range(10):
        architectures, state = ask(jax.random.fold_in(key, step), state)
        seen.append(np.asarray(architectures))
        noise = NOISE * np.random.default_rng(step).normal(size=8)
        scores = jnp.asarray(convolutions(seen[-1]) + noise, jnp.float32)
        state, _ = tell(state, architectures, scores[:, None])
    assert np.mean([convolutions(each).mean() for each in seen[-3:]]) > 5 > convolutions(np.concatenate(seen[:3])).max()
    assert len(np.unique(np.concatenate(seen), axis=0)) == 80


def test_a_repeated_score_is_no_second_observation():
    architectures, scores = drawn(1, 12), np.arange(12.0)
    state, once = told(scores, architectures)
    strategy = make_strategy("additive", DOMAIN, {"capacity": 128})
    again, _ = strategy.tell(state, architectures, scores.astype(np.float32)[:, None])
    assert strategy.logits is not None
    np.testing.assert_allclose(strategy.logits(jax.random.key(1), again), once, atol=1e-5)
    # Nor where one ask brought it twice.
    _, twice = told(np.repeat(scores, 2), np.repeat(architectures, 2, 0))
    np.testing.assert_allclose(twice, once, atol=1e-5)


def test_a_ring_smaller_than_an_ask_is_refused():
    with pytest.raises(UserError, match=r"additive\.capacity=4 is out of range; it must be at least batch=8"):
        make_strategy("additive", DOMAIN, {"capacity": 4})
