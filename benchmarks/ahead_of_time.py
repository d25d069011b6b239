"""Compiles the steps of searches and trainings ahead of time, for TPUs that this machine does not have.

    python -m benchmarks.ahead_of_time --job=search|train|imagenet_search|imagenet_train [--topology=v5e:2x2]
        [--devices=0] [--cells=N] [--channels=N] [--batch=N] [--image=N] [--children=N] [--dtype=bfloat16]
        [--groups=1] [--platform=tpu|cuda] [--out=FILE.json]

For TPUs, XLA compiles the very program that the job runs, its batch divided among the chips, or of a search its
children among `--groups` of chips and its batch within each, through libtpu, which needs no TPU for it (`pip install
libtpu`). What it says of the program is reported: seconds of compiling, memory per chip, operations and bytes, and the
collectives in the optimised program. For `--platform=cuda` the program is lowered to StableHLO by `jax.export`, and not
compiled: that takes a GPU.

`search` is `cifar_search:paper` and `train` is `cifar_train` of DARTS_V2, which draws its batch inside the step from
CIFAR-10's 50,000 images on every chip; `imagenet_search` and `imagenet_train` are their configs, fed from the host.

The predicted step is a bound, not a forecast: the slower of two, all multiply-adds at the chip's peak, and all bytes
that XLA counts at its bandwidth. It assumes that every product fills the matrix unit, which takes 128 channels where
these networks have 16 to 768, that float32 products run as bfloat16 ones, as XLA does by default, and that collectives
and the host cost nothing. Multiply-adds are counted from the network, since XLA counts the loop over K children once: a
backward pass is two forward ones, and three in the supernet, which runs each operation again. A child of a search is
counted as the mean of 1,000 random ones. Bytes are XLA's, times the children that a chip runs in a search; how it
weighs the operations that an edge may have is its own affair, so there they are an estimate.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

# With libtpu installed, JAX would look for a TPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.experimental import topologies
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from benchmarks.supernet_step import machine
from parsec.cells import get_space
from parsec.cells.convolution import use_form
from parsec.cells.costs import cost_table, table_costs
from parsec.cells.genotypes import to_text
from parsec.cells.network import Shape
from parsec.cells.published import recognise
from parsec.cells.space import uniform_logits
from parsec.command.config_files import load_config
from parsec.data.memory import Batches
from parsec.data.source import Batch, RawBatch
from parsec.devices import divided, grid, groups_of, whole
from parsec.errors import UserError, unknown
from parsec.jobs.search.problem import make_program as make_search_program
from parsec.jobs.search.problem import search_recipe
from parsec.jobs.train.task import make_recipe
from parsec.joint.contract import Parts
from parsec.joint.parsec import make as make_parsec
from parsec.joint.settings import JointSettings
from parsec.supernet.objective import make_child
from parsec.supernet.supernet import make_supernet
from parsec.train.derived import Blueprint, make_network, network_costs, variable_shapes
from parsec.train.recipe import make_optimizer
from parsec.train.training import init_state
from parsec.train.training import make_program as make_training_program

INSTALL = "pip install libtpu"
_STEPS = 1000
_GENOTYPE = "DARTS_V2"
_CIFAR_IMAGES, _CIFAR_CLASSES, _IMAGENET_CLASSES = 50_000, 10, 1000
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Chip(NamedTuple):
    """Published figures of one chip: peak bfloat16 FLOP/s, and bytes and bytes/s of its memory."""

    flops: float
    memory: float
    bandwidth: float


# Of the pages of Cloud TPU: https://cloud.google.com/tpu/docs/v4, v5e and v6e, "system architecture".
CHIPS = {
    "v4": Chip(275e12, 32 * 2**30, 1228e9),
    "v5e": Chip(197e12, 16e9, 819e9),
    "v6e": Chip(918e12, 32e9, 1640e9),
}


class Defaults(NamedTuple):
    """The size of a job where the command gives none; children of a training mean nothing."""

    cells: int
    channels: int
    batch: int
    image: int
    children: int = 0


class Work(NamedTuple):
    """A program, and what its step takes.

    Attributes:
      program: as `jax.jit` gives it.
      arguments: their shapes, placed.
      parameters: of the network.
      multiply_adds: of a step, on all chips together.
      loops: how often a chip runs the part that XLA may count once.
    """

    program: Any
    arguments: tuple[Any, ...]
    parameters: int
    multiply_adds: float
    loops: int = 1


JOBS = {
    "search": Defaults(8, 16, 64, 32, 16),
    "train": Defaults(20, 36, 96, 32),
    "imagenet_search": Defaults(14, 48, 128, 224, 16),
    "imagenet_train": Defaults(14, 48, 128, 224),
}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Compiles or lowers, prints a table and returns what is written to the JSON file; raises `UserError`."""
    options = parse(arguments)
    jax.config.update("jax_enable_compilation_cache", False)
    console = Console()
    report: dict[str, Any] = {"machine": machine(), "options": vars(options)}
    report |= PLATFORMS[options.platform](options)
    console.print(_table(report))
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1) + "\n")
    return report


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Returns the options, sizes filled in; raises `UserError` for a job, platform or chip that is not known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", default="search", help=", ".join(JOBS))
    parser.add_argument("--topology", default="v5e:2x2", help="chip and grid: v5e:2x2, v6e:2x2, v4:2x2x1 and larger")
    parser.add_argument("--devices", type=int, default=0, help="chips of the topology to use; 0 for all")
    parser.add_argument("--groups", type=int, default=1, help="of chips, which share a search's children")
    parser.add_argument("--dtype", default="bfloat16", help="of activations, bfloat16 or float32")
    parser.add_argument("--platform", default="tpu", help=", ".join(PLATFORMS))
    for name in Defaults._fields:
        parser.add_argument(f"--{name}", type=int, default=None, help="by default the job's own")
    parser.add_argument("--out", default="", help="JSON file to write")
    options = parser.parse_args(arguments)
    chip = options.topology.partition(":")[0]
    for kind, given, allowed in (
        ("job", options.job, JOBS),
        ("platform", options.platform, PLATFORMS),
        ("chip", chip, CHIPS),
        ("dtype", options.dtype, ("bfloat16", "float32")),
    ):
        if given not in allowed:
            raise unknown(kind, given, allowed)
    for name, value in JOBS[options.job]._asdict().items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.groups != 1 and (options.platform != "tpu" or not options.children):
        raise UserError(f"--groups={options.groups} shares a search's children out among TPUs; leave it out here")
    if options.groups < 1 or options.children % options.groups:
        raise UserError(f"--groups={options.groups} does not divide --children={options.children} evenly")
    return options


