"""Search spaces, their operations, and everything about an architecture that needs no training."""

from parsec.cells.darts import DARTS
from parsec.cells.nasbench201 import NASBENCH201
from parsec.cells.space import Cell, Choice, Edge, Genotype, Space
from parsec.errors import unknown

SPACES: dict[str, Space] = {space.name: space for space in (DARTS, NASBENCH201)}


def get_space(name: str) -> Space:
    """Returns the named space; raises `UserError` with the nearest name if there is none."""
    if name not in SPACES:
        raise unknown("space", name, SPACES)
    return SPACES[name]


__all__ = ["DARTS", "NASBENCH201", "SPACES", "Cell", "Choice", "Edge", "Genotype", "Space", "get_space"]
