"""The NAS-Bench-101 space: enumeration, lookup, neighbours, legal prefixes and features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells.nasbench101 import canonical_features, domain
from parsec.cells.nasbench101_cells import at_rows, cells, choices, decode, encode, lookup, place, rows, to_text
from parsec.cells.nasbench101_features import feature_names, parameters
from parsec.cells.nasbench101_graphs import module_hash
from parsec.cells.nasbench101_neighbours import neighbour_rows
from parsec.errors import UserError


@pytest.mark.parametrize(("max_vertices", "count"), [(3, 7), (4, 91), (5, 2532), (6, 64542)])
def test_enumeration_gives_the_published_counts(max_vertices, count):
    found = cells(max_vertices)
    assert found.pool.shape == (count, len(choices(max_vertices)))
    assert len(np.unique(found.pool, axis=0)) == count
    np.testing.assert_array_equal(rows(max_vertices, found.pool), np.arange(count))
    np.testing.assert_array_equal(at_rows(max_vertices, np.arange(count)), found.pool)


@pytest.mark.slow
def test_enumeration_of_seven_vertices():
    found = cells(7)
    assert len(found.pool) == 423_624
    np.testing.assert_array_equal(rows(7, found.pool), np.arange(423_624))


def test_every_vector_finds_the_cell_that_decoding_finds(key):
    sizes = np.array([len(choice.options) for choice in choices(5)])
    vectors = np.random.default_rng(0).integers(0, sizes, (400, len(sizes)))
    found = rows(5, vectors.astype(np.int32))
    assert 50 < (found >= 0).sum() < 400
    for vector, row in zip(vectors, found, strict=True):
        if row < 0:
            with pytest.raises(UserError):
                decode(vector, 5)
        else:
            assert module_hash(*decode(vector, 5)) == module_hash(*decode(cells(5).pool[row], 5))


def test_entries_out_of_range_are_invalid():
    inside = cells(4).pool[:2]
    outside = np.stack([inside[0], inside[1]])
    outside[0, 0], outside[1, -1] = 4, 2
    assert rows(4, outside).tolist() == [-1, -1]
    with pytest.raises(UserError, match="vertex 1"):
        decode(outside[0], 4)
    with pytest.raises(UserError, match="8 entries"):
        decode(outside[0][:-1], 4)


def test_text_names_operations_and_edges():
    adjacency = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]])
    assert to_text(encode(adjacency, [2], 6), 6) == "maxpool3x3; 0->1 0->2 1->2"
    with pytest.raises(UserError, match="4 vertices"):
        encode(np.triu(np.ones((4, 4)), 1), [0, 1], 3)


def test_neighbours_are_one_decision_away():
    # A path of one operation in a frame of four vertices: two other operations, the edge past it, and a second vertex
    # before, after or beside it with each operation; without either of its edges nothing is left.
    cell = encode(np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]]), [0], 4)
    around = {to_text(neighbour, 4) for neighbour in domain(4).neighbours(cell)}
    short = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
    expected = {f"{o}; 0->1 1->2" for o in short[1:]} | {"conv3x3-bn-relu; 0->1 0->2 1->2"}
    for o in short:
        both = sorted([short.index(o), 0])
        expected.add(f"{short[both[0]]} {short[both[1]]}; 0->1 0->2 1->3 2->3")
        expected |= {f"{o} conv3x3-bn-relu; 0->1 0->2 1->2 2->3", f"conv3x3-bn-relu {o}; 0->1 1->2 1->3 2->3"}
        expected.add(f"{o} conv3x3-bn-relu; 0->1 1->2 2->3")
    assert {text for text in around if text.count("->") < 4} <= expected
    assert {f"{o}; 0->1 1->2" for o in short[1:]} <= around
    assert "conv3x3-bn-relu; 0->1 0->2 1->2" in around


def test_every_cell_can_be_reached_from_every_other():
    near = neighbour_rows(5)
    steps = [near.rows[near.starts[r] : near.starts[r + 1]] for r in range(2532)]
    backward: list[list[int]] = [[] for _ in steps]
    for r, targets in enumerate(steps):
        assert r not in targets
        assert len(set(targets.tolist())) == len(targets) > 0
        for t in targets:
            backward[t].append(r)
    for graph in (steps, backward):
        seen, frontier = {0}, {0}
        while frontier:
            frontier = {int(t) for r in frontier for t in graph[r]} - seen
            seen |= frontier
        assert len(seen) == 2532


def test_mutation_is_a_uniform_neighbour(key):
    space = domain(4)
    cell = space.pool[40]
    drawn = jax.jit(jax.vmap(space.mutate, (0, None)))(jax.random.split(key, 3000), cell)
    expected = rows(4, space.neighbours(np.asarray(cell)))
    found, counts = np.unique(rows(4, np.asarray(drawn)), return_counts=True)
    assert found.tolist() == sorted(expected.tolist())
    assert counts.min() > 0.7 * 3000 / len(expected)
    assert counts.max() < 1.3 * 3000 / len(expected)


def test_samples_are_uniform_over_cells_and_valid(key):
    space = domain(4)
    drawn = space.sample(key, 9100)
    assert bool(space.valid(drawn).all())
    counts = np.bincount(np.asarray(lookup(4, drawn)), minlength=91)
    assert counts.min() > 60
    assert counts.max() < 145


def test_legal_prefixes_end_in_canonical_cells():
    space = domain(4)
    found: list[tuple[int, ...]] = []
    open_prefixes: list[tuple[int, ...]] = [()]
    while open_prefixes:
        prefix = open_prefixes.pop()
        if len(prefix) == len(space.sizes):
            found.append(prefix)
            continue
        legal = space.legal(prefix)
        assert legal.shape == (space.sizes[len(prefix)],)
        assert legal.any()
        open_prefixes += [(*prefix, int(option)) for option in np.flatnonzero(legal)]
    np.testing.assert_array_equal(sorted(found), space.pool)
    assert not space.legal((3, 0)).any()


def test_features_are_those_of_the_canonical_cell():
    space = domain(5)
    adjacency = np.zeros((5, 5), np.uint8)
    for i, j in ((0, 1), (1, 4), (0, 2), (2, 3), (3, 4)):
        adjacency[i, j] = 1
    swapped = np.zeros((5, 5), np.uint8)
    for i, j in ((0, 3), (3, 4), (0, 1), (1, 2), (2, 4)):
        swapped[i, j] = 1
    both = np.concatenate(
        [place(adjacency[None], np.array([[0, 1, 2]]), 5), place(swapped[None], np.array([[1, 2, 0]]), 5)]
    )
    assert (both[0] != both[1]).any()
    described = np.asarray(space.features(both))
    np.testing.assert_array_equal(described[0], described[1])
    named = dict(zip(feature_names(5), described[0].tolist(), strict=True))
    assert named["longest path"] == pytest.approx(3 / 4)
    assert named["shortest path"] == pytest.approx(2 / 4)
    assert named["paths (log)"] == pytest.approx(1 / 3)
    assert named["edges conv1x1->maxpool"] == pytest.approx(1 / 9)
    assert named["path conv3x3"] == named["path conv1x1-maxpool"] == 1
    assert named["path maxpool"] == named["path conv1x1"] == 0
    assert named["channels of maxpool"] == pytest.approx(0.5 / 3)
    assert named["conv3x3 next to the output"] == pytest.approx(1 / 3)
    assert named["most conv3x3 on a path"] == pytest.approx(1 / 3)
    assert named["fewest conv3x3 on a path"] == 0
    assert (np.asarray(space.features(np.zeros((1, len(space.sizes)), np.int32))) == 0).all()


def test_features_are_bounded_and_tell_cells_apart():
    described = np.asarray(canonical_features(5)(cells(5).pool))
    assert described.shape == (2532, len(feature_names(5)))
    assert described.min() >= 0
    assert described.max() < 1.1
    assert len(np.unique(described, axis=0)) == 2532


@pytest.mark.shared_data
def test_parameters_equal_the_published_ones(shared_data):
    with np.load(shared_data / "nasbench101_sample30k.npz") as sample:
        sizes, adjacency, operations, published = (sample[k] for k in ("n_vertices", "adjacency", "ops", "params"))
    for n in range(2, 8):
        of_size = sizes == n
        if of_size.any():
            architectures = place(adjacency[of_size, :n, :n], operations[of_size, : n - 2], 7)
            np.testing.assert_array_equal(parameters(architectures, 7), published[of_size])
            # In canonical order the channels left over by a division may go to another vertex.
            canonical = cells(7).pool[rows(7, architectures)]
            np.testing.assert_allclose(parameters(canonical, 7), published[of_size], rtol=2e-2)


def test_lookup_works_on_traced_arrays_of_any_rank():
    pool = cells(4).pool[:6].reshape(2, 3, -1)
    np.testing.assert_array_equal(jax.jit(lambda a: lookup(4, a))(jnp.asarray(pool)), np.arange(6).reshape(2, 3))
