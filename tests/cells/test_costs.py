"""Parameters and FLOPs against published numbers, closed forms and the whole static network."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells import DARTS, NASBENCH201, Space
from parsec.cells.convolution import convolve_depthwise, use_form
from parsec.cells.costs import (
    Cost,
    CostTable,
    cost_table,
    count_flops,
    log_params_effects,
    module_cost,
    named_costs,
    network_cost,
    table_costs,
    with_effects,
)
from parsec.cells.domain import add_up
from parsec.cells.genotypes import from_text
from parsec.cells.network import Shape, derive
from parsec.errors import UserError

DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
    "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
    "reduce_concat=[2, 3, 4, 5])"
)
PUBLISHED = Shape(channels=16, cells=5, num_classes=10)


@pytest.fixture(scope="module")
def table() -> CostTable:
    return cost_table(NASBENCH201, PUBLISHED)


def _closed_form(architectures: np.ndarray) -> np.ndarray:
    """Returns NAS-Bench-201's own parameters and FLOPs, int64 [N, 2], from the numbers of 3x3 and 1x1 convolutions."""
    n1, n3 = ((architectures == NASBENCH201.operations.index(f"nor_conv_{k}x{k}")).sum(1) for k in (1, 3))
    params = 73_306 + 5 * (n3 * (9 * 5376 + 224) + n1 * (5376 + 224))
    return np.stack([params, 7_783_050 + 3_932_160 * (9 * n3 + n1)], 1)


def test_every_nasbench201_cell_costs_what_the_benchmark_says(table: CostTable) -> None:
    everything = np.stack(np.unravel_index(np.arange(5**6), [5] * 6), 1).astype(np.int32)
    costs = table_costs(table, everything)
    assert costs.dtype == np.int64
    np.testing.assert_array_equal(costs, _closed_form(everything))


def test_effects_on_parameters_add_up_to_their_logarithm(table: CostTable) -> None:
    effects = log_params_effects(table)
    everything = np.stack(np.unravel_index(np.arange(5**6), [5] * 6), 1).astype(np.int32)
    logarithms = np.log(table_costs(table, everything)[:, 0])
    # Main effects of all architectures, exactly: means with an option, less the mean of all.
    exact = [
        [logarithms[everything[:, choice] == option].mean() for option in range(5)] for choice in range(6)
    ] - logarithms.mean()
    np.testing.assert_allclose(effects, exact, atol=0.02)
    summed = effects[np.arange(6), everything].sum(1)
    assert np.corrcoef(summed, logarithms)[0, 1] > 0.93


@pytest.mark.shared_data
def test_costs_equal_the_published_table(table: CostTable, shared_data) -> None:
    with np.load(shared_data / "nasbench201.npz", allow_pickle=False) as published:
        order = [published["op_names"].astype(str).tolist().index(name) for name in NASBENCH201.operations]
        architectures = np.argsort(order)[published["ops"]].astype(np.int32)
        params, flops = (published[name] for name in ("params_m", "flops_m"))
    costs = table_costs(table, architectures) / 1e6
    np.testing.assert_allclose(costs[:, 0], params.reshape(len(costs), -1)[:, 0], atol=1e-6)
    np.testing.assert_allclose(costs[:, 1], flops.reshape(len(costs), -1)[:, 0], atol=1e-4)


def test_the_published_darts_cell_has_its_published_size() -> None:
    cost = network_cost(DARTS, from_text(DARTS, DARTS_V2), Shape(channels=36, cells=20, num_classes=10))
    assert cost.params == 3_349_342


@pytest.mark.parametrize(
    ("space", "shape", "image"),
    [
        (DARTS, Shape(channels=4, cells=3, num_classes=7), (16, 16, 3)),
        (NASBENCH201, Shape(channels=6, cells=2, num_classes=3, stem_stride=2), (15, 13, 1)),
    ],
)
def test_a_sum_over_slots_is_the_cost_of_the_whole_network(
    space: Space, shape: Shape, image: tuple[int, int, int]
) -> None:
    architectures = np.random.default_rng(1).integers(0, space.sizes, (2, len(space.sizes))).astype(np.int32)
    from_table = table_costs(cost_table(space, shape, image), architectures)
    for architecture, row in zip(architectures, from_table, strict=True):
        network = derive(space, space.decode(architecture), shape, train=False)
        whole = module_cost(network, jax.ShapeDtypeStruct((1, *image), jnp.float32))
        assert Cost(*row.tolist()) == whole
        assert network_cost(space, architecture, shape, image) == whole