def compile_for_tpu(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what compiling for the chips of a topology takes, and what XLA says of the program."""
    mesh = topology_mesh(options.topology, options.devices, options.groups)
    each = mesh.size // options.groups
    if options.batch % each:
        raise UserError(f"--batch={options.batch} cannot be divided evenly among {each} chips; give a multiple")
    began = time.perf_counter()
    work = make_work(options, mesh)
    lowered = work.program.trace(*work.arguments).lower(lowering_platforms=("tpu",))
    traced = time.perf_counter() - began
    began = time.perf_counter()
    compiled = lowered.compile()
    seconds = {"tracing": traced, "compiling": time.perf_counter() - began}
    memory, counted = compiled.memory_analysis(), compiled.cost_analysis()
    chip = CHIPS[options.topology.partition(":")[0]]
    held = {
        "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }
    held["fits"] = bool(sum(held.values()) < chip.memory)
    return {
        "libtpu": importlib.metadata.version("libtpu"),
        "device": mesh.devices.flat[0].device_kind,
        "chips": mesh.size,
        "optimization_level": str(jax.config.values["jax_optimization_level"]),
        "parameters": work.parameters,
        "seconds": seconds,
        "bytes_per_chip": held,
        "xla": {"flops": counted["flops"], "bytes": counted["bytes accessed"]},
        "collectives": count_collectives(compiled.as_text()),
        "step": bound(work, counted["bytes accessed"], chip, mesh.size, options.batch),
    }


def lower_for_cuda(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what lowering for one CUDA GPU takes; nothing is compiled."""
    mesh = grid(jax.devices()[:1])
    began = time.perf_counter()
    work = make_work(options, mesh)
    # The mesh is this machine's, the program a GPU's.
    with use_form("lax"):
        exported = export.export(work.program, platforms=("cuda",))(*work.arguments)
    text = exported.mlir_module()
    return {
        "device": "CUDA",
        "chips": 1,
        "parameters": work.parameters,
        "seconds": {"tracing": time.perf_counter() - began},
        "stablehlo": {"bytes": len(text), "convolutions": text.count("stablehlo.convolution")},
        "multiply_adds": work.multiply_adds,
    }


PLATFORMS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "tpu": compile_for_tpu,
    "cuda": lower_for_cuda,
}


