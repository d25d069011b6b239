"""The hyper-parameters of AlphaX, its presets and their ranges; `parsec.search.alphax.strategy.make` documents each."""

from dataclasses import dataclass

from parsec.errors import UserError, unknown
from parsec.search.alphax.values import VALUES


@dataclass(frozen=True)
class Settings:
    """The hyper-parameters of AlphaX; `make` documents them."""

    exploration: float = 0.03
    first_play: float = 0.0
    values: str = "ranks"
    outlook_weight: float = 0.5
    candidates: int = 32
    rollouts: int = 10
    rollout_weight: float = 0.5
    batch: int = 1
    first_training: int = 20
    retrain_every: int = 10
    retrain_growth: float = 0.05
    members: int = 5
    width: int = 64
    steps: int = 200


PRESETS: dict[str, Settings] = {
    "default": Settings(),
    "paper": Settings(
        exploration=2.0,
        first_play=float("inf"),
        values="raw",
        outlook_weight=0.0,
        candidates=1,
        first_training=100,
        retrain_every=100,
    ),
}


def check(settings: Settings) -> None:
    """Raises `UserError` naming the first setting out of range."""
    if settings.values not in VALUES:
        raise unknown("kind of values of alphax", settings.values, VALUES)
    for name, least in (
        ("candidates", 1),
        ("rollouts", 0),
        ("batch", 1),
        ("first_training", 1),
        ("retrain_every", 1),
        ("members", 2),
        ("width", 1),
        ("steps", 1),
        ("exploration", 0.0),
        ("retrain_growth", 0.0),
    ):
        if not getattr(settings, name) >= least:
            raise UserError(
                f"option {name} of strategy alphax is {getattr(settings, name)}; it must be at least {least}"
            )
    for name in ("rollout_weight", "outlook_weight"):
        given = getattr(settings, name)
        if not 0.0 <= given <= 1.0:
            raise UserError(f"option {name} of strategy alphax is {given}; it must be in 0..1")
