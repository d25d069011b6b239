"""The tree of AlphaX: which nodes exist, which edge UCT takes, what a backup leaves behind."""

import numpy as np
import pytest

from parsec.errors import UserError
from parsec.search.alphax.drawing import draw_tree, most_visited, node_statistics
from parsec.search.alphax.rollouts import every_completion, hash_rows, sample_completions, unseen_completions
from parsec.search.alphax.tree import back_up, close, expand, new_tree, path_to, prefix_of, rebuild, select

SIZES = (3, 2, 3, 2)


def _even(prefix: tuple[int, ...]) -> tuple[int, ...]:
    """Legal actions of the architectures whose decisions sum to an even number; the last decision is always forced."""
    if len(prefix) < len(SIZES) - 1:
        return tuple(range(SIZES[len(prefix)]))
    return tuple(option for option in range(SIZES[-1]) if (sum(prefix) + option) % 2 == 0)


def _tree():
    return new_tree(len(SIZES), max(SIZES), _even)


def test_a_forced_decision_is_passed_through():
    tree, node = expand(_tree(), 0, 2, _even)
    tree, node = expand(tree, node, 1, _even)
    tree, leaf = expand(tree, node, 2, _even)
    assert prefix_of(tree, leaf) == (2, 1, 2, 1)
    assert int(tree.depth[leaf]) == 4
    assert int(tree.size) == 4
    assert not tree.open[leaf].any()


def test_illegal_actions_are_never_open():
    tree = new_tree(2, 3, lambda prefix: (0, 2))
    np.testing.assert_array_equal(tree.open[0], [True, False, True])
    taken = {int(a) for seed in range(20) for a in select(tree, np.random.default_rng(seed), exploration=0.5)[1]}
    assert taken == {0, 2}


def test_select_takes_the_edge_of_the_largest_bound():
    tree = new_tree(3, 3, lambda prefix: (0, 1, 2))
    values = {0: [0.9, 0.5], 1: [0.6], 2: [0.65, 0.55, 0.6, 0.6]}
    leaves = {}
    for action in values:
        tree, leaves[action] = expand(tree, 0, action, lambda prefix: (0, 1, 2))
        for value in values[action]:
            back_up(tree, leaves[action], value, 1)
    for exploration in (0.01, 0.3, 2.0):
        bounds = [np.mean(v) + 2 * exploration * np.sqrt(2 * np.log(7) / len(v)) for v in values.values()]
        node, actions = select(tree, np.random.default_rng(0), exploration=exploration)
        assert node == leaves[int(np.argmax(bounds))]
        np.testing.assert_array_equal(actions, [0, 1, 2])


def test_values_are_read_between_the_bounds():
    tree = new_tree(2, 2, lambda prefix: (0, 1))
    for action, values in ((0, [1000.0]), (1, [1009.0] * 4)):
        tree, leaf = expand(tree, 0, action, lambda prefix: (0, 1))
        for value in values:
            back_up(tree, leaf, value, 1)
    rng = np.random.default_rng(0)
    # Over a range of 10 the better edge wins; over a range of 10,000 the difference drowns in the bonus.
    assert prefix_of(tree, select(tree, rng, exploration=0.1, bounds=(1000.0, 1010.0))[0]) == (1,)
    assert prefix_of(tree, select(tree, rng, exploration=0.1, bounds=(0.0, 10000.0))[0]) == (0,)


def test_first_play_decides_whether_a_good_edge_is_deepened_before_all_were_visited():
    tree = new_tree(2, 3, lambda prefix: (0, 1, 2))
    for action, value in ((0, 0.9), (1, 0.1)):
        tree, leaf = expand(tree, 0, action, lambda prefix: (0, 1, 2))
        back_up(tree, leaf, value, 1)
    node, actions = select(tree, np.random.default_rng(0), exploration=0.1)
    assert (node, list(actions)) == (0, [2])
    node, _ = select(tree, np.random.default_rng(0), exploration=0.1, first_play=0.0)
    assert prefix_of(tree, node) == (0,)


@pytest.mark.parametrize(("weight", "chosen"), [(0.0, 0), (0.4, 0), (0.6, 1), (1.0, 1)])
def test_an_outlook_is_mixed_with_what_was_backed_up(weight: float, chosen: int):
    tree = new_tree(2, 2, lambda prefix: (0, 1))
    for action, value in ((0, 0.9), (1, 0.1)):
        tree, leaf = expand(tree, 0, action, lambda prefix: (0, 1))
        back_up(tree, leaf, value, 1)

    def outlook(node: int, actions: np.ndarray) -> np.ndarray:
        return np.array([0.1, 0.9])[actions] if node == 0 else np.zeros(len(actions))

    ahead = {"outlook": outlook, "outlook_weight": weight}
    node, _ = select(tree, np.random.default_rng(0), exploration=0.1, first_play=0.0, **ahead)
    assert prefix_of(tree, node) == (chosen,)


