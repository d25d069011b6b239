"""A trained network of the smallest size, whose weights are random."""

from pathlib import Path

import jax
import numpy as np

from parsec.cells.network import Shape
from parsec.export.stablehlo import probabilities
from parsec.train.derived import Blueprint, init_variables, make_network
from parsec.train.model_file import Metadata, Model, save_model

TEXT = "|nor_conv_1x1~0|+|skip_connect~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|skip_connect~2|"
DARTS = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('max_pool_3x3', 1), ('dil_conv_5x5', 0), ('skip_connect', 1), "
    "('skip_connect', 0), ('avg_pool_3x3', 1), ('skip_connect', 0), ('skip_connect', 2)], "
    "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('skip_connect', 1), ('dil_conv_3x3', 0), "
    "('avg_pool_3x3', 1), ('skip_connect', 0), ('sep_conv_5x5', 1), ('skip_connect', 2), ('skip_connect', 3)], "
    "reduce_concat=range(2, 6))"
)
SIZE = Shape(channels=4, cells=1, num_classes=3)
CELLS = Metadata(
    Blueprint("nasbench201", TEXT, SIZE), ("ant", "bee", "cat"), (8, 8, 3), (90.5, 100.0, 120.0), (60.0,) * 3
)


def save_random(folder: Path, metadata: Metadata) -> Path:
    """Saves a network of random weights, averages that are no zeros and ones, and probabilities far from equal."""
    network = make_network(metadata.blueprint, train=True, scan=True)
    variables = init_variables(network, jax.random.key(1), metadata.image)
    variables["batch_stats"] = jax.tree.map(lambda leaf: leaf + 0.1, variables["batch_stats"])
    linear = variables["params"]["head"]["linear"]
    linear["kernel"] = 150 * linear["kernel"]
    save_model(folder, metadata, variables, variables)
    return folder


def expected_probabilities(model: Model, images: np.ndarray) -> np.ndarray:
    """Returns what the network itself gives, in one compilation."""
    return np.asarray(jax.jit(lambda given: probabilities(model, given))(images))


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *CELLS.image), dtype=np.uint8)
