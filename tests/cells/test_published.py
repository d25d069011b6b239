"""Published cells cost what was published, and a genotype's text tells its space or what is wrong with it."""

import math
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from parsec.cells.batch_norm import BatchNorm
from parsec.cells.convolution import use_form
from parsec.cells.genotypes import to_json, to_text
from parsec.cells.network import Shape
from parsec.cells.published import PUBLISHED, recognise
from parsec.errors import UserError
from parsec.train.derived import Blueprint, make_network, network_costs

# Counted once, however many tests ask.
costs_of = cache(network_costs)
CIFAR = Shape(channels=36, cells=20, num_classes=10)
IMAGENET = Shape(channels=48, cells=14, num_classes=1000, stem="imagenet")


@pytest.mark.parametrize(
    ("name", "params", "megaflops"),
    [
        # Published, rounded: 3.3, 3.4 and 3.6 million; multiply-adds where others counted convolutions alone.
        ("DARTS_V2", 3_349_342, 528),
        ("P_DARTS", 3_433_798, 532),
        ("PC_DARTS", 3_634_678, None),
    ],
)
def test_on_cifar_they_have_their_published_size(name: str, params: int, megaflops: int | None):
    cost = costs_of(Blueprint("darts", PUBLISHED[name].text, CIFAR), (32, 32, 3))
    assert cost.params == params
    assert megaflops is None or round(cost.flops / 1e6) == megaflops


def test_the_auxiliary_head_is_that_of_darts():
    blueprint = Blueprint("darts", PUBLISHED["DARTS_V2"].text, CIFAR)
    with_head = costs_of(blueprint, (32, 32, 3), auxiliary=True)
    # 1x1 convolution from 576 to 128 channels and 2x2 to 768, both normalised, and a linear layer.
    head = 576 * 128 + 2 * 128 + 4 * 128 * 768 + 2 * 768 + 768 * 10 + 10
    assert with_head.params == 3_349_342 + head
    assert with_head.flops == costs_of(blueprint, (32, 32, 3)).flops + 4 * 576 * 128 + 4 * 128 * 768 + 7_690


def test_on_imagenet_darts_has_its_published_size():
    cost = costs_of(Blueprint("darts", PUBLISHED["DARTS_V2"].text, IMAGENET), (224, 224, 3))
    assert cost.params == 4_718_752
    assert cost.flops == 529_912_552


def test_with_elementwise_work_that_of_pc_darts_has_the_multiply_adds_published_on_imagenet():
    # That paper's counter adds two for each normalised element, and one for each ReLU's and each pooled one.
    blueprint = Blueprint("darts", PUBLISHED["PC_DARTS_IMAGENET"].text, IMAGENET)
    network, image = make_network(blueprint, train=False), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    normalised: list[int] = []

    def note(call: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*arguments, **keywords)
        if isinstance(context.module, BatchNorm):
            normalised.append(math.prod(output.shape))
        return output

    # Traced once: what draws the weights has neither rectifiers nor pools.
    with use_form("lax"), nn.intercept_methods(note):
        program = jax.make_jaxpr(network.init_with_output)(jax.random.key(0), image)
    elementwise = 2 * sum(normalised) + _outputs(program.jaxpr)
    assert round((costs_of(blueprint, (224, 224, 3)).flops + elementwise) / 1e6) == 597


def _outputs(jaxpr: Any) -> int:
    """Returns the elements that rectifiers and 3x3 pools put out."""
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if equation.params.get("name") == "relu" or name in ("reduce_window_max", "reduce_window_sum"):
            total += math.prod(equation.outvars[0].aval.shape)
        else:
            total += sum(_outputs(inner) for inner in jax.extend.core.jaxprs_in_params(equation.params))
    return total


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_cell_is_known_by_name_by_text_and_by_json(name: str):
    space, architecture = recognise(name)
    assert space.name == PUBLISHED[name].space and "arXiv" in PUBLISHED[name].source
    for text in (to_text(space, architecture), to_json(space.decode(architecture))):
        again, same = recognise(text)
        assert again is space and (same == architecture).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("DARTS_V22", ["did you mean 'DARTS_V2'", "or give a genotype: Genotype("]),
        (
            PUBLISHED["DARTS_V2"].text.replace("('dil_conv_3x3', 2)", "('dil_conv_7x7', 2)"),
            ["line 1 column 165", "unknown operation 'dil_conv_7x7'", "sep_conv_5x5"],
        ),
        (
            "|none~0|+|none~0|nor_conv_5x5~1|+|none~0|none~1|none~2|",
            ["node 2, edge 2", "unknown operation 'nor_conv_5x5'", "nor_conv_3x3"],
        ),
        ('{"sell": {}}', ["no space has the kinds of cells 'sell'", "nasbench201 has cell"]),
        ("{", ["genotype JSON, line 1 column 2"]),
    ],
)
def test_what_is_no_genotype_says_where_and_what_was_expected(text: str, says: list[str]):
    with pytest.raises(UserError) as raised:
        recognise(text)
    assert "\n" not in str(raised.value)
    for part in says:
        assert part in str(raised.value)


def test_a_published_cell_of_another_space_is_refused():
    with pytest.raises(UserError, match="DARTS_V2 is a cell of darts, not of nasbench201"):
        recognise("DARTS_V2", "nasbench201")
