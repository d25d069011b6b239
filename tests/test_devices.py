"""A batch divided among devices: the steps of training and search are those of one device, to rounding."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from parsec.cells import get_space
from parsec.cells.convolution import average_pool, convolve, convolve_depthwise, max_pool, use_form
from parsec.cells.network import Shape
from parsec.data.memory import Batches, memory_source
from parsec.data.source import RawBatch
from parsec.devices import batch_mesh, divided, traced_for, whole
from parsec.errors import UserError
from parsec.joint import parsec as joint_parsec
from parsec.joint.contract import Parts
from parsec.joint.settings import JointSettings, LikelihoodSettings, PriorSettings, SamplerSettings
from parsec.run.problem import make_program as make_search_program
from parsec.supernet.objective import make_child
from parsec.supernet.supernet import make_supernet
from parsec.train.derived import Blueprint, init_variables, make_network
from parsec.train.recipe import Recipe, make_optimizer
from parsec.train.training import init_state, make_evaluate, make_program, make_step

ROOT = Path(__file__).parents[1]
TEXT = "|nor_conv_1x1~0|+|skip_connect~0|none~1|+|nor_conv_3x3~0|avg_pool_3x3~1|skip_connect~2|"
BLUEPRINT = Blueprint("nasbench201", TEXT, Shape(4, 1, 10))
RECIPE = Recipe(
    8, 16, 0.1, augmentation="crop_flip", nesterov=False, clip=5.0, cutout=2, drop_path=0.3, average=0.9,
    label_smoothing=0.1, auxiliary_weight=0.4,
)  # fmt: skip


def images() -> Batches:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (40, 16, 16, 3), np.uint8), rng.integers(0, 10, 40).astype(np.int32)
    return Batches(*map(jnp.asarray, (pixels, labels, np.full(3, 128, np.float32), np.full(3, 64, np.float32))))


def trained(devices: int, streamed: bool = False) -> Any:
    """Returns state and metrics of three training steps, as numpy arrays, and the accuracy on 40 images."""
    mesh, key = batch_mesh(devices, {}), jax.random.key(0)
    part = jax.device_put(images(), whole(mesh))
    network = make_network(BLUEPRINT, train=True, auxiliary=True, scan=True)
    state = init_state(RECIPE, init_variables(network, key, (16, 16, 3)), validates=False)
    state, told = jax.device_put(state, whole(mesh)), []
    step = make_step(RECIPE, BLUEPRINT, key, mesh)
    for index in range(3):
        fed: Any = part
        if streamed:
            rows = slice(16 * index % 24, 16 * index % 24 + 16)
            batch = jax.device_put((np.asarray(part.images[rows]), np.asarray(part.labels[rows])), divided(mesh))
            fed = RawBatch(*batch, part.mean, part.std)
        state, metrics = step(state, index, fed)
        told.append(metrics)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    # 40 images in batches of 7, which no number of devices divides.
    return jax.tree.map(np.asarray, (state, told, make_evaluate(BLUEPRINT, 7, mesh)(state.variables, part)))


def searched(devices: int) -> Any:
    """Returns state and diagnostics of three search steps, as numpy arrays."""
    mesh, key = batch_mesh(devices, {}), jax.random.key(0)
    search, space = search_of("nasbench201"), get_space("nasbench201")
    state = search.init(key, jnp.zeros((2, 16, 16, 3)), np.zeros(space.mask.shape, np.float32))
    state, told = jax.device_put(state, whole(mesh)), []
    program = make_search_program(search, mesh)
    source = memory_source(images(), key, 16, augmentation="crop_flip", mesh=mesh)
    for index in range(3):
        train, valid = source.batch(index), source.batch(index + 7)
        assert train.images.sharding.is_equivalent_to(divided(mesh), 4)
        state, info = program(state, key, train, valid, jnp.asarray(index, jnp.int32))
        told.append(info)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    return jax.tree.map(np.asarray, (state, told))


def search_of(name: str) -> Any:
    space, shape = get_space(name), Shape(4, 1, 10)
    supernet = make_supernet(space, shape)
    parts = Parts(supernet, make_child(space, supernet), space.mask, make_optimizer(Recipe(8, 16, 0.1)), 8)
    prior = PriorSettings(warmup=0.2)
    return joint_parsec.make(parts, JointSettings(SamplerSettings(num_children=3), LikelihoodSettings(), prior))


def assert_alike(found: Any, expected: Any) -> None:
    """Each array to a share of its own size: moments of gradients are small, and so would their errors be."""
    (named, structure), (others, same) = (jax.tree.flatten_with_path(tree) for tree in (found, expected))
    assert structure == same
    for (path, value), (_, other) in zip(named, others, strict=True):
        size = np.abs(np.nan_to_num(other)).max(initial=1e-6)
        np.testing.assert_allclose(value, other, rtol=0, atol=2e-4 * size, err_msg=jax.tree_util.keystr(path))


def compare(devices: int) -> None:
    assert_alike(trained(devices), trained(1))
    assert_alike(searched(devices), searched(1))


@pytest.mark.parametrize("devices", [2, 4])
def test_losses_gradients_and_states_are_those_of_one_device(devices: int):
    compare(devices)


def test_eight_devices_do_so_too():
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1"
    code = "import tests.conftest; from tests.test_devices import compare; compare(8)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_batches_that_were_read_are_divided_too():
    assert_alike(trained(4, streamed=True), trained(1, streamed=True))


def shapes(tree: Any, place: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree)


def training_program(mesh: Mesh) -> Any:
    """Returns the training step traced for a mesh."""
    network = make_network(BLUEPRINT, train=True, auxiliary=True, scan=True)
    variables = jax.eval_shape(lambda: init_variables(network, jax.random.key(0), (16, 16, 3)))
    state = jax.eval_shape(lambda given: init_state(RECIPE, given, validates=False), variables)
    key = jax.eval_shape(lambda: jax.random.key(0))
    numbers = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32)
    given = shapes((state, *numbers, (key, key), images()), whole(mesh))
    return make_program(RECIPE, BLUEPRINT, mesh).trace(*given)


def test_the_program_divides_the_work_and_sums_over_devices():
    with use_form("lax"):
        text = training_program(batch_mesh(4, {})).lower().compile().as_text()
    assert " all-reduce(" in text
    # No device is sent another's images or activations, and none convolves more than its own four images.
    assert " all-gather(" not in text and " all-to-all(" not in text
    convolved = re.findall(r"= f32\[([\d,]+)\]\S* convolution\(.*dim_labels=b01f_01io->b01f", text)
    assert convolved and {int(sizes.split(",")[0]) for sizes in convolved} <= {4}


@pytest.mark.parametrize("form", ["cpu", "lax"])
def test_every_form_of_convolution_and_pooling_is_divided(form: str, key: jax.Array):
    x, w = jax.random.normal(key, (8, 6, 6, 3)), jax.random.normal(key, (5, 5, 3))
    kernel = jax.random.normal(key, (3, 3, 3, 4))

    def total(x: jax.Array, w: jax.Array, kernel: jax.Array) -> jax.Array:
        y = max_pool(average_pool(convolve_depthwise(x, w, stride=2, dilation=2)), stride=2)
        return jnp.square(convolve(y, kernel, stride=2)).sum() + jnp.square(convolve(x, kernel[:1, :1])).sum()

    found = []
    for devices in (1, 4):
        mesh = batch_mesh(devices, {})
        with use_form(form):
            program = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
            placed = jax.device_put(x, divided(mesh)), *jax.device_put((w, kernel), whole(mesh))
            found.append(jax.tree.map(np.asarray, program(*placed)))
    assert_alike(*found)


class _Elsewhere:
    """What stands for the mesh of a machine that is not here."""

    def __init__(self, platform: str) -> None:
        self.devices = np.array([type("Device", (), {"platform": platform})()])


def test_convolutions_take_the_form_of_the_platform_that_is_compiled_for():
    x, kernel = jnp.zeros((2, 4, 4, 3)), jnp.zeros((3, 3, 3))
    texts = {}
    for platform in ("cpu", "gpu", "tpu"):
        mesh: Any = _Elsewhere(platform)
        program = jax.jit(traced_for(mesh, lambda x, kernel: convolve_depthwise(x, kernel)))
        lowering = {"gpu": "cuda"}.get(platform, platform)
        texts[platform] = program.trace(x, kernel).lower(lowering_platforms=(lowering,)).as_text()
    # Shifted slices on a CPU, one grouped convolution elsewhere.
    assert {name: "stablehlo.convolution" in text for name, text in texts.items()} == {
        "cpu": False,
        "gpu": True,
        "tpu": True,
    }
    with use_form("cpu"):
        assert "convolution" not in str(jax.make_jaxpr(traced_for(mesh, convolve_depthwise))(x, kernel))


@pytest.mark.parametrize(
    ("count", "batches", "says"),
    [
        (5, {}, r"config\.devices=5 is more than there are; give at most 4, or 0 for as many as there are"),
        (3, {"config.data.batch_size": 64}, r"=3 does not divide config\.data\.batch_size=64 evenly; .*devices=2"),
        (0, {"a": 64, "b": 6}, r"config\.devices=0, 4 here, does not divide b=6 evenly; give --config\.devices=2"),
    ],
)
def test_devices_that_cannot_be_had_or_do_not_divide_the_batch(count: int, batches: dict[str, int], says: str):
    with pytest.raises(UserError, match=says) as raised:
        batch_mesh(count, batches)
    assert "\n" not in str(raised.value)


def test_all_devices_are_the_zero_of_the_setting():
    assert [batch_mesh(count, {"a": 8}).size for count in (0, 1, 2)] == [4, 1, 2]
