"""How much of a search and of two trainings fits in so many minutes, by speeds measured on the machine at hand.

Measured is the compiled step itself, for some seconds before the stage that takes it begins. What is chosen by it goes
to budget.json at once: a run that goes on, on whatever machine, takes the numbers that it began with, and so ends in
the same bytes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import numpy as np

from parsec.cells import get_space
from parsec.cells.space import uniform_logits
from parsec.config import override
from parsec.data.memory import steps_per_epoch
from parsec.data.stream import feeding
from parsec.devices import whole
from parsec.errors import UserError
from parsec.evaluate.registry import EVALUATORS
from parsec.jobs.search.problem import Problem, make_joint, make_step, open_sources, start_state
from parsec.jobs.search.shared_out import evaluate_afresh
from parsec.jobs.search.verify import LEAST_STEPS as LEAST_VERIFIED
from parsec.jobs.search.verify import plan_verification, searched_images, verified_networks
from parsec.jobs.train.job import start_variables
from parsec.jobs.train.task import Task
from parsec.keys import fold
from parsec.run.workdir import read_json, write_json_atomic
from parsec.settings.search import SearchConfig, VerifySettings
from parsec.train.training import init_state, make_evaluate
from parsec.train.training import make_step as make_training_step

BUDGET = "budget.json"
# A search, or a training, of fewer steps is not worth its compilation.
LEAST_STEPS = 20
# Share of the seconds that are planned with; the rest is for what was not measured.
_PLANNED = 0.9
# An image that verification trains on takes this many times what one of the search takes: measured, its compilation
# included, on the presets. After a search by training it is the program that searched, and the plain network's is new.
_VERIFICATION, _VERIFICATION_ALIKE = 1.5, 1.1
# What is measured, after a step that compiles.
_MEASURED_SECONDS, _MEASURED_STEPS = 6.0, 40
# Steps of a child that is trained to see how fast.
_CHILD_STEPS = 20
# Children that a search by training must have to learn anything.
_LEAST_CHILDREN = 12


class Speed(NamedTuple):
    """How fast something is.

    Attributes:
      first: seconds of the first time, which carries the compilation.
      each: seconds of each time after.
    """

    first: float
    each: float


class Fit(NamedTuple):
    """What of a stage fits.

    Attributes:
      settings: of the stage, key path -> text, which shorten it; empty where it fits as given.
      words: the same in words, with the minutes that it is expected to take.
    """

    settings: dict[str, str]
    words: str


def read_budget(directory: Path) -> dict[str, dict[str, str]]:
    """Returns what was chosen before, stage -> settings; raises `UserError` where the file is damaged."""
    if not (directory / BUDGET).exists():
        return {}
    found = read_json(directory / BUDGET)
    stages = found.items() if isinstance(found, dict) else [("", None)]
    for _, settings in stages:
        if not isinstance(settings, dict) or not all(isinstance(text, str) for text in settings.values()):
            raise UserError(f"{directory / BUDGET} is not the budget of a run; choose another --workdir")
    return found


def write_budget(directory: Path, stage: str, settings: Mapping[str, str]) -> None:
    """Adds what was chosen for a stage to budget.json."""
    write_json_atomic(directory / BUDGET, read_budget(directory) | {stage: dict(settings)})


def fit_search(config: SearchConfig, problem: Problem, seconds: float) -> Fit:
    """Returns how a search and its verification are shortened to end within so many seconds.

    Both cost images that are trained on, so one speed nearly serves for both; a search of `strategy.evaluator=train`
    trains fewer children, any other takes fewer steps. Where its share of a shorter search would be too little for any
    verification, it keeps the fewest steps that there are.

    Args:
      config: the search as given.
      problem: its images.
      seconds: from now.

    Raises:
      UserError: not even a few steps fit.
    """
    if not searched_images(config, problem):
        return Fit({}, "as given: it trains nothing")
    speed = search_speed(config, problem)
    fit = _shorten(config, problem, speed, seconds)
    steps = int(fit.settings.get("steps", problem.steps))
    left = plan_verification(shortened(config, fit.settings), problem._replace(steps=steps))
    if left.steps or not plan_verification(config, problem).steps:
        return fit
    kept = {"verify.steps": str(LEAST_VERIFIED), "verify.share": str(VerifySettings().share)}
    fit = _shorten(shortened(config, kept), problem, speed, seconds)
    return fit._replace(settings=fit.settings | kept)


def fit_trainings(tasks: Sequence[Task], seconds: float) -> Fit:
    """Returns for how many steps each of some trainings lasts, the same for all, to end within so many seconds.

    At least an epoch, or what was given where that is less, so that no training ends before it saw every image.

    Args:
      tasks: of as many steps as given.
      seconds: from now.
    """
    speeds = [training_speed(task) for task in tasks]
    given = tasks[0].recipe.steps
    per_epoch = steps_per_epoch(tasks[0].train.num_examples, tasks[0].recipe.batch_size)
    # What each training does beside its steps takes about as long as its compilation.
    beside, each = sum(speed.first for speed in speeds), sum(speed.each for speed in speeds)
    steps = min(max(int((_PLANNED * seconds - beside) / each), per_epoch), given)
    minutes = (steps * each + beside) / 60
    words = f"{steps / per_epoch:.4g} of {given / per_epoch:.4g} epochs each, about {minutes:.1f} minutes for both"
    return Fit({"steps": str(steps)}, words)


def shortened(config: Any, settings: Mapping[str, str]) -> Any:
    """Returns a stage's config with the settings of a `Fit`."""
    return override(config, settings)


