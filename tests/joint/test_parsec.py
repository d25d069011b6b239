"""PARSEC's step on children cheap enough to search to the end, and its behaviour where children fail."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from parsec import prior
from parsec.data.source import Batch
from parsec.joint.contract import Parts
from parsec.joint.parsec import Rules, SearchState, make, search_step
from parsec.joint.sampling import Sampler
from parsec.joint.settings import JointSettings, PriorSettings, SamplerSettings
from parsec.supernet.objective import ChildResult
from parsec.supernet.supernet import Supernet

MASK = np.ones((2, 3), bool)
BEST = [2, 1]


def run_child(weights: dict, batch: Batch, architecture: jax.Array) -> ChildResult:
    """Likelihood falls with the distance from the best architecture, and with the weights' distance from one."""
    distance = jnp.abs(architecture - jnp.array(BEST)).sum().astype(jnp.float32)
    loss = distance * 0.05 + jnp.square(weights["w"] - 1).sum() + jax.lax.stop_gradient(weights["poison"]) * distance
    return ChildResult(-loss * len(batch.labels), jnp.zeros((), jnp.int32))


SAMPLER = Sampler(
    most=6,
    budget=lambda logits: jnp.array(6, jnp.int32),
    sample=lambda key, logits, count: prior.sample(key, logits, MASK, 6),
)

STRATIFIED = SAMPLER._replace(sample=lambda key, logits, count: prior.sample_stratified(key, logits, MASK, 6, count))
ADAPTIVE = SAMPLER._replace(budget=lambda logits: prior.adaptive_count(logits, MASK, 3.0, 6))


def start(rules: Rules) -> SearchState:
    weights = {"w": jnp.zeros(4), "poison": jnp.zeros(())}
    uniform = rules.prior_update.init(np.zeros(MASK.shape, np.float32))
    return SearchState(weights, rules.optimizer.init(weights), uniform, uniform)


def make_rules(**changes) -> Rules:
    rules = Rules(
        run_child,
        MASK,
        optax.sgd(0.05),
        prior.adam_update(MASK, 0.1),
        SAMPLER,
        reduction="sum",
        temperature=4.0,
        ess_floor=0.0,
        child_weights="train",
        warmup_steps=20,
        shares={},
    )
    return rules._replace(**changes)


BATCH = Batch(jnp.zeros((16, 1, 1, 1)), jnp.zeros(16, jnp.int32))


def run(rules: Rules, steps: int, state: SearchState | None = None) -> tuple[SearchState, list[dict]]:
    state = state or start(rules)
    step = jax.jit(partial(search_step, rules))
    infos = []
    for index in range(steps):
        state, info = step(state, jax.random.key(index), BATCH, BATCH, jnp.array(index))
        infos.append({name: np.asarray(value) for name, value in info.items()})
    return state, infos


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prior_update": prior.natural_update(MASK, 0.1)},
        {"child_weights": "uniform", "reduction": "tempered"},
        {"child_weights": "valid"},
        {"reduction": "tempered", "ess_floor": 0.5},
        {
            "sampler": SAMPLER._replace(
                sample=lambda key, logits, count: prior.sample_stratified(key, logits, MASK, 6, count)
            )
        },
        {"sampler": SAMPLER._replace(budget=lambda logits: prior.adaptive_count(logits, MASK, 3.0, 6))},
    ],
    ids=["sum", "natural", "uniform tempered", "valid", "floor", "stratified", "adaptive"],
)
def test_a_search_learns_weights_and_prior_together(changes: dict):
    rules = make_rules(**changes)
    state, infos = run(rules, 300)
    np.testing.assert_allclose(state.weights["w"], 1, atol=1e-2)
    entropies = [info["entropy"] for info in infos]
    np.testing.assert_allclose(entropies[:20], 2 * np.log(3), rtol=1e-5)
    assert entropies[-1] < entropies[0] * 0.98
    probabilities = np.asarray(prior.probabilities(state.prior.logits, MASK))
    assert probabilities.argmax(-1).tolist() == BEST
    assert infos[-1]["loss"] < infos[0]["loss"]
    counts = [int(info["num_children"]) for info in infos]
    assert min(counts) >= 2
    if changes.get("sampler") is ADAPTIVE:
        assert counts[-1] < counts[0]
    if "ess_floor" in changes:
        assert min(float(info["ess"]) for info in infos) >= 2.99


