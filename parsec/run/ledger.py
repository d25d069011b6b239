"""What a run of a strategy is charged for, and when it is over: one rule, on the host and inside a compiled program.

With `count="unique"` a query is the first evaluation of an architecture; a proposal that repeats one is answered from
what is known and is free. With `count="all"` every proposal is charged, as in the published NAS-Bench-201 baselines. A
failed evaluation is charged, a row of -1, which proposes nothing, never is. A run is over when its budget is spent,
when a strategy proposes nothing at all, or after `PROPOSALS_PER_QUERY` proposals for each query of the budget: a
strategy that has converged only repeats itself, and its run is then left as it stands.

The budget is counted in epochs of training. Where a strategy asks for (architecture, fidelity), each such pair is a
query of its own and costs the epochs of its fidelity, and a run ends with the first that it cannot pay in full; where
it does not, every query costs the same. So strategies of either kind are compared at equal epochs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import ArrayLike, Domain
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluated

COUNTS = ("unique", "all")
PROPOSALS_PER_QUERY = 10

# `rows(architectures int32 [B, L]) -> int32 [B]`: a number for each architecture, -1 where it is none.
Rows = Callable[[np.ndarray], np.ndarray]


class Rule(NamedTuple):
    """The budget of a run.

    Attributes:
      budget: queries, each of the longest training.
      charge: which proposals are charged, one of `COUNTS`.
      epochs: of the trainings that a strategy may ask for, rising. Of more than one, the last entry of every row that
        it proposes is an index of them.
    """

    budget: int
    charge: str = "unique"
    epochs: tuple[int, ...] = (1,)

    @property
    def total(self) -> int:
        """Epochs to spend."""
        return self.budget * self.epochs[-1]

    @property
    def most_queries(self) -> int:
        """Queries that the budget pays, if all are of the shortest training."""
        return self.total // self.epochs[0]

    @property
    def most_proposals(self) -> int:
        """Proposals after which a run is left as it stands."""
        return PROPOSALS_PER_QUERY * self.most_queries

    def sizes(self, domain: Domain) -> tuple[int, ...]:
        """Returns how many options each entry of a proposed row has."""
        return (*domain.sizes, len(self.epochs)) if len(self.epochs) > 1 else domain.sizes

    def costs(self, architectures: ArrayLike) -> ArrayLike:
        """Returns the epochs that each row int32 [B, L] costs, int32 [B]; traced where the rows are."""
        if len(self.epochs) == 1:
            return np.full(len(architectures), self.epochs[0], np.int32)
        epochs, chosen = np.array(self.epochs, np.int32), architectures[:, -1]
        return epochs[chosen] if isinstance(chosen, np.ndarray) else jnp.asarray(epochs)[chosen]


class Ask(NamedTuple):
    """What a strategy proposed at once: architectures int32 [B, L] and their numbers, int32 [B], -1 for none."""

    architectures: np.ndarray
    rows: np.ndarray


class Ledger:
    """The account of one run on the host.

    Attributes:
      charged: number of the architecture of every charged query, in order.
      proposals: architectures proposed so far, repeats included.
    """

    def __init__(self, rule: Rule, domain: Domain, rows: Rows | None, objectives: int, strategy: str) -> None:
        """Opens the account.

        Args:
          rule: the budget.
          domain: what the strategy proposes from.
          rows: numbers architectures, so that those which are the same are charged once; by default every valid vector
            is its own.
          objectives: M, numbers in a score.
          strategy: its name, for errors.
        """
        self.charged: list[int] = []
        self.proposals = 0
        self._rule, self._domain, self._strategy, self._objectives = rule, domain, strategy, objectives
        self._rows = rows or _own_rows(domain)
        # Where each number's architecture and scores lie, in the order in which they were charged first.
        self._places: dict[int, int] = {}
        self._architectures = np.zeros((rule.most_queries, len(rule.sizes(domain))), np.int32)
        self._scores = np.full((rule.most_queries, objectives), np.nan, np.float64)
        self._done = np.zeros(rule.most_queries, bool)
        self._spent = 0
        self._exhausted = False

    @property
    def over(self) -> bool:
        """Whether nothing more is to be asked."""
        spent = self._spent + self._rule.epochs[0] > self._rule.total
        return spent or self._exhausted or self.proposals >= self._rule.most_proposals

    def admit(self, asked: ArrayLike) -> Ask:
        """Takes and charges what a strategy proposed.

        Raises:
          UserError: for anything but integers [B, L] of architectures that exist, and rows of -1.
        """
        architectures = self._checked(asked)
        offered = (architectures >= 0).any(1)
        rows = np.full(len(architectures), -1, np.int32)
        if offered.any():
            rows[offered] = self._rows(architectures[offered])
        if (offered & (rows < 0)).any():
            wrong = architectures[offered & (rows < 0)][0].tolist()
            raise UserError(f"strategy {self._strategy} proposed {wrong}, which is no architecture of this search")
        costs, paid = np.asarray(self._rule.costs(architectures[offered])), True
        for row, architecture, cost in zip(rows[offered].tolist(), architectures[offered], costs.tolist(), strict=True):
            if self._rule.charge == "all" or row not in self._places:
                paid = paid and self._spent + cost <= self._rule.total
                if not paid:
                    continue
                self.charged.append(row)
                self._spent += cost
                if row not in self._places:
                    self._architectures[len(self._places)] = architecture
                    self._places[row] = len(self._places)
        self.proposals += int(offered.sum())
        self._exhausted = not paid or not offered.any()
        return Ask(architectures, rows)

    def missing(self, ask: Ask) -> list[int]:
        """Returns the numbers of an ask's charged architectures whose scores are not known yet, in its order."""
        wanted = dict.fromkeys(row for row in ask.rows.tolist() if row in self._places)
        return [row for row in wanted if not self._done[self._places[row]]]

    def enter(self, row: int, scores: np.ndarray) -> None:
        """Notes the scores [M] of an architecture that was charged."""
        given = np.asarray(scores)
        if given.shape != (self._objectives,):
            raise ValueError(f"a score has shape {given.shape}; the evaluator names {self._objectives} objectives")
        self._scores[self._places[row]] = given
        self._done[self._places[row]] = True

    def told(self, ask: Ask) -> np.ndarray:
        """Returns the scores of an ask, float32 [B, M]; NaN where nothing was proposed or evaluated."""
        told = np.full((len(ask.rows), self._objectives), np.nan, np.float32)
        for at, row in enumerate(ask.rows.tolist()):
            if row in self._places:
                told[at] = self._scores[self._places[row]]
        return told

    def architecture(self, row: int) -> np.ndarray:
        """Returns the first vector that was charged under a number, int32 [L]."""
        return self._architectures[self._places[row]]

    def begun(self, before: int) -> Evaluated:
        """Returns what was charged before the architecture of a number, scores still NaN where they are not known."""
        end = self._places[before]
        return Evaluated(self._architectures[:end], self._scores[:end])

    def finished(self) -> Evaluated:
        """Returns every architecture whose scores are known, in the order in which they were charged."""
        return Evaluated(self._architectures[self._done], self._scores[self._done])

    def _checked(self, asked: ArrayLike) -> np.ndarray:
        given, sizes = np.asarray(asked), self._rule.sizes(self._domain)
        length = len(sizes)
        if given.ndim != 2 or given.shape[1] != length or not np.issubdtype(given.dtype, np.integer):
            raise UserError(
                f"strategy {self._strategy} proposed {given.dtype} {list(given.shape)}; ask must return integers "
                f"[B, {length}]"
            )
        outside = ((given < 0) | (given >= np.array(sizes))) & ~(given == -1).all(1, keepdims=True)
        if outside.any():
            row, choice = map(int, np.argwhere(outside)[0])
            raise UserError(
                f"strategy {self._strategy} proposed option {int(given[row, choice])} of choice {choice}; it must be "
                f"0..{sizes[choice] - 1}, or the whole row -1"
            )
        return given.astype(np.int32)


