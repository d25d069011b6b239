"""Measures a step of final training beside PyTorch, eager and compiled, and what its batch and compilation take.

    python -m benchmarks.train_step [--genotype=DARTS_V2] [--cells=8] [--channels=8] [--batch=96] [--image=16]
        [--dtype=float32] [--repeats=7] [--out=FILE.json]

A step is loss, gradient, clipping, momentum and decay of one network on one batch. Ours draws and augments its batch
inside the step, scales and shifts after normalising and keeps running averages; PyTorch's is handed its batch and does
none of this, so that the ratio is not in our favour. Neither drops paths nor has an auxiliary head. The contestants
take turns within every repeat; figures are medians, and a ratio is the median of each repeat's own. Compiling is XLA's
own, with the persistent cache off. Memory is the process's peak after our first steps, before PyTorch is loaded. On a
machine that others use as well, believe the ratios only.
"""

import argparse
import importlib.util
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.supernet_step import machine
from parsec.cells.genotypes import to_text
from parsec.cells.network import Shape
from parsec.cells.published import recognise
from parsec.data.memory import Batches
from parsec.supernet.supernet import child_weights, make_supernet
from parsec.train.derived import Blueprint, init_variables, make_network
from parsec.train.recipe import Recipe, training_batch
from parsec.train.training import init_state, make_step

Step = Callable[[], None]


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measures, prints a table and returns what is written to the JSON file."""
    options = _parse(arguments)
    jax.config.update("jax_enable_compilation_cache", False)
    console = Console()
    steps, compiled = _our_steps(options)
    if importlib.util.find_spec("torch") is None:
        console.print("PyTorch is not installed, so nothing is compared with it: pip install torch")
    else:
        steps |= _torch_steps(options, console)
    seconds = take_turns(steps, options.repeats)
    ours = seconds["ours"]
    report = {
        "machine": machine(),
        "options": vars(options),
        **compiled,
        "step_seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "images_per_second": {
            name: options.batch / float(np.median(values)) for name, values in seconds.items() if name != "batch alone"
        },
        "ours_to_this": {name: float(np.median(ours / values)) for name, values in seconds.items() if name != "ours"},
        "batch_share": float(np.median(seconds["batch alone"] / ours)),
    }
    console.print(_table(report))
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1) + "\n")
    return report


def take_turns(steps: dict[str, Step], repeats: int) -> dict[str, np.ndarray]:
    """Returns the seconds of each step in each repeat, float64 [repeats]; a first round is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            # What ran before leaves threads that wait and caches that are cold: one step is not timed.
            step()
            began = time.perf_counter()
            step()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def _our_steps(options: argparse.Namespace) -> tuple[dict[str, Step], dict[str, Any]]:
    """Returns our step and the drawing of its batch, and what compiling the former took."""
    blueprint = _blueprint(options)
    recipe = Recipe(1000, options.batch, 0.025, 0.9, 3e-4, "crop_flip", nesterov=False, clip=5.0, cutout=4)
    rng = np.random.default_rng(0)
    size = (4 * options.batch, options.image, options.image, 3)
    arrays = rng.integers(0, 256, size, np.uint8), rng.integers(0, 10, size[:1]).astype(np.int32)
    part = Batches(*map(jnp.asarray, (*arrays, np.full(3, 128, np.float32), np.full(3, 64, np.float32))))
    network = make_network(blueprint, train=True, scan=True)
    key = jax.random.key(0)
    began = time.perf_counter()
    variables = init_variables(network, key, size[1:])  # pyright: ignore[reportArgumentType]
    initialised = time.perf_counter() - began
    began, spent = time.perf_counter(), time.process_time()
    held = [init_state(recipe, variables, validates=False)]
    step = make_step(recipe, blueprint, key)
    held[0], metrics = step(held[0], 0, part)
    jax.block_until_ready(metrics)
    took = {"wall": time.perf_counter() - began, "cpu": time.process_time() - spent}

    def ours() -> None:
        held[0], metrics = step(held[0], 1, part)
        jax.block_until_ready((held[0], metrics))

    drawn = jax.jit(lambda part, index: training_batch(recipe, part, key, index, options.dtype))

    def batch_alone() -> None:
        jax.block_until_ready(drawn(part, jnp.array(1, jnp.int32)))

    params = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return {"ours": ours, "batch alone": batch_alone}, {
        "params": params,
        "init_seconds": initialised,
        "first_step_seconds": took,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def _torch_steps(options: argparse.Namespace, console: Console) -> dict[str, Step]:
    import torch  # pyright: ignore[reportMissingImports]

    from benchmarks.torch_child import TorchChild, log_likelihood, torch_images

    space, architecture = recognise(options.genotype)
    genotype, shape = space.decode(architecture), _blueprint(options).shape
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((options.batch, options.image, options.image, 3))
    weights = make_supernet(space, shape).init(jax.random.key(0), jnp.asarray(pixels, jnp.float32))
    own = child_weights(space, shape, weights, genotype)
    images = torch_images(pixels, device, options.dtype)
    labels = torch.tensor(rng.integers(0, 10, options.batch), dtype=torch.int64, device=device)

    def make(compiled: bool) -> Step:
        network = TorchChild(space, genotype, shape, own, device)
        optimizer = torch.optim.SGD(network.parameters(), 0.025, 0.9, weight_decay=3e-4)

        def loss() -> Any:
            return -log_likelihood(network, images, labels) / options.batch

        value = torch.compile(loss) if compiled else loss

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            value().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            if device == "cuda":
                torch.cuda.synchronize()

        return step

    steps = {"torch eager": make(compiled=False)}
    if options.compile:
        began = time.perf_counter()
        step = make(compiled=True)
        try:
            step()
        except Exception as error:
            console.print(f"PyTorch cannot compile here: {str(error).splitlines()[0][:120]}")
        else:
            console.print(f"PyTorch's first compiled step took {time.perf_counter() - began:.1f} s")
            steps["torch compiled"] = step
    return steps


def _blueprint(options: argparse.Namespace) -> Blueprint:
    space, architecture = recognise(options.genotype)
    return Blueprint(
        space.name, to_text(space, architecture), Shape(options.channels, options.cells, 10, dtype=options.dtype)
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genotype", default="DARTS_V2")
    parser.add_argument("--dtype", default="float32")
    for name, default in {"cells": 8, "channels": 8, "batch": 96, "image": 16, "repeats": 7, "compile": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", default="", help="JSON file to write")
    return parser.parse_args(arguments)


def _table(report: dict[str, Any]) -> Table:
    options, first = report["options"], report["first_step_seconds"]
    table = Table(title=f"{options['cells']} cells, {options['channels']} channels, {options['dtype']}")
    for heading in ("", "step ms", "images/s", "ours / this"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, seconds in report["step_seconds"].items():
        speed, ratio = report["images_per_second"].get(name), report["ours_to_this"].get(name)
        cells = ("" if speed is None else f"{speed:.0f}", "" if ratio is None else f"{ratio:.2f}")
        table.add_row(name, f"{seconds * 1e3:.1f}", *cells)
    table.caption = (
        f"first step {first['wall']:.1f} s, {first['cpu']:.1f} s of processor time, compilation included; "
        f"memory at most {report['peak_gigabytes']:.2f} GB"
    )
    return table


if __name__ == "__main__":
    main()
