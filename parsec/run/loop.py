"""The loop of a job that takes many steps: resume, step, measure, save at intervals and when asked to stop.

A step must be a function of the state and the step's number alone (data and random keys follow from them). Then a run
that was killed and resumed gives the same state and the same metrics.jsonl as one that was not, wherever it was killed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from parsec.errors import UserError
from parsec.run.checkpoint import Checkpoints
from parsec.run.metrics import MetricsFile, Sinks, TensorBoard, truncate_after
from parsec.run.progress import Progress
from parsec.run.signals import StoppedError, graceful_stop
from parsec.run.workdir import CHECKPOINTS, TIMING, Claim, read_json, write_json_atomic

State = TypeVar("State")
Metrics = Mapping[str, Any]


def run_steps(
    run: Claim,
    state: State,
    step: Callable[[State, int], tuple[State, Metrics]],
    total: int,
    *,
    label: str = "",
    show: Sequence[str] = (),
    metrics_every: int = 1,
    save_minutes: float = 5.0,
    tensorboard: bool = True,
    fatal: Callable[[Metrics], str | None] = lambda metrics: None,
) -> State:
    """Returns the state after `total` steps, going on from the run directory's last checkpoint.

    Args:
      run: the claimed run directory; checkpoints, metrics.jsonl, TensorBoard events and timing.json go there.
      state: the state before step 0, a pytree that `Checkpoints` can save; also the template of what is restored.
      step: `step(state, i) -> (state, metrics)` for i = 0 .. total - 1; it may donate the state. Metrics are scalars or
        short arrays; they are read one step late, so that a device is never left waiting for the host.
      total: number of steps.
      label: what the steps are, for the progress bar.
      show: names of the metrics that the progress bar shows; all scalars of the line when empty.
      metrics_every: steps between lines of metrics.jsonl; the last step always has one.
      save_minutes: time between checkpoints; one is also made at the end, and when the run is stopped.
      tensorboard: whether to write TensorBoard events too.
      fatal: returns why the run cannot go on, judging by a step's metrics, or None; it stops after saving.

    Raises:
      UserError: where nothing can be written or restored, or `fatal` gave a reason.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; the state is saved.
    """
    with Checkpoints(run.path / CHECKPOINTS) as checkpoints, graceful_stop() as stop:
        restored = checkpoints.restore_latest(state)
        start = 0 if restored is None else restored.step
        truncate_after(run.path, start)
        if start >= total:
            return state if restored is None else restored.tree
        sinks = Sinks(MetricsFile(run.path), *([TensorBoard(run.path, from_step=start)] if tensorboard else []))
        clock = _Clock(run, start)
        with sinks, Progress(total, start=start, label=label) as progress:
            if restored is not None:
                state = restored.tree
                for line in (*restored.notes, f"resuming after step {start} of {total}"):
                    progress.note(line)
            pending: tuple[int, Metrics] | None = None
            saved = time.monotonic()

            def measure(done: int, metrics: Metrics) -> str | None:
                if done % metrics_every == 0 or done == total:
                    sinks.write(done, metrics)
                progress.update(done, {name: metrics[name] for name in show or metrics})
                return fatal(metrics)

            for index in range(start, total):
                state, metrics = step(state, index)
                reason = measure(*pending) if pending is not None else None
                pending = (index + 1, metrics)
                last = index + 1 == total
                if last or stop or reason is not None or time.monotonic() - saved > save_minutes * 60:
                    # The line of a step is on the disk before the checkpoint that makes resuming skip that step.
                    reason = measure(*pending) or reason
                    pending = None
                    checkpoints.save(index + 1, state)
                    clock.write(index + 1)
                    saved = time.monotonic()
                    if reason is not None:
                        raise UserError(f"stopped after step {index + 1}, saved: {reason}")
                    if stop.signal is not None:
                        raise StoppedError(stop.signal, index + 1)
                clock.tick()
        return state


class _Clock:
    """Time spent on the steps of a run, over all the processes that worked on it."""

    def __init__(self, run: Claim, start: int) -> None:
        self._path = run.path / TIMING
        self._start, self._began, self._first = start, time.monotonic(), None
        before = read_json(self._path) if start and self._path.exists() else {}
        self._before, self._compile = before.get("seconds", 0.0), before.get("first_step_seconds")

    def tick(self) -> None:
        """Notes the end of a step; the first one's carries the compilation."""
        if self._first is None:
            self._first = time.monotonic() - self._began

    def write(self, step: int) -> None:
        """Writes timing.json: seconds over all processes, and this process's first step and speed after it."""
        spent = time.monotonic() - self._began
        first = spent if self._first is None else self._first
        later, steps = spent - first, step - self._start - 1
        write_json_atomic(
            self._path,
            {
                "steps": step,
                "seconds": round(self._before + spent, 3),
                "first_step_seconds": round(first if self._compile is None else self._compile, 3),
                "steps_per_second": round(steps / later, 3) if steps > 0 and later > 0 else None,
            },
        )
