"""What a worker does in its own process: it makes the evaluator of a search once, and scores architectures by it."""

import os
from collections.abc import Callable

import jax
import numpy as np

from parsec.evaluate.contract import Evaluator, no_pause, nothing_evaluated
from parsec.processes import end_with_parent

Make = Callable[[], Evaluator]

# The evaluator of this process, made once by `begin`.
_evaluator: Evaluator | None = None


def begin(make: Make, threads: int, cores: tuple[int, ...] = ()) -> tuple[str, ...]:
    """Makes the evaluator of this process, on one device, and returns the names of its objectives.

    Args:
      make: returns the evaluator; picklable.
      threads: that XLA computes with on a CPU. It parts a sum among them, and so rounds it by their number: with as
        many as another process has, scores are that process's to the bit.
      cores: of this machine that they run on; empty for all.
    """
    global _evaluator
    end_with_parent()
    if cores:
        os.sched_setaffinity(0, cores)
    # All of this is read when JAX first looks for its devices.
    os.environ["NPROC"] = str(threads)
    flags = os.environ.get("XLA_FLAGS", "").split()
    os.environ["XLA_FLAGS"] = " ".join(flag for flag in flags if "host_platform_device_count" not in flag)
    # Of a GPU's memory, what is used: others may compute on it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax.config.update("jax_num_cpu_devices", 1)
    _evaluator = make()
    return _evaluator.objectives


def evaluate(architectures: np.ndarray) -> np.ndarray:
    """Returns the scores of architectures int32 [B, L], float32 [B, M]."""
    assert _evaluator is not None
    return _evaluator.evaluate(architectures, nothing_evaluated(_evaluator), no_pause)
