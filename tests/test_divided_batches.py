"""A batch divided among devices: the steps of training and search are those of one device, to rounding."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from PIL import Image

import main
from parsec.cells import get_space
from parsec.cells.convolution import average_pool, convolve, convolve_depthwise, max_pool, use_form
from parsec.cells.nasbench201 import make_space
from parsec.cells.network import BuildCell, Head, Shape, Stem
from parsec.cells.operations import Norm
from parsec.command.config_files import load_config
from parsec.config import changed_settings, to_json
from parsec.data.examples import open_stream
from parsec.data.memory import Batches, memory_source
from parsec.data.source import Batch
from parsec.data.stream import StreamedPart, feeding, stream_once
from parsec.devices import batch_mesh, divided, traced_for, whole
from parsec.errors import UserError
from parsec.jobs.search.coherence import check_search
from parsec.jobs.search.problem import make_program as make_search_program
from parsec.jobs.search.problem import search_mesh
from parsec.joint import parsec as joint_parsec
from parsec.joint.contract import Joint, Parts
from parsec.joint.settings import JointSettings, LikelihoodSettings, PriorSettings, SamplerSettings
from parsec.run.checkpoint import Checkpoints
from parsec.settings.search import SearchConfig
from parsec.settings.train import TrainConfig
from parsec.supernet.objective import make_child
from parsec.supernet.supernet import make_supernet
from parsec.train.derived import Blueprint, init_variables, make_network
from parsec.train.recipe import Recipe, make_optimizer
from parsec.train.training import init_state, make_evaluate, make_program, make_step

ROOT = Path(__file__).parents[1]
BLUEPRINT = Blueprint("resnet", "resnet", Shape(4, 1, 10))
RECIPE = Recipe(
    8, 16, 0.1, augmentation="crop_flip", nesterov=False, clip=5.0, cutout=2, drop_path=0.3, average=0.9,
    label_smoothing=0.1, auxiliary_weight=0.4,
)  # fmt: skip
SIZE = (12, 12, 3)


class OneCell(nn.Module):
    """The least network that a shared cell stands in."""

    shape: Shape
    build_cell: BuildCell
    norm: Norm

    @nn.compact
    def __call__(self, images: jax.Array, routes: dict | None = None) -> jax.Array:
        x = Stem(self.shape.channels, 1, self.norm, "float32", name="stem")(images)
        x = self.build_cell("cell", self.shape.channels, 1, "cell")((x,), (routes or {}).get("cell"))
        return Head(self.shape.num_classes, name="head")(x)


SPACE = replace(make_space("one", ("skip_connect", "nor_conv_3x3", "avg_pool_3x3")), network=OneCell)


def images() -> Batches:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (40, *SIZE), np.uint8), rng.integers(0, 10, 40).astype(np.int32)
    return Batches(*map(jnp.asarray, (pixels, labels, np.full(3, 128, np.float32), np.full(3, 64, np.float32))))


@cache
def trained(*places: int) -> Any:
    """Returns state and metrics of training steps, as numpy arrays, and the accuracy on 40 images.

    Each step is taken on so many devices; where their number changes, the state goes through a checkpoint.
    """
    key, told = jax.random.key(0), []
    network = make_network(BLUEPRINT, train=True, auxiliary=True, scan=True)
    fresh = init_variables(network, key, SIZE)
    with TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
        for index, devices in enumerate(places):
            mesh = batch_mesh(devices, {})
            if index == 0 or devices != places[index - 1]:
                state = jax.device_put(init_state(RECIPE, fresh, validates=False), whole(mesh))
                restored = checkpoints.restore_latest(state)
                state = state if restored is None else restored.tree
                step, part = make_step(RECIPE, BLUEPRINT, key, mesh), jax.device_put(images(), whole(mesh))
            state, metrics = step(state, index, part)
            told.append(jax.tree.map(np.asarray, metrics))
            assert all(leaf.sharding.is_equivalent_to(whole(mesh), leaf.ndim) for leaf in jax.tree.leaves(state))
            if devices != places[min(index + 1, len(places) - 1)]:
                checkpoints.save(index + 1, state)
    # 40 images in batches of 7, which no number of devices divides.
    return jax.tree.map(np.asarray, (state, told, make_evaluate(BLUEPRINT, 7, mesh)(state.variables, part)))


@cache
def searched(devices: int, groups: int = 1) -> Any:
    """Returns state and diagnostics of three search steps, as numpy arrays."""
    mesh, key = batch_mesh(devices, {}, groups), jax.random.key(0)
    search = make_search(mesh)
    state = search.init(key, jnp.zeros((2, *SIZE)), np.zeros(SPACE.mask.shape, np.float32))
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


def make_search(mesh: Mesh, children: int = 4) -> Joint:
    supernet, optimizer = make_supernet(SPACE, Shape(4, 1, 10)), make_optimizer(Recipe(8, 16, 0.1))
    parts = Parts(supernet, make_child(SPACE, supernet), SPACE.mask, optimizer, 8, mesh=mesh)
    prior = PriorSettings(warmup=0.2)
    return joint_parsec.make(parts, JointSettings(SamplerSettings(num_children=children), LikelihoodSettings(), prior))


def assert_alike(found: Any, expected: Any) -> None:
    """Each array to a share of its own size: moments of gradients are small, and so would their errors be."""
    (named, structure), (others, same) = (jax.tree.flatten_with_path(tree) for tree in (found, expected))
    assert structure == same
    for (path, value), (_, other) in zip(named, others, strict=True):
        size = np.abs(np.nan_to_num(other)).max(initial=1e-3)
        np.testing.assert_allclose(value, other, rtol=0, atol=2e-4 * size, err_msg=jax.tree_util.keystr(path))


def compare(devices: int) -> None:
    assert_alike(trained(devices, devices, devices), trained(1, 1, 1))
    assert_alike(searched(devices), searched(1))


def compare_groups(devices: int, groups: int) -> None:
    assert_alike(searched(devices, groups), searched(1))


def compare_eight() -> None:
    for devices in (2, 8):
        compare(devices)
    compare_groups(2, 2)
    compare_groups(8, 2)
    compare_groups(8, 4)


def test_losses_gradients_and_states_are_those_of_one_device():
    compare(4)


def test_groups_of_devices_that_share_the_children_do_so_too():
    compare_groups(4, 2)


@pytest.mark.slow
def test_two_and_eight_devices_do_so_too():
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1"
    code = "import tests.conftest; from tests.test_divided_batches import compare_eight; compare_eight()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_training_goes_on_from_its_checkpoint_on_other_devices():
    assert_alike(trained(4, 1, 2), trained(1, 1, 1))


def test_the_number_of_devices_is_no_part_of_a_run():
    """A run directory of four devices is the same run's on one."""
    for config in (TrainConfig(), SearchConfig()):
        stored = json.loads(to_json(replace(config, devices=4)))
        assert stored["devices"] == 4 and changed_settings(stored, config) == {}
    grouped = json.loads(to_json(replace(SearchConfig(), sampler=SamplerSettings(groups=2))))
    assert grouped["sampler"]["groups"] == 2 and changed_settings(grouped, SearchConfig()) == {}


