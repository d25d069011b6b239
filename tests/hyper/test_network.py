"""Trainings of the joint space: they learn, are repeatable, obey a teacher, and say where they diverged."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from parsec.errors import UserError
from parsec.evaluate.contract import no_pause
from parsec.hyper.network import ConvNet, Task, fresh, outputs, train
from parsec.hyper.space import HyperParameters

HYPER = HyperParameters((4,), (True,), 3, True, False, (4,), 0.01, 10)


def first(hyper: HyperParameters, task: Task):
    return fresh(hyper, task.image, task.classes, np.random.default_rng(0))


def test_a_network_learns_the_same_from_the_same_seed(task: Task) -> None:
    trained = [train(HYPER, task, first(HYPER, task), 8, (seed,), no_pause) for seed in (0, 0, 1)]
    assert trained[0].valid > 90 and trained[0].test > 90
    same, other = (jax.tree.map(np.array_equal, trained[0].variables, each.variables) for each in trained[1:])
    assert all(jax.tree.leaves(same)) and not all(jax.tree.leaves(other))


def test_a_taught_network_approaches_its_teacher_s_outputs_and_not_the_labels(task: Task) -> None:
    hyper = replace(HYPER, batch_norm=False, batch_size=20)
    wanted = np.tile(np.array([[0.3, -0.2]], np.float32), (40, 1))
    taught = train(hyper, task, first(hyper, task), 60, (0,), no_pause, wanted)
    assert np.abs(outputs(hyper, taught.variables, task, task.train) - wanted).max() < 0.1


def test_a_network_that_diverges_has_no_accuracy(task: Task) -> None:
    hyper = replace(HYPER, batch_norm=False, learning_rate=1e30)
    trained = train(hyper, task, first(hyper, task), 3, (0,), no_pause)
    assert np.isnan(trained.valid) and np.isnan(trained.test)


def test_taps_beyond_the_map_change_nothing(task: Task) -> None:
    hyper = replace(HYPER, conv=(3, 3, 3), pools=(True,) * 3, kernel_size=7)
    variables = first(hyper, task)
    before = outputs(hyper, variables, task, task.valid)
    # The third convolution sees 2 x 2 pixels: what is two away from its middle reads the margin only.
    kernel = variables["params"]["conv_2_kernel"]
    inner = kernel[2:5, 2:5].copy()
    kernel[:] = 1e3
    kernel[2:5, 2:5] = inner
    np.testing.assert_array_equal(outputs(hyper, variables, task, task.valid), before)


def test_an_odd_last_row_is_left_out_and_a_pool_takes_the_largest() -> None:
    hyper = HyperParameters((1,), (True,), 3, False, True, (1,), 0.1, 1)
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1] = 1
    one, zero = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    params = {"conv_0_kernel": kernel, "conv_0_bias": zero, "fc_0_kernel": one, "fc_0_bias": zero}
    params |= {"fc_1_kernel": one, "fc_1_bias": zero}
    images = np.zeros((1, 3, 3, 1), np.float32)
    images[0, :, :, 0] = [[1, 5, 9], [2, 3, 9], [9, 9, 9]]
    assert float(np.asarray(ConvNet(hyper, 1).apply({"params": params}, images, False))[0, 0]) == 5


def test_a_batch_larger_than_the_images_is_refused(task: Task) -> None:
    hyper = replace(HYPER, batch_size=41)
    with pytest.raises(UserError, match=r"batch_size=41 is larger than the 40 images"):
        train(hyper, task, first(hyper, task), 1, (0,), no_pause)
