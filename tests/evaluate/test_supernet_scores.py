"""Scores of children: accuracy and mean log-likelihood over the very images, NaN where a likelihood is not finite."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from parsec.data.examples import open_stream
from parsec.data.memory import Batches
from parsec.data.source import Batch
from parsec.data.stream import StreamedPart
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluated, no_pause
from parsec.evaluate.supernet import make_score, supernet_evaluator
from parsec.supernet.objective import ChildResult

NOTHING = Evaluated(np.zeros((0, 1), np.int32), np.zeros((0, 1)))


def child(weights: jax.Array, batch: Batch, architecture: jax.Array) -> ChildResult:
    """Right wherever the label is the option; an image's log-likelihood is its weight times its label, if any."""
    values = -weights * jnp.maximum(batch.labels, 0).astype(jnp.float32)
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


@pytest.mark.slow
def test_streamed_images_give_the_same_score_and_one_that_cannot_be_read_does_not_count(tmp_path: Path):
    labels = np.array([0] * 3 + [1] * 3 + [2] * 3, np.int32)
    for at, label in enumerate(labels):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        Image.new("RGB", (6, 6), (10 * at, 0, 0)).save(tmp_path / str(label) / f"{at}.png")
    dataset, names = open_stream("stream:images", str(tmp_path), 4), []
    part = StreamedPart(dataset.examples, np.arange(9, dtype=np.int32), 4, report=names.extend)
    held = Batches(
        jnp.zeros((9, 2, 2, 1), jnp.uint8), jnp.asarray(labels), jnp.zeros(1, jnp.float32), jnp.ones(1, jnp.float32)
    )
    weights, rows = jnp.array(0.5, jnp.float32), [np.array([option]) for option in range(3)]
    for size, images in ((4, 9), (4, 5), (20, 9), (3, 1)):
        options = {"batch_size": size, "num_images": images, "dtype": "float32", "seed": 3}
        one, other = make_score(child, part, **options), make_score(child, held, **options)
        assert [one(weights, row) for row in rows] == [other(weights, row) for row in rows]
    (tmp_path / "2" / "8.png").write_bytes(b"no image")
    score = make_score(child, part, batch_size=3, num_images=9, dtype="float32", seed=0)
    assert score(weights, rows[2]) == (25.0, pytest.approx(-0.5 * labels[:8].mean()))
    assert score(weights, rows[0]).accuracy == 37.5
    assert set(names) == {"2/8.png"}
    assert np.isnan(score(jnp.array(jnp.inf, jnp.float32), rows[2])).all()
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the 9 images of a part can be read"):
        score(weights, rows[0])
