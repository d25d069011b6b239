"""What the strategy of a search may propose: all architectures of its space, or those that cost as little as wanted.

What is known of their scores beforehand goes with it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from parsec.cells import Space, get_space
from parsec.cells.costs import CostTable, cost_table, log_params_effects, unknown_cost
from parsec.cells.domain import Domain, product_domain
from parsec.cells.limits import UNLIMITED, limit
from parsec.cells.network import Shape
from parsec.errors import UserError
from parsec.jobs.latency_model import read_model, with_latencies
from parsec.tables.objectives import parse_constraint


@lru_cache(maxsize=1)
def known_costs(space: str, shape: Shape, image: tuple[int, int, int], latency: str) -> CostTable:
    """Returns what networks cost as is known before any is trained.

    Args:
      space: the name of their space.
      shape: of the networks.
      image: height, width and channels.
      latency: run directory of a model of their latency, or empty for none.

    Raises:
      UserError: as of `read_model`.
    """
    cells = get_space(space)
    table = cost_table(cells, shape, image)
    return with_latencies(table, read_model(latency, cells)) if latency else table


def whole_domain(space: Space) -> Domain:
    """Returns the domain of every architecture of a space."""
    return product_domain(tuple(map(int, space.sizes)), common=space.common)


def search_domain(
    space: Space, costs: Callable[[], CostTable], constraints: Sequence[str], *, capacity: float = 0.0
) -> Domain:
    """Returns the domain of a search.

    Args:
      space: of the architectures.
      costs: returns the costs of their networks; called where they matter.
      constraints: as of `read_limits`.
      capacity: what scores hold of the logarithm of the parameters, in nats for each e-fold.

    Raises:
      UserError: as of `read_limits`, or where nothing meets the constraints.
    """
    domain = whole_domain(space)
    if not constraints and not capacity:
        return domain
    table = costs()
    if capacity:
        domain = replace(domain, known=capacity * log_params_effects(table))
    return limit(domain, table, read_limits(constraints, table)) if constraints else domain


def read_limits(constraints: Sequence[str], table: CostTable) -> tuple[int, ...]:
    """Returns the most that `params<NUMBER`, `flops<=NUMBER` and the like allow of each cost of a table, in its units.

    It is `UNLIMITED` of a cost that they do not name.

    Raises:
      UserError: for another form, another cost (naming the nearest), or a bound from below.
    """
    most = dict.fromkeys(table.names, UNLIMITED)
    for text in constraints:
        name, relation, bound = parse_constraint(text)
        if name not in most:
            raise unknown_cost("config.constraints", name, tuple(most))
        if relation not in ("<", "<="):
            raise UserError(f"config.constraints has {text!r}; of the networks of a search write {name}<NUMBER or <=")
        bound *= table.scales[table.names.index(name)]
        allowed = max(math.ceil(bound) - 1 if relation == "<" else math.floor(bound), 0)
        most[name] = allowed if most[name] == UNLIMITED else min(most[name], allowed)
    return tuple(most.values())
