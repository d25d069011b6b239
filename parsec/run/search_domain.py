"""What the strategy of a search may propose: all architectures of its space, or those that cost as little as wanted.

What is known of their scores beforehand goes with it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from parsec.cells import Space
from parsec.cells.costs import Cost, cost_table, log_params_effects
from parsec.cells.domain import Domain, product_domain
from parsec.cells.limits import limit
from parsec.cells.network import Shape
from parsec.errors import UserError, unknown
from parsec.tables.objectives import parse_constraint

_NONE = -1


def whole_domain(space: Space) -> Domain:
    """Returns the domain of every architecture of a space."""
    return product_domain(tuple(map(int, space.sizes)), common=space.common)


def search_domain(
    space: Space, shape: Shape, image: tuple[int, int, int], constraints: Sequence[str], *, capacity: float = 0.0
) -> Domain:
    """Returns the domain of a search.

    Args:
      space: of the architectures.
      shape: of their networks.
      image: height, width and channels.
      constraints: as of `read_limits`.
      capacity: what scores hold of the logarithm of the parameters, in nats for each e-fold.

    Raises:
      UserError: as of `read_limits`, or where nothing meets the constraints.
    """
    domain = whole_domain(space)
    if not constraints and not capacity:
        return domain
    costs = cost_table(space, shape, image)
    if capacity:
        domain = replace(domain, known=capacity * log_params_effects(costs))
    return limit(domain, costs, read_limits(constraints)) if constraints else domain


def read_limits(constraints: Sequence[str]) -> Cost:
    """Returns the most parameters and FLOPs that `params<NUMBER` and `flops<=NUMBER` allow; -1 where they do not say.

    Raises:
      UserError: for another form, another cost (naming the nearest), or a bound from below.
    """
    most = {name: _NONE for name in Cost._fields}
    for text in constraints:
        name, relation, bound = parse_constraint(text)
        if name not in most:
            raise unknown("cost in config.constraints", name, most)
        if relation not in ("<", "<="):
            raise UserError(f"config.constraints has {text!r}; of the networks of a search write {name}<NUMBER or <=")
        allowed = max(math.ceil(bound) - 1 if relation == "<" else math.floor(bound), 0)
        most[name] = allowed if most[name] == _NONE else min(most[name], allowed)
    return Cost(**most)
