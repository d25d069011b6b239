"""Published cells by name, and which space a genotype's text belongs to.

A cell is here if the operations of `parsec.cells.operations` cover it; those of NASNet and AmoebaNet need a 7x1_1x7
convolution. Their parameters, 20 cells of 36 channels on CIFAR-10, are what their papers say (see the tests).
"""

import json
from typing import NamedTuple

import numpy as np

from parsec.cells import SPACES, Space, get_space
from parsec.cells.genotypes import from_text
from parsec.errors import UserError, shown, unknown


class Published(NamedTuple):
    """A cell of the literature: its space, its text, and where it was published."""

    space: str
    text: str
    source: str


def _darts(normal: str, reduce: str, source: str) -> Published:
    """Returns a cell of the DARTS space from its pairs, written "operation source, ..."."""

    def pairs(text: str) -> str:
        words = (pair.split() for pair in text.split(","))
        return ", ".join(f"('{_LONG[name]}', {node})" for name, node in words)

    text = f"Genotype(normal=[{pairs(normal)}], normal_concat=range(2, 6), reduce=[{pairs(reduce)}], "
    return Published("darts", f"{text}reduce_concat=range(2, 6))", source)


_LONG = {
    "skip": "skip_connect",
    "max3": "max_pool_3x3",
    "avg3": "avg_pool_3x3",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}

PUBLISHED: dict[str, Published] = {
    "DARTS_V1": _darts(
        "sep3 1, sep3 0, skip 0, sep3 1, skip 0, sep3 1, sep3 0, skip 2",
        "max3 0, max3 1, skip 2, max3 0, max3 0, skip 2, skip 2, avg3 0",
        "Liu, Simonyan, Yang 2019, arXiv 1806.09055, first order",
    ),
    "DARTS_V2": _darts(
        "sep3 0, sep3 1, sep3 0, sep3 1, sep3 1, skip 0, skip 0, dil3 2",
        "max3 0, max3 1, skip 2, max3 1, max3 0, skip 2, skip 2, max3 1",
        "Liu, Simonyan, Yang 2019, arXiv 1806.09055, second order",
    ),
    "SNAS": _darts(
        "sep3 0, sep3 1, skip 0, dil3 1, skip 1, skip 0, skip 0, sep3 1",
        "max3 0, max3 1, max3 1, skip 2, skip 2, max3 1, max3 0, dil5 2",
        "Xie, Zheng, Liu, Lin 2019, arXiv 1812.09926, moderate constraint",
    ),
    "P_DARTS": _darts(
        "skip 0, dil3 1, skip 0, sep3 1, sep3 1, sep3 3, sep3 0, dil5 4",
        "avg3 0, sep5 1, sep3 0, dil5 2, max3 0, dil3 1, dil3 1, dil5 3",
        "Chen, Xie, Wu, Tian 2019, arXiv 1904.12760, on CIFAR-10",
    ),
    "PC_DARTS": _darts(
        "sep3 1, skip 0, sep3 0, dil3 1, sep5 0, sep3 1, avg3 0, dil3 1",
        "sep5 1, max3 0, sep5 1, sep5 2, sep3 0, sep3 3, sep3 1, sep3 2",
        "Xu et al. 2020, arXiv 1907.05737, on CIFAR-10",
    ),
    "PC_DARTS_IMAGENET": _darts(
        "skip 1, sep3 0, sep3 0, skip 1, sep3 1, sep3 3, sep3 1, dil5 4",
        "sep3 0, skip 1, dil5 2, max3 1, sep3 2, sep3 1, sep5 0, sep3 3",
        "Xu et al. 2020, arXiv 1907.05737, on ImageNet",
    ),
}


def recognise(text: str, space: str = "") -> tuple[Space, np.ndarray]:
    """Returns the space and the architecture int32 [L] of a genotype.

    Args:
      text: a name in `PUBLISHED`, or a genotype in the form of its space, or as JSON.
      space: key of `parsec.cells.SPACES`; empty where the text tells it.

    Raises:
      UserError: the text is neither, or malformed; the message says where and what was expected.
    """
    if text in PUBLISHED:
        published = PUBLISHED[text]
        if space not in ("", published.space):
            raise UserError(f"{text} is a cell of {published.space}, not of {space}")
        return get_space(published.space), from_text(get_space(published.space), published.text)
    found = get_space(space or _space_of(text))
    return found, from_text(found, text)


def _space_of(text: str) -> str:
    stripped = text.strip()
    if stripped.startswith("{"):
        return _space_of_json(stripped)
    if "|" in stripped or "~" in stripped:
        return "nasbench201"
    if "(" in stripped or "=" in stripped:
        return "darts"
    named = unknown("published cell", stripped, PUBLISHED)
    raise UserError(f"{named}; or give a genotype: Genotype(normal=[...], ...), |operation~0|+..., or JSON")


def _space_of_json(text: str) -> str:
    try:
        kinds = set(json.loads(text))
    except (ValueError, RecursionError, TypeError):
        # What is wrong with it is told by whoever reads it.
        return "darts"
    fitting = [name for name, space in SPACES.items() if set(space.cells) == kinds]
    if not fitting:
        listed = "; ".join(f"{name} has {', '.join(space.cells)}" for name, space in SPACES.items())
        raise UserError(f"no space has the kinds of cells {shown(', '.join(sorted(map(str, kinds))))}: {listed}")
    return fitting[0]
