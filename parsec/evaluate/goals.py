"""Several objectives of networks that are trained: what their training measures, then costs that are known before it.

The first objective is the accuracy or the log-likelihood of a short training; `-params` and `-flops` are minimised,
`-log10_params` and `-log10_flops` likewise on a logarithmic scale, and `-latency_ms` where a model of it is given. As
on tables (`parsec.tables.objectives`), what a strategy is told is scaled: 0 at the reference point, 1 at the ideal one.
The reference point is fixed before anything is trained, so that hypervolumes of searches of the same space, size and
constraints compare: an accuracy of 0 %, or the log-likelihood of a uniform guess, and the costs of the largest network,
or the most that is allowed where that is less. Ideal are 100 %, or a log-likelihood of 0, and the costs of the smallest
network.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from parsec.cells.costs import CostTable, unknown_cost
from parsec.cells.domain import ArrayLike
from parsec.cells.limits import UNLIMITED, extremes
from parsec.errors import UserError, unknown
from parsec.evaluate.contract import Evaluated, Evaluator, Pause
from parsec.evaluate.supernet import OBJECTIVE
from parsec.evaluate.training import LIKELIHOOD
from parsec.search.contract import Info, State, Strategy
from parsec.tables.objectives import LOG

# What an objective that is measured is called by an evaluator.
MEASURED = {"accuracy": OBJECTIVE, "log_likelihood": LIKELIHOOD}
_LOG = f"-{LOG}"


class Goals(NamedTuple):
    """What is wanted, M objectives, each told so that higher is better: a cost as its negative.

    Attributes:
      names: the first of `MEASURED`, the others costs, as `-name` or `-log10_name`.
      costs: names of the costs of networks, P of them.
      scales: as of `CostTable`.
      reference: the reference point, float64 [M], as it would be told.
      ideal: what is 1 to a strategy, float64 [M], likewise.
    """

    names: tuple[str, ...]
    costs: tuple[str, ...]
    scales: tuple[int, ...]
    reference: np.ndarray
    ideal: np.ndarray

    @property
    def signs(self) -> np.ndarray:
        """What turns what is told into the objectives' own units, and back: -1 for a cost, float64 [M]."""
        return np.array([-1.0 if name.startswith("-") else 1.0 for name in self.names])

    def join(self, measured: np.ndarray, costs: np.ndarray) -> np.ndarray:
        """Returns what is told of networks, float64 [N, M], of what was measured [N] and their costs [N, P]."""
        told = _told(self.names[1:], self.costs, self.scales, costs)
        return np.concatenate([np.asarray(measured, np.float64)[:, None], told], 1)

    def scaled(self, told: np.ndarray) -> np.ndarray:
        """Returns scores [N, M] as strategies are told them, float64: 0 at the reference point, 1 at the ideal one."""
        return (told - self.reference[None]) / (self.ideal - self.reference)[None]


def check_goals(wanted: Sequence[str], costs: Sequence[str]) -> None:
    """Raises `UserError` for objectives that are unknown (naming the nearest), named twice, or a single one.

    Args:
      wanted: one of `MEASURED`, then `-name` or `-log10_name` of costs.
      costs: the names of those that are known.
    """
    if len(wanted) < 2:
        raise UserError(
            f"config.objectives={','.join(wanted)} names {len(wanted)}; two or more make a front, and without any the "
            "search is for the best cell"
        )
    if wanted[0] not in MEASURED:
        raise unknown("first objective in config.objectives", wanted[0], MEASURED)
    allowed = [f"{sign}{cost}" for sign in ("-", _LOG) for cost in costs]
    for name in wanted[1:]:
        if name not in allowed:
            raise unknown_cost("config.objectives", name, allowed)
        if wanted.count(name) > 1:
            raise UserError(f"config.objectives names {name} more than once")


def make_goals(wanted: Sequence[str], table: CostTable, most: Sequence[int], num_classes: int) -> Goals:
    """Returns the objectives with their reference point.

    Args:
      wanted: as `check_goals` allows them.
      table: of the costs of the networks.
      most: allowed of each of the table's costs, in its units; `UNLIMITED` where there is no limit.
      num_classes: of the images.

    Raises:
      UserError: as of `check_goals`, or for a cost that is the same of every network.
    """
    check_goals(wanted, table.names)
    least, largest = extremes(table)
    limits = np.array(most, np.int64)
    largest = np.where(limits == UNLIMITED, largest, np.minimum(limits, largest))
    worst, best = (0.0, 100.0) if wanted[0] == "accuracy" else (-math.log(num_classes), 0.0)
    reference, ideal = (
        np.append(measured, _told(wanted[1:], table.names, table.scales, costs[None])[0])
        for measured, costs in ((worst, largest), (best, least))
    )
    for name in np.array(wanted)[~np.isfinite(reference) | ~np.isfinite(ideal)]:
        raise UserError(f"objective {name} has no logarithm: the least that is predicted here is below zero")
    for name in np.array(wanted)[reference == ideal]:
        raise UserError(
            f"objective {name} is the same of every network of {table.space.name}; an objective has to differ"
        )
    return Goals(tuple(wanted), table.names, table.scales, reference, ideal)


def with_costs(evaluator: Evaluator, goals: Goals, costs: Callable[[np.ndarray], np.ndarray]) -> Evaluator:
    """Returns an evaluator of trainings that tells the costs too, after what it measures first.

    Args:
      evaluator: its first objective is the goals' first.
      goals: whose costs are told.
      costs: `costs(architectures int32 [B, L]) -> int64 [B, P]`, in their units.
    """

    def evaluate(architectures: np.ndarray, evaluated: Evaluated, pause: Pause) -> np.ndarray:
        measured = evaluator.evaluate(architectures, evaluated, pause)
        told = goals.join(measured[:, 0], costs(architectures)).astype(np.float32)
        return np.concatenate([told, measured[:, 1:]], 1)

    first, *others = evaluator.objectives
    return evaluator._replace(objectives=(first, *goals.names[1:], *others), evaluate=evaluate)


def scaled(strategy: Strategy, goals: Goals) -> Strategy:
    """Returns a strategy of several objectives as it is told the scores of `with_costs`, float32 [B, M or more].

    What it expects of the first objective is in that one's own unit.
    """
    reference = goals.reference.astype(np.float32)[None]
    width = (goals.ideal - goals.reference).astype(np.float32)[None]

    def tell(state: State, architectures: ArrayLike, scores: ArrayLike) -> tuple[State, Info]:
        return strategy.tell(state, architectures, (jnp.asarray(scores)[:, : len(goals.names)] - reference) / width)

    def expect(state: State, architectures: ArrayLike) -> ArrayLike:
        assert strategy.expect is not None
        return jnp.asarray(strategy.expect(state, architectures)) * width[0, 0] + reference[0, 0]

    return strategy._replace(tell=tell, expect=expect if strategy.expect else None)


def _told(names: Sequence[str], known: Sequence[str], scales: Sequence[int], costs: np.ndarray) -> np.ndarray:
    """Returns what is told of the known costs int64 [N, P], float64 [N, M - 1]."""
    columns = []
    for name in names:
        at = list(known).index(name.removeprefix(_LOG).removeprefix("-"))
        cost = np.asarray(costs)[:, at] / scales[at]
        # What has no logarithm is NaN.
        cost = np.where(cost > 0, cost, np.nan) if name.startswith(_LOG) else cost
        columns.append(-np.log10(cost) if name.startswith(_LOG) else -cost)
    return np.stack(columns, 1)
