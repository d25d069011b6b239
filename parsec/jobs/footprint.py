"""The least memory that a job takes, from its settings alone; `parsec.footprint` compares it with what there is."""

from dataclasses import replace

from parsec.cells.network import STEM_STRIDES
from parsec.cells.space import Space
from parsec.footprint import require_memory
from parsec.settings.search import NetworkSettings, SearchConfig
from parsec.settings.table import TableConfig

_INT32 = _FLOAT32 = 4
_INT64 = _FLOAT64 = 8


def check_search_memory(config: SearchConfig, space: Space, image: tuple[int, int, int]) -> None:
    """Raises `UserError` where a search certainly does not fit in memory.

    Args:
      config: the search.
      space: its space.
      image: height, width and channels of an image.
    """
    length, derive = len(space.choices), config.derive
    deepest = replace(config.network, cells=max(config.network.cells, derive.final_cells))
    require_memory(
        {
            **network_needs(deepest, space, image, config.data.batch_size),
            "the children of a step": config.sampler.num_children * length * _INT32,
            "the samples to derive from": (derive.rule == "best_of_samples") * derive.samples * length * _INT32,
            "random children": derive.random_children * length * _INT64,
            "ranked cells": bool(config.table) * derive.ranked_cells * length * _INT64,
        },
        "lower config.network.channels, config.data.batch_size or whichever is the largest",
    )


def network_needs(
    network: NetworkSettings, space: Space, image: tuple[int, int, int], batch_size: int
) -> dict[str, int]:
    """Returns the least bytes that training one child takes, by what takes them.

    The nodes of one cell at the first resolution, a matrix from channels to channels for each cell where the space has
    a convolution, and that matrix's gradient and momentum.
    """
    stride = STEM_STRIDES.get(network.stem, network.stem_stride)
    height, width = (-(-side // stride) for side in image[:2])
    layout = max(space.cells.values(), key=lambda cell: cell.num_nodes)
    activation = 2 if network.dtype == "bfloat16" else _FLOAT32
    nodes = layout.num_inputs + layout.num_nodes
    convolves = any("conv" in operation for operation in space.operations)
    return {
        "the activations of a cell": nodes * batch_size * height * width * network.channels * activation,
        "weights, gradient and momentum": convolves * 3 * network.cells * network.channels**2 * _FLOAT32,
    }


def check_compare_memory(seeds: int, budget: int) -> None:
    """Raises `UserError` where the runs of a comparison certainly do not fit in memory: their rows and one curve."""
    queries = seeds * budget
    require_memory(
        {f"{seeds:,} runs of {budget:,} queries": queries * (_INT32 + _FLOAT64)},
        "lower config.seeds or config.budget",
    )


def check_table_memory(config: TableConfig, space: Space) -> None:
    """Raises `UserError` where the architectures of a table, or what is measured of them, certainly do not fit."""
    length = len(space.choices)
    require_memory(
        {
            "architectures": config.architectures * length * _INT64,
            "scores": config.architectures * config.seeds * 2 * _FLOAT64,
        },
        "lower config.architectures or config.seeds",
    )
