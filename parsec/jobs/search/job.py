"""The main job: a search on a supernet, from a config to a found cell in a run directory.

It loads and parts the images and searches: jointly, where weights and architecture learn together, or by a strategy
that is told the scores of an evaluator. Either goes on where an earlier process stopped. The found architecture is
trained from scratch beside random ones, and judged by a published table where one is given; result.json, prior.json,
the drawing and report.html last. Shared weights may learn on images that are streamed.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from parsec.cells import Space, get_space
from parsec.cells.costs import LATENCY
from parsec.cells.domain import Domain
from parsec.cells.space import uniform_logits
from parsec.data.stream import StreamedPart
from parsec.evaluate.goals import Goals
from parsec.evaluate.registry import EVALUATORS
from parsec.evaluate.supernet import OBJECTIVE, Scored
from parsec.evaluate.training import LIKELIHOOD
from parsec.jobs.latency_model import Latencies, read_model
from parsec.jobs.search.coherence import check_search
from parsec.jobs.search.conclude import Judge, Outcome, conclude, derive_architecture, show_result
from parsec.jobs.search.domain import search_domain
from parsec.jobs.search.factories import search_costs, search_goals, told_capacity, told_objectives, training_cost
from parsec.jobs.search.finals import COMPARED, choose_finalists, decide, remembered
from parsec.jobs.search.front import find_front, settle_front, write_front
from parsec.jobs.search.problem import (
    JointSearch,
    Problem,
    check_cells,
    load_problem,
    make_joint,
    make_step,
    make_validation,
    naming_unreadable,
    open_sources,
    open_table,
    start_state,
)
from parsec.jobs.search.shared_out import evaluate_afresh, open_evaluator
from parsec.jobs.search.strategy import best, run_strategy
from parsec.jobs.search.verify import plan_verification, verify, verify_front
from parsec.run.cluster import check_cluster
from parsec.run.loop import run_steps
from parsec.run.opening import begin, report_finished
from parsec.run.unreadable import Unreadable
from parsec.run.workdir import Claim, locate
from parsec.settings.search import SearchConfig, joint_entry, proposer
from parsec.transfer.prior import Carried, carry_logits, read_prior


def run_search(config: SearchConfig, workdir: Path) -> dict[str, Any]:
    """Runs or resumes a search, or reports a finished one.

    Args:
      config: the search.
      workdir: its run directory.

    Returns:
      What result.json holds.

    Raises:
      UserError: for unusable data, files or a run directory that belongs to another run; before anything is written
        where it can be known.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; the state is saved.
    """
    space = get_space(config.space)
    check_search(config, space)
    result = report_finished(config, workdir, show_result)
    if result is not None:
        return result
    check_cluster(config.cluster)
    table = open_table(config)
    initial = initial_logits(config, space, locate(workdir))
    problem = load_problem(config)
    check_cells(space, problem.shape)
    domain = search_domain(space, partial(search_costs, config), config.constraints, capacity=told_capacity(config))
    goals = search_goals(config) if config.objectives else None
    latencies = read_model(config.latency, space) if config.latency else None
    read = {"table": table, "latency": latencies}
    digests = {"images": problem.dataset.digest} | {
        name: each.digest for name, each in read.items() if each is not None
    }
    title, plan = f"search on {config.dataset} in {space.name}", _plan(config, space, problem, latencies)
    with begin(config, workdir, digests, title, plan, (*problem.dataset.notes, *initial.notes)) as run:
        problem = naming_unreadable(config, problem, run.path)
        if config.strategy.evaluator != "table":
            print("compiling one program for any child, half a minute or so on a CPU", flush=True)
        if joint_entry(config) is None:
            outcome = search_by_scores(config, space, domain, problem, run, initial.logits, goals)
        else:
            outcome = search_jointly(config, space, problem, run, initial.logits)
        if outcome.front is None:
            retrained = verify(config, space, problem, outcome.architecture, run, outcome.domain)
        else:
            retrained = verify_front(config, space, problem, outcome.front.architectures, run, domain)
            write_front(outcome.front, space, retrained, run.path)
        result = conclude(config, space, problem.shape, outcome, problem.image, table, run.path, retrained)
        show_result(result, run.path)
        return result


def initial_logits(config: SearchConfig, space: Space, workdir: Path) -> Carried:
    """Returns the logits that the prior starts from, float32 [L, O]: uniform, or another run's; raises `UserError`."""
    if not config.prior.initial:
        return Carried(uniform_logits(space), ())
    prior = config.prior
    return carry_logits(read_prior(prior.initial, workdir), space, prior.sharpness, prior.mixture)


