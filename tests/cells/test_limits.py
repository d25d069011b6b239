"""Domains within a cost: what is sampled, mutated, allowed and listed, against all architectures counted one by one."""

from itertools import combinations, product

import jax
import numpy as np
import pytest

from parsec.cells import get_space
from parsec.cells.costs import Cost, CostTable, cost_table, table_costs, with_effects
from parsec.cells.domain import product_domain
from parsec.cells.limits import UNLIMITED, draw_within, extremes, limit
from parsec.cells.network import Shape
from parsec.errors import UserError

SPACE = get_space("nasbench201")
WHOLE = product_domain(tuple(map(int, SPACE.sizes)), common=SPACE.common)
TABLE = cost_table(SPACE, Shape(2, 1, 10), (8, 8, 1))
EVERY = np.array(list(product(range(5), repeat=6)), np.int32)
COSTS = table_costs(TABLE, EVERY)
MOST = Cost(2000, 16_000)
WITHIN = (np.array(MOST) >= COSTS).all(1)
PART = limit(WHOLE, TABLE, MOST)


def test_the_part_is_exactly_what_costs_no_more():
    assert 0 < WITHIN.sum() < len(EVERY)
    np.testing.assert_array_equal(np.asarray(PART.valid(EVERY)), WITHIN)
    assert PART.pool is not None
    np.testing.assert_array_equal(PART.pool, EVERY[WITHIN])
    for at, name in enumerate(Cost._fields):
        one = limit(WHOLE, TABLE, Cost(**{**dict.fromkeys(Cost._fields, -1), name: MOST[at]}))
        np.testing.assert_array_equal(np.asarray(one.valid(EVERY)), COSTS[:, at] <= MOST[at])
    least, largest = extremes(TABLE)
    np.testing.assert_array_equal(least, COSTS.min(0))
    np.testing.assert_array_equal(largest, COSTS.max(0))


def test_samples_are_uniform_within_the_limits(key: jax.Array):
    few = np.array([np.sort(COSTS[:, 0])[1500], COSTS[:, 1].max()])
    rows = EVERY[(few >= COSTS).all(1)]
    drawn = np.asarray(limit(WHOLE, TABLE, Cost(*few.tolist())).sample(key, 6000))
    within = {tuple(row) for row in rows.tolist()}
    assert {tuple(row) for row in drawn.tolist()} <= within
    # Of every pair of options of two choices as many as there are, to five deviations; small counts have longer tails.
    for first, second in combinations(range(rows.shape[1]), 2):
        expected, found = (np.bincount(5 * each[:, first] + each[:, second], minlength=25) for each in (rows, drawn))
        share = expected / len(rows)
        assert (np.abs(found / len(drawn) - share) <= 5 * np.sqrt(share / len(drawn)) + 5 / len(drawn)).all()
    # Six thousand draws of some 2,200 architectures leave out one in sixteen.
    assert len({tuple(row) for row in drawn.tolist()}) > 0.9 * len(within)


def test_mutations_and_neighbours_are_the_wholes_within_the_limits(key: jax.Array):
    start = EVERY[WITHIN][7]
    near = PART.neighbours(start)
    expected = WHOLE.neighbours(start)
    np.testing.assert_array_equal(near, expected[np.asarray(PART.valid(expected))])
    assert 0 < len(near) < len(expected)
    mutated = np.asarray(jax.vmap(lambda each: PART.mutate(each, start))(jax.random.split(key, 40 * len(near))))
    assert {tuple(row) for row in mutated.tolist()} == {tuple(row) for row in near.tolist()}


def test_a_mutation_without_a_neighbour_within_the_limits_is_another_architecture_of_the_part(key: jax.Array):
    outside = EVERY[COSTS[:, 0].argmax()]
    moved = np.asarray(PART.mutate(key, outside))
    assert np.asarray(PART.valid(moved[None]))[0]


# The less an operation's parameters, the more its milliseconds.
SLOW = with_effects(TABLE, "latency_ms", 1000, 2.0, np.tile([0.5, 0.9, 0.3, 0.1, 0.7], (6, 1)))
SLOW_COSTS = table_costs(SLOW, EVERY)
SLOW_MOST = (2000, UNLIMITED, 3800)


@pytest.mark.parametrize(
    ("table", "costs", "most"), [(TABLE, COSTS, MOST), (SLOW, SLOW_COSTS, SLOW_MOST)], ids=["sizes", "latency"]
)
def test_a_prefix_is_legal_where_some_completion_is_within_the_limits(
    table: CostTable, costs: np.ndarray, most: tuple[int, ...]
):
    part, bound = limit(WHOLE, table, most), np.where(np.array(most) == UNLIMITED, costs.max(0), most)
    kept = {tuple(row) for row in EVERY[(costs <= bound).all(1)].tolist()}
    assert 0 < len(kept) < len(EVERY) / 2
    rng = np.random.default_rng(0)
    for length in range(6):
        for prefix in {tuple(row[:length]) for row in EVERY[rng.integers(0, len(EVERY), 40)].tolist()}:
            possible = [any(each[: length + 1] == (*prefix, option) for each in kept) for option in range(5)]
            assert part.legal(prefix).tolist() == possible


def test_a_space_with_chosen_sources_is_counted_as_it_is():
    space = get_space("darts")
    whole = product_domain(tuple(map(int, space.sizes)))
    table = cost_table(space, Shape(4, 3, 10), (8, 8, 3))
    rows = np.asarray(whole.sample(jax.random.key(3), 400))
    costs = table_costs(table, rows)
    middle = Cost(*np.median(costs, 0).astype(int).tolist())
    part = limit(whole, table, middle)
    np.testing.assert_array_equal(np.asarray(part.valid(rows)), (np.array(middle) >= costs).all(1))
    assert (table_costs(table, np.asarray(part.sample(jax.random.key(4), 50))) <= np.array(middle)).all()
    drawn = draw_within(np.random.default_rng(1), part)
    assert (table_costs(table, drawn[None]) <= np.array(middle)).all()


def test_limits_that_nothing_meets_or_that_cannot_be_counted_are_refused():
    least = COSTS.min(0)
    with pytest.raises(UserError, match=f"params of at most {least[0] - 1:,} here; the smallest: params {least[0]:,}"):
        limit(WHOLE, TABLE, Cost(int(least[0]) - 1, -1))
    with pytest.raises(UserError, match=r"latency_ms of at most 1\.5 here; the smallest: latency_ms 2\.6"):
        limit(WHOLE, SLOW, (UNLIMITED, UNLIMITED, 1500))
    large = CostTable(SPACE, Cost(10, 2**31), TABLE.slots)
    with pytest.raises(UserError, match="a limit on flops needs networks of fewer than 2,147,483,647"):
        limit(WHOLE, large, Cost(-1, 5))
    # What is not limited may be as large as it likes.
    assert np.asarray(limit(WHOLE, large, Cost(10**9, -1)).valid(EVERY)).all()
