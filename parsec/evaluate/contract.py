"""The contract every evaluator keeps: an architecture in, M objectives out, all to be maximised.

An objective is named; `-name` is the negative of what `name` measures, so that whatever is told to a strategy is
better when it is higher. Strategies that read one objective read the first.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from parsec.cells.domain import ArrayLike

# Called between stretches of a long evaluation; may raise to give it up.
Pause = Callable[[], None]


class Evaluated(NamedTuple):
    """Architectures in the order in which their evaluations were begun.

    Attributes:
      architectures: int32 [N, L].
      scores: float64 [N, M]; NaN where an evaluation failed or is not finished.
    """

    architectures: np.ndarray
    scores: np.ndarray


class Evaluator(NamedTuple):
    """How architectures are scored.

    Attributes:
      objectives: M names, the first of which single-objective strategies read.
      evaluate: `evaluate(architectures int32 [B, L], what was evaluated before, pause) -> float32 [B, M]`; NaN where
        it failed.
      rows: `rows(architectures int32 [B, L]) -> int32 [B]` on the host, where the evaluator knows which architectures
        are the same: a number for each that it can evaluate, -1 for the others. None where every valid architecture
        is its own.
      traced: `traced(architectures int32 [B, L]) -> (rows int32 [B], scores float32 [B, M])` inside a compiled
        program, for evaluators that only look up; else None.
      size: how many different architectures it can evaluate, where that is known.
      together: the most architectures that it is given at once, because they take no longer than one.
      cost: `cost(architectures int32 [B, L]) -> float64 [B]`: about how long each takes, in any unit, so that those
        given at once are alike. None where nothing is known of that.
    """

    objectives: tuple[str, ...]
    evaluate: Callable[[np.ndarray, Evaluated, Pause], np.ndarray]
    rows: Callable[[np.ndarray], np.ndarray] | None = None
    traced: Callable[[ArrayLike], tuple[jax.Array, jax.Array]] | None = None
    size: int | None = None
    together: int = 1
    cost: Callable[[np.ndarray], np.ndarray] | None = None


def nothing_evaluated(evaluator: Evaluator) -> Evaluated:
    """Returns what an evaluator is told was evaluated before, where that is nothing or it must not read it."""
    return Evaluated(np.zeros((0, 0), np.int32), np.zeros((0, len(evaluator.objectives))))


def no_pause() -> None:
    """A `Pause` that never gives up."""