def search_jointly(config: SearchConfig, space: Space, problem: Problem, run: Claim, initial: np.ndarray) -> Outcome:
    """Returns what a search finds in which shared weights and architecture learn together from `initial` [L, O]."""
    joint = make_joint(config)
    state = _train_weights(config, joint, problem, run, initial, "search")
    validate, weights = make_validation(config, problem, joint.parts.child), joint.search.weights(state)

    def score(architecture: np.ndarray) -> Scored:
        return validate(weights, architecture)

    logits = None if joint.search.logits is None else np.asarray(joint.search.logits(state))
    found = derive_architecture(config, space, np.asarray(joint.search.architecture(state)), logits, score)
    control = None if joint.search.control is None else np.asarray(joint.search.control(state))
    return Outcome(found, score, ranks=True, logits=logits, control=control)


def search_by_scores(
    config: SearchConfig,
    space: Space,
    domain: Domain,
    problem: Problem,
    run: Claim,
    initial: np.ndarray,
    goals: Goals | None,
) -> Outcome:
    """Returns what a strategy finds in a domain that is told an evaluator's scores, from the prior `initial` [L, O].

    Where the evaluator scores children of shared weights, these first learn from uniform children, for all the steps.
    Where an evaluation is a training, the found architecture, the other candidates and the random ones that it is
    compared with are trained again at the end, all from the same fresh weights: a score reached with inherited weights
    says more of its ancestors. With several objectives the found architecture is the front's best in the first of them.
    """
    entry = EVALUATORS[config.strategy.evaluator]
    if entry.shared:
        _train_weights(config, make_joint(config), problem, run, uniform_logits(space), "shared weights")
    after = problem.steps if entry.shared else 0
    with open_evaluator(config, entry.factory(config, run.path)) as (evaluator, workers):
        searched = run_strategy(
            run,
            config.strategy,
            domain,
            config.seed,
            evaluator,
            after=after,
            initial=initial,
            goals=goals,
            workers=workers,
            asynchronous=config.asynchronous,
        )
    part = domain if config.constraints else None
    found = best(searched.evaluated)
    judge = _judge(evaluator.objectives, partial(evaluate_afresh, evaluator, None))
    learnt = {name: getattr(searched, name) for name in ("evaluated", "logits", "control", "effects")}
    outcome = Outcome(found, judge, ranks=not entry.afresh, domain=part, **learnt)
    if not entry.afresh:
        return outcome
    afresh, last = entry.factory(config, run.path, afresh=True), told_objectives(config)
    scores = remembered(run.path / COMPARED, partial(open_evaluator, config, afresh))
    front = None
    if goals is not None:
        table = search_costs(config)
        front = find_front(goals, table, searched.evaluated, evaluator.objectives)
        front = settle_front(run, front, table, searched, config.derive.finalists, scores, last)
        found = front.architectures[-1]
    elif config.derive.finalists:
        candidates = choose_finalists(searched, evaluator.objectives, space, domain, config.derive.finalists)
        # Those of about equal length side by side.
        order = np.argsort(training_cost(config)(candidates), kind="stable")
        found = decide(run, candidates[order], scores)
    # Judged one at a time, which is no work for many.
    here = cache(afresh)
    judge = _judge(last, remembered(run.path / COMPARED, lambda: nullcontext((here(), None))))
    return outcome._replace(architecture=found, score=judge, front=front)


