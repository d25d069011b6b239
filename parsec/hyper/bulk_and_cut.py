"""BULK&CUT: random networks are trained, good ones grow without forgetting, and the best of all are cut and taught.

Izquierdo et al. 2021 (arXiv 2105.01015). The budget is parted in three: random networks of the space; children of the
front's networks, grown by `parsec.hyper.morphism.bulk_up` and trained on; and children that are cut by `slim_down` and
taught by their parent, whose outputs they learn, in a third of the epochs. Children begin with their parent's weights,
so that widths leave the grid, and no vector of the space stands for them. This is why it is no strategy that asks and
is told, but a search of its own.

Learning rates are chosen by Bayesian optimisation: a Gaussian process of what was reached, by the rate's logarithm,
the depth and the logarithm of the size, says of which rate most may be hoped for a network of the depth and size at
hand, its mean and 2.5 deviations. One process learns from random and grown networks, a second from those that were cut,
as in the paper's code. They are fitted to validation accuracies, where the paper's are fitted to losses, which a
network that diverged stretches.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from parsec.cells.domain import Domain
from parsec.evaluate.contract import Pause
from parsec.evaluate.goals import Goals
from parsec.hyper.evaluator import MOST_PARAMS, told
from parsec.hyper.morphism import bulk_up, slim_down
from parsec.hyper.network import Task, Variables, fresh, outputs, train
from parsec.hyper.space import HyperParameters, HyperSpace, parameter_count
from parsec.keys import fold
from parsec.report.pareto import front_rows

RANDOM, BULK, CUT = "random", "bulk", "cut"
# Of the budget, when random networks end and when growing does.
_RANDOM_UNTIL, _BULK_UNTIL = 0.35, 0.75
# How often a parent is of the first front, where there is a second; the smallest that is cut.
_FIRST_FRONT, _LEAST_PARAMS = 0.85, 100
# Learning rates looked at, evenly by their logarithm between the space's least and largest; and the largest of children
# that are cut.
_RATES, _CUT_RATE = 101, 1e-2
# Of the process: deviations above the mean that are hoped for, noise in variances of what is fitted, how often its
# length is sought from another start, and what two hopes may differ by, in percent, and be the same.
_HOPE, _NOISE, _RESTARTS, _SAME = 2.5, 1e-6, 5, 1e-3


class Member(NamedTuple):
    """A network that was trained.

    Attributes:
      stage: `RANDOM`, `BULK` or `CUT`.
      parent: number of the network whose weights it began with; -1 for none.
      hyper: its hyper-parameters.
      epochs: that it was trained for.
      scores: of `parsec.hyper.evaluator.told`, float64 [M + 1].
    """

    stage: str
    parent: int
    hyper: HyperParameters
    epochs: int
    scores: np.ndarray


class Search(NamedTuple):
    """What one run is about.

    Attributes:
      space: that random networks are of.
      domain: its vectors.
      task: the images.
      goals: the objectives.
      longest: epochs of a random network and of one that grew.
      total: epochs to spend.
      seed: of the run.
    """

    space: HyperSpace
    domain: Domain
    task: Task
    goals: Goals
    longest: int
    total: int
    seed: int


def next_stage(search: Search, members: Sequence[Member]) -> tuple[str, int] | None:
    """Returns the stage of the next network and its epochs; None where the budget does not pay it in full."""
    spent = sum(member.epochs for member in members)
    stage = RANDOM
    if any(np.isfinite(member.scores).all() for member in members) and spent >= _RANDOM_UNTIL * search.total:
        stage = BULK if spent < _BULK_UNTIL * search.total else CUT
    epochs = max(1, round(search.longest / 3)) if stage == CUT else search.longest
    return (stage, epochs) if spent + epochs <= search.total else None


def choose_parent(search: Search, members: Sequence[Member], stage: str, rng: np.random.Generator) -> int:
    """Returns the number of the network that the next one grows or is cut from.

    It is of the first front or of the second. Who grows is drawn in proportion to the squared accuracy beyond chance,
    of those with at most 10^8 parameters; who is cut is drawn evenly, of those with 100 or more, and first of those
    among them that were not cut yet. A condition that no network of the front meets is passed over.
    """
    scores = np.stack([member.scores[:-1] for member in members])
    able = np.flatnonzero(np.isfinite(scores).all(1))
    first = able[front_rows(scores[able])]
    rest = np.setdiff1d(able, first)
    second = rest[front_rows(scores[rest])] if len(rest) else rest
    front = first if rng.random() < _FIRST_FRONT or not len(second) else second
    task = search.task
    sizes = np.array([parameter_count(member.hyper, task.image, task.classes) for member in members])
    if stage == BULK:
        front = _some(front, sizes[front] <= MOST_PARAMS)
        beyond = np.square(scores[front, 0] - 100 / task.classes)
        return int(rng.choice(front, p=beyond / beyond.sum() if beyond.sum() > 0 else None))
    front = _some(front, sizes[front] >= _LEAST_PARAMS)
    before = [member.parent for member in members if member.stage == CUT]
    return int(rng.choice(_some(front, ~np.isin(front, before))))


def choose_rate(
    search: Search, members: Sequence[Member], stage: str, hyper: HyperParameters, rng: np.random.Generator
) -> float:
    """Returns the learning rate of the next network, within the space's, and at most 1e-2 where it is cut.

    Its logarithm is uniform as long as the process that learns from this stage has been told of fewer than two
    networks, and among rates of which equally much is hoped for: few networks may say nothing about any rate.

    Args:
      search: the run.
      members: the networks so far.
      stage: of the next one.
      hyper: the next one; its own rate is not read.
      rng: is advanced.
    """
    least, most = search.space.rates[0], search.space.rates[-1]
    most = max(least, min(most, _CUT_RATE)) if stage == CUT else most
    rates = np.linspace(np.log10(least), np.log10(most), _RATES)
    alike = [member for member in members if (member.stage == CUT) == (stage == CUT)]
    seed = int(rng.integers(2**31))
    if len(alike) < 2:
        return float(10 ** rng.choice(rates))

    def point(rate: float, of: HyperParameters) -> list[float]:
        count = parameter_count(of, search.task.image, search.task.classes)
        return [rate, len(of.conv) + len(of.fc), float(np.log10(count))]

    told = [point(float(np.log10(member.hyper.learning_rate)), member.hyper) for member in alike]
    # One that diverged learnt nothing.
    chance = 100 / search.task.classes
    accuracies = np.nan_to_num(np.array([member.scores[0] for member in alike]), nan=chance)
    process = GaussianProcessRegressor(
        Matern(nu=2.5), alpha=_NOISE, normalize_y=True, n_restarts_optimizer=_RESTARTS, random_state=seed
    )
    with warnings.catch_warnings():
        # Of a length at the end of its range, and of networks that are alike in all that is looked at.
        warnings.simplefilter("ignore", ConvergenceWarning)
        asked = [point(rate, hyper) for rate in rates]
        mean, deviation = map(np.asarray, process.fit(told, accuracies).predict(asked, return_std=True))
    hope = mean + _HOPE * deviation
    return float(10 ** rng.choice(rates[hope >= hope.max() - _SAME]))


def train_next(
    search: Search, members: Sequence[Member], variables_of: Callable[[int], Variables], pause: Pause
) -> tuple[Member, Variables] | None:
    """Returns the next network, trained, and its variables; None where the budget is spent.

    What is drawn depends on the run's seed and the network's number alone, and on what is known of those before it.

    Args:
      search: the run.
      members: the networks so far, in order.
      variables_of: from the number of one of them to its trained variables.
      pause: called before each epoch; may raise.
    """
    following = next_stage(search, members)
    if following is None:
        return None
    (stage, epochs), task, number = following, search.task, len(members)
    rng = np.random.default_rng([search.seed, number])
    order = (search.seed, number)
    if stage == RANDOM:
        drawn = search.domain.sample(jax.random.fold_in(fold(jax.random.key(search.seed), "networks"), number), 1)
        hyper = search.space.decode(np.asarray(drawn)[0])
        hyper = replace(hyper, learning_rate=choose_rate(search, members, stage, hyper, rng))
        trained = train(hyper, task, fresh(hyper, task.image, task.classes, rng), epochs, order, pause)
        return Member(stage, -1, hyper, epochs, told(search.goals, hyper, trained, task)), trained.variables
    parent = choose_parent(search, members, stage, rng)
    before, variables = members[parent].hyper, variables_of(parent)
    teacher = None
    if stage == BULK:
        grown = bulk_up(before, variables, (search.space.conv[-1], search.space.fc[-1]), rng)
    else:
        grown = slim_down(before, variables, rng)
        teacher = outputs(before, variables, task, task.train)
    hyper = replace(grown.hyper, learning_rate=choose_rate(search, members, stage, grown.hyper, rng))
    trained = train(hyper, task, grown.variables, epochs, order, pause, teacher)
    return Member(stage, parent, hyper, epochs, told(search.goals, hyper, trained, task)), trained.variables


def _some(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the rows int [n] that are wanted, bool [n]; all where none is."""
    return rows[wanted] if wanted.any() else rows
