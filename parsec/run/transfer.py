"""Carrying what one search learnt to another: `main.py --config=SOURCE --transfer_to=TARGET`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from parsec.cells import get_space
from parsec.cells.space import uniform_logits
from parsec.errors import UserError
from parsec.run.evaluators import joint_entry
from parsec.run.search import run_search
from parsec.run.settings import SearchConfig
from parsec.run.workdir import SOURCE, TARGET, inspect
from parsec.transfer.prior import carry_logits, named_logits


def run_transfer(config: Any, target_config: Any, workdir: Path) -> dict[str, Any]:
    """Runs or resumes a search, then another that starts from the prior that the first one learnt.

    Args:
      config: the source, a `SearchConfig`; it runs in the folder `source` of the run directory.
      target_config: the target, likewise in `target`. It is the same as a search of its own with
        `--config.prior.initial=<source>`, and `prior.sharpness` acts alike.
      workdir: the run directory of both.

    Returns:
      What the target's result.json holds.

    Raises:
      UserError: for a config that is no search or learns no prior, spaces without a choice in common, and whatever
        either search refuses.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; the same command goes on.
    """
    for role, given in (("source", config), ("target", target_config)):
        if not isinstance(given, SearchConfig):
            raise UserError(f"the {role} of a transfer must be a search; {type(given).__name__} is none")
        if joint_entry(given) is None:
            raise UserError(
                f"the {role} of a transfer must learn a prior: strategy.name=parsec on the supernet, not "
                f"{given.strategy.name} on {given.strategy.evaluator}"
            )
    # Relative to the target's run directory, so that the run does not depend on where it lies.
    prior = replace(target_config.prior, initial=f"../{SOURCE}")
    target_config = replace(target_config, prior=prior)
    # What the target would refuse is said before the source is searched.
    source, target = get_space(config.space), get_space(target_config.space)
    carry_logits(named_logits(source, uniform_logits(source))["logits"], target, prior.sharpness)
    inspect(workdir / TARGET, target_config)
    run_search(config, workdir / SOURCE)
    return run_search(target_config, workdir / TARGET)
