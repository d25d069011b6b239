"""Every joint search by name."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

# Only for annotations: listing the searches must not wait for JAX.
if TYPE_CHECKING:
    from parsec.joint.contract import Joint, Parts
    from parsec.joint.settings import JointSettings


@dataclass(frozen=True)
class Entry:
    """Where a joint search lives.

    Attributes:
      module: the module whose `make(parts, settings)` returns it; imported when it is first needed.
      summary: one line for lists.
      show: names of the diagnostics that a progress bar shows.
    """

    module: str
    summary: str
    show: tuple[str, ...]

    def make(self, parts: Parts, settings: JointSettings) -> Joint:
        """Returns the search over these parts."""
        return importlib.import_module(self.module).make(parts, settings)


JOINTS: dict[str, Entry] = {
    "parsec": Entry(
        "parsec.joint.parsec", "empirical Bayes on a factorised prior", ("loss", "accuracy", "entropy", "ess")
    ),
}
# Weights alone, from uniform children: what strategies that are told scores search on.
SHARED = Entry("parsec.joint.shared", "shared weights from uniform children", ("loss", "accuracy"))
