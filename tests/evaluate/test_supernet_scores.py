"""Scores of children: accuracy and mean log-likelihood over the very images, NaN where a likelihood is not finite."""

import jax
import jax.numpy as jnp
import numpy as np

from parsec.data.memory import Batches
from parsec.data.source import Batch
from parsec.evaluate.contract import Evaluated, no_pause
from parsec.evaluate.supernet import make_score, supernet_evaluator
from parsec.supernet.objective import ChildResult

NOTHING = Evaluated(np.zeros((0, 1), np.int32), np.zeros((0, 1)))


def child(weights: jax.Array, batch: Batch, architecture: jax.Array) -> ChildResult:
    """Right wherever the label is the option; an image's log-likelihood is its weight times its label."""
    values = -weights * batch.labels.astype(jnp.float32)
    return ChildResult(values.sum(), (batch.labels == architecture[0]).sum())


def test_a_child_is_scored_by_accuracy_and_mean_log_likelihood():
    labels = np.array([0, 1, 1, 2, 2, 2, 2, 1], np.int32)
    part = Batches(
        jnp.zeros((8, 2, 2, 1), jnp.uint8), jnp.asarray(labels), jnp.zeros(1, jnp.float32), jnp.ones(1, jnp.float32)
    )
    options = {"num_images": 8, "dtype": "float32", "seed": 0}
    score = make_score(child, part, batch_size=4, **options)
    weights = jnp.array(0.5, jnp.float32)
    assert score(weights, np.array([2])) == (50.0, -0.5 * labels.mean())
    assert score(weights, np.array([1])).accuracy == 37.5
    # Only whole batches are used.
    assert score(weights, np.array([2])) != make_score(child, part, batch_size=3, **options)(weights, np.array([2]))
    # One batch of several is enough.
    for bad in (jnp.inf, jnp.nan):
        assert np.isnan(score(jnp.array(bad, jnp.float32), np.array([2]))).all()
    evaluate = supernet_evaluator(score, weights).evaluate
    assert evaluate(np.array([[2], [1]]), NOTHING, no_pause).tolist() == [[50.0], [37.5]]
