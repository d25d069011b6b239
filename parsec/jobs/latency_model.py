"""The file latency.json: what predicts the latency of every cell of a space, as measured on one device."""

from typing import Any, NamedTuple

import numpy as np

from parsec.cells import Space
from parsec.cells.costs import LATENCY, CostTable, with_effects
from parsec.cells.space import by_name
from parsec.errors import UserError, shown
from parsec.files import expanded, file_digest
from parsec.run.workdir import read_json

MODEL = "latency.json"
_SCHEMA = 1
# Whole microseconds add up exactly, and are finer than anything that is measured.
_MICROSECONDS = 1000


class Latencies(NamedTuple):
    """A model read from its file.

    Attributes:
      intercept: milliseconds of a network whose effects sum to zero.
      effects: milliseconds that each option adds, float64 [L, O]; zero where masked.
      words: what was measured, on which device, for a plan.
      digest: of the file.
    """

    intercept: float
    effects: np.ndarray
    words: str
    digest: str


def describe_model(space: Space, intercept: float, effects: np.ndarray, told: dict[str, Any]) -> dict[str, Any]:
    """Returns what latency.json holds: the model, after what is `told` of how it was measured."""
    return {
        "schema": _SCHEMA,
        "unit": "ms",
        **told,
        "space": space.name,
        "intercept": intercept,
        "effects": by_name(space, effects),
    }


def read_model(directory: str, space: Space) -> Latencies:
    """Returns the model in the run directory of a finished --config=latency.

    Raises:
      UserError: there is none, it is damaged, or it is of another space.
    """
    path, where = expanded(directory) / MODEL, f"config.latency={shown(directory)}"
    if not path.is_file():
        raise UserError(f"{where}: there is no {MODEL}; give the run directory of a finished --config=latency")
    held = read_json(path)
    try:
        if held["schema"] != _SCHEMA:
            raise UserError(f"{where}: its {MODEL} has schema {shown(held['schema'])}; {_SCHEMA} is read here")
        if held["space"] != space.name:
            raise UserError(f"{where}: it is of the space {shown(held['space'])}, and config.space={space.name}")
        effects = np.zeros(space.mask.shape)
        for at, choice in enumerate(space.choices):
            effects[at, : len(choice.options)] = [held["effects"][choice.name][name] for name in choice.options]
        network, (batch, *image) = held["network"], held["batch"]
        words = (
            f"{network['cells']} cells, {network['channels']} channels, batches of {batch} x "
            f"{' x '.join(map(str, image))} on {held['device']}"
        )
        intercept = float(held["intercept"])
    except (KeyError, TypeError, ValueError, IndexError):
        raise UserError(f"{where}: its {MODEL} is damaged; measure again in another run directory") from None
    if not (np.isfinite(effects).all() and np.isfinite(intercept)):
        raise UserError(f"{where}: its {MODEL} holds numbers that are not finite")
    return Latencies(intercept, effects, words, file_digest(path))


def with_latencies(table: CostTable, latencies: Latencies) -> CostTable:
    """Returns the costs with `latency_ms` as one more."""
    return with_effects(table, LATENCY, _MICROSECONDS, latencies.intercept, latencies.effects)