@pytest.mark.parametrize("space", [DARTS, NASBENCH201])
def test_a_model_of_effects_is_one_more_cost(space: Space) -> None:
    rng = np.random.default_rng(2)
    whole = cost_table(space, Shape(channels=2, cells=3, num_classes=3), (8, 8, 1))
    effects = np.where(space.mask, rng.normal(size=space.mask.shape), 0.0)
    table = with_effects(whole, "latency_ms", 1000, 7.5, effects)
    architectures = rng.integers(0, space.sizes, (50, len(space.sizes))).astype(np.int32)
    costs = table_costs(table, architectures)
    np.testing.assert_array_equal(costs[:, :2], table_costs(whole, architectures))
    # Each of at most 16 slots is rounded to a thousandth.
    np.testing.assert_allclose(costs[:, 2] / 1000, 7.5 + add_up(effects, architectures), atol=0.0085)
    named = named_costs(table, architectures[3])
    assert list(named) == ["params", "flops", "latency_ms"]
    assert named["params"] == costs[3, 0] and named["latency_ms"] == costs[3, 2] / 1000


def test_precision_does_not_change_the_cost() -> None:
    half = Shape(channels=4, cells=1, num_classes=3, dtype="bfloat16")
    single = Shape(channels=4, cells=1, num_classes=3)
    architecture = np.array([3, 1, 2, 4, 0, 3], np.int32)
    assert network_cost(NASBENCH201, architecture, half) == network_cost(NASBENCH201, architecture, single)


def test_an_architecture_outside_the_space_is_refused() -> None:
    with pytest.raises(UserError, match="6 integers"):
        network_cost(NASBENCH201, [0, 1], PUBLISHED)


class _Linear(nn.Module):
    bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(5, use_bias=self.bias)(x)


def test_a_bias_counts_one_for_each_output() -> None:
    x = jax.ShapeDtypeStruct((1, 7), jnp.float32)
    assert module_cost(_Linear(bias=False), x) == Cost(35, 35)
    assert module_cost(_Linear(bias=True), x) == Cost(40, 40)
    image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    assert module_cost(nn.Conv(4, (3, 3)), image) == Cost(9 * 3 * 4 + 4, 64 * 4 * (9 * 3 + 1))
    # Half precision puts a cast between the product and its bias.
    assert module_cost(nn.Conv(4, (3, 3), dtype=jnp.bfloat16), image).flops == 64 * 4 * (9 * 3 + 1)
    assert module_cost(nn.Sequential([nn.Conv(4, (1, 1), use_bias=False), nn.BatchNorm(True)]), image).flops == 64 * 12


def test_depthwise_dilated_and_strided_convolutions() -> None:
    kernel = jnp.zeros((5, 5, 6), jnp.float32)
    image = jax.ShapeDtypeStruct((1, 9, 9, 6), jnp.float32)
    with use_form("lax"):
        for stride, dilation, outputs in ((1, 2, 81), (2, 1, 25)):
            program = jax.make_jaxpr(lambda x: convolve_depthwise(x, kernel, stride=stride, dilation=dilation))(image)  # noqa: B023
            assert count_flops(program.jaxpr) == outputs * 6 * 25


def test_work_inside_control_flow_is_counted() -> None:
    weight = jnp.ones((4, 4), jnp.float32)
    x = jax.ShapeDtypeStruct((1, 4), jnp.float32)

    def scanned(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda y, _: (jax.jit(lambda z: z @ weight)(y), None), x, length=3)[0]

    def branched(x: jax.Array) -> jax.Array:
        return jax.lax.cond(x.sum() > 0, lambda y: y @ weight @ weight, lambda y: y @ weight, x)

    @jax.custom_vjp
    def custom(x: jax.Array) -> jax.Array:
        return x @ weight

    custom.defvjp(lambda x: (custom(x), None), lambda _, g: (g @ weight,))
    assert count_flops(jax.make_jaxpr(scanned)(x).jaxpr) == 3 * 16
    assert count_flops(jax.make_jaxpr(branched)(x).jaxpr) == 2 * 16
    assert count_flops(jax.make_jaxpr(custom)(x).jaxpr) == 16
    assert count_flops(jax.make_jaxpr(jax.checkpoint(custom))(x).jaxpr) == 16
