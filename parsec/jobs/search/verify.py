"""The end of a search: its cell trained from scratch beside random cells and a plain network, for a share of its cost.

An accuracy under shared weights proves nothing of a cell. A few short trainings alike do, as far as they go: their
verdict leads the summary and the report. `parsec.jobs.retrain.job` does the same at length, for one search or several.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from parsec.cells import Space
from parsec.cells.costs import table_costs
from parsec.cells.domain import Domain
from parsec.data.examples import is_streamed
from parsec.data.memory import held_out_batches, steps_per_epoch
from parsec.evaluate.contract import Evaluator
from parsec.evaluate.registry import EVALUATORS
from parsec.jobs.search.alike import (
    Accuracies,
    Entrants,
    alike_evaluator,
    draw_matched,
    draw_random,
    plain_evaluator,
    plain_network,
    train_alike,
)
from parsec.jobs.search.factories import make_trainer_of, search_costs, search_steps
from parsec.jobs.search.problem import Problem, in_memory, load_problem, search_recipe
from parsec.jobs.search.shared_out import open_evaluator
from parsec.report.matched import summarise_matched
from parsec.report.verdict import summarise
from parsec.run.agreement import wait_for_all
from parsec.run.workdir import Claim
from parsec.settings.search import SearchConfig, joint_entry
from parsec.train.each import Parts
from parsec.train.many import make_trainer
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
    settings, images = config.verify, problem.train.num_examples
    if not settings.random:
        return Plan(0, "none: config.verify.random=0")
    if is_streamed(config.dataset):
        return Plan(0, "none: networks are trained side by side on images in memory only")
    if not len(in_memory(problem).dataset.test_labels):
        return Plan(0, "none: the dataset has no test part")
    batch_size, networks = config.data.batch_size, verified_networks(config)
    if settings.steps:
        steps = settings.steps
    elif settings.epochs > 0:
        steps = max(round(settings.epochs * steps_per_epoch(images, batch_size)), 1)
    else:
        steps = int(settings.share * searched_images(config, problem) / (networks * settings.seeds * batch_size))
        if steps < LEAST_STEPS:
            share = f"{settings.share:.0%} of the search's cost pays for {steps} steps of each network"
            return Plan(0, f"none: {share}; --config.verify.steps=N trains them for N")
    cells = "random cells" + " of about equal parameters, shared out among the front's" * bool(config.objectives)
    return Plan(steps, f"{settings.random} {cells}, {settings.seeds} seeds, {steps} steps each")


def verified_networks(config: SearchConfig) -> int:
    """Returns how many networks are trained: found cells, of a front as many as its candidates, random and plain."""
    found = max(config.derive.finalists, 1) if config.objectives else 1
    return config.verify.random + found + 1


def searched_images(config: SearchConfig, problem: Problem) -> float:
    """Returns what a search costs: the images trained on by all its children, those only looked at counting a third."""
    data, strategy, entry = config.data, config.strategy, EVALUATORS[config.strategy.evaluator]
    children = problem.steps * config.sampler.num_children
    if joint_entry(config) is not None:
        return children * (data.batch_size + _FORWARD * data.valid_batch_size)
    looked_at = strategy.evaluations * _FORWARD * min(config.derive.valid_images, problem.valid.num_examples)
    if entry.shared:
        return children * data.batch_size + looked_at
    if entry.afresh:
        # The last comparison looks at all images for validation, in networks that may have more cells.
        final = (config.derive.final_steps or search_steps(config)) * data.batch_size
        final += _FORWARD * problem.valid.num_examples
        final *= (config.derive.final_cells or config.network.cells) / config.network.cells
        each = search_steps(config) * data.batch_size
        return strategy.evaluations * each + config.derive.finalists * final + looked_at
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
    if jax.process_index():
        # The trainings are process 0's, on devices of its own, and so is the result.
        wait_for_all("verified")
        return None
    residual = plain_network(space, problem.shape, found[None], problem.image)
    random = draw_random(space, found[None], settings.random, config.seed, domain)
    accuracies = _train(config, problem, Entrants(space, problem.shape, found[None], random, residual), steps, run)
    wait_for_all("verified")
    return {"steps": steps, **summarise(*accuracies, len(in_memory(problem).dataset.test_labels))}


def verify_front(
    config: SearchConfig, space: Space, problem: Problem, front: np.ndarray, run: Claim, domain: Domain
) -> dict[str, Any] | None:
    """Returns what `parsec.report.matched.summarise_matched` says of the cells of a front int32 [F, L], or None.

    The random cells of the verification are shared out among them, at least one to each, and are of the domain and of
    about as many parameters as the cell that they are compared with.

    Raises:
      UserError, StoppedError: as of `verify`; or the domain has too few cells.
    """
    settings, steps = config.verify, plan_verification(config, problem).steps
    if not steps:
        return None
    table = search_costs(config)
    random = draw_matched(table, front, max(settings.random // len(front), 1), config.seed, domain)
    every, residual = np.concatenate(random), plain_network(space, problem.shape, front, problem.image)
    accuracies = _train(config, problem, Entrants(space, problem.shape, front, every, residual), steps, run)
    alike = accuracies.random.reshape(*random.shape[:2], -1)
    params = table_costs(table, every)[:, 0].reshape(random.shape[:2]).tolist()
    images = len(in_memory(problem).dataset.test_labels)
    return {"steps": steps, **summarise_matched(accuracies.found, alike, accuracies.residual, params, images)}


def from_proof(config: SearchConfig) -> Evaluator:
    """Returns the evaluator by which the found cell and random ones are trained alike, on the program that searched."""
    problem = load_problem(config)
    steps, test = plan_verification(config, problem).steps, _parts(problem).test
    return alike_evaluator(make_trainer_of(config), test, steps, config.seed, config.verify.seeds)


def _train(config: SearchConfig, problem: Problem, entrants: Entrants, steps: int, run: Claim) -> Accuracies:
    seed, seeds, rate, parts = config.seed, config.verify.seeds, config.verify.learning_rate, _parts(problem)
    if EVALUATORS[config.strategy.evaluator].afresh:
        recipe, make = replace(search_recipe(config), steps=steps), partial(from_proof, config)
    else:
        recipe = Recipe(steps, config.data.batch_size, rate, augmentation=config.data.augmentation)

        def make() -> Evaluator:
            trainer = make_trainer(entrants.space, problem.shape, recipe, parts.train)
            return alike_evaluator(trainer, parts.test, steps, seed, seeds)

    plain = partial(plain_evaluator, entrants, recipe, parts, seed, seeds)
    return train_alike(run, entrants, partial(open_evaluator, config, make), plain, seeds)


def _parts(problem: Problem) -> Parts:
    """Returns the images that cells are trained on, and the test images."""
    dataset, train, _ = in_memory(problem)
    return Parts(train, None, held_out_batches(dataset, *(np.asarray(each) for each in (train.mean, train.std))))
