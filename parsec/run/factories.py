"""The factories of evaluators: from a config and a run directory to what scores architectures."""

from pathlib import Path

import jax

from parsec.cells import get_space
from parsec.data.memory import steps_per_epoch
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluator
from parsec.evaluate.supernet import supernet_evaluator
from parsec.evaluate.table import table_evaluator
from parsec.evaluate.training import make_train, training_evaluator
from parsec.keys import fold
from parsec.run.checkpoint import Checkpoints
from parsec.run.problem import load_problem, make_joint, make_optimizer, make_validation, open_table, start_state
from parsec.run.settings import SearchConfig
from parsec.run.workdir import CHECKPOINTS
from parsec.supernet.objective import make_child
from parsec.supernet.supernet import make_supernet

# Weights of the children that a strategy had trained, for later ones to inherit from.
CHILDREN = "children"


def from_shared_weights(config: SearchConfig, workdir: Path) -> Evaluator:
    """Returns the evaluator of children under the weights of the run's last checkpoint; raises `UserError`."""
    joint, problem = make_joint(config), load_problem(config)
    with Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        restored = checkpoints.restore_latest(start_state(config, joint, problem))
    if restored is None or restored.step < problem.steps:
        raise UserError(f"{workdir} holds no shared weights that were trained to their last step")
    child = make_child(get_space(config.space), joint.parts.supernet)
    return supernet_evaluator(make_validation(config, problem, child), joint.search.weights(restored.tree))


def from_training(config: SearchConfig, workdir: Path) -> Evaluator:
    """Returns the evaluator that trains each child, from its nearest ancestor's weights where the config says so."""
    return _training(config, workdir / CHILDREN if config.strategy.inherit else None, "weights of children")


def from_fresh_training(config: SearchConfig, workdir: Path) -> Evaluator:
    """Returns the evaluator that trains each child from fresh weights, drawn apart from those of the search."""
    del workdir
    return _training(config, None, "weights of compared children")


def from_table(config: SearchConfig, workdir: Path) -> Evaluator:
    """Returns the evaluator that looks validation accuracies up in the published table; raises `UserError`."""
    del workdir
    table = open_table(config)
    if table is None:
        raise UserError("config.strategy.evaluator=table needs a table; name it with --config.table=FILE")
    return table_evaluator(table, ("valid_200",))


def _training(config: SearchConfig, folder: Path | None, weights: str) -> Evaluator:
    space, problem, settings = get_space(config.space), load_problem(config), config.strategy
    per_epoch = steps_per_epoch(len(problem.train.labels), config.data.batch_size)
    steps = max(round(settings.epochs * per_epoch), 1)
    supernet = make_supernet(space, problem.shape)
    child = make_child(space, supernet)
    key = jax.random.key(config.seed)
    train = make_train(
        child,
        make_optimizer(config.optimizer, steps),
        problem.train,
        steps=steps,
        batch_size=config.data.batch_size,
        augmentation=config.data.augmentation,
        dtype=config.network.dtype,
        key=fold(key, "training batches"),
    )
    score = make_validation(config, problem, child)
    parts = (space, problem.shape, supernet, train, score)
    return training_evaluator(*parts, images=problem.example, key=fold(key, weights), folder=folder)
