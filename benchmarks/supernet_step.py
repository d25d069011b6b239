"""Measures one training step of a child: in the supernet, compiled by itself, and in eager PyTorch.

    python -m benchmarks.supernet_step [--space=darts] [--cells=8] [--channels=8] [--batch=32] [--image=32]
        [--dtype=float32,bfloat16] [--children=20] [--static=3] [--repeats=5] [--widths=2,4,16] [--out=FILE.json]
        [--quick]

A step is the loss of one child on one batch and its gradient. The same random children, weights and images are given to
all; the contestants take turns within every repeat, so that a change in the machine's load meets all of them alike.
Figures are medians over repeats, then over children; a ratio is the median over children of each child's own ratio.
CPU seconds are this process's, summed over its threads: on a machine that others use as well, believe their ratios.

Static children are few, since each takes its own compilation: the largest of the random children by FLOPs, the
smallest, and those between. Every compilation counted here is XLA's own, with the persistent cache off. The supernet's
step is compiled ahead of time, so it cannot compile again: a child that it could not run would be an error.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from parsec.cells import SPACES
from parsec.cells.convolution import use_form
from parsec.cells.costs import cost_table, table_costs
from parsec.cells.network import Shape
from parsec.cells.space import Space
from parsec.data.source import Batch
from parsec.errors import unknown
from parsec.supernet.children import weighted_gradient
from parsec.supernet.objective import ChildResult, make_child, static_child
from parsec.supernet.supernet import Supernet, Weights, child_weights, make_supernet

_COMPILED = "/jax/core/compile/backend_compile_duration"
_CHILDREN_OF_ONE_PROGRAM = 50
_QUICK = {
    "space": "nasbench201",
    "cells": 1,
    "channels": 4,
    "batch": 4,
    "image": 8,
    "children": 2,
    "static": 1,
    "repeats": 1,
    "widths": "2,3",
}

Step = Callable[[], None]


class Timing(NamedTuple):
    """Seconds of one step: on the clock, and of this process's threads together."""

    wall: float
    cpu: float


class Compiled(NamedTuple):
    """A compiled program, what compiling took, and the bytes of temporary memory that it needs."""

    run: Callable[..., Any]
    seconds: Timing
    temporary: int


class Contest(NamedTuple):
    """What the contestants run: a space, a network's size, shared weights, a batch, and children int32 [N, L]."""

    space: Space
    shape: Shape
    supernet: Supernet
    weights: Weights
    batch: Batch
    children: np.ndarray


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measures, prints a table and returns what is written to the JSON file."""
    options = _parse(arguments)
    if options.space not in SPACES:
        raise unknown("space", options.space, SPACES)
    jax.config.update("jax_enable_compilation_cache", False)
    report: dict[str, Any] = {"machine": machine(), "options": vars(options), "results": {}}
    console = Console()
    if importlib.util.find_spec("torch") is None:
        console.print("PyTorch is not installed, so nothing is compared with it: pip install torch")
    for dtype in options.dtype.split(","):
        contest = make_contest(options, dtype)
        results = measure(contest, options, console)
        report["results"][dtype] = results
        console.print(_table(results, dtype, report["machine"]))
        if options.out:
            Path(options.out).write_text(json.dumps(report, indent=1) + "\n")
    return report


def machine() -> dict[str, Any]:
    """Returns what the figures depend on: device, cores, load and versions."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    packages = ("jax", "jaxlib", "flax", "optax", "torch")
    installed = {name: importlib.metadata.version(name) for name in packages if importlib.util.find_spec(name)}
    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind if jax.default_backend() != "cpu" else model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), **installed},
    }


def make_contest(options: argparse.Namespace, dtype: str) -> Contest:
    """Returns fresh weights, random images and random children, the most expensive first."""
    space, shape = SPACES[options.space], Shape(options.channels, options.cells, 10, dtype=dtype)
    supernet = make_supernet(space, shape)
    images, labels, init = jax.random.split(jax.random.key(0), 3)
    size = (options.batch, options.image, options.image, 3)
    batch = Batch(jax.random.normal(images, size), jax.random.randint(labels, size[:1], 0, 10))
    children = np.random.default_rng(0).integers(0, space.sizes, (options.children, len(space.sizes))).astype(np.int32)
    flops = table_costs(cost_table(space, shape, size[1:]), children)[:, 1]
    return Contest(space, shape, supernet, supernet.init(init, batch.images), batch, children[np.argsort(-flops)])