def topology_mesh(name: str, devices: int, groups: int = 1) -> Mesh:
    """Returns the mesh of a topology's chips, or of the first of them, in so many groups.

    Raises:
      UserError: libtpu or the topology is missing, or it has too few chips, or the groups do not divide them.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"compiling for TPUs needs libtpu, which is not installed: {INSTALL}")
    # It asks the metadata server of a TPU machine else, and waits; and two processes may compile at once.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # A chip of v4 has two cores, which are one device where programs run and two here unless asked for together.
    together = {"chip_config_name": "megacore"} if name.startswith("v4") else {}
    try:
        chips = topologies.get_topology_desc(platform="tpu", topology_name=name, **together).devices
    except Exception as error:
        raise UserError(f"libtpu knows no topology {name!r}: {str(error).splitlines()[0][:160]}") from error
    if devices > len(chips):
        raise UserError(f"--devices={devices} is more than the {len(chips)} chips of {name}")
    used = devices or len(chips)
    if used % groups:
        raise UserError(f"--groups={groups} does not divide {used} chips evenly")
    return grid(chips[:used], groups)


def make_work(options: argparse.Namespace, mesh: Mesh) -> Work:
    """Returns the program of a job for a mesh."""
    imagenet = options.job.startswith("imagenet")
    shape = Shape(
        options.channels,
        options.cells,
        _IMAGENET_CLASSES if imagenet else _CIFAR_CLASSES,
        dtype=options.dtype,
        stem="imagenet" if imagenet else "cifar",
    )
    image = (options.image, options.image, 3)
    if options.job.endswith("search"):
        return _search(shape, image, options.batch, options.children, imagenet, mesh)
    return _training(shape, image, options.batch, imagenet, mesh)


def bound(work: Work, xla_bytes: float, chip: Chip, chips: int, batch: int) -> dict[str, Any]:
    """Returns the least seconds of a step by operations and by bytes, and images per second at the slower of them."""
    by_operations = 2 * work.multiply_adds / chips / chip.flops
    by_bytes = work.loops * xla_bytes / chip.bandwidth
    seconds = max(by_operations, by_bytes)
    return {
        "multiply_adds": work.multiply_adds,
        "seconds_by_operations": by_operations,
        "seconds_by_bytes": by_bytes,
        "bound_by": "operations" if by_operations > by_bytes else "bytes",
        "images_per_second": batch / seconds,
    }


def count_collectives(text: str) -> dict[str, int]:
    """Returns how often each collective stands in an optimised program's text; begun and ended, it counts once."""
    return dict(Counter(re.findall(rf" ({'|'.join(_COLLECTIVES)})(?:-start)?\(", text)))


def _search(shape: Shape, image: tuple[int, int, int], batch: int, children: int, imagenet: bool, mesh: Mesh) -> Work:
    config = load_config("imagenet_search" if imagenet else "cifar_search:paper").config
    config = replace(config, sampler=replace(config.sampler, num_children=children))
    space = get_space(config.space)
    supernet = make_supernet(space, shape, auxiliary_skip=config.supernet.auxiliary_skip)
    parts = Parts(
        supernet,
        make_child(space, supernet),
        space.mask,
        make_optimizer(search_recipe(config, _STEPS)),
        _STEPS,
        mesh=mesh,
    )
    search = make_parsec(parts, JointSettings(config.sampler, config.likelihood, config.prior))
    example, logits = jnp.zeros((2, *image), shape.dtype), uniform_logits(space)
    state = jax.eval_shape(lambda: search.init(jax.random.key(0), example, logits))
    images = jax.ShapeDtypeStruct((batch, *image), jnp.dtype(shape.dtype))
    data = _placed(Batch(images, jax.ShapeDtypeStruct((batch,), jnp.int32)), mesh, True)  # pyright: ignore[reportArgumentType]
    key, index = _placed((_key(), jax.ShapeDtypeStruct((), jnp.int32)), mesh)
    rows = np.random.default_rng(0).integers(0, space.sizes, (1000, len(space.sizes))).astype(np.int32)
    each = table_costs(cost_table(space, shape, image), rows)[:, 1].mean()
    # A child: forward, again in the backward pass, two gradients; and forward on the validation batch.
    return Work(
        make_search_program(search, mesh),
        (_placed(state, mesh), key, data, data, index),
        _count(state.weights),
        5 * float(each) * batch * children,
        children // groups_of(mesh),
    )


