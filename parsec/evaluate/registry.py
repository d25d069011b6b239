"""Every evaluator by name, each made from a config and a run directory alone.

A factory is an ordinary function of picklable arguments, so that a worker elsewhere can make an evaluator of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Only for annotations: listing the evaluators must not wait for JAX.
if TYPE_CHECKING:
    from parsec.evaluate.contract import Evaluator


@dataclass(frozen=True)
class Entry:
    """How an evaluator is made and what it costs.

    Attributes:
      make: "module:function" of its factory, `function(config, workdir) -> Evaluator`.
      summary: one line for lists.
      shared: whether it needs shared weights that the run directory holds.
      afresh: "module:function" of the factory by which the found architecture is compared with others at the end, where
        scores that were told on the way do not compare; each such score costs a training.
    """

    make: str
    summary: str
    shared: bool = False
    afresh: str = ""

    def factory(self, config: Any, workdir: Path, *, afresh: bool = False) -> Callable[[], Evaluator]:
        """Returns what makes the evaluator of a search, given its `SearchConfig`; picklable."""
        module, _, function = (self.afresh if afresh and self.afresh else self.make).partition(":")
        return partial(getattr(importlib.import_module(module), function), config, workdir)


_FACTORIES = "parsec.jobs.search.factories"
EVALUATORS: dict[str, Entry] = {
    "supernet": Entry(f"{_FACTORIES}:from_shared_weights", "children under shared weights", shared=True),
    "train": Entry(
        f"{_FACTORIES}:from_training", "every child trained from scratch", afresh=f"{_FACTORIES}:from_fresh_training"
    ),
    "table": Entry(f"{_FACTORIES}:from_table", "published scores, of config.table"),
}
