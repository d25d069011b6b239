"""Growing changes nothing that a network computes, and cutting takes what counts least away, exactly that."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from parsec.hyper import morphism
from parsec.hyper.morphism import bulk_up, deepen, slim_down, widen
from parsec.hyper.network import ConvNet, Task, Variables, fresh, outputs
from parsec.hyper.space import HyperParameters, parameter_count

PLAIN = HyperParameters((3, 4), (True, True), 3, False, False, (5, 4), 0.01, 10)
NORMED = replace(PLAIN, batch_norm=True, global_pooling=True)


def made(hyper: HyperParameters, task: Task, seed: int = 0) -> Variables:
    """Returns variables as after some training: units alive, normalisations with means and scales of either sign."""
    rng = np.random.default_rng(seed)
    variables = fresh(hyper, task.image, task.classes, rng)
    for name in [name for name in variables["params"] if name.endswith("bias")]:
        variables["params"][name] += np.float32(0.5)
    for at in range(len(hyper.conv) if hyper.batch_norm else 0):
        size = hyper.conv[at]
        variables["params"][f"norm_{at}"] = {
            "scale": rng.normal(0, 1, size).astype(np.float32),
            "bias": rng.normal(0, 1, size).astype(np.float32),
        }
        variables["batch_stats"][f"norm_{at}"] = {
            "mean": rng.uniform(0, 1, size).astype(np.float32),
            "var": rng.uniform(0.3, 2, size).astype(np.float32),
        }
    return variables


def same_function(first, second, task: Task) -> None:
    before, after = (outputs(*grown, task, task.valid) for grown in (first, second))
    assert np.ptp(before) > 1e-3
    np.testing.assert_allclose(after, before, atol=2e-5 * np.abs(before).max())


@pytest.mark.parametrize("hyper", [PLAIN, NORMED], ids=["plain", "normed"])
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_layer_more_computes_the_same(hyper: HyperParameters, at: int, task: Task) -> None:
    variables = made(hyper, task)
    grown = deepen(hyper, variables, at)
    assert len(grown.hyper.conv) + len(grown.hyper.fc) == 5
    same_function((hyper, variables), grown, task)
    if at < 2:
        assert sum(grown.hyper.pools) == 2 and not grown.hyper.pools[at]


@pytest.mark.parametrize("hyper", [PLAIN, NORMED], ids=["plain", "normed"])
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_wider_layer_computes_the_same(hyper: HyperParameters, at: int, task: Task) -> None:
    variables = made(hyper, task)
    grown = widen(hyper, variables, at, 7, np.random.default_rng(1))
    assert (*grown.hyper.conv, *grown.hyper.fc)[at] == 7
    same_function((hyper, variables), grown, task)


def test_bulk_up_grows_to_three_and_three_layers_and_then_wider(task: Task) -> None:
    grown, rng = (NORMED, made(NORMED, task)), np.random.default_rng(0)
    counts = []
    for _ in range(4):
        grown = bulk_up(*grown, (4, 6), rng)
        counts.append(parameter_count(grown.hyper, task.image, task.classes))
    assert len(grown.hyper.conv) == len(grown.hyper.fc) == 3 and counts == sorted(counts)
    same_function((NORMED, made(NORMED, task)), grown, task)
    for _ in range(40):
        grown = bulk_up(*grown, (4, 6), rng)
    assert set(grown.hyper.conv) <= {4} and set(grown.hyper.fc) <= {6}


def test_units_that_pass_nothing_on_are_cut_first_and_nothing_else_changes(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    hyper = HyperParameters((6, 8), (True, True), 3, True, False, (10, 10), 0.01, 10)
    variables = made(hyper, task)
    params = variables["params"]
    # Of each layer the first two units count for nothing.
    params["conv_1_kernel"][:, :, :2] = 0
    params["fc_0_kernel"].reshape(4, 8, 10)[:, :2] = 0
    params["fc_1_kernel"][:2] = 0
    params["fc_2_kernel"][:2] = 0
    for name in ("_BY_HEAD", "_BY_FC", "_BY_CONV"):
        monkeypatch.setattr(morphism, name, (0.1, 0.1000001, 0.1000002))
    slim = slim_down(hyper, variables, np.random.default_rng(3))
    assert slim.hyper.conv < hyper.conv and slim.hyper.fc == (9, 9)
    assert parameter_count(slim.hyper, task.image, 2) < parameter_count(hyper, task.image, 2)
    same_function((hyper, variables), slim, task)
    images = np.zeros((1, *task.image), np.float32)
    shapes = jax.eval_shape(lambda key: ConvNet(slim.hyper, 2).init(key, images, True), jax.random.key(0))
    assert jax.tree.map(np.shape, slim.variables) == jax.tree.map(np.shape, dict(shapes))


def test_one_unit_of_each_layer_stays(task: Task) -> None:
    slim = (PLAIN, made(PLAIN, task))
    rng = np.random.default_rng(0)
    for _ in range(200):
        slim = slim_down(*slim, rng)
    assert min(*slim.hyper.conv, *slim.hyper.fc) == 1
    assert np.isfinite(outputs(*slim, task, task.valid)).all()
