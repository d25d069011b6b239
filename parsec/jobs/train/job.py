"""Training one network from scratch: from a cell to weights in a run directory, tested once.

The images are parted into those to learn from, those to choose the best weights by, if any, and the test part. The step
is `parsec.train.training`'s; each epoch ends with a validation. The last thing is the test: of the best weights by
validation, or of the last where nothing was held out. Files: model.json with model.safetensors and last.safetensors,
which `parsec.train.model_file` describes, the exports of `parsec.jobs.train.export`, and result.json. Images that are
too many for memory are streamed (`parsec.data.stream`); nothing else differs then.
"""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.scan import stack, unstack
from parsec.config import affecting_results
from parsec.data.memory import steps_per_epoch
from parsec.data.stream import StreamedPart, feeding
from parsec.devices import place, whole
from parsec.errors import UserError
from parsec.files import expanded
from parsec.footprint import readable
from parsec.jobs.train.cell_source import chosen_cell
from parsec.jobs.train.export import export_model
from parsec.jobs.train.task import Task, check_task, load_task
from parsec.keys import fold
from parsec.run.loop import run_steps
from parsec.run.opening import begin, report_finished
from parsec.run.progress import announce
from parsec.run.unreadable import Unreadable
from parsec.run.workdir import RESULT, Claim, locate, read_json, write_json_atomic
from parsec.settings.train import TrainConfig
from parsec.train.derived import (
    Blueprint,
    Variables,
    init_variables,
    make_network,
    network_costs,
    variable_shapes,
)
from parsec.train.model_file import WEIGHTS, load_model, save_model
from parsec.train.residual import RESIDUAL
from parsec.train.training import Evaluate, TrainState, evaluated, init_state, judge, make_evaluate, make_step


def run_train(config: TrainConfig, workdir: Path) -> dict[str, Any]:
    """Trains a network, goes on with a training that was cut short, or reports a finished one.

    Args:
      config: see `TrainConfig`.
      workdir: the run directory.

    Returns:
      What result.json holds.

    Raises:
      UserError: for an unusable cell, unusable data, a network that is too large, or a directory of another run.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; the state is saved.
    """
    result = report_finished(config, workdir, show_result)
    if result is not None:
        return result
    cell, like = chosen_cell(config.from_run, config.genotype, locate(workdir))
    if config.network.params and cell.space != RESIDUAL:
        raise UserError(
            f"config.network.params={config.network.params} means nothing here; it needs config.genotype={RESIDUAL}"
        )
    task = load_task(config, cell, like)
    needed = check_task(task)
    variables = start_variables(task, fold(jax.random.key(config.seed), "weights"), config.weights)
    title, plan = f"training on {config.dataset}", _plan(config, task, needed)
    with begin(config, workdir, task.digests, title, plan, task.notes) as run:
        unreadable = None
        if isinstance(task.train, StreamedPart):
            unreadable = Unreadable(run.path, config.data.unreadable_limit)
            task = _reporting(task, unreadable)
        print("compiling the network, a minute or so on a CPU", flush=True)
        evaluate = make_evaluate(task.blueprint, config.data.eval_batch_size, task.mesh)
        state = train(config, task, variables, evaluate, run)
        result = _conclude(config, task, evaluate, state, run.path, unreadable)
        show_result(result, run.path)
        return result


def train(config: TrainConfig, task: Task, variables: Variables, evaluate: Evaluate, run: Claim) -> TrainState:
    """Returns the state after the last step, going on from the last checkpoint, or begun with the variables."""
    recipe, valid = task.recipe, task.valid
    per_epoch = steps_per_epoch(task.train.num_examples, recipe.batch_size)
    key = jax.random.key(config.seed)
    advance = make_step(recipe, task.blueprint, key, task.mesh)
    start = init_state(recipe, variables, validates=valid is not None)
    waited = 0.0
    with feeding(task.train, recipe.batch_size, task.mesh) as feed:

        def step(state: TrainState, index: int) -> tuple[TrainState, dict[str, Any]]:
            nonlocal waited
            began = time.monotonic()
            fed = feed(index)
            waited += time.monotonic() - began
            state, metrics = advance(state, index, fed)
            done = index + 1
            if valid is None:
                return state, metrics
            if done % per_epoch == 0 or done == recipe.steps:
                state = judge(state, evaluate, valid)
            if done >= min(per_epoch, recipe.steps):
                # Copies: the next step takes the state's own arrays.
                metrics["valid_accuracy"] = jnp.copy(state.valid_accuracy)
                metrics["best_accuracy"] = jnp.copy(state.best_accuracy)
            return state, metrics

        return run_steps(
            run,
            place(start, whole(task.mesh)),
            step,
            recipe.steps,
            label="training",
            show=("loss", "accuracy") if valid is None else (),
            metrics_every=config.metrics_every,
            save_minutes=config.save_minutes,
            fatal=_diverged,
            before_save=Unreadable(run.path, config.data.unreadable_limit).gather,
            waited=(lambda: waited) if isinstance(task.train, StreamedPart) else None,
        )


