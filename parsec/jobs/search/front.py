"""The end of a search for several objectives: candidates spread over the front are trained again, and make the front.

The front of many short trainings holds those that were lucky. So of its members at most `derive.finalists` are trained
once more, longer and all alike (`parsec.jobs.search.finals`), and of these the ones that no other dominates are what
was found. Where the front has more members, they are chosen one after another, each the one that adds most hypervolume
to those before it, which spreads them and never falls far behind the best choice of so many (Guerreiro, Fonseca and
Paquete 2016, Evolutionary Computation 24, 521-544). A strategy that says what it expects of an architecture has a front
of its own: a model of all the scores knows who was lucky. Its members and those of the measured front take turns.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parsec.cells import Space
from parsec.cells.costs import CostTable, named_costs, table_costs
from parsec.cells.genotypes import to_text
from parsec.evaluate.contract import Evaluated
from parsec.evaluate.goals import Goals
from parsec.evaluate.supernet import OBJECTIVE
from parsec.files import replacing, writing
from parsec.jobs.search.finals import FinalScores, first_of_equals, train_again
from parsec.jobs.search.strategy import Searched
from parsec.report.pareto import front_rows, front_text, hypervolume, point_text
from parsec.report.pareto_plots import draw_searched
from parsec.run.workdir import Claim, write_text_atomic

FRONT, PLOT = "front.md", "front.png"


class Front(NamedTuple):
    """Networks none of which another one dominates, from the worst of the first objective to the best.

    Attributes:
      goals: what was wanted.
      architectures: int32 [F, L].
      told: the objectives, float64 [F, M], higher is better.
      accuracy: on validation images in percent, float64 [F].
      costs: each one's costs by name; F of them.
      evaluated: the objectives of everything that the search evaluated, float64 [N, M]; NaN where that failed.
    """

    goals: Goals
    architectures: np.ndarray
    told: np.ndarray
    accuracy: np.ndarray
    costs: tuple[Mapping[str, int | float], ...]
    evaluated: np.ndarray

    @property
    def hypervolume(self) -> float:
        """The share of the box between the reference point and the ideal one that the front dominates."""
        return hypervolume(self.goals.scaled(self.told))


def find_front(goals: Goals, table: CostTable, evaluated: Evaluated, names: Sequence[str]) -> Front:
    """Returns the front of evaluated networks, whose scores [N, C] have these names; the first is the goals' first."""
    measured, costs = evaluated.scores[:, 0], table_costs(table, evaluated.architectures)
    told = goals.join(measured, costs)
    finite = np.flatnonzero(np.isfinite(measured))
    rows = finite[front_rows(told[finite])]
    accuracy = np.asarray(evaluated.scores, np.float64)[rows, list(names).index(OBJECTIVE)]
    found = evaluated.architectures[rows]
    named = tuple(named_costs(table, architecture) for architecture in found)
    return Front(goals, found, told[rows], accuracy, named, told)


def settle_front(
    run: Claim,
    front: Front,
    table: CostTable,
    searched: Searched,
    count: int,
    scores: FinalScores,
    names: Sequence[str],
) -> Front:
    """Returns the front of at most `count` of what was searched, trained again; 0 leaves the search's as it is.

    Args:
      run: the claimed run directory.
      front: of everything evaluated.
      table: of the networks' costs.
      searched: what the search evaluated and learnt.
      count: candidates.
      scores: of the last comparison.
      names: of these, as of `find_front`.

    Raises:
      UserError: the file of earlier scores is damaged.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; what was trained is kept.
    """
    if not count:
        return front
    candidates = searched.evaluated.architectures[_candidates(front, searched, count)]
    # Those of about equal length side by side.
    candidates = candidates[np.argsort(table_costs(table, candidates)[:, 1], kind="stable")]
    known = train_again(run, candidates, scores)
    if not np.isfinite(known[:, 0]).any():
        return front
    settled = find_front(front.goals, table, Evaluated(candidates, known), names)
    return settled._replace(evaluated=front.evaluated)


