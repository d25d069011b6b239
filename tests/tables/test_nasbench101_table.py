"""Tables of NAS-Bench-101 cells: the official file, the published parts, and what is refused."""

import base64
import json
import struct

import jax
import numpy as np
import pytest

from parsec.cells.nasbench101_cells import cells, decode, encode
from parsec.cells.nasbench101_graphs import OPERATIONS, module_hash
from parsec.errors import UserError
from parsec.tables.nasbench101 import load_nasbench101
from parsec.tables.tfrecord import masked_crc32c


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def record(adjacency: np.ndarray, operations: np.ndarray, epochs: int, accuracy: float) -> bytes:
    """One training in the official format: train, validation and test accuracy accuracy, accuracy - .1 and - .2."""

    def double(field: int, value: float) -> bytes:
        return bytes([field << 3 | 1]) + struct.pack("<d", value)

    def evaluation(epoch: float, scale: float) -> bytes:
        numbers = (epoch, 10 * epoch, accuracy * scale, (accuracy - 0.1) * scale, (accuracy - 0.2) * scale)
        inner = b"".join(double(at, number) for at, number in enumerate(numbers, 1)) + b"\x32\x01c"
        return b"\x0a" + bytes([len(inner)]) + inner

    metrics = evaluation(0, 0.1) + evaluation(epochs / 2, 0.5) + evaluation(epochs, 1.0) + b"\x10\xac\x02"
    names = ",".join(["input", *(OPERATIONS[o] for o in operations), "output"])
    digits = "".join(map(str, adjacency.ravel().tolist()))
    name = module_hash(adjacency, operations)
    return json.dumps([name, epochs, digits, names, base64.b64encode(metrics).decode()]).encode()


def framed(records: list[bytes]) -> bytes:
    heads = [struct.pack("<Q", len(r)) for r in records]
    sums = zip(masked_crc32c(heads), masked_crc32c(records), strict=True)
    return b"".join(
        h + struct.pack("<I", int(a)) + r + struct.pack("<I", int(b))
        for h, r, (a, b) in zip(heads, records, sums, strict=True)
    )


@pytest.fixture
def official(tmp_path):
    """All cells of four vertices in the official format, each trained three times for 108 epochs and once for 4."""
    records = []
    for at, architecture in enumerate(cells(4).pool[::-1]):
        adjacency, operations = decode(architecture, 4)
        records += [record(adjacency, operations, 108, 0.9 - at / 1000 + step) for step in (-0.01, 0.0, 0.01)]
        records.append(record(adjacency, operations, 4, 0.5))
    (tmp_path / "nasbench_only108.tfrecord").write_bytes(framed(records))
    return tmp_path


def test_official_file_gives_means_over_trainings(official):
    table, domain = load_nasbench101("official", official, 4)
    np.testing.assert_array_equal(table.architectures, cells(4).pool)
    expected = 90 - np.arange(91)[::-1] / 10
    np.testing.assert_allclose(table.columns["train_108"], expected)
    np.testing.assert_allclose(table.columns["valid_108"], expected - 10)
    np.testing.assert_allclose(table.columns["test_108"], expected - 20)
    np.testing.assert_allclose(table.columns["seconds_108"], 1080)
    np.testing.assert_allclose(table.columns["valid_4"], 40)
    np.testing.assert_allclose(table.columns["params"], 300)
    assert domain.pool is not None
    assert len(domain.pool) == 91
    # Read again from what was kept, and for fewer and more vertices.
    again, _ = load_nasbench101("official", official, 4)
    np.testing.assert_array_equal(again.columns["valid_108"], table.columns["valid_108"])
    smaller, _ = load_nasbench101("official", official, 3)
    np.testing.assert_array_equal(smaller.architectures, cells(3).pool)
    larger, within = load_nasbench101("official", official, 5)
    assert len(larger) == 91
    best = decode(larger.architectures[np.argmax(larger.columns["valid_108"])], 5)
    np.testing.assert_array_equal(encode(*best, 4), table.architectures[np.argmax(table.columns["valid_108"])])
    key = jax.random.key(0)
    assert (larger.find(np.asarray(within.sample(key, 40))) >= 0).all()
    assert np.asarray(within.valid(larger.architectures)).all()


def test_every_description_of_a_cell_finds_its_row(official):
    table, _ = load_nasbench101("official", official, 4)
    other = table.architectures[30].copy()
    other[0], other[1] = other[1], other[0]
    sizes = np.array(table.sizes)
    described = np.random.default_rng(0).integers(0, sizes, (200, len(sizes))).astype(np.int32)
    found = table.find(described)
    assert (found >= 0).sum() > 20
    for vector, row in zip(described, found, strict=True):
        if row >= 0:
            assert module_hash(*decode(vector, 4)) == module_hash(*decode(table.architectures[row], 4))
    np.testing.assert_array_equal(jax.jit(table.lookup)(described), found)