def test_batches_that_were_read_go_to_their_devices(tmp_path: Path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(10):
            Image.new("RGB", (8, 8), (20 * i, 200 * (label == "b"), 0)).save(tmp_path / label / f"{i}.png")
    dataset = open_stream("stream:images", str(tmp_path), 8)
    part, mesh = StreamedPart(dataset.examples, dataset.rows, 8), batch_mesh(4, {})
    with feeding(part, 8) as feed, feeding(part, 8, mesh) as feed_four:
        one, four = feed(3), feed_four(3)
    ((once, _),) = stream_once(part, 16, mesh)
    for raw in (four, once):
        assert [shard.data.shape[0] for shard in raw.images.addressable_shards] == [len(raw.labels) // 4] * 4
        assert raw.labels.sharding.is_equivalent_to(divided(mesh), 1) and raw.mean.sharding.is_fully_replicated
    jax.tree.map(np.testing.assert_array_equal, one, four)


def shapes(tree: Any, place: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree)


def training_program(mesh: Mesh) -> Any:
    """Returns the training step traced for a mesh."""
    network = make_network(BLUEPRINT, train=True, auxiliary=True, scan=True)
    variables = jax.eval_shape(lambda: init_variables(network, jax.random.key(0), SIZE))
    state = jax.eval_shape(lambda given: init_state(RECIPE, given, validates=False), variables)
    key = jax.eval_shape(lambda: jax.random.key(0))
    numbers = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32)
    given = shapes((state, *numbers, (key, key), images()), whole(mesh))
    return make_program(RECIPE, BLUEPRINT, mesh).trace(*given)


def test_the_program_divides_the_work_and_sums_over_devices():
    with use_form("lax"):
        text = training_program(batch_mesh(4, {})).lower().compile().as_text()
    assert " all-reduce(" in text
    # No device is sent another's images or activations: each works on its own four, and on no sixteen.
    assert " all-gather(" not in text and " all-to-all(" not in text
    for dtype in ("u8", "f32"):
        assert f"{dtype}[4,12,12," in text and f"{dtype}[16,12,12," not in text


def search_program(mesh: Mesh, children: int) -> Any:
    """Returns the step of a search compiled for a mesh."""
    search = make_search(mesh, children)
    key = jax.eval_shape(lambda: jax.random.key(0))
    start = np.zeros(SPACE.mask.shape, np.float32)
    state = jax.eval_shape(lambda key: search.init(key, jnp.zeros((2, *SIZE)), start), key)
    batch = shapes(Batch(jnp.zeros((16, *SIZE)), jnp.zeros(16, jnp.int32)), divided(mesh))
    given = shapes((state, key), whole(mesh)), batch, batch, shapes(jnp.zeros((), jnp.int32), whole(mesh))
    return make_search_program(search, mesh).trace(*given[0], *given[1:]).lower().compile()


def test_groups_are_sent_no_images_and_a_device_has_the_memory_of_one_child():
    mesh = batch_mesh(4, {}, 2)
    few, many, alone = (search_program(*given) for given in ((mesh, 4), (mesh, 16), (batch_mesh(1, {}), 4)))
    text = many.as_text()
    assert "f32[8,12,12," in text and "f32[16,12,12," not in text
    gathered = re.findall(r"= \w+\[([\d,]*)\]\S* (?:all-gather|all-to-all|collective-permute)\(", text)
    assert all(shape.count(",") < 2 for shape in gathered), gathered
    sizes = [each.memory_analysis().temp_size_in_bytes for each in (few, many, alone)]
    assert sizes[1] < 1.01 * sizes[0] + 4096 and sizes[1] < sizes[2], sizes


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
    ("count", "batches", "groups", "says"),
    [
        (5, {}, 1, r"config\.devices=5 is more than there are; give at most 4, or 0 for as many as there are"),
        (3, {"config.data.batch_size": 64}, 1, r"=3 does not divide config\.data\.batch_size=64 evenly; .*devices=2"),
        (0, {"a": 64, "b": 6}, 1, r"config\.devices=0, 4 here, does not divide b=6 evenly; give --config\.devices=2"),
        (4, {"a": 7}, 2, r"config\.devices=4 in 2 groups does not divide a=7 evenly; give --config\.devices=2"),
        (4, {}, 3, r"groups=3 does not divide 4 devices evenly; give --config\.sampler\.groups=2, or another"),
    ],
)
def test_devices_that_cannot_be_had_or_do_not_divide_the_batch(
    count: int, batches: dict[str, int], groups: int, says: str
):
    with pytest.raises(UserError, match=says) as raised:
        batch_mesh(count, batches, groups)
    assert "\n" not in str(raised.value)


