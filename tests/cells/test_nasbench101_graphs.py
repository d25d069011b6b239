"""NAS-Bench-101 graphs: pruning, the published hash and canonical forms."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsec.cells.nasbench101_cells import cells, decode, encode
from parsec.cells.nasbench101_graphs import graphs, module_hash, prune
from parsec.errors import UserError


@st.composite
def described_cells(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(2, 7))
    bits = draw(st.lists(st.booleans(), min_size=n * (n - 1) // 2, max_size=n * (n - 1) // 2))
    adjacency = np.zeros((n, n), np.uint8)
    adjacency[np.triu_indices(n, 1)] = bits
    return adjacency, np.array(draw(st.lists(st.integers(0, 2), min_size=n - 2, max_size=n - 2)), np.int32)


def valid(adjacency: np.ndarray, operations: np.ndarray) -> bool:
    try:
        prune(adjacency, operations)
    except UserError:
        return False
    return True


def test_pruning_drops_dead_vertices_and_their_operations():
    adjacency = np.zeros((5, 5), np.uint8)
    for i, j in ((0, 1), (1, 4), (0, 2), (3, 4)):  # 2 leads nowhere, 3 comes from nowhere
        adjacency[i, j] = 1
    pruned, operations = prune(adjacency, np.array([1, 0, 2]))
    np.testing.assert_array_equal(pruned, [[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert operations.tolist() == [1]


@given(described_cells(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_isomorphic_descriptions_share_hash_and_canonical_form(described, random):
    adjacency, operations = described
    if not valid(adjacency, operations):
        with pytest.raises(UserError):
            module_hash(adjacency, operations)
        return
    n = len(adjacency)
    orders = [p for p in itertools.permutations(range(1, n - 1)) if _forward(adjacency, (0, *p, n - 1))]
    order = random.choice(orders)
    frame = [0, *order, n - 1]
    moved = adjacency[np.ix_(frame, frame)], operations[np.array(order, int) - 1]
    assert module_hash(*moved) == module_hash(adjacency, operations)
    np.testing.assert_array_equal(encode(*moved, 7), encode(adjacency, operations, 7))
    # A different operation somewhere that is run is a different cell.
    pruned, kept = prune(adjacency, operations)
    assert module_hash(*decode(encode(adjacency, operations, 7), 7)) == module_hash(pruned, kept)


def _forward(adjacency: np.ndarray, frame: tuple[int, ...]) -> bool:
    return not np.tril(adjacency[np.ix_(frame, frame)]).any()


def test_hash_of_the_cell_without_operations():
    # Two vertices, in and out degree one; worked out by hand from the published rule.
    import hashlib

    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    source, sink = md5("(1, 0, -1)"), md5("(0, 1, -2)")
    for _ in range(2):
        source, sink = md5(f"|{sink}|{source}"), md5(f"{source}||{sink}")
    assert module_hash(np.array([[0, 1], [0, 0]]), np.zeros(0, int)) == md5(str(sorted([source, sink])))


def test_hashes_are_distinct_over_the_space_of_five_vertices():
    names = {module_hash(*decode(architecture, 5)) for architecture in cells(5).pool}
    assert len(names) == 2532


@pytest.mark.shared_data
def test_hash_equals_the_published_one(shared_data):
    with np.load(shared_data / "nasbench101_sample30k.npz") as sample:
        names, sizes = sample["hash"].astype(str), sample["n_vertices"]
        adjacency, operations = sample["adjacency"], sample["ops"]
    for row in range(0, len(names), 50):
        n = int(sizes[row])
        assert module_hash(adjacency[row, :n, :n], operations[row, : n - 2]) == names[row]


@pytest.mark.parametrize(
    ("adjacency", "operations", "message"),
    [
        (np.zeros((3, 3)), [0], "not reached"),
        (np.triu(np.ones((7, 7)), 1), [0] * 5, "21 edges"),
        (np.ones((3, 3)), [0], "above the diagonal"),
        (np.triu(np.ones((3, 3)), 1), [0, 1], "1 operations"),
        (np.triu(np.ones((3, 3)), 1), [3], "conv3x3"),
        (np.triu(np.ones((8, 8)), 1), [0] * 6, "from 2 to 7"),
    ],
)
def test_what_is_no_cell_is_refused_in_one_line(adjacency, operations, message):
    with pytest.raises(UserError, match=message) as error:
        prune(adjacency, np.array(operations))
    assert "\n" not in str(error.value)


def test_graphs_of_an_impossible_size_are_refused():
    with pytest.raises(UserError, match="3 to 7"):
        graphs(8)


@pytest.mark.parametrize("max_vertices", [4, 5])
def test_graph_tables_agree_with_pruning_one_description_at_a_time(max_vertices):
    built = graphs(max_vertices)
    for mask in range(0, 1 << len(built.pairs), 3):
        adjacency = np.zeros((max_vertices, max_vertices), np.uint8)
        adjacency[built.pairs[:, 0], built.pairs[:, 1]] = mask >> np.arange(len(built.pairs)) & 1
        no_operations = np.zeros(max_vertices - 2, int)
        assert (built.graph_of[mask] >= 0) == valid(adjacency, no_operations)
