"""The end of a search: its cell trained from scratch beside random cells and a plain network, for a share of its cost.

An accuracy under shared weights proves nothing of a cell. A few short trainings alike do, as far as they go: their
verdict leads the summary and the report. `parsec.run.retrain` does the same at length, for one search or several.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from parsec.cells import Space
from parsec.cells.domain import Domain
from parsec.data.memory import held_out_batches, steps_per_epoch
from parsec.report.verdict import summarise
from parsec.run.alike import choose_entrants, train_alike
from parsec.run.evaluators import EVALUATORS, joint_entry
from parsec.run.factories import make_trainer_of, search_steps
from parsec.run.problem import Problem, search_recipe
from parsec.run.settings import SearchConfig
from parsec.run.workdir import Claim
from parsec.train.many import Parts, make_trainer
from parsec.train.recipe import Recipe

# Fewer steps, where the cost decides them, tell too little to be worth a compilation.
LEAST_STEPS = 50
# An image passed forward costs a third of one that is trained on.
_FORWARD = 1 / 3


class Plan(NamedTuple):
    """What verification will do.

    Attributes:
      steps: of each training; 0 where nothing is trained.
      words: the same in words, or why there is none.
    """

    steps: int
    words: str


def plan_verification(config: SearchConfig, problem: Problem) -> Plan:
    """Returns how long each network is trained at the end of a search, if at all."""
    settings, images = config.verify, len(problem.train.labels)
    if not settings.random:
        return Plan(0, "none: config.verify.random=0")
    if not len(problem.dataset.test_labels):
        return Plan(0, "none: the dataset has no test part")
    batch_size, networks = config.data.batch_size, settings.random + 2
    if settings.steps:
        steps = settings.steps
    elif settings.epochs > 0:
        steps = max(round(settings.epochs * steps_per_epoch(images, batch_size)), 1)
    else:
        steps = int(settings.share * searched_images(config, problem) / (networks * settings.seeds * batch_size))
        if steps < LEAST_STEPS:
            share = f"{settings.share:.0%} of the search's cost pays for {steps} steps of each network"
            return Plan(0, f"none: {share}; --config.verify.steps=N trains them for N")
    return Plan(steps, f"{settings.random} random cells, {settings.seeds} seeds, {steps} steps each")


def searched_images(config: SearchConfig, problem: Problem) -> float:
    """Returns what a search costs: the images trained on by all its children, those only looked at counting a third."""
    data, strategy, entry = config.data, config.strategy, EVALUATORS[config.strategy.evaluator]
    children = problem.steps * config.sampler.num_children
    if joint_entry(config) is not None:
        return children * (data.batch_size + _FORWARD * data.valid_batch_size)
    looked_at = strategy.evaluations * _FORWARD * min(config.derive.valid_images, len(problem.valid.labels))
    if entry.shared:
        return children * data.batch_size + looked_at
    if entry.afresh:
        finals = config.derive.finalists * (config.derive.final_steps or search_steps(config))
        return (strategy.evaluations * search_steps(config) + finals) * data.batch_size + looked_at
    return 0.0


def verify(
    config: SearchConfig,
    space: Space,
    problem: Problem,
    found: np.ndarray,
    run: Claim,
    domain: Domain | None = None,
) -> dict[str, Any] | None:
    """Returns what `parsec.report.verdict.summarise` says of the found architecture int32 [L], or None.

    The random cells are of the domain, by default of the whole space.

    Raises:
      UserError: the run directory's retrained.jsonl is damaged.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; what was trained is kept.
    """
    settings, steps = config.verify, plan_verification(config, problem).steps
    if not steps:
        return None
    test = held_out_batches(problem.dataset, *(np.asarray(each) for each in (problem.train.mean, problem.train.std)))
    entrants = choose_entrants(space, problem.shape, found[None], settings.random, config.seed, problem.image, domain)
    recipe = search_recipe(config)
    if EVALUATORS[config.strategy.evaluator].afresh:
        # The program that searched.
        make = partial(make_trainer_of, config)
    else:
        recipe = Recipe(steps, config.data.batch_size, settings.learning_rate, augmentation=config.data.augmentation)
        make = partial(make_trainer, space, problem.shape, recipe, problem.train)
    accuracies = train_alike(
        run, entrants, make, replace(recipe, steps=steps), Parts(problem.train, None, test), config.seed, settings.seeds
    )
    return {"steps": steps, **summarise(*accuracies, len(problem.dataset.test_labels))}
