"""K children in the memory of one: streamed weights equal those known beforehand, for any budget, failures included."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from parsec import prior
from parsec.data.source import Batch
from parsec.devices import batch_mesh, divided, whole
from parsec.supernet.children import Children, run_children, weighted_gradient
from parsec.supernet.objective import ChildResult


def linear_child(weights: dict, batch: Batch, architecture: jax.Array) -> ChildResult:
    """A child that scores images by one of three weight vectors; cheap, and exact to differentiate."""
    chosen = weights["table"][architecture[0]]
    logits = jnp.einsum("bhwc,ck->bk", batch.images, chosen)
    logp = jax.nn.log_softmax(logits)
    own = jnp.take_along_axis(logp, batch.labels[:, None], 1).sum()
    return ChildResult(own * weights["scale"], (logits.argmax(-1).astype(jnp.int32) == batch.labels).sum())


@pytest.fixture
def problem(key: jax.Array) -> tuple[dict, Batch, jax.Array]:
    keys = jax.random.split(key, 3)
    weights = {"table": jax.random.normal(keys[0], (3, 2, 4)), "scale": jnp.ones(())}
    batch = Batch(jax.random.normal(keys[1], (6, 3, 3, 2)), jax.random.randint(keys[2], (6,), 0, 4))
    return weights, batch, jnp.array([[0], [2], [1], [2], [0]], jnp.int32)


@jax.jit
def likelihoods(weights: dict, batch: Batch, architectures: jax.Array) -> jax.Array:
    return jnp.stack([linear_child(weights, batch, a).log_likelihood for a in architectures])


@partial(jax.jit, static_argnames=("count", "sharpness"))
def streamed(
    weights: dict, batch: Batch, architectures: jax.Array, count: int = 5, sharpness: float = 1.0
) -> tuple[dict, Children]:
    return weighted_gradient(
        linear_child, weights, batch, architectures, count, level=lambda k, value: value * sharpness
    )


@jax.jit
def summed(weights: dict, batch: Batch, architectures: jax.Array, shares: jax.Array) -> dict:
    """Returns the gradient of the log-likelihoods in given shares."""
    return jax.grad(lambda w: (shares * likelihoods(w, batch, architectures)).sum())(weights)


@pytest.mark.parametrize("sharpness", [0.0, 0.1, 1.0])
def test_the_streamed_gradient_is_the_weighted_sum(problem, sharpness: float):
    weights, batch, architectures = problem
    values = likelihoods(weights, batch, architectures)
    expected = summed(weights, batch, architectures, prior.importance_weights(values * sharpness))
    found, children = streamed(weights, batch, architectures, sharpness=sharpness)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)
    np.testing.assert_allclose(children.log_likelihoods, values, rtol=1e-5)
    assert children.failed == 0


@pytest.mark.parametrize("descending", [False, True])
def test_a_likelier_child_that_comes_later_takes_weight_from_those_before(problem, descending: bool):
    """In rising order every child but the first makes the sum be rescaled, in falling order none does."""
    weights, batch, architectures = problem
    order = jnp.argsort(likelihoods(weights, batch, architectures), descending=descending)
    values = likelihoods(weights, batch, architectures[order])
    assert float(jnp.abs(jnp.diff(values)).max()) > 1
    expected = summed(weights, batch, architectures[order], prior.importance_weights(values))
    found, _ = streamed(weights, batch, architectures[order])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


def test_the_gradient_of_importance_weights_is_that_of_the_evidence(problem):
    weights, batch, architectures = problem

    def evidence(w: dict) -> jax.Array:
        return jax.scipy.special.logsumexp(likelihoods(w, batch, architectures))

    found, _ = streamed(weights, batch, architectures)
    expected = jax.jit(jax.grad(evidence))(weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


def test_one_program_serves_every_budget_and_ignores_rows_beyond_it(problem):
    weights, batch, architectures = problem
    traces = []

    @jax.jit
    def run(count: jax.Array, architectures: jax.Array):
        traces.append(None)
        return weighted_gradient(linear_child, weights, batch, architectures, count, level=lambda k, v: v)

    for count in (2, 3, 5):
        other = architectures.at[count:].set(1)
        for left, right in zip(
            *(jax.tree.leaves(run(jnp.array(count), a)) for a in (architectures, other)), strict=True
        ):
            np.testing.assert_array_equal(left, right)
        assert np.isfinite(run(jnp.array(count), architectures)[1].log_likelihoods).sum() == count
    assert len(traces) == 1


def test_a_failed_child_is_counted_and_has_no_weight(problem):
    weights, batch, architectures = problem
    broken = weights | {"table": weights["table"].at[2].set(jnp.nan)}
    found, children = streamed(broken, batch, architectures)
    sound = architectures[jnp.array([0, 2, 4])]
    expected, _ = streamed(weights, batch, sound, count=3)
    np.testing.assert_allclose(found["table"][:2], expected["table"][:2], rtol=1e-5)
    assert not np.asarray(found["table"][2]).any()
    assert children.failed == 2
    assert np.isnan(children.log_likelihoods).sum() == 2
    assert jax.jit(partial(run_children, linear_child))(broken, batch, architectures, 5).failed == 2


def test_when_every_child_fails_the_gradient_is_zero(problem):
    weights, batch, architectures = problem
    broken = weights | {"scale": jnp.array(jnp.inf)}
    found, children = streamed(broken, batch, architectures)
    assert children.failed == 5
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_of_devices_share_the_children(problem, groups: int):
    """For any budget, and where a child fails or has its weight from its number: as if one device ran them all."""
    weights, batch, five = problem
    architectures, given = jnp.concatenate([five, five[:3]]), jnp.log(jnp.arange(1.0, 9.0))
    mesh = batch_mesh(4, {"batch": 6}, groups)

    def run(weights: dict, batch: Batch, count: jax.Array, mesh: Mesh | None) -> list:
        importance = given * weights["scale"]
        found = [
            weighted_gradient(linear_child, weights, batch, architectures, count, level, mesh)
            for level in (lambda k, value: value, lambda k, value: importance[k])
        ]
        return [*found, run_children(linear_child, weights, batch, architectures, count, mesh)]

    alone = jax.jit(partial(run, mesh=None))
    together = jax.jit(partial(run, mesh=mesh), out_shardings=whole(mesh))
    placed = jax.device_put(batch, divided(mesh))
    for table in (weights["table"], weights["table"].at[2].set(jnp.nan), weights["table"] * jnp.inf):
        own = weights | {"table": table}
        for count in (1, 5, 8):
            expected = alone(own, batch, jnp.array(count))
            found = together(jax.device_put(own, whole(mesh)), placed, jnp.array(count))
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)
