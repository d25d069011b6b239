"""The end of a search: the found architecture, its figures and its files."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec import prior as priors
from parsec.cells import Space, get_space
from parsec.cells.costs import LATENCY, named_costs, network_cost
from parsec.cells.domain import Domain, add_up
from parsec.cells.drawing import draw_genotype, text_drawing
from parsec.cells.genotypes import to_text
from parsec.cells.limits import draw_within
from parsec.cells.network import Shape
from parsec.cells.space import SKIPS
from parsec.config import affecting_results
from parsec.data.examples import is_streamed
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluated
from parsec.evaluate.supernet import Scored
from parsec.jobs.search.factories import search_costs
from parsec.jobs.search.front import FRONT, Front, describe_front
from parsec.keys import fold
from parsec.report.page import report_page
from parsec.report.ranking import ranking, ranking_words
from parsec.report.verdict import number_or_none, percent
from parsec.run.metrics import read_metrics
from parsec.run.progress import announce
from parsec.run.unreadable import Unreadable
from parsec.run.workdir import CONFIG, RESULT, read_json, write_json_atomic, write_text_atomic
from parsec.settings.search import SearchConfig, joint_entry, proposer
from parsec.tables.standing import standing
from parsec.tables.table import Table
from parsec.transfer.prior import PRIOR, named_logits

REPORT = "report.html"

# Share of skip connections and zero operations among a mode's operations above which the search is called collapsed.
_COLLAPSED = 0.5

# `score(architecture int32 [L]) -> Scored`.
Judge = Callable[[np.ndarray], Scored]


class Outcome(NamedTuple):
    """What a search found, however it searched.

    Attributes:
      architecture: the found one, int32 [L].
      score: `score(architecture) -> Scored` on validation, by which it is compared with others.
      ranks: whether scores are cheap enough to rank random architectures by.
      logits: the learnt prior, float32 [L, O], or None.
      control: what the prior's control learnt, float32 [L, O], or None.
      effects: what a strategy expects each option to add to its score, float32 [L, O], or None.
      evaluated: what a strategy evaluated on its way, or None.
      domain: what could be found, where that is not the whole space; random children are of it.
      front: of a search for several objectives, what it found; the architecture is one of its members.
    """

    architecture: np.ndarray
    score: Judge
    ranks: bool
    logits: np.ndarray | None = None
    control: np.ndarray | None = None
    effects: np.ndarray | None = None
    evaluated: Evaluated | None = None
    domain: Domain | None = None
    front: Front | None = None


def conclude(
    config: SearchConfig,
    space: Space,
    shape: Shape,
    outcome: Outcome,
    image: tuple[int, int, int],
    table: Table | None,
    workdir: Path,
    retrained: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Judges the found architecture, and writes result.json, prior.json, the drawing and report.html.

    Args:
      config: the search.
      space: its space.
      shape: of its networks.
      outcome: what it found.
      image: height, width and channels of an image.
      table: of published figures for the space, or None.
      workdir: the run directory.
      retrained: what trainings from scratch say of the found architecture, of `parsec.jobs.search.verify`; or None.

    Returns:
      What result.json holds; accuracies in percent. Nothing in it depends on the clock.

    Raises:
      UserError: where a file cannot be written.
    """
    rng = np.random.default_rng(config.seed)
    found, logits, evaluated = outcome.architecture, outcome.logits, outcome.evaluated
    # Where a score costs a training, verification has trained random cells already.
    compared = config.derive.random_children if outcome.ranks or retrained is None else 0
    if outcome.domain is None:
        children = rng.integers(0, space.sizes, (compared, len(space.sizes)))
    else:
        children = [draw_within(rng, outcome.domain) for _ in range(compared)]
    random_scores = [outcome.score(architecture).accuracy for architecture in children]
    finite = [score for score in random_scores if np.isfinite(score)]
    cost = network_cost(space, found, shape, image)
    result: dict[str, Any] = {
        "space": space.name,
        "architecture": found.tolist(),
        "genotype": to_text(space, found),
        "seed": config.seed,
        "num_classes": shape.num_classes,
        "retrained": None if retrained is None else dict(retrained),
        "valid_accuracy": number_or_none(outcome.score(found).accuracy),
        "random_valid_accuracy": number_or_none(np.mean(finite) if finite else np.nan),
        "random_valid_deviation": number_or_none(np.std(finite) if finite else np.nan),
        "entropy": None if logits is None else float(priors.entropy(logits, space.mask)),
        "control_entropy": None if outcome.control is None else float(priors.entropy(outcome.control, space.mask)),
        "params": cost.params,
        "flops": cost.flops,
        "latency_ms": named_costs(search_costs(config), found)[LATENCY] if config.latency else None,
        "front": None if outcome.front is None else describe_front(outcome.front, space),
        "table": None if table is None else standing(space, table, found),
        "rank_correlation": None
        if table is None
        else _rank_correlation(config.derive.ranked_cells, space, outcome, table, rng),
        "strategy": proposer(config),
        "evaluator": config.strategy.evaluator,
        "evaluations": None if evaluated is None else len(evaluated.scores),
        "failed_evaluations": None if evaluated is None else int((~np.isfinite(evaluated.scores[:, 0])).sum()),
        "warnings": _warnings(space, found, config),
        "config": affecting_results(config),
    }
    if is_streamed(config.dataset):
        # After the scores, which may have met some more.
        result["unreadable"] = Unreadable(workdir, config.data.unreadable_limit).told()
    if logits is not None:
        write_json_atomic(workdir / PRIOR, named_logits(space, logits))
    draw_genotype(space.decode(found), workdir / "cell.svg", workdir / "cell.png")
    # As it is read back. It is written last: with it a run is finished.
    result = json.loads(json.dumps(result))
    write_report(result, workdir)
    write_json_atomic(workdir / RESULT, result)
    return result