def search_speed(config: SearchConfig, problem: Problem) -> Speed:
    """Returns the seconds of a search's compilation, and those for each image; images looked at count a third."""
    space, entry = get_space(config.space), EVALUATORS[config.strategy.evaluator]
    if entry.afresh:
        strategy = replace(config.strategy, steps=_CHILD_STEPS, evaluations=1)
        # As the evaluator of the last comparison does, which is the one measured.
        every = problem.valid.num_examples
        looked_at = replace(config.derive, finalists=0, final_steps=0, final_cells=0, valid_images=every)
        brief, rng = replace(config, strategy=strategy, derive=looked_at), np.random.default_rng(config.seed)
        with TemporaryDirectory() as folder:
            evaluator = entry.factory(brief, Path(folder), afresh=True)()

            def evaluate(state: None, index: int) -> tuple[None, Any]:
                children = rng.integers(0, space.sizes, (evaluator.together, len(space.sizes)), dtype=np.int32)
                return state, evaluate_afresh(evaluator, None, children)

            first, each = measure(evaluate, None)
        return Speed(first, each / (searched_images(brief, problem) * evaluator.together))
    joint = make_joint(config)
    state = start_state(config, joint, problem, uniform_logits(space))
    with open_sources(config, problem) as sources:
        first, each = measure(make_step(config, joint, problem, sources), state)
    # Of a strategy that is told scores, only what the shared weights learn from.
    learning = replace(config, strategy=replace(config.strategy, evaluations=0))
    return Speed(first, each * problem.steps / searched_images(learning, problem))


def training_speed(task: Task) -> Speed:
    """Returns the seconds of a training's first step, and of each step after, its share of validations included."""
    key = jax.random.key(0)
    variables = start_variables(task, fold(key, "weights"), "")
    advance = make_training_step(task.recipe, task.blueprint, key, task.mesh)
    state = init_state(task.recipe, variables, validates=task.valid is not None)
    state = jax.device_put(state, whole(task.mesh))
    with feeding(task.train, task.recipe.batch_size, task.mesh) as feed:
        first, each = measure(lambda state, index: advance(state, index, feed(index)), state)
    if task.valid is None:
        return Speed(first, each)
    evaluate, valid = make_evaluate(task.blueprint, task.recipe.eval_batch_size, task.mesh), task.valid
    judged = measure(lambda state, index: (state, evaluate(variables, valid)), None)
    per_epoch = steps_per_epoch(task.train.num_examples, task.recipe.batch_size)
    return Speed(first + judged.first, each + judged.each / per_epoch)


