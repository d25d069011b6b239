"""The prior and its estimator, against exact enumeration of a small ragged space."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from parsec import prior
from parsec.prior.importance import REDUCTIONS
from parsec.prior.update import empirical_bayes_gradient

SIZES = (2, 3, 4)
MASK = np.arange(4) < np.array(SIZES)[:, None]
ALL = np.array(list(itertools.product(*map(range, SIZES))), np.int32)


@pytest.fixture
def logits(key: jax.Array) -> jax.Array:
    """Logits of a prior that is neither uniform nor certain, with rubbish where masked."""
    return jnp.where(jnp.asarray(MASK), jax.random.normal(key, MASK.shape), 1e9)


def test_probabilities_of_all_architectures_sum_to_one_and_match_scipy(logits: jax.Array):
    found = np.exp(prior.log_probability(logits, MASK, ALL))
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-5)
    pi = np.asarray(prior.probabilities(logits, MASK))
    np.testing.assert_allclose(found, [np.prod([pi[c, o] for c, o in enumerate(a)]) for a in ALL], rtol=1e-5)
    expected = sum(stats.entropy(row[:size]) for row, size in zip(pi, SIZES, strict=True))
    np.testing.assert_allclose(prior.entropy(logits, MASK), expected, rtol=1e-5)


def test_samples_follow_the_prior_and_never_leave_the_mask(logits: jax.Array, key: jax.Array):
    drawn = np.asarray(prior.sample(key, logits, MASK, 20_000))
    assert (drawn < np.array(SIZES)).all()
    assert (drawn >= 0).all()
    frequencies = np.stack([np.bincount(column, minlength=4) for column in drawn.T]) / len(drawn)
    np.testing.assert_allclose(frequencies, prior.probabilities(logits, MASK), atol=0.015)


def test_stratified_samples_follow_the_prior_and_cover_it_evenly(logits: jax.Array, key: jax.Array):
    keys = jax.random.split(key, 4_000)
    drawn = np.asarray(jax.vmap(lambda k: prior.sample_stratified(k, logits, MASK, 6, 5))(keys))[:, :5]
    expected = np.asarray(prior.probabilities(logits, MASK))
    counts = np.stack([(drawn == option).sum(1) for option in range(4)], -1)
    assert (counts >= np.floor(5 * expected - 1e-4)).all()
    assert (counts <= np.ceil(5 * expected + 1e-4)).all()
    for child in range(5):
        frequencies = np.stack([np.bincount(column, minlength=4) for column in drawn[:, child].T]) / len(drawn)
        np.testing.assert_allclose(frequencies, expected, atol=0.04)
    # Choices are dealt out independently of each other.
    correlation = np.corrcoef(drawn[:, 0].T)
    np.testing.assert_allclose(correlation[np.triu_indices(3, 1)], 0, atol=0.06)


def test_equal_options_are_each_drawn_once(key: jax.Array):
    drawn = prior.sample_stratified(key, np.zeros((6, 5), np.float32), np.ones((6, 5), bool), 5)
    np.testing.assert_array_equal(np.sort(drawn, axis=0), np.arange(5)[:, None].repeat(6, 1))


def test_the_mode_is_the_most_probable_architecture(logits: jax.Array):
    best = ALL[int(prior.log_probability(logits, MASK, ALL).argmax())]
    np.testing.assert_array_equal(prior.mode(logits, MASK), best)


def exact_gradient(logits: jax.Array, likelihood: jax.Array) -> jax.Array:
    def evidence(theta: jax.Array) -> jax.Array:
        return jax.scipy.special.logsumexp(likelihood + prior.log_probability(theta, MASK, ALL))

    return jax.grad(evidence)(logits)


def estimate(key: jax.Array, logits: jax.Array, likelihood: jax.Array, count: int) -> jax.Array:
    architectures = prior.sample(key, logits, MASK, count)
    place = architectures @ jnp.array([12, 4, 1])
    weights = prior.importance_weights(likelihood[place])
    return empirical_bayes_gradient(logits, MASK, architectures, weights)


def test_the_estimator_converges_to_the_exact_gradient_as_children_grow(logits: jax.Array, key: jax.Array):
    likelihood = jax.random.normal(jax.random.fold_in(key, 1), (len(ALL),)) * 2
    exact = exact_gradient(logits, likelihood)
    errors = []
    for count in (10, 1_000, 100_000):
        keys = jax.random.split(jax.random.fold_in(key, count), 8)
        found = jax.vmap(lambda k, n=count: estimate(k, logits, likelihood, n))(keys)
        errors.append(float(jnp.sqrt(jnp.square(found - exact[None]).mean())))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.01


def test_one_update_over_every_architecture_is_exact(logits: jax.Array):
    likelihood = jnp.linspace(-3.0, 3.0, len(ALL))
    posterior = prior.importance_weights(likelihood + prior.log_probability(logits, MASK, ALL))
    found = empirical_bayes_gradient(logits, MASK, ALL, posterior)
    np.testing.assert_allclose(found, exact_gradient(logits, likelihood), atol=1e-5)
    np.testing.assert_allclose(found.sum(-1), 0, atol=1e-5)
    assert not np.asarray(found)[~MASK].any()


@pytest.mark.parametrize("count", [1, 4])
def test_equal_likelihoods_and_single_children_teach_nothing(count: int, logits: jax.Array, key: jax.Array):
    likelihood = jnp.zeros(len(ALL)) if count > 1 else jnp.linspace(-9.0, 9.0, len(ALL))
    keys = jax.random.split(key, 20_000)
    mean = jax.vmap(lambda k: estimate(k, logits, likelihood, count))(keys).mean(0)
    np.testing.assert_allclose(mean, 0, atol=0.02)


def test_weights_sum_to_one_and_survive_extreme_and_failed_likelihoods():
    weights = prior.importance_weights(jnp.array([-1e30, -1e38, -5e29, jnp.nan, -jnp.inf]))
    np.testing.assert_array_equal(weights, [0, 0, 1, 0, 0])
    np.testing.assert_allclose(prior.importance_weights(jnp.array([1e30, 1e30])), [0.5, 0.5])
    np.testing.assert_array_equal(prior.importance_weights(jnp.full(3, jnp.nan)), 0)
    active = jnp.array([True, True, False])
    np.testing.assert_allclose(prior.importance_weights(jnp.zeros(3), active), [0.5, 0.5, 0])


def test_the_effective_sample_size_counts_equal_weights():
    np.testing.assert_allclose(prior.effective_sample_size(jnp.full(4, 0.25)), 4)
    np.testing.assert_allclose(prior.effective_sample_size(jnp.array([1.0, 0.0])), 1)
    assert prior.effective_sample_size(jnp.zeros(3)) == 0


def test_the_floor_holds_and_a_temperature_that_needs_no_raising_is_kept():
    values = jnp.array([0.0, -40.0, -80.0, -90.0, -300.0])
    reduced = prior.reduce_likelihood(values, 64, "tempered", temperature=2.0, ess_floor=0.6)
    np.testing.assert_allclose(prior.effective_sample_size(prior.importance_weights(reduced)), 3, rtol=1e-3)
    gentle = prior.reduce_likelihood(values, 64, "tempered", temperature=1e4, ess_floor=0.6)
    np.testing.assert_allclose(gentle, values / 1e4)
    sharp = prior.reduce_likelihood(values, 64, "tempered", temperature=4.0)
    np.testing.assert_allclose(sharp, values / 4)
    np.testing.assert_allclose(prior.reduce_likelihood(values, 64, "mean"), values / 64)
    assert set(REDUCTIONS) == {"sum", "mean", "tempered"}


@pytest.mark.parametrize("make", [prior.adam_update, prior.natural_update])
def test_updates_find_the_best_architecture_and_rest_on_zero_weights(make, key: jax.Array):
    rules = make(MASK, 0.05)
    likelihood = -jnp.abs(jnp.arange(len(ALL), dtype=jnp.float32) - 17) / 4

    def step(state: prior.PriorState, k: jax.Array) -> tuple[prior.PriorState, None]:
        architectures = prior.sample(k, state.logits, MASK, 8)
        place = architectures @ jnp.array([12, 4, 1])
        return rules.update(state, architectures, prior.importance_weights(likelihood[place])), None

    start = rules.init(np.zeros(MASK.shape, np.float32))
    state, _ = jax.lax.scan(step, start, jax.random.split(key, 400))
    np.testing.assert_array_equal(prior.mode(state.logits, MASK), ALL[17])
    rested = rules.update(state, jnp.asarray(ALL[:4]), jnp.zeros(4))
    jax.tree.map(np.testing.assert_array_equal, rested, state)


def test_the_natural_step_moves_probabilities_toward_weighted_frequencies():
    rules = prior.natural_update(MASK, 0.25)
    state = rules.update(
        rules.init(np.zeros(MASK.shape, np.float32)), jnp.array([[0, 0, 0], [1, 2, 3]]), jnp.array([0.75, 0.25])
    )
    found = prior.probabilities(state.logits, MASK)
    np.testing.assert_allclose(found[0, :2], [0.75 * 0.5 + 0.25 * 0.75, 0.75 * 0.5 + 0.25 * 0.25], rtol=1e-5)


def kl(left: np.ndarray, right: np.ndarray) -> float:
    """KL(left || right) in nats over choices without masked options."""
    left, right = (np.asarray(each, np.float64) for each in (left, right))
    left, right = (each - np.log(np.exp(each).sum(-1, keepdims=True)) for each in (left, right))
    return float((np.exp(left) * (left - right)).sum())


@pytest.mark.parametrize("make", [prior.adam_update, prior.natural_update])
def test_a_trust_term_of_radius_zero_keeps_the_initial_prior_and_an_infinite_one_is_none(make):
    mask = np.ones((2, 3), bool)
    initial = np.array([[2.0, -1, 0], [0.3, 0, -7]], np.float32)
    free = make(mask, 0.1)
    assert prior.trust_initial(free, 0.1, None) is free
    # A hundred times the learning rate hardly draws back, and a hundredth hardly lets go.
    moved = {}
    for radius in (0.0, 0.001, 10.0, None):
        update = prior.trust_initial(free, 0.1, radius)
        state = update.init(initial)
        for _ in range(5):
            state = update.update(state, jnp.array([[1, 2]]), jnp.ones(1))
        moved[radius] = np.abs(np.asarray(state.logits) - initial)
    assert not moved[0.0].any()
    assert moved[0.001].max() < 0.02 * moved[None].max()
    assert moved[10.0].max() > 0.9 * moved[None].max()
    rested = prior.trust_initial(free, 0.1, 0.1)
    state = rested.update(rested.init(initial), jnp.array([[1, 2]]), jnp.ones(1))
    for left, right in zip(rested.update(state, jnp.array([[0, 0]]), jnp.zeros(1)), state, strict=True):
        jax.tree.map(np.testing.assert_array_equal, left, right)


def test_the_trust_term_is_its_proximal_step_and_holds_adam_within_its_radius():
    """No other prior is better by KL(. || moved) + learning_rate / radius KL(. || initial), and logits stay near."""
    mask, rate, radius = np.ones((2, 4), bool), 0.05, 0.5
    initial = np.array([[2.0, -1, 0, 1], [0, 0.5, -3, 1]], np.float32)
    free = prior.adam_update(mask, rate)
    update = prior.trust_initial(free, rate, radius)
    state, alone = update.init(initial), free.init(initial)
    architectures, weights = jnp.array([[1, 2], [3, 2]]), jnp.array([0.8, 0.2])
    moved = free.update(alone, architectures, weights).logits
    held = np.asarray(update.update(state, architectures, weights).logits)

    def objective(logits: np.ndarray) -> float:
        return kl(logits, np.asarray(moved)) + rate / radius * kl(logits, initial)

    rng = np.random.default_rng(0)
    others = [objective(held + 0.01 * rng.normal(size=held.shape)) for _ in range(50)]
    assert objective(held) < min(others)
    for _ in range(400):
        state = update.update(state, architectures, weights)
    way = np.abs(np.asarray(state.logits) - initial).max()
    assert 0.5 * radius < way < 1.2 * radius


def test_the_adaptive_budget_follows_entropy_within_its_bounds(logits: jax.Array):
    uniform = jnp.zeros(MASK.shape)
    entropy = float(np.log(SIZES).sum())
    assert int(prior.adaptive_count(uniform, MASK, 2.0, 100)) == int(np.ceil(2 * entropy))
    assert int(prior.adaptive_count(uniform, MASK, 2.0, 3)) == 3
    certain = jnp.zeros(MASK.shape).at[:, 0].set(50.0)
    assert int(prior.adaptive_count(certain, MASK, 2.0, 100)) == 2