def start_variables(task: Task, key: jax.Array, weights: str) -> Variables:
    """Returns the variables that a training starts from, of the scanned form: fresh, or those of another training.

    Raises:
      UserError: the other training is unfinished, or of another network.
    """
    blueprint = task.blueprint
    network = make_network(blueprint, train=True, auxiliary=task.recipe.auxiliary_weight > 0, scan=True)
    fresh = init_variables(network, key, task.metadata.image)
    if not weights:
        return fresh
    model = load_model(expanded(weights))
    theirs = model.metadata.blueprint
    where = f"config.weights={weights}"
    if theirs.shape.num_classes != blueprint.shape.num_classes:
        raise UserError(
            f"{where}: its weights are of {theirs.shape.num_classes} classes, these images of "
            f"{blueprint.shape.num_classes}; train its cell anew with --config.from_run={weights}"
        )
    if model.metadata.image[2] != task.metadata.image[2]:
        raise UserError(f"{where}: its images have {model.metadata.image[2]} channels, these {task.metadata.image[2]}")
    # What activations are stored in is no matter of the weights.
    if theirs._replace(shape=blueprint.shape) != blueprint or _sizes(theirs) != _sizes(blueprint):
        raise UserError(f"{where}: its network is another: {_described(theirs)}; this one is {_described(blueprint)}")
    plain = unstack(fresh)
    given = {group: {**plain[group], **model.variables[group]} for group in plain}
    return jax.tree.map(jnp.asarray, stack(given, variable_shapes(network, task.metadata.image)))


def show_result(result: dict[str, Any], path: Path) -> None:
    """Prints a finished training: the network, its accuracies, and where its weights lie."""
    rows: dict[str, Any] = {
        "network": result["genotype"],
        "parameters": f"{result['params']:,}",
        "multiply-adds": f"{result['flops']:,}",
    }
    if result["valid_accuracy"] is not None:
        rows["validation accuracy"] = (
            f"{result['valid_accuracy']:.2f} % at best, {result['last_valid_accuracy']:.2f} % after the last epoch"
        )
    if result["test_accuracy"] is not None:
        rows["test accuracy"] = f"{result['test_accuracy']:.2f} %, of the {result['tested']} weights"
    if result.get("unreadable", {}).get("count"):
        rows["unreadable files"] = f"{result['unreadable']['count']} skipped: {result['unreadable']['files']}"
    rows["weights"] = path / WEIGHTS
    announce(f"trained on {result['dataset']}", rows)


def _reporting(task: Task, unreadable: Unreadable) -> Task:
    """Returns a streamed task whose parts tell what they cannot read."""
    parts = (task.train, task.valid, task.test)
    told = [part._replace(report=unreadable.add) if isinstance(part, StreamedPart) else part for part in parts]
    return task._replace(train=told[0], valid=told[1], test=told[2])


def _conclude(
    config: TrainConfig, task: Task, evaluate: Evaluate, state: TrainState, path: Path, unreadable: Unreadable | None
) -> dict[str, Any]:
    """Tests, writes weights and result.json, and returns what it holds; accuracies in percent, no clock times."""
    last = evaluated(state)
    best = last if state.best is None else state.best
    cost = network_costs(task.blueprint, task.metadata.image)
    save_model(path, task.metadata, best, last)
    export_model(path)
    shape = task.blueprint.shape
    settings = affecting_results(config)
    result: dict[str, Any] = {
        "space": task.blueprint.space,
        "genotype": task.blueprint.genotype,
        "dataset": config.dataset,
        "num_classes": shape.num_classes,
        "image": list(task.metadata.image),
        "seed": config.seed,
        "shape": {"channels": shape.channels, "cells": shape.cells, "stem": shape.stem, "dtype": shape.dtype},
        "params": cost.params,
        "flops": cost.flops,
        "steps": task.recipe.steps,
        "epochs": task.recipe.steps / steps_per_epoch(task.train.num_examples, task.recipe.batch_size),
        "valid_accuracy": None if task.valid is None else float(state.best_accuracy),
        "last_valid_accuracy": None if task.valid is None else float(state.valid_accuracy),
        "test_accuracy": None if task.test is None else float(evaluate(best, task.test)),
        "tested": "last" if task.valid is None else "best",
        "config": settings,
    }
    if unreadable is not None:
        # After the test, which may have met some more.
        result["unreadable"] = unreadable.told()
    write_json_atomic(path / RESULT, result)
    return read_json(path / RESULT)


def _plan(config: TrainConfig, task: Task, needed: int) -> dict[str, Any]:
    train, valid, test = (0 if part is None else part.num_examples for part in (task.train, task.valid, task.test))
    recipe = task.recipe
    per_epoch = steps_per_epoch(train, recipe.batch_size)
    return {
        "network": task.blueprint.genotype,
        "size": _described(task.blueprint),
        "images": f"{train} to learn from, {valid} for validation, {test} for the test, {task.metadata.image} each",
        "steps": f"{recipe.steps}, {recipe.steps / per_epoch:.4g} epochs; batch {recipe.batch_size}",
        "memory": f"at least {readable(needed)}",
        "device": f"{task.mesh.size} x {jax.devices()[0].device_kind}, jax {jax.__version__}",
        "seed": config.seed,
    }


def _sizes(blueprint: Blueprint) -> tuple[Any, ...]:
    shape = blueprint.shape
    return shape.channels, shape.cells, shape.stem, shape.stem_stride


def _described(blueprint: Blueprint) -> str:
    shape = blueprint.shape
    cells = "blocks in each stage" if blueprint.space == "resnet" else "cells"
    return f"{blueprint.space}, {shape.cells} {cells}, {shape.channels} channels, {shape.stem} stem, {shape.dtype}"


def _diverged(metrics: Any) -> str | None:
    if np.isfinite(np.asarray(metrics["loss"])):
        return None
    return "the loss is not finite; try a lower --config.optimizer.learning_rate"