def measure(step: Callable[[Any, int], tuple[Any, Any]], state: Any) -> Speed:
    """Returns how fast `step(state, index) -> (state, anything)` is, which may donate the state."""
    began = time.monotonic()
    state = jax.block_until_ready(step(state, 0))[0]
    compiled, done = time.monotonic(), 0
    while done < _MEASURED_STEPS and time.monotonic() - compiled < _MEASURED_SECONDS:
        done += 1
        state = jax.block_until_ready(step(state, done))[0]
    return Speed(compiled - began, (time.monotonic() - compiled) / done)


def _shorten(config: SearchConfig, problem: Problem, speed: Speed, seconds: float) -> Fit:
    # The search compiles once more where it is shortened, and the verification has a program of its own.
    searched, verified = searched_images(config, problem), _verified_images(config, problem)
    left = _PLANNED * seconds - 2 * speed.first
    wanted = (searched + verified) * speed.each
    if wanted <= left:
        return Fit({}, f"as given, about {(wanted + speed.first) / 60:.1f} minutes")
    if EVALUATORS[config.strategy.evaluator].afresh:
        return _shorten_trainings(config, problem, speed, seconds)
    # A verification of so many steps takes its time whatever the search does; else it has its share of the search.
    settled = verified * speed.each if config.verify.steps or config.verify.epochs else 0.0
    share = max(left - settled, 0.0) / (wanted - settled)
    steps = int(share * problem.steps)
    if steps < min(LEAST_STEPS, problem.steps):
        least = (wanted - settled) * min(LEAST_STEPS / problem.steps, 1.0) + settled + 2 * speed.first
        raise _too_short(f"only {steps} steps", seconds, least)
    return Fit({"steps": str(steps)}, _share_words(share, seconds))


def _shorten_trainings(config: SearchConfig, problem: Problem, speed: Speed, seconds: float) -> Fit:
    """Returns fewer children, fewer candidates at the end and a shorter verification, all by the same share."""
    children, last, verified = config.strategy.evaluations, config.derive.finalists, config.verify.steps
    fewest = min(_LEAST_CHILDREN, children)

    def at(share: float) -> dict[str, str]:
        settings = {"strategy.evaluations": str(max(int(share * children), fewest))}
        if last:
            settings["derive.finalists"] = str(max(int(share * last), 1))
        if verified and config.verify.random:
            settings["verify.steps"] = str(max(int(share * verified), min(LEAST_VERIFIED, verified)))
        return settings

    def takes(settings: Mapping[str, str]) -> float:
        brief = shortened(config, settings)
        images = searched_images(brief, problem) + _verified_images(brief, problem)
        return images * speed.each + 2 * speed.first

    for percent in range(99, 0, -1):
        if int(percent * children / 100) >= fewest and takes(at(percent / 100)) <= _PLANNED * seconds:
            return Fit(at(percent / 100), _share_words(percent / 100, seconds))
    raise _too_short(f"fewer than {fewest} children", seconds, takes(at(0.0)))


def _share_words(share: float, seconds: float) -> str:
    return f"{share:.0%} of what was given, so that it takes about {seconds / 60:.1f} minutes"


def _too_short(fits: str, seconds: float, least: float) -> UserError:
    return UserError(
        f"{fits} of the search fit in the {seconds / 60:.1f} minutes that it may take here; it needs at least "
        f"{least / _PLANNED / 60:.1f}: raise config.minutes, or lower config.search.network.cells, "
        "config.search.network.channels or config.image_size"
    )


def _verified_images(config: SearchConfig, problem: Problem) -> float:
    factor = _VERIFICATION_ALIKE if EVALUATORS[config.strategy.evaluator].afresh else _VERIFICATION
    steps = plan_verification(config, problem).steps
    return factor * steps * config.data.batch_size * verified_networks(config) * config.verify.seeds