def measure(contest: Contest, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Returns compile seconds, temporary memory, step seconds and ratios of every contestant."""
    run_child, weights, batch = make_child(contest.space, contest.supernet), contest.weights, contest.batch

    def step(weights: Weights, batch: Batch, architecture: jax.Array) -> Any:
        return _loss_and_gradient(lambda w: run_child(w, batch, architecture), weights)

    console.print("compiling the supernet's step")
    with _count_compilations() as compilations:
        shared = compile_step(step, weights, batch, contest.children[0])
        rng = np.random.default_rng(1)
        sizes = (_CHILDREN_OF_ONE_PROGRAM, contest.children.shape[1])
        for architecture in rng.integers(0, contest.space.sizes, sizes).astype(np.int32):
            shared.run(weights, batch, architecture)
    steps: list[dict[str, Step]] = [
        {"supernet": _jax_step(shared.run, weights, batch, child)} for child in contest.children
    ]
    static = _add_static_children(contest, options.static, steps, console)
    if importlib.util.find_spec("torch") is not None:
        _add_torch_children(contest, steps)
    console.print(f"running {len(steps)} children {options.repeats} times")
    timings = take_turns(steps, options.repeats)
    console.print("compiling K weighted children")
    return {
        "compilations_of_50_children": len(compilations),
        "compile_seconds": {
            "supernet": shared.seconds._asdict(),
            **{name: _median_timing([c.seconds for c in each])._asdict() for name, each in static.items()},
        },
        "temporary_bytes": {
            "supernet": shared.temporary,
            **{f"{name}_largest": max(c.temporary for c in each) for name, each in static.items()},
            **{f"weighted_{k}": _weighted_memory(contest, k) for k in map(int, options.widths.split(","))},
        },
        "step_seconds": summarise(timings),
        "supernet_ratio": ratios(timings),
    }


def compile_step(step: Callable[..., Any], *arguments: Any) -> Compiled:
    """Returns the step compiled for arguments of these shapes; tracing counts towards its seconds."""
    before = _now()
    compiled = jax.jit(step).lower(*arguments).compile()
    seconds = _since(before)
    memory = compiled.memory_analysis()
    return Compiled(compiled, seconds, memory.temp_size_in_bytes if memory else 0)


def take_turns(steps: list[dict[str, Step]], repeats: int) -> list[dict[str, Timing]]:
    """Returns each child's median timing by contestant, the contestants taking turns in every repeat."""
    taken: list[dict[str, list[Timing]]] = [{name: [] for name in child} for child in steps]
    for repeat in range(repeats + 1):
        for child, kept in zip(steps, taken, strict=True):
            for name, step in child.items():
                before = _now()
                step()
                if repeat > 0:  # the first warms caches up
                    kept[name].append(_since(before))
    return [{name: _median_timing(each) for name, each in kept.items()} for kept in taken]


def summarise(timings: list[dict[str, Timing]]) -> dict[str, dict[str, float]]:
    """Returns the median seconds of every contestant over the children that it ran."""
    names = {name: None for child in timings for name in child}
    return {name: _median_timing([child[name] for child in timings if name in child])._asdict() for name in names}


def ratios(timings: list[dict[str, Timing]]) -> dict[str, dict[str, float]]:
    """Returns the median over children of the supernet's seconds divided by each other contestant's, child by child."""
    result: dict[str, dict[str, float]] = {}
    for name in {name: None for child in timings for name in child if name != "supernet"}:
        pairs = [(child["supernet"], child[name]) for child in timings if name in child]
        result[name] = {
            kind: float(np.median([getattr(ours, kind) / getattr(other, kind) for ours, other in pairs]))
            for kind in Timing._fields
        }
    return result


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="darts")
    parser.add_argument("--dtype", default="float32", help="one or more, separated by commas")
    numbers = {"cells": 8, "channels": 8, "batch": 32, "image": 32, "children": 20, "static": 3, "repeats": 5}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--widths", default="2,4,16", help="numbers of weighted children whose memory is measured")
    parser.add_argument("--out", default="", help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="a tiny network, to see that everything runs")
    first = parser.parse_args(arguments)
    if first.quick:
        parser.set_defaults(**_QUICK)
    return parser.parse_args(arguments)


def _loss_and_gradient(run: Callable[[Weights], ChildResult], weights: Weights) -> Any:
    return jax.value_and_grad(lambda w: -run(w).log_likelihood)(weights)