def test_all_devices_are_the_zero_of_the_setting():
    assert [batch_mesh(count, {"a": 8}).size for count in (0, 1, 2)] == [4, 1, 2]


def test_a_command_that_asks_for_too_many_ends_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["--config=digits_train:quick", "--config.genotype=resnet", f"--workdir={tmp_path / 'run'}"]
    assert main.main([*command, "--config.devices=3", "--config.data.batch_size=64"]) == 2
    told = capsys.readouterr().err
    assert "config.devices=3 does not divide config.data.batch_size=64 evenly" in told and len(told.splitlines()) == 1
    assert main.main(["--config=digits_search:quick", f"--workdir={tmp_path / 'run'}", "--config.devices=64"]) == 2
    assert "config.devices=64 is more than there are; give at most 4" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_groups_that_do_not_divide_the_children_are_refused():
    with pytest.raises(UserError, match=r"groups=4 does not divide config\.sampler\.num_children=6 evenly; .*groups=3"):
        search_mesh(SearchConfig(devices=4, sampler=SamplerSettings(num_children=6, groups=4)))


WHOLE = {
    "training": (
        ["--config=digits_train:quick", "--config.genotype=resnet", "--config.network.cells=1", "--config.steps=4"],
        ["--config.devices=2"],
    ),
    "search": (
        ["--config=digits_search:quick", "--config.steps=4", "--config.verify.random=0", "--config.data.batch_size=16"],
        ["--config.devices=4", "--config.sampler.groups=2"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("job", WHOLE)
def test_whole_runs_end_on_several_devices_as_on_one(job: str, tmp_path: Path):
    command, devices = WHOLE[job]
    told = []
    for name, more in (("one", []), ("several", devices)):
        workdir = tmp_path / name
        assert main.main([*command, *more, "--config.metrics_every=1", f"--workdir={workdir}"]) == 0
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        # After one step of two children the prior's mode is a tie, which rounding decides.
        told.append([value for line in lines for key, value in line.items() if not key.startswith("mode_")])
        assert (workdir / "result.json").exists()
    one, several = (np.array(values, np.float64) for values in told)
    np.testing.assert_allclose(several, one, rtol=1e-4, atol=1e-4)


def test_short_trainings_have_devices_of_their_own():
    config = load_config("digits_search").config
    with pytest.raises(UserError, match=r"config\.devices=2 means nothing here; it needs shared weights"):
        check_search(replace(config, devices=2), get_space(config.space))
