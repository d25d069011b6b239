"""AlphaX: Monte Carlo tree search with a Meta-DNN (Wang et al. 2020, https://arxiv.org/abs/1903.11059)."""

from parsec.search.alphax.drawing import draw_tree
from parsec.search.alphax.settings import PRESETS, Settings
from parsec.search.alphax.strategy import State, make

__all__ = ["PRESETS", "Settings", "State", "draw_tree", "make"]
