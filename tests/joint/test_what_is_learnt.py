"""Who learns what from which batch, and how much: one step of PARSEC against its formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from parsec.data.source import Batch
from parsec.jobs.search.problem import search_recipe
from parsec.joint import parsec, shared
from parsec.joint.contract import Joint, Parts
from parsec.joint.settings import JointSettings, LikelihoodSettings, PriorSettings, SamplerSettings
from parsec.prior import effective_sample_size, importance_weights
from parsec.settings.search import OptimizerSettings, SearchConfig
from parsec.supernet.objective import ChildResult
from parsec.supernet.supernet import Supernet
from parsec.train.recipe import make_optimizer

MASK = np.ones((1, 3), bool)
RATE = 0.1
TRAIN = Batch(jnp.array([0.5, 0.1, 0.0], jnp.float32).reshape(3, 1, 1, 1), jnp.zeros(3, jnp.int32))
# What the validation batch says is the other way round.
VALID = Batch(TRAIN.images[::-1], TRAIN.labels)


def child(weights: dict, batch: Batch, architecture: jax.Array) -> ChildResult:
    """Option k's log-likelihood is its image's pixel, less the distance of its own weight from one."""
    at = architecture[0]
    loss = jnp.square(weights["w"][at] - 1) - batch.images[at, 0, 0, 0] * 4
    return ChildResult(-loss * len(batch.labels), jnp.zeros((), jnp.int32))


# Option 0 counts as one kind of operation, options 1 and 2 as another.
SHARES = {"skip": np.array([[1, 0, 0]], np.float32), "pool": np.array([[0, 1, 1]], np.float32)}


def search(make=parsec.make, warmup: float = 0.0, **likelihood) -> Joint:
    supernet = Supernet(lambda key, images: {"w": jnp.array([0.0, 0.5, 0.8])}, lambda weights, inputs, routes: inputs)
    parts = Parts(supernet, child, MASK, optax.sgd(RATE), 10, SHARES)
    # Stratified, so that each of three equally likely options is one child.
    settings = JointSettings(
        SamplerSettings(num_children=3, stratified=True),
        LikelihoodSettings(**likelihood),
        PriorSettings(update="natural", learning_rate=0.5, warmup=warmup),
    )
    return make(parts, settings)


def step(joint: Joint, index: int = 0) -> tuple[dict, dict]:
    state = joint.init(jax.random.key(0), TRAIN.images, np.zeros((1, 3), np.float32))
    state, info = jax.jit(joint.step)(state, jax.random.key(1), TRAIN, VALID, jnp.array(index))
    learnt = None if joint.logits is None else jax.nn.softmax(joint.logits(state))[0]
    return {"w": joint.weights(state)["w"], "prior": learnt}, info


def likelihoods(batch: Batch) -> jax.Array:
    weights = {"w": jnp.array([0.0, 0.5, 0.8])}
    return jnp.stack([child(weights, batch, jnp.array([at])).log_likelihood for at in range(3)])


def descended(shares: jax.Array) -> jax.Array:
    """The weights after a step down the mean loss of one image, children weighted by their shares."""
    w = jnp.array([0.0, 0.5, 0.8])
    return w - RATE * shares * 2 * (w - 1)


@pytest.mark.parametrize(("reduction", "factor"), [("sum", 1.0), ("mean", 1 / 3), ("tempered", 1 / 2)])
def test_weights_learn_from_the_training_batch_by_its_likelihoods_and_the_prior_from_the_other(
    reduction: str, factor: float
):
    learnt, info = step(search(reduction=reduction, temperature=2.0))
    on_train, on_valid = (importance_weights(likelihoods(batch) * factor) for batch in (TRAIN, VALID))
    np.testing.assert_allclose(learnt["w"], descended(on_train), rtol=1e-5)
    np.testing.assert_allclose(learnt["prior"], 0.5 / 3 + 0.5 * on_valid, rtol=1e-4)
    np.testing.assert_allclose(info["ess"], effective_sample_size(on_valid), rtol=1e-5)
    # The batches disagree, or nothing of this would tell them apart.
    assert on_train.argmax() != on_valid.argmax()


@pytest.mark.parametrize(("weighted_by", "batch"), [("uniform", None), ("valid", VALID)])
def test_children_may_be_weighted_otherwise(weighted_by: str, batch: Batch | None):
    learnt, _ = step(search(child_weights=weighted_by))
    shares = jnp.full(3, 1 / 3) if batch is None else importance_weights(likelihoods(batch))
    np.testing.assert_allclose(learnt["w"], descended(shares), rtol=1e-5)


def test_warm_up_weights_children_alike_and_ends_at_its_step():
    joint = search(warmup=0.5)
    learnt, info = step(joint, 4)
    np.testing.assert_allclose(learnt["w"], descended(jnp.full(3, 1 / 3)), rtol=1e-5)
    np.testing.assert_allclose(learnt["prior"], 1 / 3, rtol=1e-6)
    assert np.isnan(info["valid_loss"])
    learnt, _ = step(joint, 5)
    np.testing.assert_allclose(learnt["w"], descended(importance_weights(likelihoods(TRAIN))), rtol=1e-5)
    assert float(learnt["prior"].max()) > 0.4


def test_shared_weights_learn_from_uniform_children_and_nothing_else_learns():
    learnt, info = step(search(shared.make))
    np.testing.assert_allclose(learnt["w"], descended(jnp.full(3, 1 / 3)), rtol=1e-5)
    assert learnt["prior"] is None and int(info["num_children"]) == 3


def test_the_control_learns_from_the_same_weights_given_to_children_of_its_own():
    joint = search()
    assert joint.control is not None
    # Stratified children are each of the three options once, in an order of their own.
    expected = np.sort(0.5 / 3 + 0.5 * importance_weights(likelihoods(VALID)))
    orders, take = set(), jax.jit(joint.step)
    for seed in range(8):
        state = joint.init(jax.random.key(0), TRAIN.images, np.zeros((1, 3), np.float32))
        state, info = take(state, jax.random.key(seed), TRAIN, VALID, jnp.array(0))
        learnt = np.asarray(jax.nn.softmax(joint.control(state))[0])
        np.testing.assert_allclose(np.sort(learnt), expected, rtol=1e-4)
        np.testing.assert_allclose(info["control_entropy"], -(learnt * np.log(learnt)).sum(), rtol=1e-4)
        orders.add(tuple(learnt.argsort()))
    assert len(orders) > 2
    carried = np.array([[0.0, 3.0, 1.0]], np.float32)
    state = joint.init(jax.random.key(0), TRAIN.images, carried)
    np.testing.assert_array_equal(joint.control(state), carried)


def test_a_step_says_what_kinds_of_operations_the_mode_is_made_of():
    _, info = step(search())
    mode = int(importance_weights(likelihoods(VALID)).argmax())
    assert (float(info["mode_skip"]), float(info["mode_pool"])) == (float(mode == 0), float(mode > 0))
    state = search().init(jax.random.key(0), TRAIN.images, np.array([[50.0, 0.0, 0.0]], np.float32))
    _, info = jax.jit(search().step)(state, jax.random.key(1), TRAIN, VALID, jnp.array(0))
    assert (float(info["mode_skip"]), float(info["mode_pool"])) == (1.0, 0.0)
    # The mode of a prior that rests is the first of equal options.
    _, info = step(search(warmup=0.5))
    assert np.isnan(info["mode_skip"]) and np.isnan(info["mode_pool"])


def test_the_architecture_is_the_most_probable():
    joint = search()
    state = joint.init(jax.random.key(0), TRAIN.images, np.array([[0.0, 3.0, 1.0]], np.float32))
    assert np.asarray(joint.architecture(state)).tolist() == [1]


def test_the_optimizer_decays_weights_and_its_rate_falls_as_a_cosine():
    settings = OptimizerSettings(learning_rate=0.4, final_learning_rate=0.1, momentum=0.0, weight_decay=0.5, clip=1e9)
    recipe = search_recipe(SearchConfig(optimizer=settings), 4)
    optimizer, weights = make_optimizer(recipe), {"w": jnp.array([2.0])}
    state, nothing = optimizer.init(weights), {"w": jnp.zeros(1)}
    rates = []
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(5):
            change, state = optimizer.update(nothing, state, weights)
            rates.append(-float(change["w"][0]) / (0.5 * 2.0))
    expected = 0.1 + 0.3 * 0.5 * (1 + np.cos(np.pi * np.arange(5) / 4))
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