def test_closing_the_last_edge_closes_the_edges_above():
    tree, first = expand(_tree(), 0, 0, _even)
    tree, second = expand(tree, first, 0, _even)
    for action in range(3):
        close(tree, second, action)
    assert not tree.open[first, 0]
    assert tree.open[0, 0]
    close(tree, first, 1)
    assert not tree.open[0, 0]
    assert tree.open[0, 1]


def test_rebuild_equals_what_was_backed_up_step_by_step():
    rng = np.random.default_rng(1)
    tree = _tree()
    leaves, values = [], []
    for _ in range(18):
        node, actions = select(tree, rng, exploration=0.3)
        tree, leaf = expand(tree, node, int(rng.choice(actions)), _even)
        if tree.depth[leaf] == len(SIZES):
            close(tree, node, int(tree.action[leaf]))
        leaves.append(leaf)
        values.append(rng.random())
        back_up(tree, leaf, values[-1], 1)
    other = tree._replace(visits=np.zeros_like(tree.visits), totals=np.zeros_like(tree.totals))
    rebuild(other, np.array(leaves), np.array(values))
    np.testing.assert_array_equal(other.visits, tree.visits)
    np.testing.assert_allclose(other.totals, tree.totals, atol=1e-12)
    assert tree.visits[0].sum() == 18


def test_a_tree_grows_past_its_first_capacity():
    def options(prefix: tuple[int, ...]) -> tuple[int, ...]:
        return (0, 1)

    tree, node = new_tree(200, 2, options), 0
    for _ in range(150):
        tree, node = expand(tree, node, 1, options)
        back_up(tree, node, 1.0, 1)
    nodes, actions = path_to(tree, node)
    assert len(nodes) == 150
    assert set(actions.tolist()) == {1}
    assert prefix_of(tree, node) == (1,) * 150
    assert tree.visits[0, 1] == 150


def test_rollouts_are_legal_and_reach_every_architecture():
    rows = sample_completions(np.random.default_rng(0), _even, [(1,)] * 400, 4)
    assert rows.dtype == np.int32
    assert (rows[:, 0] == 1).all()
    assert (rows.sum(1) % 2 == 0).all()
    assert {tuple(row) for row in rows.tolist()} == set(every_completion(_even, (1,), 4))


def test_unseen_completions_stop_early_and_skip_what_was_seen():
    known = set(list(every_completion(_even, (), 4))[:5])
    visited = []

    def seen(rows: np.ndarray) -> np.ndarray:
        visited.extend(map(tuple, rows.tolist()))
        return np.array([tuple(row) in known for row in rows.tolist()])

    found = unseen_completions(_even, (), 4, seen, 2)
    assert [tuple(row) for row in found.tolist()] == list(every_completion(_even, (), 4))[5:7]
    assert len(visited) == 7
    known.update(every_completion(_even, (), 4))
    assert unseen_completions(_even, (), 4, seen, 2).shape == (0, 4)


def test_hashes_tell_all_small_architectures_apart():
    rows = np.array(list(np.ndindex(5, 5, 5, 5, 5, 5)), np.int32)
    assert len(np.unique(hash_rows(rows))) == len(rows)


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_tree_is_drawn(tmp_path, suffix):
    rng = np.random.default_rng(0)
    tree = _tree()
    for _ in range(15):
        node, actions = select(tree, rng, exploration=0.3)
        tree, leaf = expand(tree, node, int(actions[0]), _even)
        if tree.depth[leaf] == len(SIZES):
            close(tree, node, int(actions[0]))
        back_up(tree, leaf, rng.random(), 1)
    path = draw_tree(tree, tmp_path / f"tree{suffix}", most=8, names=[["a", "b", "c"]] * 4)
    assert path.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")
    visits, values = node_statistics(tree)
    assert visits[0] == 15
    assert np.nanmax(values) <= 1.0
    nodes = most_visited(tree, visits, 8)
    assert len(nodes) == 8
    assert all(int(tree.parent[node]) in nodes for node in nodes[1:])


def test_a_tree_of_nothing_is_drawn_and_bad_requests_are_one_line(tmp_path):
    assert draw_tree(_tree(), tmp_path / "tree.svg").stat().st_size > 0
    with pytest.raises(UserError, match=r"\.svg, \.png, \.pdf, not '\.gif'"):
        draw_tree(_tree(), tmp_path / "tree.gif")
    with pytest.raises(UserError, match="at least 1 node"):
        draw_tree(_tree(), tmp_path / "tree.svg", most=0)