def _training(shape: Shape, image: tuple[int, int, int], batch: int, streamed: bool, mesh: Mesh) -> Work:
    config = load_config("imagenet_train" if streamed else "cifar_train").config
    recipe = replace(make_recipe(config, _STEPS), batch_size=batch)
    space, architecture = recognise(_GENOTYPE)
    blueprint = Blueprint(space.name, to_text(space, architecture), shape)
    network = make_network(blueprint, train=True, auxiliary=recipe.auxiliary_weight > 0, scan=True)
    variables = variable_shapes(network, image)
    state = jax.eval_shape(lambda given: init_state(recipe, given, validates=False), variables)
    images = batch if streamed else _CIFAR_IMAGES
    pixels = jax.ShapeDtypeStruct((images, *image), jnp.uint8), jax.ShapeDtypeStruct((images,), jnp.int32)
    statistics = _placed((jax.ShapeDtypeStruct((3,), jnp.float32),) * 2, mesh)
    fed = (RawBatch if streamed else Batches)(*_placed(pixels, mesh, streamed), *statistics)
    index, total = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
    # Forward and two gradients.
    cost = network_costs(blueprint, image, auxiliary=recipe.auxiliary_weight > 0)
    return Work(
        make_training_program(recipe, blueprint, mesh),
        (*_placed((state, index, total, (_key(), _key())), mesh), fed),
        _count(variables["params"]),
        3.0 * cost.flops * batch,
    )


def _placed(tree: Any, mesh: Mesh, divide: bool = False) -> Any:
    place = divided(mesh) if divide else whole(mesh)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree)


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _table(report: dict[str, Any]) -> Table:
    options = report["options"]
    where = options["topology"] if options["platform"] == "tpu" else "CUDA"
    table = Table("", "", title=f"{options['job']} for {report['chips']} x {report['device']}, {where}")
    table.add_row("network", f"{options['cells']} cells, {options['channels']} channels, {options['dtype']}")
    table.add_row("batch", f"{options['batch']} images of {options['image']} pixels, K = {options['children']}")
    table.add_row("parameters", f"{report['parameters']:,}")
    table.add_row("seconds", ", ".join(f"{name} {value:.1f}" for name, value in report["seconds"].items()))
    if "step" in report:
        held, step = report["bytes_per_chip"], report["step"]
        sizes = ", ".join(f"{name} {value / 1e6:,.1f}" for name, value in held.items() if name != "fits")
        table.add_row("MB per chip", f"{sizes}; {'fits' if held['fits'] else 'does not fit'}")
        table.add_row("XLA, per chip", f"{report['xla']['flops']:.3g} FLOP, {report['xla']['bytes']:.3g} bytes")
        table.add_row("collectives", ", ".join(f"{n} {count}" for n, count in report["collectives"].items()) or "none")
        table.add_row("multiply-adds, all chips", f"{step['multiply_adds']:.3g}")
        table.add_row(
            "step at least, ms",
            f"{1e3 * step['seconds_by_operations']:.3g} by operations, {1e3 * step['seconds_by_bytes']:.3g} by bytes",
        )
        table.add_row("images per second at most", f"{step['images_per_second']:,.0f}")
    else:
        table.add_row("StableHLO", ", ".join(f"{name} {value:,}" for name, value in report["stablehlo"].items()))
    return table


if __name__ == "__main__":
    try:
        main()
    except UserError as mistake:
        print(mistake, file=sys.stderr)
        sys.exit(2)
