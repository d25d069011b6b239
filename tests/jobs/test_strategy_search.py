"""Any strategy on any evaluator: the budget, the record, and a resumed run that repeats nothing and changes nothing."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parsec.cells import Space, get_space
from parsec.cells.costs import cost_table, log_params_effects, table_costs
from parsec.cells.network import Shape
from parsec.data.memory import Batches
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluated, Evaluator
from parsec.jobs.search import factories
from parsec.jobs.search import job as search_job
from parsec.jobs.search.domain import search_domain, whole_domain
from parsec.jobs.search.factories import from_fresh_training, from_training, told_capacity
from parsec.jobs.search.job import run_search
from parsec.jobs.search.problem import load_problem
from parsec.jobs.search.strategy import best, check_strategy, run_strategy
from parsec.run.journal import JOURNAL, Journal, Scored
from parsec.run.workdir import claim
from parsec.search.registry import STRATEGIES
from parsec.settings.search import (
    DataSettings,
    DeriveSettings,
    NetworkSettings,
    OptimizerSettings,
    PriorSettings,
    SamplerSettings,
    SearchConfig,
    StrategySettings,
)

SPACE = get_space("nasbench201")
DOMAIN = whole_domain(SPACE)
OPTIMUM = np.array([3, 1, 3, 3, 2, 3], np.int32)
CONFIG = SearchConfig(
    dataset="digits",
    space="nasbench201",
    steps=3,
    metrics_every=1,
    data=DataSettings(batch_size=16, valid_batch_size=32),
    network=NetworkSettings(channels=2, cells=1),
    optimizer=OptimizerSettings(learning_rate=0.1),
    sampler=SamplerSettings(num_children=2),
    derive=DeriveSettings(random_children=2, valid_images=64),
    strategy=StrategySettings(name="regularized_evolution", evaluations=12),
)


class KilledError(Exception):
    """The process is gone."""


class Counting:
    """A score without a network: choices in common with one architecture, every seventh a failure."""

    def __init__(self, dies_after: int = 10**9) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.dies_after = dies_after

    def __call__(self, architecture: np.ndarray, evaluated: Evaluated, pause: Callable[[], None]) -> float:
        pause()
        if len(self.asked) == self.dies_after:
            raise KilledError
        self.asked.append(tuple(architecture.tolist()))
        return math.nan if architecture.sum() % 7 == 0 else float((architecture == OPTIMUM).sum()) / 3


def scored_by(score: Callable[..., float]) -> Evaluator:
    def evaluate(architectures: np.ndarray, *asked: Any) -> np.ndarray:
        return np.array([[score(architecture, *asked)] for architecture in architectures], np.float32)

    return Evaluator(("score",), evaluate)


def search(workdir: Path, evaluate: Counting, settings: StrategySettings, space: str = "nasbench201") -> Evaluated:
    with claim(workdir, replace(CONFIG, strategy=settings, space=space)) as run:
        return run_strategy(run, settings, whole_domain(get_space(space)), 0, scored_by(evaluate), after=5).evaluated


def test_a_strategy_that_carries_a_prior_starts_from_the_one_it_is_given(tmp_path: Path):
    settings = StrategySettings(name="parsec", evaluations=8)
    asked = Counting()
    known = np.where(np.arange(5) == OPTIMUM[:, None], 30, 0).astype(np.float32)
    # Two choices are open: all else is as the prior says.
    known[:2] = 0
    with claim(tmp_path, replace(CONFIG, strategy=settings)) as run:
        run_strategy(run, settings, DOMAIN, 0, scored_by(asked), initial=known)
    assert (np.array(asked.asked)[:, 2:] == OPTIMUM[2:]).all()


# Small enough to learn in no time.
QUICK = {"alphax": ("members=2", "width=16", "steps=20", "first_training=10")}


@pytest.mark.parametrize("name", [name for name, entry in STRATEGIES.items() if not entry.multi_fidelity])
def test_every_strategy_spends_its_budget_once_each_and_resumes_to_the_same_bytes(name: str, tmp_path: Path):
    settings = StrategySettings(name=name, evaluations=24, options=QUICK.get(name, ()))
    whole = Counting()
    evaluated = search(tmp_path / "whole", whole, settings)
    assert len(set(whole.asked)) == len(whole.asked) == len(evaluated.scores) == 24
    np.testing.assert_array_equal(evaluated.architectures, whole.asked)
    assert np.isnan(evaluated.scores).any() == any(sum(asked) % 7 == 0 for asked in whole.asked)
    assert np.float32((best(evaluated) == OPTIMUM).sum() / 3) == np.nanmax(evaluated.scores)

    first = Counting(dies_after=9)
    with pytest.raises(KilledError):
        search(tmp_path / "cut", first, settings)
    with (tmp_path / "cut" / JOURNAL).open("a") as file:
        file.write('{"architecture": [1, 2')
    second = Counting()
    resumed = search(tmp_path / "cut", second, settings)
    assert first.asked + second.asked == whole.asked
    np.testing.assert_array_equal(resumed.scores, evaluated.scores)
    for file in (JOURNAL, "metrics.jsonl"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(6, 30))
    assert np.float32(lines[-1]["best"]) == np.nanmax(evaluated.scores)
    assert lines[-1]["failed_evaluations"] == np.isnan(evaluated.scores).sum()


@pytest.mark.parametrize("name", ["random", "alphax", "lanas"])
def test_a_space_too_large_to_enumerate_is_searched_too(name: str, tmp_path: Path):
    settings = StrategySettings(name=name, evaluations=6)

    def score(architecture: np.ndarray, evaluated: Evaluated, pause: Callable[[], None]) -> float:
        get_space("darts").check(architecture)
        return float(architecture.sum())

    with claim(tmp_path, CONFIG) as run:
        found = run_strategy(run, settings, whole_domain(get_space("darts")), 0, scored_by(score))
    assert len(found.evaluated.scores) == 6


TOLD = StrategySettings(
    name="additive", evaluator="train", evaluations=8, steps=2, inherit=False, objective="log_likelihood", capacity=0.5
)


@pytest.mark.parametrize(
    ("changes", "capacity"),
    [({}, 0.5), ({"objective": "accuracy"}, 0.0), ({"capacity": 0.0}, 0.0), ({"evaluator": "supernet"}, 0.0)],
    ids=["told", "accuracy", "none", "shared weights"],
)
def test_nats_for_parameters_are_told_and_known_where_a_search_adds_them(
    changes: dict, capacity: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config, domains = replace(CONFIG, strategy=replace(TOLD, **changes)), []
    assert told_capacity(config) == capacity

    def stop(config: SearchConfig, space: Any, domain: Any, *others: Any) -> None:
        domains.append(domain)
        raise KilledError

    monkeypatch.setattr(search_job, "check_search", lambda *given: None)
    monkeypatch.setattr(search_job, "search_by_scores", stop)
    with pytest.raises(KilledError):
        search_job.run_search(config, tmp_path)
    if not capacity:
        assert domains[0].known is None
        return
    problem = load_problem(config)
    effects = log_params_effects(cost_table(SPACE, problem.shape, problem.image))
    np.testing.assert_allclose(domains[0].known, capacity * effects, rtol=1e-5)
    assert from_training(config, tmp_path).objectives[0] == "value"
    assert from_fresh_training(config, tmp_path).objectives[0] == "value"


def test_the_last_comparison_is_on_every_validation_image_in_as_many_cells_as_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[tuple[int, int]] = []

    def record(space: Space, shape: Shape, trained: Shape, valid: Batches, **named: object) -> None:
        assert trained == shape
        seen.append((len(valid.labels), shape.cells))

    monkeypatch.setattr(factories, "training_evaluator", record)
    monkeypatch.setattr(factories, "make_trainer_of", lambda config: load_problem(config).shape)
    config = replace(CONFIG, derive=replace(CONFIG.derive, valid_images=16, final_cells=3))
    from_training(config, tmp_path)
    from_fresh_training(config, tmp_path)
    assert seen == [(16, 1), (load_problem(config).valid.num_examples, 3)] and seen[1][0] > 16


def test_the_control_knows_what_is_known_beforehand_and_nothing_else(tmp_path: Path):
    # Scores are nothing but what is known, so that there is nothing to learn, for the control neither.
    known = np.tile(np.arange(5, dtype=np.float32), (6, 1))
    settings = StrategySettings(name="additive", evaluations=48)

    def score(architecture: np.ndarray, evaluated: Evaluated, pause: Callable[[], None]) -> float:
        return float(architecture.sum())

    with claim(tmp_path, CONFIG) as run:
        searched = run_strategy(run, settings, replace(DOMAIN, known=known), 0, scored_by(score))
    assert searched.effects is not None and searched.control is not None
    np.testing.assert_allclose(searched.effects, known, atol=1e-3)
    np.testing.assert_allclose(searched.control, 0, atol=1e-3)


LIMITS = ("params<2000", "flops<=16000")
SHAPE, IMAGE = Shape(2, 1, 10), (8, 8, 1)
COSTS = partial(cost_table, SPACE, SHAPE, IMAGE)
# Each uses another part of its domain: samples, neighbours, mutations, the prior, legal prefixes, the list of all.
WITHIN_LIMITS = ("random", "local_search", "regularized_evolution", "additive", "alphax", "lanas", "emoa", "q_learning")


@pytest.mark.parametrize("name", WITHIN_LIMITS)
def test_every_strategy_stays_within_the_costs_it_is_allowed(name: str, tmp_path: Path):
    settings = StrategySettings(name=name, evaluations=24, options=QUICK.get(name, ()))
    domain = search_domain(SPACE, COSTS, LIMITS)
    with claim(tmp_path, replace(CONFIG, strategy=settings)) as run:
        evaluated = run_strategy(run, settings, domain, 0, scored_by(Counting())).evaluated
    # That a table's costs are the network's is tested in test_costs, one trace a network.
    costs = table_costs(COSTS(), evaluated.architectures)
    assert len(costs) == 24
    assert (costs[:, 0] < 2000).all() and (costs[:, 1] <= 16_000).all()


def test_constraints_that_mean_nothing_are_refused_in_a_line(tmp_path: Path):
    for constraints, message in (
        (("params<9",), "fewer than one in 10,000 architectures of nasbench201 have params of at most 8 here; the sma"),
        (("parms<9000",), "cost in config.constraints 'parms'"),
        (("params>9000",), "write params<NUMBER or <="),
        (("params=9000",), "write COLUMN<NUMBER"),
    ):
        with pytest.raises(UserError, match=message):
            run_search(replace(CONFIG, constraints=constraints), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_record_of_another_run_is_refused_and_left_alone(tmp_path: Path):
    settings = StrategySettings(name="random", evaluations=4)
    with claim(tmp_path, replace(CONFIG, strategy=settings)):
        pass
    for text, message in (
        ('{"ask": 1, "architectures": [[0, 0, 0, 0, 0, 0]]}\n', "line 1 of .* is not what this run does"),
        ('{"architecture": [0, 0, 0, 0, 0, 0], "scores": [1.0]}\n', "line 1 of .* is not what this run does"),
        ('{"tell": 1}\n', "line 1 of .* is not what this run does"),
        ("nonsense\n", "line 1 of .* is not an entry"),
        ("[" * 100_000 + "\n", "line 1 of .* is not an entry"),
    ):
        (tmp_path / JOURNAL).write_text(text)
        evaluate = Counting()
        with pytest.raises(UserError, match=message):
            search(tmp_path, evaluate, settings)
        assert evaluate.asked == []
        assert (tmp_path / JOURNAL).read_text() == text


def test_only_failures_and_a_budget_beyond_the_space_are_one_line(tmp_path: Path):
    def fail(architecture: np.ndarray, evaluated: Evaluated, pause: Callable[[], None]) -> float:
        return math.nan

    settings = StrategySettings(name="random", evaluations=3)
    with claim(tmp_path, CONFIG) as run, pytest.raises(UserError, match="all 3 evaluations failed"):
        run_strategy(run, settings, DOMAIN, 0, scored_by(fail))
    with pytest.raises(UserError, match="15626 is more than the 15625"):
        check_strategy(replace(settings, evaluations=15626), SPACE)


@pytest.mark.usefixtures("one_program")
def test_on_the_supernet_the_best_child_within_a_constraint_is_found_and_the_same_command_ends_alike(tmp_path: Path):
    config = replace(CONFIG, constraints=("params<2000",))
    result = run_search(config, tmp_path / "run")
    assert result["params"] < 2000 and result["config"]["constraints"] == ["params<2000"]
    scored = [entry for entry in Journal(tmp_path / "run").entries if isinstance(entry, Scored)]
    scores = np.array([entry.scores[0] for entry in scored])
    assert len(scores) == result["evaluations"] == 12
    assert table_costs(COSTS(), np.stack([entry.architecture for entry in scored]))[:, 0].max() < 2000
    assert (result["strategy"], result["evaluator"]) == ("regularized_evolution", "supernet")
    assert result["architecture"] == scored[int(scores.argmax())].architecture.tolist()
    assert np.float32(result["valid_accuracy"]) == scores.max()
    assert result["entropy"] is None
    assert not (tmp_path / "run" / "prior.json").exists()
    # The process died while the seventh evaluation was under way: the weights are in the checkpoint.
    kept = {name: (tmp_path / "run" / name).read_bytes() for name in ("result.json", JOURNAL, "metrics.jsonl")}
    for name in ("result.json", "report.html"):
        (tmp_path / "run" / name).unlink()
    lines = kept[JOURNAL].splitlines(keepends=True)
    sixth = [at for at, line in enumerate(lines) if b"scores" in line][5]
    (tmp_path / "run" / JOURNAL).write_bytes(b"".join(lines[: sixth + 1]))
    run_search(config, tmp_path / "run")
    assert {name: (tmp_path / "run" / name).read_bytes() for name in kept} == kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("population",), "write OPTION=VALUE"),
        (("populaton=9",), r"unknown option of strategy regularized_evolution 'populaton'.*did you mean 'population'"),
        (("population=many",), r"regularized_evolution\.population='many' does not fit; it must be an integer"),
    ],
)
def test_an_option_that_is_not_the_strategys_is_one_line(options: tuple[str, ...], message: str):
    with pytest.raises(UserError, match=message):
        check_strategy(replace(CONFIG.strategy, options=options), SPACE)


def test_options_reach_the_strategy(tmp_path: Path):
    """Evolution with two parents mutates from the third evaluation on; with the default ten it would still draw."""
    settings = replace(CONFIG.strategy, options=("population=2", "sample=1"), evaluations=9)
    with claim(tmp_path, CONFIG) as run:
        found = run_strategy(run, settings, DOMAIN, 0, scored_by(Counting())).evaluated.architectures
    for at in range(2, 9):
        assert ((found[:at] != found[at]).sum(1) == 1).any()


def test_settings_that_mean_nothing_together_are_one_line_and_write_nothing(tmp_path: Path):
    wrong = replace(CONFIG, prior=PriorSettings(initial="somewhere"))
    with pytest.raises(UserError, match=r"prior\.initial"):
        run_search(wrong, tmp_path / "run")
    joint = replace(CONFIG, strategy=StrategySettings(name="parsec", options=("children=4",)))
    with pytest.raises(UserError, match=r"config\.strategy\.options=children=4 means nothing here; it needs"):
        run_search(joint, tmp_path / "run")
    assert not (tmp_path / "run").exists()
