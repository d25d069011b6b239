"""The contract every strategy keeps: propose architectures, learn from their scores.

A strategy is three pure functions, in the manner of optax and blackjax. A factory `make(domain, settings)` closes over
its options and returns them as a `Strategy`. The state is a pytree of arrays (strategies that grow a tree on
the host use numpy arrays and JSON-able values), so that checkpoint, resume and the generic tests need no case per
strategy; diagnostics go to `Info`, never into the state.

A strategy sees a `Domain` (sizes, validity, neighbours, an encoding, the list of all architectures where it is short)
and scores. It never sees a dataset, a table or a network.

Scores have one column for each of M objectives, all of them higher is better. A strategy of one objective reads column
0, `first_objective`, and no other: whoever tells it puts the objective it is to search first. Their unit is the
evaluator's: percent, nats of an image, or whatever a table's column holds.
A strategy of several objectives is told them scaled, 0 at the reference point and 1 at the ideal one
(`parsec.tables.objectives`).

A strategy of several fidelities, which its registry entry says it is, asks for pairs: to each row of L options it
appends the index of a training in `Domain.fidelities`, int32 [B, L + 1]. It is told such rows, with the scores after
that training. A training is charged by its epochs, whatever the same architecture was trained for before; any other
strategy is given the longest for every row.

Whoever plays a strategy gives `init` and every `ask` a key of its own. `init` and `ask` may split theirs, draw from it
or fold into it as they like, but use each key they come by once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from parsec.cells.domain import ArrayLike

# A pytree; what is in it is the strategy's own affair.
State = Any
# Diagnostics of one `tell`, by name; scalars.
Info = dict[str, Any]


class Strategy(NamedTuple):
    """How architectures are proposed and how scores are learnt from.

    Attributes:
      init: `init(key) -> state`.
      ask: `ask(key, state) -> (architectures, state)`, int32 [B, L]; B is fixed for a strategy. Calling `ask` again
        before the scores are told is allowed: several evaluations may be under way. A row of -1 proposes nothing (a
        strategy whose sample budget varies keeps its shapes this way): it is never evaluated or counted, and its
        score is NaN.
      tell: `tell(state, architectures, scores) -> (state, info)` with scores float32 [B, M], higher is better. A NaN
        is a failed evaluation: it is counted in `info["failed"]` and never poisons the state. The rows of one
        `ask` are told together; what was asked first need not be told first.
      logits: `logits(key, state) -> float32 [L, max(sizes)]`: the prior over architectures that it has learnt,
        one categorical for each choice; None for one that has none.
      effects: `effects(state) -> float32 [L, max(sizes)]`: what it expects each option to add to the first score, in
        that score's unit, what was known beforehand included; None for one that expects no such sums.
      expect: `expect(state, architectures int32 [B, L]) -> float32 [B]`: the first score that it expects of each, the
        noise of those it was told smoothed out; None for one that does not say.
      jittable: whether the functions are plain `jax.numpy`, so that `vmap` runs a thousand seeds at once over a table.
    """

    init: Callable[[jax.Array], State]
    ask: Callable[[jax.Array, State], tuple[ArrayLike, State]]
    tell: Callable[[State, ArrayLike, ArrayLike], tuple[State, Info]]
    jittable: bool = True
    logits: Callable[[jax.Array, State], ArrayLike] | None = None
    effects: Callable[[State], ArrayLike] | None = None
    expect: Callable[[State, ArrayLike], ArrayLike] | None = None


def proposed(architectures: ArrayLike) -> jax.Array:
    """Whether each row proposes an architecture, bool [B]; a row of -1 does not."""
    return jnp.asarray(architectures)[:, 0] >= 0


def first_objective(scores: ArrayLike) -> jax.Array:
    """Returns what a strategy of one objective reads of scores float32 [B, M], their column 0; float32 [B]."""
    return jnp.asarray(scores)[:, 0]


def count_failed(architectures: ArrayLike, scores: ArrayLike) -> jax.Array:
    """Returns how many proposed rows came back without a finite first objective, int32 []."""
    return (proposed(architectures) & ~jnp.isfinite(first_objective(scores))).sum(dtype=jnp.int32)
