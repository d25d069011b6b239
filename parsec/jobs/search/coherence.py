"""Settings that are allowed one by one and mean nothing together: refused, so that none is ever ignored silently."""

from collections.abc import Callable
from typing import Any, NamedTuple

from parsec.cells import Space
from parsec.cells.costs import LATENCY, Cost
from parsec.config import flatten
from parsec.data.examples import is_streamed
from parsec.errors import UserError
from parsec.evaluate.goals import check_goals
from parsec.evaluate.registry import EVALUATORS
from parsec.jobs.search.strategy import check_strategy
from parsec.joint.registry import JOINTS
from parsec.run.cluster import check_address
from parsec.search.registry import STRATEGIES, names
from parsec.settings.search import LEAST_CELLS, STREAMED, SearchConfig, joint_entry, proposer


class Condition(NamedTuple):
    """Settings that have a meaning only under a condition.

    Attributes:
      paths: of the settings, or of groups of them ending in a dot.
      holds: whether they mean something in a config.
      needs: what would give them a meaning, for the error.
    """

    paths: tuple[str, ...]
    holds: Callable[[SearchConfig], bool]
    needs: str


def check_search(config: SearchConfig, space: Space) -> None:
    """Raises `UserError` for a setting that was changed and would be ignored, and for a strategy that does not fit."""
    given, usual = dict(flatten(config)), dict(flatten(SearchConfig()))
    for condition in CONDITIONS:
        changed = [path for path in given if path.startswith(condition.paths) and given[path] != usual[path]]
        if changed and not condition.holds(config):
            raise UserError(
                f"config.{changed[0]}={_shown(given[changed[0]])} means nothing here; it needs {condition.needs}"
            )
    if is_streamed(config.dataset) and _trains(config):
        raise UserError(
            f"config.strategy.evaluator={config.strategy.evaluator} needs images in memory, and dataset "
            f"{config.dataset!r} is streamed, which searches on shared weights alone do: "
            "--config.strategy.evaluator=supernet, or --config.dataset=images"
        )
    if config.objectives:
        check_goals(config.objectives, (*Cost._fields, *((LATENCY,) if config.latency else ())))
        if proposer(config) not in ("random", *names(many=True)):
            able = ("random", *(name for name, entry in STRATEGIES.items() if entry.several), *names(many=True))
            raise UserError(
                f"config.strategy.name={config.strategy.name} searches for one objective; with config.objectives "
                f"choose one of {', '.join(able)}"
            )
    if not _is_joint(config):
        check_strategy(config.strategy, space, len(config.objectives))
    check_address(config.cluster)


def _is_joint(config: SearchConfig) -> bool:
    return joint_entry(config) is not None


def _trains(config: SearchConfig) -> bool:
    return bool(EVALUATORS[config.strategy.evaluator].afresh)


