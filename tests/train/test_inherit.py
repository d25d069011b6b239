"""Weights of a parent: what fits is copied to the number, what does not is left fresh."""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from parsec.cells import get_space
from parsec.cells.network import Shape
from parsec.errors import UserError
from parsec.supernet.supernet import cell_kinds, child_weights, make_supernet
from parsec.train.inherit import inherit, load_child, nearest, save_child

SPACE = get_space("nasbench201")
SHAPE = Shape(channels=4, cells=1, num_classes=5)
# Edges in turn: 3x3, 1x1, skip, 3x3, none, 1x1.
PARENT = np.array([3, 2, 1, 3, 0, 2], np.int32)


@cache
def fresh(seed: int, shape: Shape = SHAPE) -> dict:
    weights = make_supernet(SPACE, shape).init(jax.random.key(seed), jnp.zeros((2, 8, 8, 1)))
    return jax.device_get(weights)


@pytest.fixture(scope="module")
def parent() -> dict:
    """A trained parent's own weights; which numbers they are is all the same."""
    return child_weights(SPACE, SHAPE, fresh(1), SPACE.decode(PARENT))


def start(child: np.ndarray, parent: dict, shape: Shape = SHAPE) -> tuple[dict, dict, float]:
    """Fresh weights, those after inheriting, and the share inherited."""
    before = fresh(2, shape)
    genotypes = SPACE.decode(child), SPACE.decode(PARENT)
    after, share = inherit(before, cell_kinds(SPACE, shape), *genotypes, parent)
    return before, after, share


def test_the_nearest_differs_in_the_fewest_choices_and_failures_are_nobodys_parent():
    evaluated = np.array([[0, 0, 0], [0, 1, 1], [0, 1, 2], [2, 1, 1]], np.int32)
    scores = np.array([90.0, 50.0, 60.0, np.nan])
    assert nearest(np.array([2, 1, 1], np.int32), evaluated, scores) == 1
    assert nearest(np.array([0, 1, 0], np.int32), evaluated, scores) == 0
    # Two at the same distance: the better score.
    assert nearest(np.array([1, 1, 3], np.int32), evaluated, scores) == 2
    assert nearest(np.array([2, 1, 1], np.int32), evaluated, np.full(4, np.nan)) is None
    assert nearest(np.array([2, 1, 1], np.int32), evaluated[:0], scores[:0]) is None


def test_the_same_architecture_inherits_every_number_of_its_own(parent: dict):
    before, after, share = start(PARENT, parent)
    assert share == 1.0
    own = child_weights(SPACE, SHAPE, after, SPACE.decode(PARENT))
    jax.tree.map(np.testing.assert_array_equal, own, parent)
    assert jax.tree.structure(after) == jax.tree.structure(before)


def test_a_changed_edge_starts_fresh_and_only_that(parent: dict):
    child = PARENT.copy()
    child[0] = 2
    before, after, share = start(child, parent)
    assert 0.5 < share < 1.0
    for cell in ("cell_0_0", "cell_1_0", "cell_2_0"):
        for operation in ("nor_conv_1x1", "nor_conv_3x3"):
            changed = before[cell][operation]["kernel"] != after[cell][operation]["kernel"]
            slots = {at for at in range(6) if changed[at].any()}
            assert slots == ({1, 5} if operation == "nor_conv_1x1" else {3})
    for outside in ("stem", "head", "residual_1"):
        jax.tree.map(np.testing.assert_array_equal, after[outside], parent[outside])


def test_the_same_operation_in_another_slot_does_not_fit(parent: dict):
    _, _, share_swapped = start(np.array([2, 3, 1, 3, 0, 2], np.int32), parent)
    _, _, share_same = start(PARENT, parent)
    assert share_swapped < share_same
    sources = get_space("darts")
    one, other = np.zeros(32, np.int32), np.zeros(32, np.int32)
    one[1::2] = 3
    other[1::2] = 3
    other[0] = 1
    # In a space whose sources are searched, an edge that reads another node is another edge.
    first, second = (sources.decode(a)["normal"].edges[0] for a in (one, other))
    assert first.operation == second.operation
    assert first != second


def test_a_parent_of_another_width_gives_only_what_has_its_shape(parent: dict):
    wide = Shape(channels=6, cells=1, num_classes=5)
    before, after, share = start(PARENT, parent, wide)
    assert 0 < share < 0.05
    np.testing.assert_array_equal(
        after["cell_0_0"]["nor_conv_3x3"]["kernel"], before["cell_0_0"]["nor_conv_3x3"]["kernel"]
    )
    np.testing.assert_array_equal(after["head"]["linear"]["bias"], parent["head"]["linear"]["bias"])


def test_a_child_is_read_back_as_written_and_a_damaged_file_is_one_line(parent: dict, tmp_path: Path):
    path = tmp_path / "children" / "000000.npz"
    save_child(path, parent)
    written, read = flatten_dict(parent), flatten_dict(load_child(path))
    assert written.keys() == read.keys()
    jax.tree.map(np.testing.assert_array_equal, read, written)
    path.write_bytes(path.read_bytes()[:200])
    for bad in (path, tmp_path / "none.npz"):
        with pytest.raises(UserError, match="cannot read the weights") as raised:
            load_child(bad)
        assert "\n" not in str(raised.value)
    assert [entry.name for entry in path.parent.iterdir()] == ["000000.npz"]
