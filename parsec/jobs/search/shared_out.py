"""Where the evaluations of a search run: in this process, or shared out among workers."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager

import jax
import numpy as np

from parsec.errors import UserError
from parsec.evaluate.contract import Evaluator, Pause, no_pause, nothing_evaluated
from parsec.jobs.search.factories import training_cost
from parsec.run.cluster import cluster_workers
from parsec.run.worker import Make
from parsec.run.workers import Workers, local_workers, open_workers
from parsec.settings.search import SearchConfig

# An evaluator, and the workers to whom it belongs, if any; and what opens it for as long as it is needed.
OpenedEvaluator = tuple[Evaluator, Workers | None]
Opened = Callable[[], AbstractContextManager[OpenedEvaluator]]

# Time between two looks at whether to stop, while workers are waited for.
_PATIENCE_SECONDS = 0.5


@contextmanager
def open_evaluator(config: SearchConfig, make: Make) -> Iterator[OpenedEvaluator]:
    """Yields an evaluator of a search, and the workers that it belongs to, if any.

    Args:
      config: the search.
      make: returns the evaluator, of trainings where there are workers; picklable.

    Raises:
      UserError: workers cannot be had, or one cannot make the evaluator.
    """
    count = config.workers
    with ExitStack() as stack:
        if config.cluster:
            hire = stack.enter_context(cluster_workers(config.cluster, make, count))
        elif count == 1:
            yield make(), None
            return
        elif jax.default_backend() != "cpu":
            raise UserError(
                f"config.workers={count} are processes that train on a CPU; on {jax.default_backend()} one process "
                "trains a cell on each device already, and config.cluster=local gives each worker a device of its own"
            )
        else:
            hire = local_workers(make, count)
        workers = stack.enter_context(open_workers(hire, count))
        yield workers.evaluator._replace(cost=training_cost(config)), workers


def evaluate_afresh(
    evaluator: Evaluator,
    workers: Workers | None,
    architectures: np.ndarray,
    pause: Pause = no_pause,
    note: Callable[[str], None] = print,
) -> np.ndarray:
    """Returns the scores of at most `evaluator.together` architectures int32 [B, L], float32 [B, M].

    Args:
      evaluator: scores; it must not read what was evaluated before, which it is not told.
      workers: to whom it belongs; None evaluates here.
      architectures: to be scored.
      pause: called meanwhile; may raise.
      note: shows a line of what happened to workers.
    """
    before = nothing_evaluated(evaluator)
    if workers is None:
        return evaluator.evaluate(architectures, before, pause)
    rows = [workers.pool.submit(evaluator.evaluate, row[None], before, no_pause) for row in architectures]
    waiting = set(rows)
    while waiting:
        pause()
        waiting = wait(waiting, timeout=_PATIENCE_SECONDS, return_when=FIRST_EXCEPTION).not_done
        workers.tell(note)
    return np.concatenate([row.result() for row in rows])
