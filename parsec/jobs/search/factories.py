"""The factories of evaluators: from a config and a run directory to what scores architectures."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells import get_space
from parsec.cells.costs import CostTable, table_costs
from parsec.data.memory import Batches, steps_per_epoch, take
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluator
from parsec.evaluate.goals import MEASURED, Goals, make_goals, with_costs
from parsec.evaluate.supernet import OBJECTIVE, supernet_evaluator
from parsec.evaluate.table import table_evaluator
from parsec.evaluate.training import LIKELIHOOD, VALUE, training_evaluator
from parsec.jobs.search.domain import known_costs, read_limits
from parsec.jobs.search.problem import (
    in_memory,
    load_problem,
    make_joint,
    make_validation,
    naming_unreadable,
    open_table,
    search_recipe,
    start_state,
)
from parsec.keys import fold
from parsec.run.checkpoint import Checkpoints
from parsec.run.workdir import CHECKPOINTS
from parsec.settings.search import DeriveSettings, SearchConfig, StrategySettings, VerifySettings
from parsec.supernet.objective import make_child
from parsec.train.many import Trainer, make_trainer

# Weights of the children that a strategy had trained, for later ones to inherit from.
CHILDREN = "children"


def from_shared_weights(config: SearchConfig, workdir: Path) -> Evaluator:
    """Returns the evaluator of children under the weights of the run's last checkpoint; raises `UserError`."""
    joint, problem = make_joint(config), naming_unreadable(config, load_problem(config), workdir)
    with Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        restored = checkpoints.restore_latest(start_state(config, joint, problem))
    if restored is None or restored.step < problem.steps:
        raise UserError(f"{workdir} holds no shared weights that were trained to their last step")
    child = make_child(get_space(config.space), joint.parts.supernet)
    return supernet_evaluator(make_validation(config, problem, child), joint.search.weights(restored.tree))


def from_training(config: SearchConfig, workdir: Path) -> Evaluator:
    """Returns the evaluator that trains each child, from its nearest ancestor's weights where the config says so."""
    key = fold(jax.random.key(config.seed), "weights of children")
    folder = workdir / CHILDREN if config.strategy.inherit else None
    evaluator = _training(config, search_steps(config), key, folder)
    if not config.objectives:
        return evaluator
    table = search_costs(config)
    return with_costs(evaluator, search_goals(config), partial(table_costs, table))


def from_fresh_training(config: SearchConfig, workdir: Path) -> Evaluator:
    """Returns the evaluator by which children are compared at the end, from the same fresh weights for all.

    It trains for `config.derive.final_steps` in a network of `config.derive.final_cells`, where they are given, and
    scores on every validation image: the candidates differ by less than the likelihoods of a few thousand images do by
    chance.
    """
    del workdir
    key, derive = fold(jax.random.key(config.seed), "weights of compared children"), config.derive
    every = replace(derive, valid_images=load_problem(config).valid.num_examples)
    network = replace(config.network, cells=derive.final_cells or config.network.cells)
    return _training(
        replace(config, derive=every, network=network), derive.final_steps or search_steps(config), key, None
    )


def from_table(config: SearchConfig, workdir: Path) -> Evaluator:
    """Returns the evaluator that looks validation accuracies up in the published table."""
    del workdir
    table = open_table(config)
    assert table is not None  # Of `check_search`.
    return table_evaluator(table, ("valid_200",))


def search_goals(config: SearchConfig) -> Goals:
    """Returns what a search for several objectives wants; raises `UserError`."""
    table, classes = search_costs(config), load_problem(config).shape.num_classes
    return make_goals(config.objectives, table, read_limits(config.constraints, table), classes)


def search_costs(config: SearchConfig) -> CostTable:
    """Returns the costs of the networks of a search, their latency among them where a model of it is given."""
    problem = load_problem(config)
    return known_costs(config.space, problem.shape, problem.image, config.latency)


def search_steps(config: SearchConfig) -> int:
    """Returns the steps of a child's training in a search."""
    settings, images = config.strategy, load_problem(config).train.num_examples
    return settings.steps or max(round(settings.epochs * steps_per_epoch(images, config.data.batch_size)), 1)


def training_cost(config: SearchConfig) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the `Evaluator.cost` of short trainings."""
    costs = search_costs(config)

    def cost(architectures: np.ndarray) -> np.ndarray:
        return table_costs(costs, architectures)[:, 1].astype(np.float64)

    return cost


def told_capacity(config: SearchConfig) -> float:
    """Returns what scores hold of the logarithm of a network's parameters, in nats for each e-fold; 0 for nothing.

    Where costs are objectives of their own, nothing is added for them.
    """
    strategy = config.strategy
    told = strategy.evaluator == "train" and strategy.objective == "log_likelihood" and not config.objectives
    return strategy.capacity if told else 0.0


def told_objectives(config: SearchConfig) -> tuple[str, ...]:
    """Returns what short trainings tell, the first what a strategy searches for."""
    names = MEASURED | ({"log_likelihood": VALUE} if told_capacity(config) else {})
    first = MEASURED[config.objectives[0]] if config.objectives else names[config.strategy.objective]
    return (first, *(name for name in (OBJECTIVE, LIKELIHOOD) if name != first))


def make_trainer_of(config: SearchConfig) -> Trainer:
    """Returns what trains the cells of a search from scratch: on every device, or on one where children inherit.

    Searches that differ in how long they train what share the program.
    """
    strategy = StrategySettings(inherit=config.strategy.inherit)
    return _trainer(replace(config, strategy=strategy, derive=DeriveSettings(), verify=VerifySettings()))


@lru_cache(maxsize=1)
def _trainer(config: SearchConfig) -> Trainer:
    space, problem = get_space(config.space), load_problem(config)
    devices = jax.local_devices()[:1] if config.strategy.inherit else None
    return make_trainer(space, problem.shape, search_recipe(config), in_memory(problem).train, devices=devices)


def _training(config: SearchConfig, steps: int, key: jax.Array, folder: Path | None) -> Evaluator:
    space, problem = get_space(config.space), load_problem(config)
    capacity, costs = told_capacity(config), search_costs(config)

    def bonus(architectures: np.ndarray) -> np.ndarray:
        return capacity * np.log(table_costs(costs, architectures)[:, 0])

    return training_evaluator(
        space,
        problem.shape,
        make_trainer_of(config),
        _some(in_memory(problem).valid, config.derive.valid_images, config.seed),
        steps=steps,
        objectives=told_objectives(config),
        bonus=bonus,
        cost=training_cost(config),
        key=key,
        folder=folder,
    )


def _some(part: Batches, count: int, seed: int) -> Batches:
    """Returns so many of a part's images, or all of them, chosen by the seed."""
    chosen = np.random.default_rng(seed).permutation(len(part.labels))[:count].astype(np.int32)
    images, labels = take(part, jnp.asarray(chosen))
    return part._replace(images=images, labels=labels)
