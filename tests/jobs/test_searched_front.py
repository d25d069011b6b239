"""A search of real networks for a front: what it finds, whom it is compared with, and that a cut run ends alike."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from parsec.cells import get_space
from parsec.cells.costs import Cost, cost_table, network_cost, table_costs
from parsec.cells.genotypes import to_text
from parsec.cells.isomorphism import representatives
from parsec.cells.network import Shape
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluated, Evaluator
from parsec.evaluate.goals import make_goals, with_costs
from parsec.jobs.search.alike import draw_matched
from parsec.jobs.search.coherence import check_search
from parsec.jobs.search.domain import search_domain, whole_domain
from parsec.jobs.search.finals import COMPARED, remembered
from parsec.jobs.search.front import FRONT, PLOT, find_front, settle_front, spread
from parsec.jobs.search.job import run_search
from parsec.jobs.search.strategy import Searched, run_strategy
from parsec.jobs.train.cell_source import cell_of_text
from parsec.report.pareto import hypervolume
from parsec.run.journal import JOURNAL
from parsec.run.workdir import claim
from parsec.search.registry import names
from parsec.settings.search import (
    DataSettings,
    DeriveSettings,
    NetworkSettings,
    OptimizerSettings,
    SearchConfig,
    StrategySettings,
    VerifySettings,
)

SPACE = get_space("nasbench201")
SHAPE, IMAGE = Shape(2, 1, 10), (8, 8, 1)
TABLE = cost_table(SPACE, SHAPE, IMAGE)
MOST = 3000
GOALS = make_goals(("accuracy", "-params"), TABLE, Cost(MOST, -1), 10)
DOMAIN = search_domain(SPACE, lambda: TABLE, (f"params<={MOST}",))
ROWS = np.random.default_rng(0).integers(0, 5, (60, 6)).astype(np.int32)
NAMES = ("valid_accuracy", "-params", "valid_log_likelihood")
CONFIG = SearchConfig(
    dataset="digits",
    space="nasbench201",
    constraints=(f"params<={MOST}",),
    objectives=("accuracy", "-params"),
    data=DataSettings(batch_size=32),
    network=NetworkSettings(channels=2, cells=1),
    optimizer=OptimizerSettings(learning_rate=0.1),
    strategy=StrategySettings(
        name="emoa", options=("population=4",), evaluator="train", evaluations=10, steps=3, inherit=True
    ),
    derive=DeriveSettings(valid_images=256, finalists=3, final_steps=6),
    verify=VerifySettings(random=6, steps=2),
)
LASTING = ("result.json", FRONT, PLOT, JOURNAL, COMPARED, "retrained.jsonl", "metrics.jsonl", "report.html")


class KilledError(Exception):
    """The process is gone."""


def accuracies(architectures: np.ndarray) -> np.ndarray:
    """An accuracy without a network, every seventh a failure."""
    value = 50 + 8 * np.sin(architectures * np.arange(1, 7)).sum(1)
    return np.where(architectures.sum(1) % 7 == 0, np.nan, value)


def evaluator_of(asked: list[tuple[int, ...]], dies_after: int = 10**9) -> Evaluator:
    def evaluate(architectures: np.ndarray, evaluated: Evaluated, pause: Callable[[], None]) -> np.ndarray:
        if len(asked) == dies_after:
            raise KilledError
        asked.extend(map(tuple, architectures.tolist()))
        first = accuracies(architectures)
        return np.stack([first, -first], 1).astype(np.float32)

    return Evaluator(("valid_accuracy", "valid_log_likelihood"), evaluate)


def search(workdir: Path, name: str, asked: list[tuple[int, ...]], dies_after: int = 10**9) -> Evaluated:
    settings = StrategySettings(name=name, evaluations=24)
    evaluator = with_costs(evaluator_of(asked, dies_after), GOALS, lambda rows: table_costs(TABLE, rows))
    with claim(workdir, replace(CONFIG, strategy=settings)) as run:
        return run_strategy(run, settings, DOMAIN, 0, evaluator, goals=GOALS).evaluated


@pytest.mark.parametrize("name", ["random", *names(many=True)])
def test_every_strategy_of_several_objectives_keeps_the_constraints(name: str, tmp_path: Path):
    whole: list[tuple[int, ...]] = []
    evaluated = search(tmp_path, name, whole)
    costs = table_costs(TABLE, evaluated.architectures)
    assert len(set(whole)) == len(whole) == 24 and costs[:, 0].max() <= MOST
    np.testing.assert_array_equal(evaluated.scores[:, 1], -costs[:, 0])
    np.testing.assert_allclose(evaluated.scores[:, 0], accuracies(evaluated.architectures), rtol=1e-6)


def test_the_strategy_of_the_presets_searches_for_several_objectives_and_says_what_it_expects(tmp_path: Path):
    settings = StrategySettings(name="additive", options=("initial=8", "batch=4", "candidates=40"), evaluations=24)
    evaluator = with_costs(evaluator_of([]), GOALS, lambda rows: table_costs(TABLE, rows))
    config = replace(CONFIG, strategy=settings)
    check_search(replace(config, strategy=replace(settings, evaluator="train")), SPACE)
    with claim(tmp_path / "run", config) as run:
        searched = run_strategy(run, settings, DOMAIN, 0, evaluator, goals=GOALS)
    rows, told = searched.evaluated.architectures, searched.evaluated.scores[:, 0]
    assert len(np.unique(rows, axis=0)) == 24 and np.asarray(DOMAIN.valid(rows)).all()
    assert searched.logits is None and searched.expected is not None
    kept = np.isfinite(told)
    # In the unit of what was measured, percent here; without noise a process comes near it.
    assert np.abs(searched.expected[kept] - told[kept]).mean() < 0.6 * told[kept].std()
    assert searched.expected[kept].mean() == pytest.approx(told[kept].mean(), abs=3)


def test_a_prior_has_no_place_in_a_search_of_several_objectives(tmp_path: Path):
    additive = replace(CONFIG, strategy=StrategySettings(name="additive", evaluator="train"))
    with pytest.raises(UserError, match=r"config\.prior\.initial=.* means nothing here"):
        check_search(replace(additive, prior=replace(additive.prior, initial=str(tmp_path))), SPACE)


def test_a_search_of_several_objectives_resumes_to_the_same_bytes(tmp_path: Path):
    """By its journal, whatever the strategy: in test_strategy_search each of them does, with one objective."""
    whole: list[tuple[int, ...]] = []
    search(tmp_path / "whole", "emoa", whole)
    cut: list[tuple[int, ...]] = []
    with pytest.raises(KilledError):
        search(tmp_path / "cut", "emoa", cut, dies_after=9)
    search(tmp_path / "cut", "emoa", cut)
    assert cut == whole
    for file in (JOURNAL, "metrics.jsonl"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def scored(architectures: np.ndarray) -> Evaluated:
    first = accuracies(architectures)
    return Evaluated(architectures, np.stack([first, -table_costs(TABLE, architectures)[:, 0], -first], 1))


def test_the_front_is_what_no_evaluated_network_dominates():
    front = find_front(GOALS, TABLE, scored(ROWS), NAMES)
    points = [(accuracies(row[None])[0], -table_costs(TABLE, row[None])[0, 0], tuple(row.tolist())) for row in ROWS]
    points = [each for each in points if np.isfinite(each[0])]
    best = {
        each[:2]
        for each in points
        if not any(o[0] >= each[0] and o[1] >= each[1] and o[:2] != each[:2] for o in points)
    }
    assert len(best) > 3
    assert [tuple(each) for each in front.told.tolist()] == sorted(best)
    assert {
        (*told, tuple(row.tolist())) for told, row in zip(front.told.tolist(), front.architectures, strict=True)
    } <= (set(points))
    np.testing.assert_array_equal(front.accuracy, front.told[:, 0])
    expected = table_costs(TABLE, front.architectures).tolist()
    assert [list(costs.items()) for costs in front.costs] == [[("params", a), ("flops", b)] for a, b in expected]
    assert front.evaluated.shape == (60, 2)


def test_candidates_are_spread_by_the_hypervolume_that_each_adds():
    gains = np.array([[0.1, 0.9], [0.5, 0.5], [0.52, 0.48], [0.9, 0.1], [1.0, 0.0], [0.1, 0.1]])
    assert spread([gains], 1).tolist() == [1]
    assert spread([gains], 3).tolist() == [0, 1, 3]
    # What adds nothing above the reference point comes last, and what is on no front never.
    assert spread([gains], 4).tolist() == [0, 1, 2, 3]
    assert spread([gains], 9).tolist() == [0, 1, 2, 3, 4]
    # Another view takes its turns, with what is on its front and was not chosen yet.
    other = gains.copy()
    other[5], other[1] = (0.6, 0.6), (0.2, 0.2)
    assert spread([other, gains], 1).tolist() == [5]
    assert spread([other, gains], 2).tolist() == [1, 5]
    assert spread([other, gains], 9).tolist() == [0, 1, 2, 3, 4, 5]
    rng = np.random.default_rng(3)
    for _ in range(5):
        first = np.sort(rng.random(9))
        front = np.stack([first, np.sort(rng.random(9))[::-1]], 1)
        pairs = [front[[a, b]] for a in range(9) for b in range(a)]
        assert hypervolume(front[spread([front], 2)]) >= (1 - 1 / np.e) * max(map(hypervolume, pairs))


def test_what_is_trained_again_makes_the_front(tmp_path: Path):
    searched = find_front(GOALS, TABLE, scored(ROWS), NAMES)

    def settle(shift: Callable[[np.ndarray], np.ndarray], count: int, name: str, expected: Any = None) -> Any:
        def evaluate(rows: np.ndarray, *_: Any) -> np.ndarray:
            return np.stack([shift(rows), np.zeros(len(rows))], 1).astype(np.float32)

        last = Evaluator(("valid_accuracy", "valid_log_likelihood"), evaluate, together=2)
        with claim(tmp_path / name, CONFIG) as run:
            scores = remembered(run.path / COMPARED, lambda: nullcontext((last, None)))
            return settle_front(
                run, searched, TABLE, Searched(scored(ROWS), expected=expected), count, scores, last.objectives
            )

    assert settle(accuracies, 0, "none") is searched
    lost = settle(lambda rows: np.full(len(rows), np.nan), 3, "lost")
    assert lost is searched
    same = settle(lambda rows: accuracies(rows) + 1, 3, "same")
    assert len(same.architectures) == 3 and (np.diff(same.accuracy) > 0).all()
    np.testing.assert_allclose(same.accuracy, accuracies(same.architectures) + 1, rtol=1e-6)
    np.testing.assert_array_equal(same.evaluated, searched.evaluated)
    assert len((tmp_path / "same" / COMPARED).read_text().splitlines()) == 3
    # What a model expects has its say: here, that nothing but the third operation matters.
    expected = 9.0 * (ROWS == 2).sum(1) + 40
    settle(accuracies, 3, "liked", expected)
    liked, plain = (
        {tuple(json.loads(line)["architecture"]) for line in (tmp_path / name / COMPARED).read_text().splitlines()}
        for name in ("liked", "same")
    )
    gains = GOALS.scaled(np.stack([expected, -table_costs(TABLE, ROWS)[:, 0]], 1))
    gains[np.isnan(accuracies(ROWS))] = 0
    assert len(liked) == 3 and tuple(ROWS[np.argmax(gains.clip(0).prod(1))].tolist()) in liked - plain
    # The smallest wins once all learn alike.
    equal = settle(lambda rows: np.full(len(rows), 70.0), 3, "equal")
    assert [costs["params"] for costs in equal.costs] == [min(costs["params"] for costs in same.costs)]


def test_random_cells_stand_beside_each_of_about_its_parameters():
    costs = table_costs(TABLE, ROWS)[:, 0]
    found = ROWS[np.argsort(costs)[[30, 45]]]
    alike = draw_matched(TABLE, found, 5, 0, DOMAIN)
    assert alike.shape == (2, 5, 6)
    for cell, others in zip(found, alike, strict=True):
        ratio = table_costs(TABLE, others)[:, 0] / table_costs(TABLE, cell[None])[0, 0]
        assert (np.abs(np.log(ratio)) <= np.log(1.1)).all()
    together = np.concatenate([found, *alike])
    np.testing.assert_array_equal(representatives(SPACE, together), np.arange(12))
    assert np.asarray(DOMAIN.valid(np.concatenate(alike))).all()
    assert (draw_matched(TABLE, found, 5, 1, DOMAIN) != alike).any()
    # Nor is a cell drawn for two of about one size, in a space that cannot tell which cells are one network.
    darts = get_space("darts")
    large = cost_table(darts, Shape(2, 3, 10), IMAGE)
    two = whole_domain(darts).sample(jax.random.key(0), 200)
    near = np.asarray(two)[np.argsort(table_costs(large, np.asarray(two))[:, 0])[[100, 101]]]
    drawn = np.concatenate([near, *draw_matched(large, near, 4, 0, whole_domain(darts))])
    assert len({to_text(darts, cell) for cell in drawn}) == 10
    # Nothing is as large as the largest, and what is nearest takes its place.
    largest = np.full((1, 6), 3, np.int32)
    whole = search_domain(SPACE, lambda: TABLE, ())
    nearest = table_costs(TABLE, draw_matched(TABLE, largest, 12, 0, whole)[0])[:, 0]
    params = np.unique(table_costs(TABLE, np.stack(np.unravel_index(np.arange(15_625), (5,) * 6), 1))[:, 0])
    assert set(nearest) <= set(params[-3:])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("front") / "run"
    return path, run_search(CONFIG, path)


def test_a_search_ends_with_a_front_whose_genotypes_can_be_trained(
    finished: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture
):
    path, result = finished
    front, members = result["front"], result["front"]["members"]
    lines = [json.loads(line) for line in (path / JOURNAL).read_text().splitlines()]
    told = [line for line in lines if "scores" in line]
    assert len(told) == 10
    for line in told:
        assert table_costs(TABLE, np.array([line["architecture"]]))[0, 0] == -line["scores"][1] <= MOST
    compared = [json.loads(line) for line in (path / COMPARED).read_text().splitlines()]
    known = {tuple(line["architecture"]): line["scores"][0] for line in compared}
    assert 1 <= len(members) <= len(known) <= 3
    for member in members:
        assert member["accuracy"] == known[tuple(member["architecture"])]
        assert cell_of_text(member["genotype"]).genotype == member["genotype"]
        cost = network_cost(SPACE, member["architecture"], SHAPE, IMAGE)
        assert (member["params"], member["flops"]) == cost
        assert "`" + member["genotype"].replace("|", "\\|") + "`" in (path / FRONT).read_text()
    assert result["architecture"] == members[-1]["architecture"] and result["valid_accuracy"] == members[-1]["accuracy"]
    assert front["reference"] == [0, -MOST] and front["objectives"] == ["accuracy", "-params"]
    gains = GOALS.scaled(np.array([member["objectives"] for member in members]))
    assert front["hypervolume"] == pytest.approx(hypervolume(gains)) and 0 < front["hypervolume"] < 1
    proof = result["retrained"]
    assert proof["sentence"] in (path / FRONT).read_text()
    assert len(proof["members"]) == len(members) and proof["random_cells"] == 6 // len(members) * len(members)
    assert (path / PLOT).read_bytes().startswith(b"\x89PNG")
    assert "The front" in (path / "report.html").read_text()
    assert run_search(CONFIG, path) == result
    assert f"{len(members)} cells, " in capsys.readouterr().out


@pytest.mark.slow
def test_a_search_for_a_front_cut_anywhere_ends_in_the_same_bytes(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
):
    whole = {name: (finished[0] / name).read_bytes() for name in LASTING}
    path = tmp_path / "run"
    run_search(CONFIG, path)
    for name, kept in ((JOURNAL, 0.6), (COMPARED, 0.5), ("retrained.jsonl", 0.4)):
        (path / "result.json").unlink()
        for other in (FRONT, PLOT):
            (path / other).unlink()
        lines = whole[name].splitlines(keepends=True)
        (path / name).write_bytes(b"".join(lines[: int(kept * len(lines))]) + b'{"half')
        run_search(CONFIG, path)
        assert {name: (path / name).read_bytes() for name in LASTING} == whole


def test_a_strategy_of_one_objective_is_refused_and_the_others_named(tmp_path: Path):
    one = replace(CONFIG, strategy=StrategySettings(name="bananas", evaluator="train"))
    with pytest.raises(
        UserError,
        match=r"name=bananas searches for one objective; .* choose one of random, parsec_replay, additive, sobol",
    ):
        run_search(one, tmp_path / "run")
    assert not (tmp_path / "run").exists()
