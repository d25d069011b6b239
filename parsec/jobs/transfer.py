"""Carrying what one search learnt to another: `main.py --config=SOURCE --transfer_to=TARGET`.

Two searches one after the other: the source as it is, and the target from the prior that the source learnt, matched by
the names of choices and options. In the target the prior goes on learning by the target's own options: its learning
rate, how far it is opened up beforehand (`prior.sharpness`, `prior.mixture`), and how much it trusts what it was given
(`prior.trust_radius`). With `--train` the cell that the target finds is then trained from scratch on the target's
images, as a third run.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from parsec.cells import get_space
from parsec.cells.space import uniform_logits
from parsec.config import renamed_settings
from parsec.errors import UserError
from parsec.jobs.images.job import make_stages, run_pipeline
from parsec.jobs.search.coherence import check_search
from parsec.jobs.search.job import run_search
from parsec.jobs.search.problem import load_problem
from parsec.jobs.search.strategy import leaves_prior
from parsec.jobs.train.cell_source import any_cell
from parsec.jobs.train.job import run_train
from parsec.jobs.train.task import check_task, load_task
from parsec.run.workdir import RESULT, SOURCE, TARGET, TRAINED, inspect
from parsec.search.registry import STRATEGIES
from parsec.settings.images import PipelineConfig
from parsec.settings.search import SearchConfig, joint_entry, proposer
from parsec.settings.train import TrainConfig
from parsec.transfer.prior import carry_logits, named_logits


def run_transfer(config: Any, target_config: Any, workdir: Path, training: TrainConfig | None = None) -> dict[str, Any]:
    """Runs or resumes a search, then another job that starts from the prior that the first one learnt.

    Args:
      config: the source, a `SearchConfig` that learns a prior; it runs in the folder `source` of the run directory.
      target_config: the target, a search that starts from a prior, or a `PipelineConfig` of which the search does; in
        the folder `target`. It is the same as a job of its own with `--config.prior.initial=<source>`, and the other
        options of `config.prior` act alike.
      workdir: the run directory of all.
      training: of the target's cell, on the images that the target names, in the folder `train`; or None. It is the
        same as a job of its own with `--config.from_run=<target>`.

    Returns:
      What the last run's result.json holds.

    Raises:
      UserError: for a config that is no search, a source that learns no prior or a target that starts from none,
        spaces without a choice in common, and whatever either job refuses; before the source is searched where it can
        be known.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; the same command goes on.
    """
    if not isinstance(config, SearchConfig):
        raise UserError(f"the source of a transfer must be a search; {type(config).__name__} is none")
    source = get_space(config.space)
    if joint_entry(config) is None and not leaves_prior(config.strategy, source, len(config.objectives)):
        raise UserError(
            "the source of a transfer must learn a prior: strategy.name=parsec on the supernet, parsec_replay or "
            f"additive, not {proposer(config)} on {config.strategy.evaluator}"
        )
    begun, search = _started(target_config)
    if joint_entry(search) is None and not STRATEGIES[proposer(search)].carries:
        carry = ", ".join(name for name, entry in STRATEGIES.items() if entry.carries)
        raise UserError(f"the target of a transfer must start from a prior: strategy {carry}, not {proposer(search)}")
    target = get_space(search.space)
    with renamed_settings(search, "target.{}".format):
        check_search(search, target)
    carry_logits(named_logits(source, uniform_logits(source))["logits"], target)
    inspect(workdir / TARGET, begun)
    if not (workdir / SOURCE / RESULT).exists():
        # Data that is missing is told of now, not after the source's hours.
        with renamed_settings(search, "target.{}".format):
            load_problem(search)
    if training is not None:
        training = _of_target(training, begun)
        inspect(workdir / TRAINED, training)
        if not (workdir / TRAINED / RESULT).exists():
            with renamed_settings(training, "train.{}".format):
                check_task(load_task(training, *[any_cell(search.space)] * 2))
    run_search(config, workdir / SOURCE)
    with renamed_settings(begun, "target.{}".format):
        if isinstance(begun, PipelineConfig):
            return run_pipeline(begun, workdir / TARGET)
        found = run_search(begun, workdir / TARGET)
    if training is None:
        return found
    with renamed_settings(training, "train.{}".format):
        return run_train(training, workdir / TRAINED)


def _of_target(training: TrainConfig, target: SearchConfig | PipelineConfig) -> TrainConfig:
    """Returns the training of what a target finds, on the target's images.

    The target is named relative to the training's own run directory, so that the run does not depend on where it lies.
    """
    if isinstance(target, PipelineConfig):
        raise UserError("--train means nothing here: this target trains what it finds; leave it out")
    images = {"dataset": target.dataset, "data_dir": target.data_dir}
    return replace(training, from_run=f"../{TARGET}", genotype="", weights="", **images)


def _started(target: Any) -> tuple[SearchConfig | PipelineConfig, SearchConfig]:
    """Returns the target with the prior that it starts from, and the config of its search.

    The prior is named relative to the search's own run directory, so that the run does not depend on where it lies.
    """
    if isinstance(target, SearchConfig):
        target = replace(target, prior=replace(target.prior, initial=f"../{SOURCE}"))
        return target, target
    if isinstance(target, PipelineConfig):
        prior = replace(target.search.prior, initial=f"../../{SOURCE}")
        target = replace(target, search=replace(target.search, prior=prior))
        return target, make_stages(target).search
    raise UserError(f"the target of a transfer must be a search; {type(target).__name__} is none")
