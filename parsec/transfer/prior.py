"""A learnt prior carried to another search space, by the names of its choices and options.

PARSEC learns a prior on a small problem and starts the search on a large one from it (Casale, Gordon, Fusi 2019, arXiv
1902.05116). Names are what two spaces, two sizes of one space or two versions of this package have in common, so
nothing else is asked of them.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parsec.cells import Space
from parsec.cells.space import by_name
from parsec.errors import UserError, shown
from parsec.files import expanded

# The prior that a finished search writes into its run directory.
PRIOR = "prior.json"
# Names that a note lists before it only counts.
_LISTED = 4

# Choice -> option -> logit.
NamedLogits = dict[str, dict[str, float]]


class Carried(NamedTuple):
    """A prior in its new space.

    Attributes:
      logits: float32 [L, O], of `open_prior`.
      notes: a line each for choices and options without a counterpart.
    """

    logits: np.ndarray
    notes: tuple[str, ...]


def named_logits(space: Space, logits: np.ndarray) -> dict[str, Any]:
    """Returns what prior.json holds: the space's name, and every option's logit under its choice, [L, O] given."""
    return {"space": space.name, "logits": by_name(space, logits)}


def read_prior(given: str | Path, base: Path) -> NamedLogits:
    """Returns the logits that a finished run left.

    Args:
      given: its run directory or its prior.json; a relative path is looked up from `base`, then from the current
        directory.
      base: a folder, which need not exist.

    Raises:
      UserError: there is no such file, or it is no prior.
    """
    try:
        path = Path(os.path.normpath(base / expanded(given)))
        if not path.exists():
            path = expanded(given)
        if path.is_dir():
            path = path / PRIOR
        found = path.is_file()
    except OSError as error:
        raise UserError(f"cannot read the prior {shown(str(given))}: {error.strerror}") from error
    if not found:
        raise UserError(
            f"there is no prior {path}; give the directory of a finished search that learns one, or its {PRIOR}"
        )
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["logits"]
        logits = {name: {option: float(x) for option, x in row.items()} for name, row in stored.items()}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is not the prior of a search: {type(error).__name__} {error}") from error
    if not all(np.isfinite(x) for row in logits.values() for x in row.values()):
        raise UserError(f"{path} is not the prior of a search: it holds a logit that is no finite number")
    return logits


def carry_logits(
    source: Mapping[str, Mapping[str, float]], target: Space, sharpness: float = 1.0, mixture: float = 0.0
) -> Carried:
    """Returns a prior's logits for another space, opened up by `open_prior`.

    Before that an option keeps its probability. Options that the source does not have get an equal share each,
    1 / options, and those that it has divide the rest as they did there; a choice without a counterpart is uniform.

    Args:
      source: of `read_prior`.
      target: the space.
      sharpness: of `open_prior`.
      mixture: likewise.

    Raises:
      UserError: no choice of the target has a counterpart with two options or more.
    """
    logits = np.zeros(target.mask.shape, np.float32)
    uniform: list[str] = []
    new: list[str] = []
    for at, choice in enumerate(target.choices):
        theirs = source.get(choice.name, {})
        known = np.array([option in theirs for option in choice.options])
        if known.sum() < min(2, len(choice.options)):
            uniform.append(choice.name)
            continue
        values = np.array([theirs[option] for option in choice.options if option in theirs])
        values = values - values.max()
        logp = np.full(len(known), -np.log(len(known)))
        logp[known] = values - np.log(np.exp(values).sum()) + np.log(known.mean())
        logits[at, : len(known)] = logp
        new += [f"{choice.name}={option}" for option, found in zip(choice.options, known, strict=True) if not found]
    if len(uniform) == len(target.choices):
        raise UserError(
            f"the prior has none of the choices of {target.name}; it has {_listed(list(source))}, "
            f"{target.name} has {_listed(uniform)}"
        )
    notes = []
    if uniform:
        notes.append(f"{len(uniform)} choices have no counterpart in the prior and stay uniform: {_listed(uniform)}")
    if new:
        notes.append(f"{len(new)} options are new to the prior and get an equal share: {_listed(new)}")
    unused = [name for name in source if name not in {choice.name for choice in target.choices}]
    if unused:
        notes.append(f"{len(unused)} choices of the prior are not in {target.name}: {_listed(unused)}")
    return Carried(open_prior(logits, target.mask, sharpness, mixture), tuple(notes))


def open_prior(logits: np.ndarray, mask: np.ndarray, sharpness: float, mixture: float) -> np.ndarray:
    """Returns a prior drawn towards the uniform one, float32 [..., L, O]; zero where masked.

    Args:
      logits: float32 [..., L, O].
      mask: which options exist, bool [L, O].
      sharpness: factor on the logits, at least 0; below 1 it tempers them.
      mixture: the uniform distribution's share in the result, 0 .. 1: (1 - mixture) * tempered + mixture / options.
    """
    tempered = np.where(mask, sharpness * logits, 0.0).astype(np.float32)
    if mixture == 0:
        return tempered
    shifted = np.where(mask, tempered, -np.inf)
    weights = np.exp(shifted - shifted.max(-1, keepdims=True))
    mixed = (1 - mixture) * weights / weights.sum(-1, keepdims=True) + mixture * mask / mask.sum(-1, keepdims=True)
    return np.where(mask, np.log(np.where(mask, mixed, 1.0)), 0.0).astype(np.float32)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