def write_report(result: Mapping[str, Any], workdir: Path) -> Path:
    """Writes report.html of a result into its run directory, whose config and metrics it shows; returns its path.

    Raises:
      UserError: config.json or metrics.jsonl is damaged, or the page cannot be written.
    """
    config = read_json(workdir / CONFIG)
    if not isinstance(config, dict):
        raise UserError(f"{workdir / CONFIG} is not the config of a run")
    write_text_atomic(workdir / REPORT, report_page(result, config, read_metrics(workdir)))
    return workdir / REPORT


def derive_architecture(
    config: SearchConfig, space: Space, mode: np.ndarray, logits: np.ndarray | None, score: Judge
) -> np.ndarray:
    """Returns the found architecture, int32 [L]: the search's own, or the best on validation of it and n samples.

    Args:
      config: the search.
      space: its space.
      mode: what the search would report, int32 [L].
      logits: of its distribution over architectures, float32 [L, O]; without one there is nothing to sample.
      score: on validation.
    """
    if config.derive.rule == "mode" or logits is None:
        return mode
    key = fold(jax.random.key(config.seed), "derived samples")
    samples = np.asarray(priors.sample(key, logits, jnp.asarray(space.mask), config.derive.samples))
    candidates = np.unique(np.concatenate([mode[None], samples]), axis=0)
    scores = [score(candidate).accuracy for candidate in candidates]
    return candidates[int(np.nanargmax(scores))] if np.isfinite(scores).any() else mode


