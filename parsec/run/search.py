"""The main job: a search on a supernet, from a config to a found cell in a run directory.

It loads and parts the images and searches: by PARSEC's step until it is done, from which the found architecture is
derived, or by any other strategy, which is told the scores of children of a supernet or of children trained one by one.
Either goes on where an earlier process stopped. The found architecture is compared with random ones and looked up in a
published table where one is given; result.json, prior.json, the drawing and report.html last.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from parsec import prior as priors
from parsec.cells import Space, get_space
from parsec.cells.network import Shape
from parsec.cells.space import uniform_logits
from parsec.data import Dataset, channel_statistics, load, split
from parsec.data.memory import Batches, draw, steps_per_epoch, training_batches
from parsec.errors import UserError
from parsec.evaluate.supernet import Score, make_score
from parsec.evaluate.train import make_train, make_train_evaluator
from parsec.joint.parsec import Info, Rules, SearchState, init_state, search_step
from parsec.run.conclude import Outcome, conclude, derive_architecture, show_result
from parsec.run.loop import run_steps
from parsec.run.progress import announce
from parsec.run.settings import OptimizerSettings, SearchConfig
from parsec.run.strategy_search import COMPARED, best, check_strategy, remembered, run_strategy
from parsec.run.workdir import RESULT, Claim, claim, read_json
from parsec.supernet.supernet import Batch, Supernet, make_supernet
from parsec.transfer.prior import Carried, carry_logits, read_prior

# Weights of the children that a strategy had trained, for later ones to inherit from.
CHILDREN = "children"


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
    _check_together(config, space)
    with claim(workdir, config) as run:
        if run.finished:
            result = read_json(run.path / RESULT)
            show_result(run.path, result)
            return result
        initial = initial_logits(config, space, run.path)
        problem = load_problem(config)
        announce(f"search on {config.dataset} in {space.name}", _plan(config, space, problem, run.path))
        for note in (*run.notes, *problem.dataset.notes, *initial.notes):
            print(note)
        print("compiling the supernet: one program for any child, half a minute or so on a CPU", flush=True)
        if config.strategy.evaluator == "train":
            outcome = search_by_training(config, space, problem, run)
        else:
            outcome = search_on_supernet(config, space, problem, run, initial.logits)
        height, width, channels = problem.valid.images.shape[1:]
        result = conclude(config, space, problem.shape, outcome, (height, width, channels), run.path)
        show_result(run.path, result)
        return result


def learns_prior(config: SearchConfig) -> bool:
    """Returns whether this is PARSEC's own search, in which shared weights and prior learn together."""
    return config.strategy.name == "parsec" and config.strategy.evaluator == "supernet"


def initial_logits(config: SearchConfig, space: Space, workdir: Path) -> Carried:
    """Returns the logits that the prior starts from, float32 [L, O]: uniform, or another run's; raises `UserError`."""
    if not config.prior.initial:
        return Carried(uniform_logits(space), ())
    return carry_logits(read_prior(config.prior.initial, workdir), space, config.prior.sharpness)


def search_on_supernet(
    config: SearchConfig, space: Space, problem: Problem, run: Claim, initial: np.ndarray
) -> Outcome:
    """Returns what a search with shared weights finds.

    PARSEC learns the prior as the weights learn. For any other strategy the weights first learn from uniform children,
    for all their steps, and the strategy is then told what each child of them scores.
    """
    joint = learns_prior(config)
    if not joint:
        config = replace(config, prior=replace(config.prior, warmup=1.0))
    rules = make_rules(config, space, problem)
    keys = jax.random.split(jax.random.key(config.seed), 2)
    start = init_state(rules, keys[0], jnp.zeros((2, *problem.train.images.shape[1:]), config.network.dtype))
    state = run_steps(
        run,
        start._replace(prior=rules.prior_update.init(initial)),
        make_step(config, rules, problem, keys[1]),
        problem.steps,
        label="search" if joint else "shared weights",
        show=("loss", "accuracy", "entropy", "ess") if joint else ("loss", "accuracy"),
        metrics_every=config.metrics_every,
        save_minutes=config.save_minutes,
        fatal=lambda metrics: _all_failed(metrics),
    )
    shared_score = _score(config, rules.supernet, problem)

    def score(architecture: np.ndarray, *rest: Any) -> float:
        del rest
        return shared_score(state.weights, architecture)

    if joint:
        found = derive_architecture(config, space, state.prior.logits, score)
        return Outcome(found, score, np.asarray(state.prior.logits), None, ranks=True)
    evaluated = run_strategy(run, config.strategy, space, config.seed, score, after=problem.steps)
    return Outcome(best(evaluated), score, None, evaluated, ranks=True)