def test_warm_up_leaves_the_prior_and_skips_validation():
    rules = make_rules(warmup_steps=50)
    state, infos = run(rules, 50)
    assert not np.asarray(state.prior.logits).any() and not np.asarray(state.control.logits).any()
    assert all(np.isnan(info["valid_loss"]) for info in infos)
    _, later = run(rules, 51)
    assert np.isfinite(later[-1]["valid_loss"])


def test_failed_children_have_no_say_and_a_step_of_failures_changes_nothing():
    rules = make_rules(warmup_steps=0)
    state = start(rules)
    # Only the best architecture survives infinite poison: 0 * inf is NaN too, so every child fails.
    poisoned = state._replace(weights=state.weights | {"poison": jnp.array(jnp.inf)})
    after, infos = run(rules, 1, poisoned)
    assert np.isnan(infos[0]["loss"])
    assert infos[0]["failed"] == 12
    jax.tree.map(np.testing.assert_array_equal, after, poisoned)
    # A loss of nothing would look like the best there is.
    assert np.isnan(infos[0]["valid_loss"])


def test_a_child_that_fails_does_not_poison_the_others():
    def failing(weights: dict, batch: Batch, architecture: jax.Array) -> ChildResult:
        value, correct = run_child(weights, batch, architecture)
        return ChildResult(jnp.where(architecture[0] == 0, jnp.nan, value), correct)

    rules = make_rules(warmup_steps=0)
    rules = rules._replace(child=failing)
    state, infos = run(rules, 100)
    assert sum(int(info["failed"]) for info in infos) > 0
    assert np.isfinite(state.weights["w"]).all()
    probabilities = np.asarray(prior.probabilities(state.prior.logits, MASK))
    assert probabilities[0, 0] < 0.05


def test_the_control_drifts_but_learns_nothing_of_what_the_prior_learns():
    """Over many searches the control is as likely to prefer one option as another; the prior finds the best ones."""
    rules = make_rules(prior_update=prior.natural_update(MASK, 0.05), warmup_steps=0)

    def search(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def step(state: SearchState, index: jax.Array) -> tuple[SearchState, dict]:
            return search_step(rules, state, jax.random.fold_in(key, index), BATCH, BATCH, index)

        state, infos = jax.lax.scan(step, start(rules), jnp.arange(120))
        best = [prior.probabilities(each.logits, MASK)[jnp.arange(2), jnp.array(BEST)] for each in state[2:]]
        return best[0], best[1], infos["control_entropy"]

    learnt, control, entropies = jax.jit(jax.vmap(search))(jax.random.split(jax.random.key(0), 64))
    assert float(learnt.mean()) > 0.9
    assert abs(float(control.mean()) - 1 / 3) < 0.08
    # Noise moves it, or it would control nothing.
    assert float(entropies[:, -1].mean()) < 0.95 * 2 * np.log(3)


def test_the_control_has_no_say_in_anything_else():
    rules = make_rules(warmup_steps=0)
    state = start(rules)
    other = state._replace(control=rules.prior_update.init(np.array([[9.0, 0, 0], [0, 9, 0]], np.float32)))
    (after, infos), (beside, others) = (run(rules, 5, each) for each in (state, other))
    assert infos[-1]["control_entropy"] != others[-1]["control_entropy"]
    jax.tree.map(np.testing.assert_array_equal, after[:3], beside[:3])


@pytest.mark.parametrize("radius", [0.0, None])
def test_settings_say_how_far_the_prior_goes_from_where_it_started(radius: float | None):
    supernet = Supernet(init=lambda key, images: {"w": jnp.zeros(4), "poison": jnp.zeros(())}, apply=lambda *_: None)
    parts = Parts(supernet, run_child, MASK, optax.sgd(0.05), steps=30)
    search = make(parts, JointSettings(SamplerSettings(num_children=6), prior=PriorSettings(trust_radius=radius)))
    logits = np.array([[1.0, 0, 0], [0, 0, 2]], np.float32)
    state = search.init(jax.random.key(0), BATCH.images, logits)
    step = jax.jit(search.step, donate_argnums=0)
    for index in range(3):
        state, _ = step(state, jax.random.key(index), BATCH, BATCH, jnp.array(index))
    assert search.logits is not None and search.control is not None
    for found in (search.logits(state), search.control(state)):
        assert np.array_equal(found, logits) == (radius == 0)