def spread(gains: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Returns at most `count` architectures, int [n], which are on the front of one of several views of all of them.

    Views take turns. Each adds the member of its front that by its own figures adds most hypervolume to those chosen
    before, the first of equals.

    Args:
      gains: for each view, float64 [N, M], 0 at the reference point.
      count: the most architectures.
    """
    fronts = [front_rows(view).tolist() for view in gains]
    chosen: list[int] = []
    while len(chosen) < count and any(fronts):
        for view, front in zip(gains, fronts, strict=True):
            if front and len(chosen) < count:
                volumes = [hypervolume(view[[*chosen, row]]) for row in front]
                chosen.append(front[int(np.argmax(volumes))])
                for other in fronts:
                    if chosen[-1] in other:
                        other.remove(chosen[-1])
    return np.sort(np.array(chosen, np.intp))


def _candidates(front: Front, searched: Searched, count: int) -> np.ndarray:
    """Returns which of everything evaluated are trained again, int [n]."""
    finite = np.flatnonzero(np.isfinite(front.evaluated).all(1))
    # What was measured alike to the last bit is one network with different parts that nothing reads.
    finite = finite[first_of_equals(searched.evaluated.scores[finite])]
    measured = front.evaluated[finite]
    views = [measured]
    if searched.expected is not None:
        views = [np.column_stack([searched.expected[finite], measured[:, 1:]]), measured]
    return finite[spread([front.goals.scaled(view) for view in views], count)]


def describe_front(front: Front, space: Space) -> dict[str, Any]:
    """Returns a front as result.json holds it: its members' genotypes and figures, and the hypervolume."""
    goals = front.goals
    members = [
        {
            "architecture": architecture.tolist(),
            "genotype": to_text(space, architecture),
            "accuracy": float(accuracy),
            "objectives": told.tolist(),
            **costs,
        }
        for architecture, told, accuracy, costs in zip(
            front.architectures, front.told, front.accuracy, front.costs, strict=True
        )
    ]
    return {
        "objectives": list(goals.names),
        "reference": goals.reference.tolist(),
        "ideal": goals.ideal.tolist(),
        "hypervolume": front.hypervolume,
        "searched_hypervolume": hypervolume(goals.scaled(front.evaluated[np.isfinite(front.evaluated).all(1)])),
        "members": members,
    }


def write_front(front: Front, space: Space, retrained: Mapping[str, Any] | None, workdir: Path) -> None:
    """Writes front.md, and with two objectives front.png; raises `UserError` where that cannot be done.

    Args:
      front: of the search.
      space: of its architectures.
      retrained: what trainings from scratch say of it, of `parsec.jobs.search.verify.verify_front`; or None.
      workdir: the run directory.
    """
    described = describe_front(front, space)
    reference, ideal = (point_text(described[name]) for name in ("reference", "ideal"))
    words = (
        f"Hypervolume {described['hypervolume']:.4f} of the box between the reference point {reference} and the ideal "
        f"one {ideal} of {', '.join(front.goals.names)}."
    )
    rows = []
    for at, member in enumerate(described["members"]):
        values = {"validation accuracy": _number(member["accuracy"]), **front.costs[at]}
        if retrained is not None:
            proof = retrained["members"][at]
            values |= {"test accuracy": _number(proof["test"]), "deviation": _number(proof["deviation"])}
            values |= {"random cells of about its parameters": _number(proof["random"])}
            values |= {"share beaten": _number(proof["beaten"])}
        rows.append({"genotype": member["genotype"], "values": values, "met_by": {}})
    lines = [words, *([f"{retrained['sentence']}."] if retrained is not None else []), front_text(rows)]
    write_text_atomic(workdir / FRONT, "\n\n".join(lines) + "\n")
    if len(front.goals.names) == 2:
        with writing(workdir), replacing(workdir / PLOT) as hidden:
            sign = front.goals.signs[None]
            draw_searched(hidden, sign * front.evaluated, sign * front.told, front.goals.names, space.name)


def _number(value: float | None) -> float:
    return math.nan if value is None else round(value, 2)
