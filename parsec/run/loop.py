"""The loop of a job that takes many steps: resume, step, measure, save at intervals and when asked to stop.

A step must be a function of the state and the step's number alone (data and random keys follow from them). Then a run
that was killed and resumed gives the same state and the same metrics.jsonl as one that was not, wherever it was killed.
Several processes that take the steps together (`parsec.run.multihost`) save and stop after the same one.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from parsec.errors import UserError
from parsec.run.agreement import Agreement
from parsec.run.checkpoint import Checkpoints, Restored
from parsec.run.metrics import MetricsFile, Sinks, TensorBoard, count_lines, has_tensorboard, truncate_after
from parsec.run.progress import Progress
from parsec.run.signals import StoppedError, graceful_stop
from parsec.run.workdir import CHECKPOINTS, METRICS, TIMING, Claim, read_json, write_json_atomic

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
    before_save: Callable[[], None] = lambda: None,
    waited: Callable[[], float] | None = None,
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
      tensorboard: whether to write TensorBoard events too, where tensorboardX is installed.
      fatal: returns why the run cannot go on, judging by a step's metrics, or None; the step is then not saved, so that
        the same command comes to the same end.
      before_save: called when all processes have taken the steps that are to be saved; may raise `UserError`.
      waited: returns the seconds that this process's steps have waited for their batches; timing.json then tells them.

    Raises:
      UserError: where nothing can be written or restored, or `fatal` gave a reason.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; the state is saved.
    """
    # The first step carries the compilation, and stopping before its end loses nothing.
    with Checkpoints(run.path / CHECKPOINTS) as checkpoints, graceful_stop(at_stake=False) as stop:
        restored = checkpoints.restore_latest(state)
        start = 0 if restored is None else restored.step
        if start >= total:
            return state if restored is None else restored.tree
        events = [TensorBoard(run.path, from_step=start)] if tensorboard and has_tensorboard() else []
        sinks = Sinks(MetricsFile(run.path), *events)
        lines = count_lines(run.path, start)
        clock = _Clock(run, start, waited)
        with sinks, Progress(total, start=start, label=label) as progress:
            if restored is not None:
                state = restored.tree
                for line in (*restored.notes, *_lost(restored, lines), f"resuming after step {start} of {total}"):
                    progress.note(line)
            pending: tuple[int, Metrics] | None = None
            agreement, saved = Agreement(), time.monotonic()

            def measure(done: int, metrics: Metrics) -> str | None:
                nonlocal lines
                if done == start + 1:
                    # Not before: a start that fails leaves the file as it was.
                    truncate_after(run.path, start)
                if done % metrics_every == 0 or done == total:
                    sinks.write(done, metrics)
                    lines += 1
                progress.update(done, {name: metrics[name] for name in show or metrics})
                return fatal(metrics)

            for index in range(start, total):
                state, metrics = step(state, index)
                stop.at_stake = True
                reason = measure(*pending) if pending is not None else None
                late = time.monotonic() - saved > save_minutes * 60
                due = agreement.due(index + 1, late, stop.signal, pending)
                pending = (index + 1, metrics)
                last = index + 1 == total
                if last or due or reason is not None:
                    # The line of a step is on the disk before the checkpoint that makes resuming skip that step.
                    reason = measure(*pending) or reason
                    pending = None
                    if reason is not None:
                        # Not saved: a checkpoint of this step would be a run that came to its end.
                        raise UserError(f"stopped after step {index + 1}: {reason}")
                    before_save()
                    checkpoints.save(index + 1, state, {"lines": lines})
                    clock.write(index + 1)
                    saved = time.monotonic()
                    signal = (agreement.last_signal if last else agreement.signal)(stop.signal)
                    if signal is not None:
                        raise StoppedError(signal, index + 1)
                clock.tick()
        return state


@contextmanager
def timed(run: Claim, name: str) -> Iterator[None]:
    """Adds the seconds spent inside to timing.json, over all the processes that worked on the run."""
    began = time.monotonic()
    try:
        yield
    finally:
        path = run.path / TIMING
        timing = read_json(path) if path.exists() else {}
        spent = timing.get(name, 0.0) + time.monotonic() - began
        write_json_atomic(path, timing | {name: round(spent, 3)})


def _lost(restored: Restored, found: int) -> tuple[str, ...]:
    """Returns a note where metrics.jsonl lacks lines that it had when the checkpoint was made."""
    written = restored.host.get("lines", 0) if isinstance(restored.host, dict) else 0
    if found >= written:
        return ()
    return (f"{METRICS} lacks {written - found} of its {written} lines up to here: it was damaged, cut or removed",)


class _Clock:
    """Time spent on the steps of a run, over all the processes that worked on it."""

    def __init__(self, run: Claim, start: int, waited: Callable[[], float] | None) -> None:
        self._path, self._waited = run.path / TIMING, waited
        self._start, self._began, self._first = start, time.monotonic(), None
        before = read_json(self._path) if start and self._path.exists() else {}
        before = before if isinstance(before, dict) else {}
        self._before, self._compile, self._waited_before = (
            value if isinstance(value, int | float) else None
            for value in (before.get("seconds"), before.get("first_step_seconds"), before.get("waited_seconds"))
        )

    def tick(self) -> None:
        """Notes the end of a step; the first one's carries the compilation."""
        if self._first is None:
            self._first = time.monotonic() - self._began

    def write(self, step: int) -> None:
        """Writes timing.json: seconds over all processes, the first one's first step, and this one's speed."""
        spent = time.monotonic() - self._began
        first = spent if self._first is None else self._first
        later, steps = spent - first, step - self._start - 1
        seconds = (self._before or 0.0) + spent
        timing = {
            "steps": step,
            "seconds": round(seconds, 3),
            "first_step_seconds": round(first if self._compile is None else self._compile, 3),
            "steps_per_second": round(steps / later, 3) if steps > 0 and later > 0 else None,
        }
        if self._waited is not None:
            waited = (self._waited_before or 0.0) + self._waited()
            timing |= {"waited_seconds": round(waited, 3), "waited_share": round(waited / seconds, 4)}
        write_json_atomic(self._path, timing)
