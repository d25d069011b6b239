"""Tables: what is read and refused, looking architectures up, and the domain a table covers."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.errors import UserError
from parsec.tables import table as tables
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.table import Table, load_table, make_table, save_table, table_domain

SIZES = (3, 2, 4)
ROWS = np.stack(np.unravel_index(np.arange(24), SIZES), 1).astype(np.int32)


def partial_table(rng: np.random.Generator | None = None) -> Table:
    rng = rng or np.random.default_rng(0)
    kept = rng.permutation(ROWS)[:15]
    return make_table("partial", np.array(SIZES), kept, {"score": np.arange(15.0)})


def write(path: Path, **arrays: Any) -> Path:
    whole = {"sizes": np.array(SIZES), "architectures": ROWS, "accuracy": np.arange(24.0)} | arrays
    np.savez(path, **{name: value for name, value in whole.items() if value is not None})
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        load_table(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_saved_table_reads_back_equal(tmp_path: Path) -> None:
    table = partial_table()
    save_table(tmp_path / "partial.npz", table)
    again = load_table(tmp_path / "partial.npz")
    assert again.name == "partial" and again.sizes == table.sizes and not again.complete
    np.testing.assert_array_equal(again.architectures, table.architectures)
    np.testing.assert_array_equal(again.columns["score"], table.columns["score"])


def test_integer_columns_are_read_and_others_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "t.npz", params=np.arange(24), names=np.array(["x"] * 24), matrix=np.zeros((24, 2)))
    assert sorted(load_table(path).columns) == ["accuracy", "params"]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"sizes": None}, "no array 'sizes'"),
        ({"architectures": None}, "no array 'architectures'"),
        ({"accuracy": None}, "no numeric column"),
        ({"sizes": np.array([3, 2])}, r"architectures of table bad is int32 \[24, 3\]; it must be integers \[N, 2\]"),
        ({"sizes": np.array([3, 2, 0])}, "at least 1"),
        ({"sizes": np.array([3.0, 2.0, 4.0])}, "float64"),
        ({"sizes": np.array([3, 2, 3])}, r"row 3 of table bad has option 3 of choice 2, outside 0\.\.2; 6 of its rows"),
        ({"architectures": ROWS - 1}, "row 0 of table bad has option -1 of choice 0"),
        ({"architectures": ROWS.astype(float)}, "must be integers"),
        ({"architectures": ROWS[:0], "accuracy": np.zeros(0)}, "no architecture"),
        ({"architectures": np.concatenate([ROWS[:23], ROWS[4:5]])}, "row 23 of table bad repeats .* row 4; 1 of"),
        ({"sizes": np.ones(3, int), "architectures": ROWS[:1], "accuracy": np.zeros(1)}, "all 1; there is nothing to"),
        ({"sizes": np.array([3, 2, 10**6])}, "choice 2 of table bad has 1,000,000 options; .* at most 16,384"),
        ({"-accuracy": np.zeros(24)}, "column '-accuracy'; a name may not begin with '-'"),
        ({"accuracy": np.zeros(23)}, r"column 'accuracy' of table bad is float64 \[23\]; it must be \[24\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    import re

    assert re.search(said, refusal(write(tmp_path / "bad.npz", **arrays)))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "there is no file" in refusal(tmp_path / "absent.npz")


def test_damaged_files_are_refused_with_size_and_hash(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.npz").read_bytes()
    damaged = tmp_path / "damaged.npz"
    rng = np.random.default_rng(0)
    cuts = [whole[: len(whole) * part // 8] for part in range(1, 8)]
    flipped = bytearray(whole)
    flipped[200:260] = rng.bytes(60)
    for data in (*cuts, bytes(flipped), b"", b"not an archive", b"PK\x03\x04" + b"\0" * 50):
        damaged.write_bytes(data)
        message = refusal(damaged)
        assert f"({len(data):,} bytes" in message and hashlib.sha256(data).hexdigest() in message


def test_objectives_are_columns_maximised_or_minimised_and_failures_are_nan() -> None:
    table = make_table("t", np.array(SIZES), ROWS, {"loss": np.array([np.nan, np.inf, *range(22)], float)})
    up, down = table.objective("loss"), table.objective("-loss")
    assert np.isnan(up[:2]).all() and np.isnan(down[:2]).all()
    assert np.nanargmax(down) == 2 and np.nanargmax(up) == 23
    with pytest.raises(UserError, match=r"unknown column of table t 'los'.*did you mean 'loss'"):
        table.objective("los")
    columns = {"none": np.full(24, np.nan), "one": np.array([3.0] + [np.nan] * 23), "huge": np.arange(24) * 1e306}
    strange = make_table("t", np.array(SIZES), ROWS, columns)
    for name, said in (
        ("none", "no finite number"),
        ("one", "only one finite number"),
        ("huge", r"2\.3e\+307 in size"),
    ):
        for sign in ("", "-"):
            with pytest.raises(UserError, match=said):
                strange.objective(sign + name)


@pytest.mark.parametrize("dense", [True, False])
def test_lookup_finds_every_row_and_nothing_else(dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not dense:
        monkeypatch.setattr(tables, "_DENSE", 0)
    table = partial_table()
    rows = np.concatenate([table.architectures, ROWS, [[3, 0, 0], [-1, -1, -1], [0, 0, 4]]]).astype(np.int32)
    found = np.asarray(jax.jit(table.lookup)(rows))
    np.testing.assert_array_equal(found[:15], np.arange(15))
    np.testing.assert_array_equal(found, table.find(rows))
    assert (found[-3:] == -1).all() and (found[15:39] >= 0).sum() == 15


def test_sorted_lookup_packs_long_architectures_into_several_words() -> None:
    rng = np.random.default_rng(1)
    sizes = tuple(int(size) for size in rng.integers(1, 12, 40))
    rows = np.unique(rng.integers(0, sizes, (500, 40)), axis=0).astype(np.int32)
    rows = rng.permutation(rows)
    table = make_table("long", np.array(sizes), rows[:400], {"score": np.arange(400.0)})
    found = np.asarray(table.lookup(rows))
    np.testing.assert_array_equal(found, [*range(400), *([-1] * (len(rows) - 400))])


def test_a_complete_table_is_its_product() -> None:
    table = make_table("whole", np.array(SIZES), ROWS[::-1], {"score": np.arange(24.0)})
    domain = table_domain(table)
    assert table.complete and domain.pool is not None and len(domain.pool) == 24
    assert np.asarray(domain.valid(jnp.asarray(ROWS))).all()


def test_the_domain_of_a_partial_table_is_its_rows(key: jax.Array) -> None:
    table = partial_table()
    domain = table_domain(table)
    inside = {tuple(row) for row in table.architectures.tolist()}
    assert domain.pool is not None and len(domain.pool) == 15 and domain.jittable
    np.testing.assert_array_equal(domain.valid(ROWS), [tuple(row) in inside for row in ROWS.tolist()])
    drawn = np.asarray(domain.sample(key, 600))
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 15 and counts.min() > 15
    mutate = jax.jit(domain.mutate)
    for row in table.architectures:
        around = {tuple(each) for each in domain.neighbours(row).tolist()}
        assert around == {each for each in inside if (np.array(each) != row).sum() == 1}
        reached = {tuple(np.asarray(mutate(jax.random.fold_in(key, at), row)).tolist()) for at in range(40)}
        assert reached == around or not around
    for prefix in [(), (0,), (2,), (1, 1), (2, 0)]:
        expected = {each[len(prefix)] for each in inside if each[: len(prefix)] == prefix}
        assert set(np.flatnonzero(domain.legal(prefix)).tolist()) == expected


def test_an_architecture_without_neighbours_mutates_to_a_sample(key: jax.Array) -> None:
    table = make_table("apart", np.array([2, 2]), np.array([[0, 0], [1, 1]]), {"score": np.zeros(2)})
    domain = table_domain(table)
    assert len(domain.neighbours(np.array([0, 0]))) == 0
    moved = np.stack([np.asarray(domain.mutate(jax.random.fold_in(key, at), np.array([0, 0]))) for at in range(20)])
    assert np.asarray(domain.valid(moved)).all() and len(np.unique(moved, axis=0)) == 2


def nasbench201(path: Path, rows: int = 15625, **changed: Any) -> Path:
    """Writes a file of the benchmark's layout with made-up numbers."""
    ops = np.stack(np.unravel_index(np.arange(15625), (5,) * 6), 1)[:rows].astype(np.uint8)
    three = np.arange(rows * 3, dtype=float).reshape(rows, 3)
    arrays: dict[str, Any] = {
        "ops": ops,
        "test_acc_200": three,
        "test_acc_200_cols": np.array([b"cifar10", b"cifar100", b"ImageNet16-120"]),
        "valid_acc_200": -three,
        "valid_acc_200_cols": np.array([b"cifar10-valid", b"cifar100", b"ImageNet16-120"]),
        "acc_12": np.arange(rows * 2, dtype=float).reshape(rows, 2),
        "acc_12_cols": np.array([b"cifar100:valid", b"cifar10-valid:valid"]),
        "flops_m": three,
        "params_m": three,
        "cost_cols": np.array([b"cifar10", b"cifar100", b"ImageNet16-120"]),
    }
    np.savez(path, **(arrays | changed))
    return path


