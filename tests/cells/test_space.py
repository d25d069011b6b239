"""Spaces are data: what they decode to, what they encode, and what they refuse."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsec.cells import SPACES, get_space
from parsec.cells.network import Shape, derive
from parsec.cells.operations import OPERATIONS, BatchStatistics, make_operation
from parsec.cells.space import POOLS, SKIPS, operation_share
from parsec.errors import UserError

SPACE = st.sampled_from(sorted(SPACES))


def test_sizes_are_those_published():
    assert SPACES["nasbench201"].cardinality == 15_625
    darts = SPACES["darts"]
    assert len(darts.choices) == 32
    assert darts.mask.sum() == 168
    np.testing.assert_allclose(float(darts.cardinality), float((14 * 21 * 28 * 35) ** 4), rtol=1e-9)


@given(SPACE, st.integers(0, 2**31 - 1))
def test_encoding_undoes_decoding_and_routes_agree_with_the_genotype(name: str, seed: int):
    space = SPACES[name]
    architecture = np.random.default_rng(seed).integers(0, space.sizes).astype(np.int32)
    genotype = space.decode(architecture)
    np.testing.assert_array_equal(space.encode(genotype), architecture)
    for kind, cell in genotype.items():
        sources, operations = space.route(kind, architecture)
        assert [edge.source for edge in cell.edges] == np.asarray(sources).tolist()
        assert [edge.operation for edge in cell.edges] == [space.operations[o] for o in np.asarray(operations)]
        # Every source is complete before it is read.
        assert all(edge.source < edge.target for edge in cell.edges)
        assert [edge.target for edge in cell.edges] == sorted(edge.target for edge in cell.edges)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [([0, 0, 0], "6 integers"), ([0.0] * 6, "6 integers"), ([0, 0, 0, 0, 0, 5], "edge_2_3"), ([-1] * 6, "edge_0_1")],
)
def test_an_architecture_of_another_space_is_refused(architecture: list, message: str):
    with pytest.raises(UserError, match=message):
        SPACES["nasbench201"].decode(architecture)


def test_unknown_names_get_the_nearest():
    with pytest.raises(UserError, match="did you mean 'darts'"):
        get_space("dart")
    with pytest.raises(UserError, match="did you mean 'sep_conv_3x3'"):
        make_operation("sep_conv3x3", channels=4, stride=1, norm=BatchStatistics)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_channels_and_divide_resolution(name: str, stride: int, key: jax.Array):
    operation = make_operation(name, channels=6, stride=stride, norm=BatchStatistics)
    x = jax.random.normal(key, (4, 7, 8, 6))
    y = operation.apply(operation.lazy_init(key, jax.ShapeDtypeStruct(x.shape, x.dtype)), x)
    assert y.shape == (4, -(-7 // stride), -(-8 // stride), 6)
    assert np.isfinite(y).all()


def test_batch_statistics_normalise_each_channel(key: jax.Array):
    x = jax.random.normal(key, (16, 4, 4, 3)) * jnp.array([1.0, 10.0, 0.1]).reshape(1, 1, 1, 3) + 5
    y = BatchStatistics().apply({}, x)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-2)
    narrow = BatchStatistics().apply({}, x.astype(jnp.bfloat16))
    assert narrow.dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SPACES)
def test_a_derived_network_maps_images_to_logits(name: str, dtype: str, key: jax.Array):
    space = SPACES[name]
    genotype = space.decode(np.random.default_rng(1).integers(0, space.sizes))
    network = derive(space, genotype, Shape(4, 3 if name == "darts" else 1, 7, dtype=dtype), norm=BatchStatistics)
    images = jax.random.normal(key, (2, 16, 16, 3))
    variables = network.lazy_init(key, jax.ShapeDtypeStruct(images.shape, images.dtype))
    shape = jax.eval_shape(network.apply, variables, images)
    assert shape.shape == (2, 7)
    assert shape.dtype == jnp.float32


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_shares_of_operations_are_those_of_the_decoded_cells(name: str):
    space = get_space(name)
    for names in (SKIPS, POOLS, ("sep_conv_5x5", "nor_conv_1x1")):
        share = operation_share(space, names)
        for seed in range(5):
            architecture = np.random.default_rng(seed).integers(0, space.sizes)
            run = [edge.operation for cell in space.decode(architecture).values() for edge in cell.edges]
            expected = sum(operation in names for operation in run) / len(run)
            assert share[np.arange(len(architecture)), architecture].sum() == pytest.approx(expected)
    assert operation_share(space, space.operations)[~space.mask].sum() == 0
    # A choice that several slots share counts for each of them.
    layout = next(iter(space.cells.values()))
    shared = replace(space, cells={"cell": replace(layout, slots=tuple(replace(s, operation=1) for s in layout.slots))})
    assert operation_share(shared, space.operations)[1] == pytest.approx(np.ones(len(space.operations)))


def test_what_options_have_in_common_is_what_their_cells_have():
    space = SPACES["darts"]
    architecture = np.random.default_rng(3).integers(0, space.sizes).astype(np.int32)
    features = space.common[:, np.arange(32), architecture].sum(1).tolist()
    counted: list[float] = []
    for cell in space.decode(architecture).values():
        operations = [edge.operation for edge in cell.edges]
        sources = [edge.source for edge in cell.edges]
        counted += [operations.count(name) for name in space.operations]
        counted += [sources.count(node) for node in range(5)]
        counted += [sum(source < 2 for source in sources), sum(sources)]
    assert features == counted
    assert not space.common[:, ~space.mask].any()
    # Where sources are fixed, operations are all there is.
    assert SPACES["nasbench201"].common.shape == (5, 6, 5)