def search_by_training(config: SearchConfig, space: Space, problem: Problem, run: Claim) -> Outcome:
    """Returns what a strategy finds that is told how each child does after a few epochs of training of its own.

    At the end the found architecture and the random ones that it is compared with are all trained from fresh weights:
    a score reached with inherited weights says more of its ancestors.
    """
    settings = config.strategy
    per_epoch = steps_per_epoch(len(problem.train.labels), config.data.batch_size)
    steps = max(round(settings.epochs * per_epoch), 1)
    supernet = make_supernet(space, problem.shape)
    batches_key, weights_key, compared_key = jax.random.split(jax.random.key(config.seed), 3)
    train = make_train(
        supernet,
        make_optimizer(config.optimizer, steps),
        problem.train,
        steps=steps,
        batch_size=config.data.batch_size,
        augmentation=config.data.augmentation,
        dtype=config.network.dtype,
        key=batches_key,
    )
    images = jax.ShapeDtypeStruct((2, *problem.train.images.shape[1:]), jnp.dtype(config.network.dtype))
    parts = (space, problem.shape, supernet, train, _score(config, supernet, problem))
    folder = run.path / CHILDREN if settings.inherit else None
    evaluate = make_train_evaluator(*parts, images=images, key=weights_key, folder=folder)
    evaluated = run_strategy(run, settings, space, config.seed, evaluate)
    compare = make_train_evaluator(*parts, images=images, key=compared_key, folder=None)

    def score(architecture: np.ndarray) -> float:
        return compare(architecture, evaluated, lambda: None)

    return Outcome(best(evaluated), remembered(run.path / COMPARED, score), None, evaluated, ranks=False)


def load_problem(config: SearchConfig) -> Problem:
    """Returns the images in the device's memory, parted, and the sizes that follow; raises `UserError`."""
    dataset = load(config.dataset, config.data_dir, config.data.image_size, config.seed)
    train, valid = split(dataset, config.data.valid_fraction, config.seed)
    mean, std = channel_statistics(dataset.images[train])
    per_epoch = steps_per_epoch(len(train), config.data.batch_size)
    steps_per_epoch(len(valid), config.data.valid_batch_size)
    shape = Shape(num_classes=len(dataset.class_names), **asdict(config.network))
    steps = config.steps or max(round(config.epochs * per_epoch), 1)
    for_weights, for_prior = (training_batches(dataset, rows, mean, std) for rows in (train, valid))
    return Problem(dataset, for_weights, for_prior, shape, steps)


def make_rules(config: SearchConfig, space: Space, problem: Problem) -> Rules:
    """Returns what a step of this search is made of."""
    sampler, likelihood, settings = config.sampler, config.likelihood, config.prior
    largest = sampler.num_children

    def sample_budget(logits: jax.Array) -> jax.Array:
        if sampler.budget == "fixed":
            return jnp.array(largest, jnp.int32)
        return priors.adaptive_count(logits, space.mask, sampler.children_per_nat, largest)

    def sample(key: jax.Array, logits: jax.Array, count: jax.Array) -> jax.Array:
        if sampler.stratified:
            return priors.sample_stratified(key, logits, space.mask, largest, count)
        return priors.sample(key, logits, space.mask, largest)

    if settings.update == "adam":
        update = priors.adam_update(space.mask, settings.learning_rate, b1=settings.b1)
    else:
        update = priors.natural_update(space.mask, settings.learning_rate)
    return Rules(
        supernet=make_supernet(space, problem.shape, auxiliary_skip=config.supernet.auxiliary_skip),
        mask=space.mask,
        optimizer=make_optimizer(config.optimizer, problem.steps),
        prior_update=update,
        num_children=largest,
        sample=sample,
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


def make_optimizer(settings: OptimizerSettings, steps: int) -> optax.GradientTransformation:
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
    strategy = config.strategy
    steps = f"{problem.steps}, {warmup} of them warm-up; batch {config.data.batch_size}; children: {budget}"
    if strategy.evaluator == "train":
        steps = f"{strategy.evaluations} children, {strategy.epochs:g} epochs each; batch {config.data.batch_size}"
    elif not learns_prior(config):
        steps = f"{problem.steps} with uniform children, then {strategy.evaluations} evaluations"
    return {
        "strategy": f"{strategy.name} on {'the supernet' if strategy.evaluator == 'supernet' else 'trained children'}",
        "space": f"{space.name}: {len(space.choices)} choices, {space.cardinality:.2g} architectures",
        "images": f"{train} for the weights, {valid} for the prior, {problem.train.images.shape[1:]} each",
        "network": f"{config.network.cells} cells, {config.network.channels} channels, {config.network.dtype}",
        "steps": steps,
        "device": f"{jax.devices()[0].device_kind}, jax {jax.__version__}",
        "seed": config.seed,
        "run directory": path,
    }


def _score(config: SearchConfig, supernet: Supernet, problem: Problem) -> Score:
    return make_score(
        supernet,
        problem.valid,
        batch_size=config.data.valid_batch_size,
        num_images=config.derive.valid_images,
        dtype=config.network.dtype,
        seed=config.seed,
    )


def _check_together(config: SearchConfig, space: Space) -> None:
    """Raises `UserError` for settings that are allowed one by one and mean nothing together."""
    if learns_prior(config):
        if config.strategy.options:
            raise UserError(
                f"config.strategy.options={','.join(config.strategy.options)} means nothing to parsec on the supernet; "
                "set config.sampler, config.likelihood and config.prior"
            )
        return
    if config.prior.initial:
        raise UserError(
            f"config.prior.initial={config.prior.initial} starts a prior, and config.strategy.name="
            f"{config.strategy.name} on {config.strategy.evaluator} learns none; leave one of them out"
        )
    check_strategy(config.strategy, space)


def _all_failed(metrics: Any) -> str | None:
    if np.isfinite(np.asarray(metrics["loss"])):
        return None
    return "every child's loss or gradient was not finite; try a lower --config.optimizer.learning_rate"