_JOINT = f"a search of weights and prior together: config.strategy.name={' or '.join(JOINTS)} on the supernet"
# How a prior learns beside shared weights; where it starts is not among it.
_LEARNING = ("prior.update", "prior.learning_rate", "prior.b1", "prior.warmup")
# What verify.random=0 and derive.finalists=0 switch off keeps its settings: a preset's need not be taken back singly.
CONDITIONS = (
    Condition(
        tuple(f"data.{name}" for name in STREAMED),
        lambda config: is_streamed(config.dataset),
        "a streamed dataset: config.dataset=imagenet, stream:images or stream:tfds:NAME",
    ),
    Condition(
        ("verify.",),
        lambda config: not is_streamed(config.dataset) or config.verify.random == 0,
        "images in memory; a streamed dataset has config.verify.random=0",
    ),
    Condition(
        ("likelihood.temperature", "likelihood.ess_floor"),
        lambda config: config.likelihood.reduction == "tempered",
        "config.likelihood.reduction=tempered",
    ),
    Condition(
        ("sampler.children_per_nat",),
        lambda config: config.sampler.budget == "adaptive",
        "config.sampler.budget=adaptive",
    ),
    Condition(("prior.b1",), lambda config: config.prior.update == "adam", "config.prior.update=adam"),
    Condition(
        ("prior.sharpness", "prior.mixture", "prior.trust_radius"),
        lambda config: bool(config.prior.initial),
        "config.prior.initial=RUN_DIR",
    ),
    Condition(
        ("prior.initial",),
        lambda config: _is_joint(config) or STRATEGIES[proposer(config)].carries,
        f"{_JOINT}; or a strategy that starts from a prior: {', '.join(n for n, e in STRATEGIES.items() if e.carries)}",
    ),
    Condition(("prior.trust_radius",), _is_joint, f"{_JOINT}; strategies have config.strategy.options=trust_radius=1"),
    Condition(
        ("derive.samples",),
        lambda config: config.derive.rule == "best_of_samples",
        "config.derive.rule=best_of_samples",
    ),
    Condition(("derive.rule",), _is_joint, _JOINT),
    Condition(("derive.ranked_cells",), lambda config: bool(config.table), "config.table=FILE"),
    Condition(
        ("strategy.evaluator",),
        lambda config: config.strategy.evaluator != "table" or bool(config.table),
        "config.table=FILE, which holds the scores",
    ),
    Condition(
        ("verify.random",),
        lambda config: config.verify.random == 0 or config.verify.random >= LEAST_CELLS,
        f"at least {LEAST_CELLS} random cells for a verdict, or 0 for none",
    ),
    Condition(
        ("verify.share",),
        lambda config: not config.verify.epochs and not config.verify.steps,
        "config.verify.epochs=0 and config.verify.steps=0",
    ),
    Condition(
        (
            "strategy.epochs",
            "strategy.steps",
            "strategy.inherit",
            "strategy.objective",
            "strategy.capacity",
            "derive.finalists",
            "derive.final_cells",
        ),
        _trains,
        "config.strategy.evaluator=train",
    ),
    Condition(
        ("derive.final_cells",),
        lambda config: config.derive.final_cells >= config.network.cells,
        "config.network.cells or more",
    ),
    Condition(
        ("strategy.capacity",),
        lambda config: config.strategy.objective == "log_likelihood",
        "config.strategy.objective=log_likelihood",
    ),
    Condition(("strategy.epochs",), lambda config: not config.strategy.steps, "config.strategy.steps=0"),
    Condition(
        ("epochs", "steps", "data.valid_batch_size", "supernet.", "sampler.", "likelihood.", *_LEARNING),
        lambda config: EVALUATORS[config.strategy.evaluator].shared,
        "shared weights: config.strategy.evaluator=supernet",
    ),
    Condition(
        ("devices",),
        lambda config: EVALUATORS[config.strategy.evaluator].shared,
        "shared weights: config.strategy.evaluator=supernet; short trainings have a device each already",
    ),
    Condition(
        ("workers", "cluster"),
        _trains,
        "short trainings of single cells, config.strategy.evaluator=train: shared weights learn in one process, whose "
        "batches --config.devices divides, and a table is looked up at once",
    ),
    Condition(
        ("workers", "cluster"),
        lambda config: not config.strategy.inherit,
        "config.strategy.inherit=false: a child that inherits weights waits for those before it",
    ),
    Condition(("asynchronous",), lambda config: config.workers > 1, "config.workers=2 or more"),
    Condition(
        ("verify.learning_rate",), lambda config: not _trains(config), "shared weights; here cells are trained alike"
    ),
    Condition(
        ("constraints",),
        lambda config: not _is_joint(config),
        "a strategy that is told scores, such as config.strategy.name=additive with config.strategy.evaluator=train",
    ),
    Condition(
        ("latency",),
        lambda config: any(LATENCY in text for text in (*config.constraints, *config.objectives)),
        f"{LATENCY} in config.constraints or config.objectives",
    ),
    Condition(("objectives",), _trains, "short trainings of single cells, config.strategy.evaluator=train"),
    Condition(
        ("strategy.options", "strategy.evaluations"),
        lambda config: not _is_joint(config),
        "a strategy that is told scores; weights and prior together read config.sampler, config.likelihood and "
        "config.prior",
    ),
)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
