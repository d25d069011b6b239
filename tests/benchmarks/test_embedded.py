"""The components of variance are those that accuracies were made with; what is compared is matched by architecture."""

import numpy as np
import pytest

from benchmarks.embedded import agreement, better_half, describe, distinct, free_share, seeds_of, spread
from parsec.cells import get_space
from parsec.errors import UserError
from parsec.tables.table import Table, make_table


def table_of(test: np.ndarray, architectures: np.ndarray) -> Table:
    columns = {f"test_{seed}": values for seed, values in enumerate(test.T)}
    columns |= {"test": test.mean(1), "valid": test.mean(1), "params": np.arange(len(test)), "seconds": test[:, 0]}
    return make_table("made", get_space("darts").sizes, architectures, columns)


@pytest.fixture
def architectures() -> np.ndarray:
    sizes = get_space("darts").sizes
    return np.unique(np.random.default_rng(0).integers(0, sizes, (40, len(sizes))).astype(np.int32), axis=0)


def test_the_spread_is_what_accuracies_were_made_with():
    rng = np.random.default_rng(0)
    found = spread(50 + 4 * rng.standard_normal((20_000, 1)) + 2 * rng.standard_normal((20_000, 3)))
    np.testing.assert_allclose(found, (50, 4, 2, 2), rtol=0.03)
    noise = spread(2 * rng.standard_normal((20_000, 3)))
    assert noise.architectures < 0.2 and noise.ratio < 0.1


def test_the_better_half_of_equal_architectures_has_no_spread():
    rng = np.random.default_rng(0)
    equal = better_half(rng.standard_normal((20_000, 3)))
    assert abs(equal.mean) < 0.05 and equal.architectures < 0.1
    np.testing.assert_allclose(equal.seeds, 1, rtol=0.03)
    skewed = np.repeat([[0.0], [10.0], [30.0], [40.0]], 3, 1) + 1e-3 * rng.standard_normal((4, 3))
    np.testing.assert_allclose(better_half(skewed).architectures, np.std([30, 40], ddof=1), rtol=0.01)


def test_free_operations_are_skips_and_pools_wherever_they_read():
    space = get_space("darts")
    operations = [at for at, choice in enumerate(space.choices) if choice.options == space.operations]
    row = np.zeros(len(space.sizes), np.int32)
    row[operations] = space.operations.index("sep_conv_3x3")
    row[operations[:3]] = [space.operations.index(name) for name in ("skip_connect", "max_pool_3x3", "avg_pool_3x3")]
    assert len(operations) == 16
    np.testing.assert_allclose(free_share(space, row[None]), [3 / 16])
    assert free_share(get_space("nasbench201"), np.array([[0, 1, 2, 3, 4, 4]])) == pytest.approx(4 / 6)


def test_a_table_is_described_without_its_failures(architectures: np.ndarray):
    rng = np.random.default_rng(1)
    test = 50 + 10 * rng.standard_normal((40, 1)) + rng.standard_normal((40, 3))
    test[5, 1] = np.nan
    rows = dict(describe(get_space("darts"), table_of(test, architectures)))
    assert rows["architectures x seeds"] == "39 x 3, 1 failed"
    assert "nan" not in " ".join(rows.values())
    with pytest.raises(UserError, match="one seed"):
        describe(get_space("darts"), table_of(test[:, :1], architectures))


def test_tables_are_compared_on_the_architectures_that_both_hold(architectures: np.ndarray):
    accuracies = np.random.default_rng(2).standard_normal((40, 2))
    whole = table_of(accuracies, architectures)
    backwards = table_of(2 * accuracies[10:][::-1] + 1, architectures[10:][::-1])
    assert agreement(whole, backwards) == (30, pytest.approx(1), pytest.approx(1))
    with pytest.raises(UserError, match="share 2 architectures"):
        agreement(whole, table_of(accuracies[:2], architectures[:2]))


def test_a_table_without_seeds_is_refused(architectures: np.ndarray):
    bare = make_table("bare", get_space("darts").sizes, architectures, {"test": np.arange(40.0)})
    with pytest.raises(UserError, match="no column test_0"):
        seeds_of(bare, "test")


def test_rows_that_repeat_a_network_are_left_out(architectures: np.ndarray):
    accuracies = np.random.default_rng(3).standard_normal((40, 2))
    table = table_of(accuracies, architectures)
    repeated = np.arange(40)
    repeated[[3, 30]] = [0, 7]
    table.columns["representative"] = repeated
    kept = np.delete(np.arange(40), [3, 30])
    np.testing.assert_array_equal(distinct(table).architectures, table.architectures[kept])
    np.testing.assert_array_equal(seeds_of(distinct(table), "test"), accuracies[kept])