class Tally(NamedTuple):
    """The account of one run inside a compiled program, over N architectures.

    Attributes:
      seen: which have been charged, bool [N].
      rows: of every charged query in order, int32 [most_queries]; -1 for those not spent.
      charged: queries charged, int32 [].
      spent: epochs, int32 [].
      proposals: int32 [].
      invalid: proposals that are no architecture, int32 []; each is an error of the strategy.
      exhausted: whether nothing at all was proposed, or what cannot be paid, bool [].
    """

    seen: jax.Array
    rows: jax.Array
    charged: jax.Array
    spent: jax.Array
    proposals: jax.Array
    invalid: jax.Array
    exhausted: jax.Array


def open_tally(rule: Rule, size: int) -> Tally:
    """Returns the account of a run that begins, over `size` architectures."""
    none = jnp.zeros((), jnp.int32)
    return Tally(
        jnp.zeros(size, bool),
        jnp.full(rule.most_queries, -1, jnp.int32),
        *(none, none, none, none),
        jnp.zeros((), jnp.bool_),
    )


def is_over(rule: Rule, tally: Tally) -> jax.Array:
    """`Ledger.over`, traced; bool []."""
    spent = (tally.spent + rule.epochs[0] > rule.total) | (tally.proposals >= rule.most_proposals)
    return spent | tally.exhausted | (tally.invalid > 0)


def enter_ask(rule: Rule, tally: Tally, architectures: jax.Array, rows: jax.Array) -> Tally:
    """`Ledger.admit`, traced: takes architectures int32 [B, L] with their numbers int32 [B], and charges them."""
    offered = (architectures >= 0).any(1)
    valid = offered & (rows >= 0)
    same = (rows[:, None] == rows[None, :]) & jnp.tri(rows.shape[0], k=-1, dtype=bool)
    fresh = valid if rule.charge == "all" else valid & ~tally.seen[rows] & ~(same & valid[None]).any(1)
    costs = jnp.where(fresh, jnp.asarray(rule.costs(architectures)), 0)
    # As the costs of what cannot be paid add up as well, nothing after the first of these is paid either.
    paid = fresh & (tally.spent + jnp.cumsum(costs, dtype=jnp.int32) <= rule.total)
    place = tally.charged + jnp.cumsum(paid, dtype=jnp.int32) - 1
    return Tally(
        seen=tally.seen.at[jnp.where(valid, rows, tally.seen.shape[0])].set(True, mode="drop"),
        rows=tally.rows.at[jnp.where(paid, place, rule.most_queries)].set(rows, mode="drop"),
        charged=tally.charged + paid.sum(dtype=jnp.int32),
        spent=tally.spent + jnp.where(paid, costs, 0).sum(dtype=jnp.int32),
        proposals=tally.proposals + offered.sum(dtype=jnp.int32),
        invalid=tally.invalid + (offered & ~valid).sum(dtype=jnp.int32),
        exhausted=~offered.any() | (fresh & ~paid).any(),
    )


def _own_rows(domain: Domain) -> Rows:
    """Returns the numbering by first appearance, under which every valid vector is an architecture of its own."""
    numbers: dict[bytes, int] = {}

    def rows(architectures: np.ndarray) -> np.ndarray:
        valid = np.asarray(domain.valid(architectures[:, : len(domain.sizes)]))
        found = [numbers.setdefault(each.tobytes(), len(numbers)) for each in architectures]
        return np.where(valid, np.array(found, np.int32), -1)

    return rows
