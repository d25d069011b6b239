"""Which architectures are the same network under another name.

NAS-Bench-201 (Dong and Yang, arXiv 2001.00326, section 3) calls two of its cells the same when their graphs agree after
skip connections are contracted and zero operations spread to what reads nothing else: 6,466 of its 15,625 cells are
distinct in that sense. Its rule, kept here, leaves a zero as a term of a sum that has others, and brackets sums within
sums. Neither changes a sum, so fewer functions are distinct (at most 4,930): some are in its table more than once.
"""

import numpy as np

from parsec.cells.space import Cell, Space

_ZERO = "#"


def cell_expression(cell: Cell) -> str:
    """Returns what a cell of stride 1 computes, as text; two cells are the same where their texts are equal.

    Only where cells keep the resolution is a skip connection the identity everywhere.

    Args:
      cell: decoded, with "none" and "skip_connect" as its zero and identity; each node's terms are put in order.
    """
    nodes = [str(at) for at in range(cell.num_inputs)]
    for target in range(cell.num_inputs, cell.num_inputs + cell.num_nodes):
        terms = [_term(nodes[edge.source], edge.operation) for edge in cell.edges if edge.target == target]
        nodes.append("+".join(sorted(terms)))
    return "|".join(nodes[at] for at in cell.concat) if cell.concat else nodes[-1]


def representatives(space: Space, architectures: np.ndarray) -> np.ndarray:
    """Returns the row of the first architecture that is the same network as each; its own without a canonical form.

    Args:
      space: of the architectures.
      architectures: int32 [N, L].

    Returns:
      int32 [N], each at most its own row.
    """
    if space.canonical is None:
        return np.arange(len(architectures), dtype=np.int32)
    first: dict[tuple[str, ...], int] = {}
    rows = []
    for row, architecture in enumerate(architectures):
        genotype = space.decode(architecture)
        rows.append(first.setdefault(tuple(map(space.canonical, genotype.values())), row))
    return np.array(rows, np.int32)


def _term(source: str, operation: str) -> str:
    if operation == "none" or source == _ZERO:
        return _ZERO
    return source if operation == "skip_connect" else f"({source})@{operation}"
