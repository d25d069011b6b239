"""AlphaX: Monte Carlo tree search with a Meta-DNN (Wang et al. 2020, https://arxiv.org/abs/1903.11059)."""

from parsec.search.alphax.drawing import draw_tree
from parsec.search.alphax.strategy import PRESETS, State, make

__all__ = ["PRESETS", "State", "draw_tree", "make"]