def test_a_file_of_another_format_is_told(tmp_path):
    (tmp_path / "nasbench_only108.tfrecord").write_text("accuracy\n" * 50)
    with pytest.raises(
        UserError, match=r"nasbench_only108\.tfrecord is no intact .* size 450 bytes, sha256 [0-9a-f]{64}"
    ):
        load_nasbench101("official", tmp_path, 4)
    assert not list(tmp_path.glob("cache/parsec/*"))


@pytest.mark.parametrize(
    ("adjacency", "operations", "message"),
    [
        ("0110010000", "input,maxpool3x3,output", "3 x 3 digits"),
        ("011001000", "input,conv7x7,output", "conv7x7"),
        ("010000000", "input,maxpool3x3,output", "not valid"),
    ],
)
def test_cells_that_are_none_are_told(tmp_path, adjacency, operations, message):
    fields = json.loads(record(np.triu(np.ones((3, 3), int), 1), np.array([2]), 108, 0.9))
    data = json.dumps([fields[0], 108, adjacency, operations, fields[4]]).encode()
    (tmp_path / "nasbench_only108.tfrecord").write_bytes(framed([data]))
    with pytest.raises(UserError, match=message):
        load_nasbench101("official", tmp_path, 4)


def test_unknown_sources_and_missing_files_are_told(tmp_path):
    with pytest.raises(UserError, match="surrogate"):
        load_nasbench101("surogate", tmp_path, 5)
    for source in ("official", "sample", "five_vertices", "surrogate"):
        with pytest.raises(UserError, match="there is no file"):
            load_nasbench101(source, tmp_path, 5)
    with pytest.raises(UserError, match="at most 5"):
        load_nasbench101("five_vertices", tmp_path, 6)


def sample_file(path, **changes):
    """Three cells as the sample describes them; one has seven vertices."""
    adjacency = np.zeros((3, 7, 7), np.uint8)
    adjacency[0, :3, :3] = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    adjacency[1, :3, :3] = [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    adjacency[2] = np.eye(7, k=1)
    arrays = {
        "adjacency": adjacency,
        "n_vertices": np.array([3, 3, 7], np.uint8),
        "ops": np.array([[0, 255, 255, 255, 255], [2, 255, 255, 255, 255], [0, 1, 2, 0, 1]], np.uint8),
        "valid_acc": np.array([[4992, 9000], [2496, 9100], [0, 9200]], np.uint16),
        "valid_acc_denominator": np.array([9984]),
        "epochs": np.array([4, 108]),
        "train_time_s": np.array([1.0, 2.0, 3.0]),
        "params": np.array([10, 20, 30]),
    } | changes
    np.savez(path, **arrays)


def test_a_sample_is_read_and_cells_too_large_are_left_out(tmp_path):
    sample_file(tmp_path / "some.npz")
    table, domain = load_nasbench101("sample", tmp_path / "some.npz", 4)
    assert sorted(table.columns["valid_4"].tolist()) == [25, 50]
    row = table.find(encode(np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]]), [0], 4)[None])[0]
    assert table.columns["params"][row] == 10
    assert domain.pool is not None
    assert len(domain.pool) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ops": np.zeros((3, 4), np.uint8)}, "do not fit together"),
        ({"n_vertices": np.array([3, 3], np.uint8)}, "2 rows; adjacency has 3"),
        ({"adjacency": np.zeros((3, 7, 7), np.uint8)}, "row 0 .* no valid cell; 2 such"),
        (
            {"adjacency": np.stack([np.eye(7, k=1)] * 3), "n_vertices": np.full(3, 7), "ops": np.zeros((3, 5), int)},
            "repeats",
        ),
    ],
)
def test_samples_that_do_not_fit_are_told(tmp_path, changes, message):
    sample_file(tmp_path / "some.npz", **changes)
    vertices = 7 if message == "repeats" else 4
    with pytest.raises(UserError, match=message):
        load_nasbench101("sample", tmp_path / "some.npz", vertices)


def test_a_table_without_the_arrays_is_told(tmp_path):
    np.savez(tmp_path / "some.npz", adjacency=np.zeros((1, 7, 7)))
    with pytest.raises(UserError, match="it has no array ops"):
        load_nasbench101("sample", tmp_path / "some.npz", 4)


@pytest.mark.shared_data
def test_published_parts(shared_data):
    table, domain = load_nasbench101("five_vertices", shared_data, 5)
    assert len(table) == 2532
    assert domain.pool is not None
    assert 70 < table.objective("valid_4").max() < 80
    with np.load(shared_data / "ecnas_5v_4epochs.npz") as published:
        row = int(np.argmax(published["valid_acc"][:, 1]))
        wanted = published["hash"][row].decode()
    assert module_hash(*decode(table.architectures[np.argmax(table.columns["valid_4"])], 5)) == wanted
    sample, _ = load_nasbench101("sample", shared_data, 6)
    assert len(sample) == 4627
