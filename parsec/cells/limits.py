"""The part of a space whose networks cost no more than is allowed, as a domain that strategies can search.

Costs of a network are sums over the slots of its cells (`parsec.cells.costs`), so that a bound on them is known before
anything is trained: what is proposed, sampled and mutated stays within it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import moocore
import numpy as np

from parsec.cells.costs import CostTable
from parsec.cells.domain import ArrayLike, Domain, mutation_within
from parsec.cells.space import Space
from parsec.errors import UserError

# Of a cost without a limit.
UNLIMITED = -1
# Uniform architectures that are looked at for some within the limits.
_LOOKED_AT = 10_000
# Architectures drawn at a time on the host, until one is within the limits.
_DRAWS = 64


def limit(domain: Domain, table: CostTable, most: Sequence[int]) -> Domain:
    """Returns the part of a domain whose networks cost at most `most`.

    `sample` and `mutate` draw until they meet one, so that they stay uniform. `legal` holds where some completion is
    within all limits; exactly so where no two slots share a choice, as in every space of this package.

    Args:
      domain: of every vector of options of the table's space.
      table: of the costs of its networks.
      most: allowed of each of the table's costs, in its units; `UNLIMITED` where there is no limit.

    Raises:
      UserError: if fewer than one in 10,000 architectures are within the limits, naming the least costs there are, or
        networks are too large to be counted.
    """
    space, wanted = table.space, np.array(most, np.int64)
    least, largest = extremes(table)
    counted = np.flatnonzero(wanted != UNLIMITED)
    for at in counted:
        if largest[at] >= np.iinfo(np.int32).max:
            raise UserError(
                f"a limit on {table.names[at]} needs networks of fewer than "
                f"{_shown(table, at, np.iinfo(np.int32).max)}; those of {space.name} have up to "
                f"{_shown(table, at, largest[at])} here"
            )
    bound = jnp.asarray(np.minimum(wanted, largest)[counted].astype(np.int32))
    skeleton = jnp.asarray(np.array(table.skeleton)[counted].astype(np.int32))
    slots = [
        (slot, jnp.asarray(costs[..., counted].astype(np.int32)))
        for kind, layout in space.cells.items()
        for slot, costs in zip(layout.slots, table.slots[kind], strict=True)
    ]

    def valid(architectures: ArrayLike) -> jax.Array:
        rows = jnp.asarray(architectures, jnp.int32)
        total = jnp.tile(skeleton[None], (len(rows), 1))
        for slot, costs in slots:
            source = jnp.full(len(rows), slot.source, jnp.int32)
            source = source if slot.source_choice < 0 else rows[:, slot.source_choice]
            total += costs[source, rows[:, slot.operation]]
        return jnp.asarray(domain.valid(rows)) & (total <= bound[None]).all(1)

    looked_at = np.asarray(domain.sample(jax.random.key(0), _LOOKED_AT))
    within = looked_at[np.asarray(valid(looked_at))]
    if not len(within):
        asked = ", ".join(f"{table.names[at]} of at most {_shown(table, at, wanted[at])}" for at in counted)
        there = ", ".join(f"{table.names[at]} {_shown(table, at, least[at])}" for at in counted)
        raise UserError(
            f"fewer than one in {_LOOKED_AT:,} architectures of {space.name} have {asked} here; the smallest: {there}"
        )
    spare = jnp.asarray(within[0])

    def sample(key: jax.Array, n: int) -> jax.Array:
        def draw(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            turn, kept, found = carry
            drawn = jnp.asarray(domain.sample(jax.random.fold_in(key, turn), n))
            return turn + 1, jnp.where(found[:, None], kept, drawn), found | valid(drawn)

        start = (jnp.zeros((), jnp.int32), jnp.tile(spare[None], (n, 1)), jnp.zeros(n, bool))
        # A hundred times as many draws as are needed in the mean where one in 10,000 is within the limits.
        most_turns = 100 * _LOOKED_AT
        _, kept, found = jax.lax.while_loop(lambda carry: ~carry[2].all() & (carry[0] < most_turns), draw, start)
        return jnp.where(found[:, None], kept, spare[None])

    def neighbours(architecture: np.ndarray) -> np.ndarray:
        rows = domain.neighbours(architecture)
        return rows[np.asarray(valid(rows))] if len(rows) else rows

    def legal(prefix: tuple[int, ...]) -> np.ndarray:
        allowed = np.array(domain.legal(prefix))
        for option in np.flatnonzero(allowed):
            cheapest = _cheapest(table, (*prefix, int(option)), counted)
            allowed[option] = (cheapest <= np.asarray(bound)[None]).all(1).any()
        return allowed

    pool = domain.pool
    return replace(
        domain,
        sample=sample,
        mutate=mutation_within(domain.sizes, valid, sample),
        neighbours=neighbours,
        valid=valid,
        legal=legal,
        pool=None if pool is None else pool[np.asarray(valid(pool))],
    )


def draw_within(rng: np.random.Generator, domain: Domain) -> np.ndarray:
    """Returns a uniform architecture of a domain of ragged choices, int32 [L], drawn until it is valid."""
    sizes = np.array(domain.sizes)
    while True:
        drawn = rng.integers(0, sizes, (_DRAWS, len(sizes)), dtype=np.int32)
        valid = np.asarray(domain.valid(drawn))
        if valid.any():
            return drawn[valid.argmax()]


def extremes(table: CostTable) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least and the largest costs of an architecture, each by itself, int64 [P]."""
    least, largest = np.array(table.skeleton, np.int64), np.array(table.skeleton, np.int64)
    for reachable in _slots(table, ()):
        least, largest = least + reachable.min(0), largest + reachable.max(0)
    return least, largest


def _cheapest(table: CostTable, prefix: tuple[int, ...], counted: np.ndarray) -> np.ndarray:
    """Returns the costs at `counted` of those that begin so and that no other one undercuts in all, int64 [n, C]."""
    sums = np.array(table.skeleton, np.int64)[None, counted]
    for reachable in _slots(table, prefix):
        sums = np.unique((sums[:, None] + reachable[None, :, counted]).reshape(-1, len(counted)), axis=0)
        sums = sums[moocore.is_nondominated(sums)] if len(counted) > 1 else sums[:1]
    return sums


def _slots(table: CostTable, prefix: tuple[int, ...]) -> list[np.ndarray]:
    """Returns for each slot the costs of what it may still hold where the first choices are made, int64 [n, P]."""
    space: Space = table.space

    def left(choice: int) -> Any:
        return [prefix[choice]] if choice < len(prefix) else range(int(space.sizes[choice]))

    reachable = []
    for kind, layout in space.cells.items():
        for slot, costs in zip(layout.slots, table.slots[kind], strict=True):
            sources = [slot.source] if slot.source_choice < 0 else list(left(slot.source_choice))
            reachable.append(costs[np.ix_(sources, list(left(slot.operation)))].reshape(-1, costs.shape[-1]))
    return reachable


def _shown(table: CostTable, at: int | np.intp, value: int) -> str:
    """Returns a number of a cost's units in what its name says."""
    return f"{value / table.scales[at]:,.12g}"
