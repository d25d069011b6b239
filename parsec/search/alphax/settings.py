"""The hyper-parameters of AlphaX, their ranges and presets."""

from dataclasses import dataclass

from parsec.config import option
from parsec.search.alphax.values import VALUES


@dataclass(frozen=True)
class Settings:
    """The options of AlphaX; `PRESETS` has the published ones."""

    exploration: float = option(
        0.03,
        "c of the UCT rule, in units of the scale-free value; 2 with raw scores in the paper",
        minimum=0,
        maximum=1e6,
    )
    first_play: float = option(
        0.0,
        "what an edge never visited is worth above the mean of its node; 1e9 visits all edges once first",
        minimum=-1e9,
        maximum=1e9,
    )
    values: str = option("ranks", "what UCT averages, see `parsec.search.alphax.values`", choices=VALUES)
    outlook_weight: float = option(
        0.5,
        "weight of the best prediction below an edge against the mean backed up through it; 0 selects by the latter",
        minimum=0,
        maximum=1,
    )
    candidates: int = option(
        32,
        "completions drawn at a node, of which the Meta-DNN finds the best below each edge and the one to evaluate; 1 "
        "evaluates a random one",
        minimum=1,
        maximum=10_000,
    )
    depth: int = option(
        1000,
        "decisions at which a walk of the tree ends; 0 is no tree: the best predicted of the root's `candidates`",
        minimum=0,
    )
    rollouts: int = option(10, "k, the predicted completions mixed into a backup", minimum=0, maximum=10_000)
    rollout_weight: float = option(
        0.5, "weight of the evaluated architecture in that mixture; the paper's is 1/2", minimum=0, maximum=1
    )
    batch: int = option(1, "architectures per ask", minimum=1, maximum=10_000)
    first_training: int = option(20, "evaluations before the Meta-DNN's first training", minimum=1)
    retrain_every: int = option(10, "new evaluations that make it train again, at least ...", minimum=1)
    retrain_growth: float = option(
        0.05,
        "... this fraction of all evaluations, so that long runs train at a geometric schedule",
        minimum=0,
        maximum=1e6,
    )
    members: int = option(
        5, "networks of the Meta-DNN, each blind to its own fold of the evaluations", minimum=2, maximum=100
    )
    width: int = option(64, "units of the two hidden layers of each", minimum=1, maximum=4096)
    steps: int = option(200, "Adam steps of one training", minimum=1, maximum=1_000_000)


# "paper" is the published search, as far as the module's docstring does not say otherwise.
PRESETS = {
    "default": Settings(),
    "paper": Settings(
        exploration=2.0,
        first_play=1e9,
        values="raw",
        outlook_weight=0.0,
        candidates=1,
        rollouts=10,
        rollout_weight=0.5,
        first_training=100,
        retrain_every=100,
        retrain_growth=0.0,
    ),
}
