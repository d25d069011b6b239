"""Measures short trainings of many cells beside the same trainings in eager PyTorch.

    python -m benchmarks.short_trainings [--space=darts] [--cells=6] [--channels=8] [--stem_stride=2] [--image=16]
        [--batch=64] [--steps=100] [--trainings=6] [--devices=1] [--out=FILE.json]

A training is what a search asks for: fresh weights, batches drawn from images in memory and flipped, momentum under a
cosine, weight decay, batch statistics. Both train the same random cells from the same weights for the same steps, our
one program each cell on a device of its own, PyTorch one after another on all cores; they take turns, `devices` cells
each time. A ratio is of the seconds of both for the same cells; figures are medians over the turns, the first of which
is not counted. Compiling, paid once for any number of cells, stands apart, with the persistent cache off. For a fair
ratio give both the same cores: `taskset -c 0` and one device. Weights are drawn before the clock starts.
"""

import argparse
import importlib.util
import json
import os
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
from parsec.cells import SPACES
from parsec.cells.network import Shape
from parsec.cells.space import Space
from parsec.data.memory import Batches
from parsec.errors import unknown
from parsec.evaluate.contract import no_pause
from parsec.supernet.supernet import Weights, child_weights, make_supernet
from parsec.train.many import make_trainer
from parsec.train.recipe import Recipe

_IMAGES = 2048
# Trains some cells int32 [D, L] from weights of all slots; returns their losses [D].
Train = Callable[[np.ndarray, Weights], np.ndarray]


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measures, prints a table and returns what is written to the JSON file."""
    options = _parse(arguments)
    if options.space not in SPACES:
        raise unknown("space", options.space, SPACES)
    jax.config.update("jax_enable_compilation_cache", False)
    space = SPACES[options.space]
    shape = Shape(options.channels, options.cells, 10, stem_stride=options.stem_stride)
    recipe = Recipe(options.steps, options.batch, 0.1, 0.9, 5e-4, "flip")
    part = make_images(options.image)
    began = time.perf_counter()
    contestants = {"ours": our_training(space, shape, recipe, part, options.devices)}
    compiling = time.perf_counter() - began
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed, so nothing is compared with it: pip install torch")
    else:
        contestants["torch eager"] = torch_training(space, shape, recipe, part)
    weights = make_supernet(space, shape).init(jax.random.key(0), jnp.zeros((1, *part.images.shape[1:])))
    turns = -(-options.trainings // options.devices) + 1
    size = (turns, options.devices, len(space.sizes))
    cells = np.random.default_rng(0).integers(0, space.sizes, size).astype(np.int32)
    seconds = take_turns(contestants, cells, weights)
    each = {name: float(np.median(values)) / options.devices for name, values in seconds.items()}
    report: dict[str, Any] = {
        "machine": machine(),
        "options": vars(options),
        "compile_seconds": compiling,
        "training_seconds": each,
        "ours_to_this": {
            name: float(np.median(seconds["ours"] / values)) for name, values in seconds.items() if name != "ours"
        },
    }
    Console().print(_table(report))
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1) + "\n")
    return report


def make_images(side: int) -> Batches:
    """Returns random images [N, side, side, 3] with labels of ten classes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_IMAGES, side, side, 3), np.uint8)
    labels = rng.integers(0, 10, _IMAGES).astype(np.int32)
    return Batches(*map(jnp.asarray, (images, labels, np.full(3, 128, np.float32), np.full(3, 64, np.float32))))


def our_training(space: Space, shape: Shape, recipe: Recipe, part: Batches, devices: int) -> Train:
    """Returns our training, compiled, of as many cells as there are devices."""
    trainer = make_trainer(space, shape, recipe, part, devices=jax.local_devices()[:devices])
    keys = jax.random.split(jax.random.key(1), devices)

    def train(cells: np.ndarray, weights: Weights) -> np.ndarray:
        own = jax.tree.map(lambda leaf: jnp.stack([leaf] * devices), weights)
        return trainer.train(own, cells, keys, recipe.steps, no_pause).loss

    return train


def torch_training(space: Space, shape: Shape, recipe: Recipe, part: Batches) -> Train:
    """Returns PyTorch's training of one cell after another, in channels_last layout."""
    import torch  # pyright: ignore[reportMissingImports]

    from benchmarks.torch_child import TorchChild, log_likelihood

    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    mean, deviation = float(part.mean[0]), float(part.std[0])
    pixels = torch.tensor(np.asarray(part.images), device=device)
    labels = torch.tensor(np.asarray(part.labels), dtype=torch.int64, device=device)

    def train_one(cell: np.ndarray, weights: Weights) -> float:
        genotype = space.decode(cell)
        network = TorchChild(space, genotype, shape, child_weights(space, shape, weights, genotype), device)
        optimizer = torch.optim.SGD(
            network.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
        total, order = torch.zeros((), device=device), torch.arange(len(pixels), device=device)
        for step in range(recipe.steps):
            if step % (len(pixels) // recipe.batch_size) == 0:
                order = torch.randperm(len(pixels), device=device)
            at = order[(step * recipe.batch_size) % len(order) :][: recipe.batch_size]
            images = pixels[at].permute(0, 3, 1, 2)
            flipped = torch.rand(len(at), 1, 1, 1, device=device) < 0.5
            images = torch.where(flipped, images.flip(3), images)
            images = ((images.float() - mean) / deviation).to(memory_format=torch.channels_last)
            loss = -log_likelihood(network, images, labels[at]) / len(at)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        return float(total) / recipe.steps

    def train(cells: np.ndarray, weights: Weights) -> np.ndarray:
        return np.array([train_one(cell, weights) for cell in cells])

    return train


def take_turns(contestants: dict[str, Train], cells: np.ndarray, weights: Weights) -> dict[str, np.ndarray]:
    """Returns the seconds of each contestant for cells int32 [T, D, L], float64 [T - 1]; the first is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn, some in enumerate(cells):
        for name, train in contestants.items():
            began = time.perf_counter()
            train(some, weights)
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="darts")
    numbers = {"cells": 6, "channels": 8, "stem_stride": 2, "image": 16, "batch": 64, "steps": 100, "trainings": 6}
    for name, default in {**numbers, "devices": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", default="", help="JSON file to write")
    return parser.parse_args(arguments)


def _table(report: dict[str, Any]) -> Table:
    options = report["options"]
    table = Table(title=f"{options['space']}, {options['steps']} steps of {options['batch']} images")
    for heading in ("", "s a training", "ours / this"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, seconds in report["training_seconds"].items():
        ratio = report["ours_to_this"].get(name)
        table.add_row(name, f"{seconds:.2f}", "" if ratio is None else f"{ratio:.2f}")
    table.caption = f"our program, for any cell: {report['compile_seconds']:.1f} s to compile"
    return table


if __name__ == "__main__":
    main()
