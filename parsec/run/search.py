"""The main job: a search on a supernet, from a config to a found cell in a run directory.

It loads and parts the images, runs PARSEC's step until it is done (resuming where an earlier process stopped), derives
the found architecture from the prior, compares it with random children under the same weights, looks it up in a
published table where one is given, and writes what lasts: result.json, prior.json, the drawing and report.html.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from parsec import prior as priors
from parsec.cells import Space, get_space
from parsec.cells.network import Shape
from parsec.data import Dataset, channel_statistics, load, split
from parsec.data.batches import Batches, draw, steps_per_epoch, training_batches
from parsec.run.conclude import conclude, show_result
from parsec.run.loop import run_steps
from parsec.run.progress import announce
from parsec.run.settings import OptimizerSettings, SearchConfig
from parsec.run.workdir import RESULT, claim, read_json
from parsec.supernet.parsec_step import Info, Rules, SearchState, init_state, search_step
from parsec.supernet.supernet import Batch, make_supernet


class Problem(NamedTuple):
    """The images of a search, and the supernet's size that they ask for."""

    dataset: Dataset
    train: Batches
    valid: Batches
    shape: Shape
    steps: int


def run_search(config: SearchConfig, workdir: Path) -> dict[str, Any]:
    """Runs or resumes a search, or reports a finished one.

    Args:
      config: the search.
      workdir: its run directory.

    Returns:
      What result.json holds.

    Raises:
      UserError: for unusable data, files or a run directory that belongs to another run.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; the state is saved.
    """
    space = get_space(config.space)
    with claim(workdir, config) as run:
        if run.finished:
            result = read_json(run.path / RESULT)
            show_result(run.path, result)
            return result
        problem = load_problem(config)
        rules = make_rules(config, space, problem)
        announce(f"search on {config.dataset} in {space.name}", _plan(config, space, problem, run.path))
        for note in (*run.notes, *problem.dataset.notes):
            print(note)
        print("compiling the supernet: one program for any child, half a minute or so on a CPU", flush=True)
        keys = jax.random.split(jax.random.key(config.seed), 2)
        example = jnp.zeros((2, *problem.train.images.shape[1:]), config.network.dtype)
        state = run_steps(
            run,
            init_state(rules, keys[0], example),
            make_step(config, rules, problem, keys[1]),
            problem.steps,
            label="search",
            show=("loss", "accuracy", "entropy", "ess"),
            metrics_every=config.metrics_every,
            save_minutes=config.save_minutes,
            fatal=lambda metrics: _all_failed(metrics),
        )
        result = conclude(config, space, problem.shape, rules, state, problem.valid, run.path)
        show_result(run.path, result)
        return result


def load_problem(config: SearchConfig) -> Problem:
    """Returns the images in the device's memory, parted, and the sizes that follow; raises `UserError`."""
    dataset = load(config.dataset, config.data_dir, config.data.image_size, config.seed)
    train, valid = split(dataset, config.data.valid_fraction, config.seed)
    mean, std = channel_statistics(dataset.images[train])
    per_epoch = steps_per_epoch(len(train), config.data.batch_size)
    steps_per_epoch(len(valid), config.data.valid_batch_size)
    shape = Shape(
        config.network.channels,
        config.network.cells,
        len(dataset.class_names),
        config.network.stem_stride,
        config.network.dtype,
    )
    steps = config.steps or max(round(config.epochs * per_epoch), 1)
    parts = (training_batches(dataset, rows, mean, std) for rows in (train, valid))
    return Problem(dataset, *parts, shape, steps)


def make_rules(config: SearchConfig, space: Space, problem: Problem) -> Rules:
    """Returns what a step of this search is made of."""
    sampler, likelihood, settings = config.sampler, config.likelihood, config.prior
    largest = sampler.num_children

    def sample_budget(logits: jax.Array) -> jax.Array:
        if sampler.budget == "fixed":
            return jnp.array(largest, jnp.int32)
        return priors.adaptive_count(logits, space.mask, sampler.children_per_nat, largest)

    if settings.update == "adam":
        update = priors.adam_update(space.mask, settings.learning_rate, b1=settings.b1)
    else:
        update = priors.natural_update(space.mask, settings.learning_rate)
    return Rules(
        supernet=make_supernet(space, problem.shape),
        mask=space.mask,
        optimizer=_optimizer(config.optimizer, problem.steps),
        prior_update=update,
        num_children=largest,
        sample_budget=sample_budget,
        reduction=likelihood.reduction,  # type: ignore[arg-type]
        temperature=likelihood.temperature,
        ess_floor=likelihood.ess_floor if likelihood.reduction == "tempered" else 0.0,
        child_weights=likelihood.child_weights,
        warmup_steps=round(settings.warmup * problem.steps),
    )


def make_step(config: SearchConfig, rules: Rules, problem: Problem, key: jax.Array):
    """Returns `step(state, index) -> (state, metrics)`, compiled once for every child, batch and index."""
    data, dtype = config.data, config.network.dtype
    train_key, valid_key, sample_key = jax.random.split(key, 3)

    # The images are arguments: closed over, they would become constants of the compiled program.
    @jax.jit
    def step(state: SearchState, index: jax.Array, train: Batches, valid: Batches) -> tuple[SearchState, Info]:
        batch = draw(train, train_key, index, data.batch_size, augmentation=data.augmentation, dtype=dtype)
        held_out = draw(valid, valid_key, index, data.valid_batch_size, dtype=dtype)
        children_key = jax.random.fold_in(sample_key, index)
        return search_step(rules, state, children_key, Batch(*batch), Batch(*held_out), index)

    def run(state: SearchState, index: int) -> tuple[SearchState, Info]:
        return step(state, jnp.asarray(index, jnp.int32), problem.train, problem.valid)

    return run


def _optimizer(settings: OptimizerSettings, steps: int) -> optax.GradientTransformation:
    """Returns clipping, weight decay and momentum under a cosine, in DARTS's order."""
    alpha = settings.final_learning_rate / settings.learning_rate if settings.learning_rate > 0 else 0.0
    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.add_decayed_weights(settings.weight_decay),
        optax.sgd(
            optax.cosine_decay_schedule(settings.learning_rate, steps, alpha), settings.momentum, settings.nesterov
        ),
    )


def _plan(config: SearchConfig, space: Space, problem: Problem, path: Path) -> dict[str, Any]:
    train, valid = len(problem.train.labels), len(problem.valid.labels)
    budget = f"{config.sampler.budget}, K = {config.sampler.num_children}"
    warmup = round(config.prior.warmup * problem.steps)
    return {
        "space": f"{space.name}: {len(space.choices)} choices, {space.cardinality:.2g} architectures",
        "images": f"{train} for the weights, {valid} for the prior, {problem.train.images.shape[1:]} each",
        "network": f"{config.network.cells} cells, {config.network.channels} channels, {config.network.dtype}",
        "steps": f"{problem.steps}, {warmup} of them warm-up; batch {config.data.batch_size}; children: {budget}",
        "device": f"{jax.devices()[0].device_kind}, jax {jax.__version__}",
        "seed": config.seed,
        "run directory": path,
    }


def _all_failed(metrics: Any) -> str | None:
    if np.isfinite(np.asarray(metrics["loss"])):
        return None
    return "every child's loss or gradient was not finite; try a lower --config.optimizer.learning_rate"