def test_nasbench201_columns_are_found_by_name(tmp_path: Path) -> None:
    table = load_nasbench201(nasbench201(tmp_path / "nasbench201.npz"), "cifar10")
    assert table.complete and table.sizes == (5,) * 6
    assert table.columns["valid_12"][:2].tolist() == [1, 3]
    assert table.columns["test_200"][:2].tolist() == [0, 3]
    assert table.columns["valid_200"][1] == -3


def test_nasbench201_files_of_the_wrong_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "nasbench201.npz"
    with pytest.raises(UserError, match=r"unknown dataset 'cifar'.*did you mean 'cifar10'"):
        load_nasbench201(nasbench201(path), "cifar")
    with pytest.raises(UserError, match=r"acc_12 of .* has no column 'ImageNet16-120:valid'"):
        load_nasbench201(path, "ImageNet16-120")
    with pytest.raises(UserError, match="holds 100 architectures; NAS-Bench-201 has 15625"):
        load_nasbench201(nasbench201(path, rows=100), "cifar10")
    with pytest.raises(UserError, match="is not a NAS-Bench-201 table"):
        load_nasbench201(write(path), "cifar10")


@pytest.mark.shared_data
def test_the_published_table_has_the_published_optima(shared_data: Path) -> None:
    for dataset, best in (("cifar10", 94.37), ("cifar100", 73.51), ("ImageNet16-120", 47.31)):
        table = load_nasbench201(shared_data / "nasbench201.npz", dataset)
        assert table.columns["test_200"].max() == pytest.approx(best, abs=0.005)