def _add_static_children(
    contest: Contest, count: int, steps: list[dict[str, Step]], console: Console
) -> dict[str, list[Compiled]]:
    """Compiles some children by themselves, in each form of convolution, and adds their steps."""
    native = jax.default_backend() == "cpu"
    forms = {"static": "cpu", "static_lax": "lax"} if native else {"static": "lax"}
    made: dict[str, list[Compiled]] = {name: [] for name in forms}
    for at in np.unique(np.linspace(0, len(steps) - 1, count).round().astype(int)):
        genotype = contest.space.decode(contest.children[at])
        own = child_weights(contest.space, contest.shape, contest.weights, genotype)
        run = static_child(contest.space, genotype, contest.shape)

        def step(weights: Weights, batch: Batch, run: Any = run) -> Any:
            return _loss_and_gradient(lambda w: run(w, batch), weights)

        for name, form in forms.items():
            console.print(f"compiling child {at} by itself, {name}")
            # A function of its own for each form: a trace in the other form is not to be met again.
            with use_form(form):
                compiled = compile_step(lambda w, b, step=step: step(w, b), own, contest.batch)
            made[name].append(compiled)
            steps[at][name] = _jax_step(compiled.run, own, contest.batch)
    return made


def _add_torch_children(contest: Contest, steps: list[dict[str, Step]]) -> None:
    import torch  # pyright: ignore[reportMissingImports]

    from benchmarks.torch_child import TorchChild, log_likelihood, torch_images

    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    images = torch_images(np.asarray(contest.batch.images), device, contest.shape.dtype)
    labels = torch.tensor(np.asarray(contest.batch.labels), dtype=torch.int64, device=device)
    for child, taken in zip(contest.children, steps, strict=True):
        genotype = contest.space.decode(child)
        own = child_weights(contest.space, contest.shape, contest.weights, genotype)
        network = TorchChild(contest.space, genotype, contest.shape, own, device)

        def step(network: Any = network) -> None:
            network.zero_grad(set_to_none=True)
            (-log_likelihood(network, images, labels)).backward()
            if device == "cuda":
                torch.cuda.synchronize()

        taken["torch"] = step


def _weighted_memory(contest: Contest, count: int) -> int:
    """Returns the temporary bytes of the weighted gradient of `count` children."""
    child = make_child(contest.space, contest.supernet)

    def step(weights: Weights, batch: Batch, architectures: jax.Array) -> Any:
        return weighted_gradient(child, weights, batch, architectures, count, lambda k, value: value)

    children = np.resize(contest.children, (count, contest.children.shape[1]))
    return compile_step(step, contest.weights, contest.batch, jnp.asarray(children)).temporary


def _jax_step(run: Callable[..., Any], *arguments: Any) -> Step:
    def step() -> None:
        jax.block_until_ready(run(*arguments))

    return step


@contextmanager
def _count_compilations() -> Iterator[list[str]]:
    """Yields a list that gains an entry for every program that XLA compiles within the block."""
    events: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        del duration_secs, kwargs
        if event == _COMPILED:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def _now() -> Timing:
    return Timing(time.perf_counter(), time.process_time())


def _since(before: Timing) -> Timing:
    now = _now()
    return Timing(now.wall - before.wall, now.cpu - before.cpu)


def _median_timing(timings: list[Timing]) -> Timing:
    wall, cpu = np.median(np.array(timings), axis=0)
    return Timing(float(wall), float(cpu))


def _table(results: dict[str, Any], dtype: str, where: dict[str, Any]) -> Table:
    table = Table(title=f"One child's loss and gradient, {dtype}, {where['device']}, {where['cores']} cores")
    for heading in ("", "compile s (CPU s)", "temporary MB", "step ms (CPU ms)", "supernet / this (CPU)"):
        table.add_column(heading, justify="left" if not heading else "right")

    def pair(values: dict[str, float] | None, scale: float, digits: int) -> str:
        return f"{values['wall'] * scale:.{digits}f} ({values['cpu'] * scale:.{digits}f})" if values else ""

    memory: dict[str, int] = results["temporary_bytes"]
    for name, step in results["step_seconds"].items():
        held = memory.get(name, memory.get(f"{name}_largest"))
        table.add_row(
            name,
            pair(results["compile_seconds"].get(name), 1, 1),
            "" if held is None else f"{held / 1e6:.1f}",
            pair(step, 1e3, 1),
            pair(results["supernet_ratio"].get(name), 1, 2),
        )
    for name, held in memory.items():
        if name.startswith("weighted_"):
            table.add_row(f"{name.removeprefix('weighted_')} weighted children", "", f"{held / 1e6:.1f}", "", "")
    table.caption = f"compilations for {_CHILDREN_OF_ONE_PROGRAM} children: {results['compilations_of_50_children']}"
    return table


if __name__ == "__main__":
    main()