def show_result(result: dict[str, Any], workdir: Path) -> None:
    """Prints a finished search: the cell as text and drawing, its figures, and where everything lies."""
    space = get_space(result["space"])
    print()
    print("\n".join(text_drawing(space.decode(np.array(result["architecture"])))))
    print(f"\n{result['genotype']}\n")
    how = {"train": "trained from scratch", "table": "in the table"}.get(result["evaluator"], "with the shared weights")
    # Under shared weights an accuracy proves nothing, so it is told only where there is no proof.
    rows: dict[str, Any] = (
        _proof(result["retrained"])
        if result.get("retrained")
        else {
            "validation accuracy": f"{_percent(result['valid_accuracy'])} {how}",
            "random children": " ± ".join(
                _percent(result[f"random_valid_{name}"]) for name in ("accuracy", "deviation")
            ),
        }
    )
    rows |= {"parameters": f"{result['params']:,}", "FLOPs": f"{result['flops']:,}"}
    if result.get("latency_ms") is not None:
        rows["latency"] = f"{result['latency_ms']:.3g} ms, predicted"
    if result["entropy"] is not None:
        rows["entropy of the prior"] = f"{result['entropy']:.1f} of {np.log(space.sizes).sum():.1f} nats"
        if result["control_entropy"] is not None:
            rows["entropy of the prior"] += f"; {result['control_entropy']:.1f} where likelihoods say nothing"
    if result["evaluations"] is not None:
        failed = f", {result['failed_evaluations']} of them failed" if result["failed_evaluations"] else ""
        rows["evaluations"] = f"{result['evaluations']:,} by {result['strategy']}{failed}"
    for name, value in (result["table"] or {}).items():
        rows[f"table: {name}"] = value
    for name, words in ranking_words(result["rank_correlation"] or {}).items():
        rows[f"ranks by {name}"] = words
    if result.get("front"):
        front = result["front"]
        volume = f"{front['hypervolume']:.4f} of the box up to the ideal point"
        rows["front"] = f"{len(front['members'])} cells, {volume}: {workdir / FRONT}"
    if result.get("unreadable", {}).get("count"):
        rows["unreadable files"] = f"{result['unreadable']['count']} skipped: {result['unreadable']['files']}"
    rows["run directory"] = workdir
    rows["open first"] = workdir / "report.html"
    announce("found cell", rows)
    for warning in result["warnings"]:
        print(f"warning: {warning}")


def _proof(retrained: Mapping[str, Any]) -> dict[str, str]:
    low, high = retrained["beaten_interval"]
    return {
        "verdict": f"{retrained['sentence']}.",
        "test accuracy": f"{percent(retrained['found'], retrained['found_deviation'])}, {retrained['seeds']} seeds of "
        f"{retrained['steps']} steps from scratch",
        "random cells": f"{percent(retrained['random_mean'], retrained['random_deviation'])}; beaten: "
        f"{retrained['beaten']:.0%} of {retrained['random_cells']}, or {low:.0%} to {high:.0%} of all (95 %)",
        "plain residual network": percent(retrained["residual"], retrained["residual_deviation"]),
    }


def _percent(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2f} %"


def _rank_correlation(
    count: int, space: Space, outcome: Outcome, table: Table, rng: np.random.Generator
) -> dict[str, Any] | None:
    """Returns how scores and prior rank cells that the table knows, as `parsec.report.ranking` says it, or None.

    Scores are left out where each costs a training.
    Uniform cells where the table holds every one; else its own, `count` of them or as many as there are.
    """
    if not count or not (outcome.ranks or outcome.logits is not None):
        return None
    if table.complete:
        cells = rng.integers(0, space.sizes, (count, len(space.sizes))).astype(np.int32)
        rows, drawn_from = table.find(cells), "space"
    else:
        rows, drawn_from = np.arange(len(table)), "table"
        if count < len(table):
            rows = np.sort(rng.choice(rows, count, replace=False))
        cells = table.architectures[rows]
    told: dict[str, np.ndarray] = {}
    if outcome.ranks:
        scored = [outcome.score(cell) for cell in cells]
        told |= {name: np.array([getattr(each, name) for each in scored]) for name in Scored._fields}
    if outcome.logits is not None:
        told["prior"] = np.asarray(priors.log_probability(outcome.logits, space.mask, cells), np.float64)
    if outcome.effects is not None:
        told["expected_score"] = add_up(outcome.effects, cells)
    return {
        "cells": len(cells),
        "drawn_from": drawn_from,
        "failed": int((~np.isfinite(next(iter(told.values())))).sum()),
        "ranked_by": table.ranked_by,
        **ranking(told, table.columns[table.ranked_by][rows]),
    }


def _warnings(space: Space, architecture: np.ndarray, config: SearchConfig) -> list[str]:
    operations = [edge.operation for cell in space.decode(architecture).values() for edge in cell.edges]
    share = sum(name in SKIPS for name in operations) / len(operations)
    warnings = []
    if share > _COLLAPSED:
        warnings.append(
            f"{share:.0%} of the found cell's operations are skip connections or none: the search may have collapsed"
            + "; a longer --config.prior.warmup or a slower --config.prior.learning_rate helps"
            * (joint_entry(config) is not None)
        )
    if config.asynchronous:
        warnings.append(
            "not reproducible: which worker ended first decided what was proposed next (config.asynchronous), so that "
            "another run of this seed may find another cell"
        )
    return warnings