def _train_weights(
    config: SearchConfig, joint: JointSearch, problem: Problem, run: Claim, initial: np.ndarray, label: str
) -> Any:
    with open_sources(config, problem) as sources:
        return run_steps(
            run,
            start_state(config, joint, problem, initial),
            make_step(config, joint, problem, sources),
            problem.steps,
            label=label,
            show=joint.show,
            metrics_every=config.metrics_every,
            save_minutes=config.save_minutes,
            fatal=_all_failed,
            before_save=Unreadable(run.path, config.data.unreadable_limit).gather,
            waited=sources.waited,
        )


def _judge(names: Sequence[str], scores: Callable[[np.ndarray], np.ndarray]) -> Judge:
    """Returns what named scores are to judge by, as plain numbers; NaN for a likelihood that is not among them."""

    def judge(architecture: np.ndarray) -> Scored:
        found = scores(architecture[None])[0]
        # A float32 in its own shortest form.
        told = {name: float(str(score)) for name, score in zip(names, found, strict=True)}
        return Scored(told.get(OBJECTIVE, float(str(found[0]))), told.get(LIKELIHOOD, math.nan))

    return judge


def _plan(config: SearchConfig, space: Space, problem: Problem, latencies: Latencies | None) -> dict[str, Any]:
    train, valid = problem.train.num_examples, problem.valid.num_examples
    budget = f"{config.sampler.budget}, K = {config.sampler.num_children}"
    warmup = round(config.prior.warmup * problem.steps)
    strategy, entry = config.strategy, EVALUATORS[config.strategy.evaluator]
    groups = f"{config.sampler.groups} groups of " * (config.sampler.groups > 1)
    devices = f"{groups}{problem.mesh.size // config.sampler.groups} x " * entry.shared
    place = f"on the Ray cluster {config.cluster}" if config.cluster else "of this machine"
    order = "asked again whenever one is free: not reproducible" if config.asynchronous else "in order of proposal"
    if joint_entry(config) is not None:
        steps = f"{problem.steps}, {warmup} of them warm-up; batch {config.data.batch_size}; children: {budget}"
    elif entry.shared:
        steps = f"{problem.steps} with uniform children, then {strategy.evaluations} evaluations"
    elif entry.afresh:
        each = f"{strategy.steps} steps" if strategy.steps else f"{strategy.epochs:g} epochs"
        steps = f"{strategy.evaluations} children, {each} each; batch {config.data.batch_size}"
        if config.derive.finalists:
            again = f"{config.derive.final_steps} steps" if config.derive.final_steps else "as long"
            deeper = f" in {config.derive.final_cells} cells" if config.derive.final_cells else ""
            steps += f"; then {config.derive.finalists} candidates, {again} each{deeper}"
    else:
        steps = f"{strategy.evaluations} evaluations"
    return {
        "strategy": f"{proposer(config)} on {entry.summary}",
        "space": f"{space.name}: {len(space.choices)} choices, {space.cardinality:.2g} architectures"
        + f", those with {', '.join(config.constraints)}" * bool(config.constraints),
        "images": f"{train} for the weights, {valid} for the prior, {problem.image} each"
        + ", streamed" * isinstance(problem.train, StreamedPart),
        "network": f"{config.network.cells} cells, {config.network.channels} channels, {config.network.dtype}",
        **({"objectives": ", ".join(config.objectives)} if config.objectives else {}),
        **({LATENCY: f"predicted for {latencies.words}"} if latencies else {}),
        "steps": steps,
        **({"workers": f"{config.workers} {place}, {order}"} if config.cluster or config.workers > 1 else {}),
        "verification": plan_verification(config, problem).words,
        "device": f"{devices}{jax.devices()[0].device_kind}, jax {jax.__version__}",
        "seed": config.seed,
    }


def _all_failed(metrics: Any) -> str | None:
    if np.isfinite(np.asarray(metrics["loss"])):
        return None
    return "every child's loss or gradient was not finite; try a lower --config.optimizer.learning_rate"
