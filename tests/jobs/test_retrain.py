"""Found cells against random ones: what is trained and written, going on after any end, and mistakes told in a line."""

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import retrain_compare
from configs.digits_search import get_config as digits_search
from parsec.cells import DARTS, NASBENCH201, Space
from parsec.cells.costs import network_cost
from parsec.cells.genotypes import to_text
from parsec.cells.isomorphism import representatives
from parsec.cells.network import Shape
from parsec.cells.space import CellLayout, Choice, Slot
from parsec.config import override, to_json
from parsec.data import load
from parsec.data.memory import Batches
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluator
from parsec.jobs.latency_model import MODEL, describe_model
from parsec.jobs.retrain import job as retrain
from parsec.jobs.retrain.job import run_retrain
from parsec.jobs.search import alike
from parsec.jobs.search.alike import Accuracies, Entrants, draw_random, plain_network, residual_params, train_alike
from parsec.jobs.search.job import run_search
from parsec.jobs.search.problem import Problem
from parsec.jobs.search.verify import LEAST_STEPS, Plan, plan_verification, searched_images
from parsec.report.verdict import summarise
from parsec.run.workdir import claim, read_json, write_json_atomic
from parsec.settings.retrain import RetrainConfig, RetrainTrainingSettings
from parsec.settings.search import NetworkSettings, SamplerSettings, SearchConfig
from parsec.train import many
from parsec.train.many import Trainer

FOUND = np.array([3, 1, 3, 2, 0, 3], np.int32)
DARTS_CELL = np.zeros(len(DARTS.sizes), np.int32)
SEARCH: SearchConfig = replace(digits_search("quick"), network=NetworkSettings(channels=2, cells=1, stem_stride=2))
# The recipe is that of `verify` on this search, so that both read one program from the compile cache.
CONFIG = RetrainConfig(random=5, training=RetrainTrainingSettings(steps=4, batch_size=32))
LASTING = ("retrained.jsonl", "result.json", "table.md", "accuracies.png")


def searched(
    folder: Path, config: SearchConfig = SEARCH, space: Space = NASBENCH201, found: np.ndarray = FOUND, images: str = ""
) -> str:
    """Returns the run directory of a search that found a cell, as a finished run leaves it."""
    folder.mkdir()
    stored = {"job": SearchConfig.JOB, "config": json.loads(to_json(config)), "digests": {"images": images}}
    write_json_atomic(folder / "config.json", stored)
    write_json_atomic(folder / "result.json", {"space": space.name, "genotype": to_text(space, found)})
    return str(folder)


@pytest.fixture(scope="module", autouse=True)
def one_program() -> Iterator[None]:
    """Comparisons of one recipe, on the same images, have one program of the cells and one of the plain network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrain, "make_trainer", once(many.make_trainer))
        patch.setattr(alike, "make_trainer_of", once(many.make_trainer_of))
        yield


def once(make: Callable[..., Trainer]) -> Callable[..., Trainer]:
    made: dict[str, Trainer] = {}

    def make_once(*given: Any) -> Trainer:
        *others, images = given
        name = f"{others} {images.images.shape}"
        if name not in made:
            made[name] = make(*given)
        return made[name]

    return make_once


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RetrainConfig, Path, dict[str, Any]]:
    """A comparison's config, run directory and result."""
    folder = tmp_path_factory.mktemp("retrain")
    config = replace(CONFIG, from_runs=(searched(folder / "search", images=load("digits").digest),))
    return config, folder / "run", run_retrain(config, folder / "run")


def test_every_network_is_trained_and_judged(finished: tuple[RetrainConfig, Path, dict[str, Any]], capsys):
    config, path, result = finished
    lines = [json.loads(line) for line in (path / "retrained.jsonl").read_text().splitlines()]
    assert [len(line["test"]) for line in lines] == [3] * 7 and lines[-1]["network"] == "resnet"
    assert [line["network"] for line in lines] == [each["genotype"] for each in result["found"] + result["random"]] + [
        "resnet"
    ]
    assert result["found"][0]["genotype"] == to_text(NASBENCH201, FOUND) and len(result["random"]) == 5
    assert result["found"][0]["test"] == lines[0]["test"] and result["residual"]["test"] == lines[-1]["test"]
    found, random = (np.array([line["test"] for line in part]) for part in (lines[:1], lines[1:6]))
    assert result["summary"] == summarise(found, random, np.array(lines[-1]["test"]), 359)
    cost = network_cost(NASBENCH201, FOUND, Shape(2, 1, 10, stem_stride=2), (8, 8, 1))
    assert result["found"][0]["params"] == cost.params
    assert 0.5 < result["residual"]["params"] / cost.params < 2
    assert result["recipe"]["steps"] == 4 and result["network"]["channels"] == 2
    # Nothing of the clock, and JSON as it was returned.
    assert json.loads((path / "result.json").read_text()) == result
    table = (path / "table.md").read_text()
    assert table.startswith(result["summary"]["sentence"]) and len(table.splitlines()) == 4 + 7

    capsys.readouterr()
    assert run_retrain(config, path) == result
    printed = " ".join(capsys.readouterr().out.split())
    assert result["summary"]["verdict"] in printed and "compiling" not in printed


def test_a_comparison_cut_short_goes_on_and_ends_in_the_same_bytes(
    finished: tuple[RetrainConfig, Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config, whole, _ = finished
    append, calls = alike.append, []

    def killed_while_writing(path: Path, text: str) -> None:
        calls.append(text)
        if len(calls) == 2:
            append(path, text[: len(text) // 2])
            raise KeyboardInterrupt
        append(path, text)

    monkeypatch.setattr(alike, "append", killed_while_writing)
    with pytest.raises(KeyboardInterrupt):
        run_retrain(config, tmp_path)
    assert not (tmp_path / "result.json").exists()
    run_retrain(config, tmp_path)
    assert len(calls) == 4 and "resnet" in calls[-1] and "resnet" not in calls[2]
    for name in LASTING:
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes(), name


def test_random_cells_are_distinct_networks_that_no_search_found():
    found = FOUND[None]
    drawn = draw_random(NASBENCH201, found, 300, seed=4)
    together = np.concatenate([found, drawn])
    np.testing.assert_array_equal(representatives(NASBENCH201, together), np.arange(301))
    np.testing.assert_array_equal(drawn[:20], draw_random(NASBENCH201, found, 20, seed=4))
    assert (drawn[:20] != draw_random(NASBENCH201, found, 20, seed=5)).any()
    # A found cell that the draw would meet is passed over.
    np.testing.assert_array_equal(draw_random(NASBENCH201, drawn[:1], 19, seed=4), drawn[1:20])


def test_cells_are_compared_with_none_that_costs_more(
    finished: tuple[RetrainConfig, Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config, _, whole = finished
    untrained = Accuracies(*(50 + np.zeros((count, 3)) for count in (1, 5)), np.zeros(3))
    monkeypatch.setattr(retrain, "train_alike", lambda *given: untrained)
    own, seed = whole["found"][0]["params"], 4
    drawn = draw_random(NASBENCH201, FOUND[None], 5, seed)
    assert (
        max(network_cost(NASBENCH201, cell, Shape(2, 1, 10, stem_stride=2), (8, 8, 1)).params for cell in drawn) > own
    )
    result = run_retrain(replace(config, seed=seed, constraints=(f"params<={own}",)), tmp_path / "equal")
    assert max(each["params"] for each in result["random"]) <= own
    with pytest.raises(UserError, match=f"leaves out a found cell, which has at this size params {own:,}, flops "):
        run_retrain(replace(config, constraints=(f"params<{own}",)), tmp_path / "less")
    assert not (tmp_path / "less").exists()


def test_a_comparison_keeps_the_model_of_latency_that_it_began_with(
    finished: tuple[RetrainConfig, Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told = {"device": "a device", "network": {"cells": 5, "channels": 16}, "batch": [1, 32, 32, 3]}
    (tmp_path / "latency").mkdir()

    def measured(intercept: float) -> None:
        model = describe_model(NASBENCH201, intercept, np.zeros((6, 5)), told)
        (tmp_path / "latency" / MODEL).write_text(json.dumps(model))

    def killed(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(retrain, "train_alike", killed)
    latency = str(tmp_path / "latency")
    config = replace(finished[0], constraints=("latency_ms<3",), latency=latency)
    measured(1.5)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_retrain(config, tmp_path / "run")
    measured(1.6)
    with pytest.raises(UserError, match="latency"):
        run_retrain(config, tmp_path / "run")
    with pytest.raises(UserError, match=r"config\.latency=.* means nothing here; it needs config\.constraints"):
        run_retrain(replace(finished[0], latency=latency), tmp_path / "other")


def test_a_space_with_too_few_cells_is_refused():
    one = replace(
        NASBENCH201,
        name="one",
        choices=(Choice("only", ("none",)),),
        operations=("none",),
        cells={"cell": CellLayout(1, 1, (Slot(1, 0, 0),))},
    )
    with pytest.raises(UserError, match="one has no 1 cells beside the found ones; it has 1 architectures"):
        draw_random(one, np.zeros((1, 1), np.int32), 1, seed=0)


Edit = Callable[[Path], None]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda run: (run / "result.json").unlink(), "that run has not finished"),
        (lambda run: [path.unlink() for path in run.iterdir()], "no run directory, it holds neither"),
        (lambda run: [[path.unlink() for path in run.iterdir()], run.rmdir()], "there is no such directory"),
        (
            lambda run: write_json_atomic(run / "config.json", {"job": "parsec.jobs.train.job:run_train"}),
            "run of another job",
        ),
        (lambda run: write_json_atomic(run / "config.json", []), "run of another job"),
        (lambda run: write_json_atomic(run / "result.json", {"space": "darts"}), "names no cell"),
        (lambda run: write_json_atomic(run / "result.json", {"space": "x", "genotype": "y"}), "'x', which is not"),
        (lambda run: write_json_atomic(run / "config.json", {"job": SearchConfig.JOB}), "not the run of a search"),
    ],
    ids=["unfinished", "empty", "missing", "foreign", "no config", "no genotype", "unknown space", "no settings"],
)
def test_a_run_that_is_no_finished_search_is_refused(edit: Edit, message: str, tmp_path: Path):
    run = searched(tmp_path / "search")
    edit(tmp_path / "search")
    _refused(replace(CONFIG, from_runs=(run,)), message, tmp_path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"config": replace(SEARCH, space="darts"), "space": DARTS, "found": DARTS_CELL}, "space=darts"),
        ({"config": replace(SEARCH, dataset="cifar10")}, "dataset=cifar10"),
        ({"config": replace(SEARCH, data=replace(SEARCH.data, image_size=16))}, "data.image_size=16"),
        ({"config": replace(SEARCH, network=NetworkSettings(channels=4, cells=1))}, "--config.network.channels"),
        ({"images": "0" * 64}, "searched on other images than digits has now"),
    ],
    ids=["space", "dataset", "image size", "network", "images"],
)
def test_searches_that_differ_are_refused(other: dict[str, Any], message: str, tmp_path: Path):
    runs = searched(tmp_path / "one"), searched(tmp_path / "two", **other)
    _refused(replace(CONFIG, from_runs=runs), message, tmp_path)


def test_no_run_and_too_little_for_the_test_are_refused(tmp_path: Path):
    _refused(CONFIG, "no search is given; name run directories", tmp_path)
    for text, message in (({"random": "4"}, "random=4"), ({"seeds": "2"}, "seeds=2")):
        with pytest.raises(UserError, match=f"config.{message} is out of range; it must be at least"):
            override(retrain_compare.get_config(), text)
    with pytest.raises(UserError, match=r"unknown variant of retrain_compare 'quik'.*did you mean 'quick'"):
        retrain_compare.get_config("quik")
    assert retrain_compare.get_config("quick").random == 8


def test_a_damaged_journal_is_refused(finished: tuple[RetrainConfig, Path, dict[str, Any]], tmp_path: Path):
    shape, found = Shape(2, 1, 10, stem_stride=2), FOUND[None]
    plain = plain_network(NASBENCH201, shape, found, (8, 8, 1))
    entrants = Entrants(NASBENCH201, shape, found, draw_random(NASBENCH201, found, 5, 0), plain)
    assert residual_params(entrants, (8, 8, 1)) == finished[2]["residual"]["params"]
    write_json_atomic(tmp_path / "config.json", {"job": RetrainConfig.JOB, "config": json.loads(to_json(CONFIG))})
    for line in ("[]", '{"network": "resnet", "test": [1.0]}', '{"network": 3, "test": [1.0, 1.0, 1.0]}'):
        (tmp_path / "retrained.jsonl").write_text(line + "\n")
        with (
            pytest.raises(UserError, match=r"line 1 of .*retrained.jsonl is not 3 accuracies"),
            claim(tmp_path, CONFIG) as run,
        ):
            train_alike(run, entrants, lambda: pytest.fail("opened"), lambda: pytest.fail("compiled"), 3)


def test_losses_and_test_accuracies_are_told_apart(tmp_path: Path):
    shape, found = Shape(2, 1, 10), FOUND[None]
    entrants = Entrants(NASBENCH201, shape, found, draw_random(NASBENCH201, found, 5, 0), shape)

    def evaluate(rows: np.ndarray, *_: Any) -> np.ndarray:
        return np.tile(np.float32([1.5, 2.5, 3.5, 51.0, 52.0, 53.0]), (len(rows), 1))

    stub = Evaluator(tuple("abcdef"), evaluate, together=4)
    with claim(tmp_path, CONFIG) as run:
        accuracies = train_alike(run, entrants, lambda: nullcontext((stub, None)), lambda: stub, 3)
    assert (np.concatenate([accuracies.found, accuracies.random, accuracies.residual[None]]) == [51, 52, 53]).all()
    lines = [json.loads(line) for line in (tmp_path / "retrained.jsonl").read_text().splitlines()]
    assert len(lines) == 7 and all(line["loss"] == [1.5, 2.5, 3.5] for line in lines)


@pytest.mark.slow
def test_a_search_ends_with_the_verdict(tmp_path: Path, capsys):
    verified = replace(SEARCH, steps=2, verify=replace(SEARCH.verify, random=5, steps=4))
    result = run_search(verified, tmp_path / "run")
    retrained = result["retrained"]
    assert (retrained["steps"], retrained["seeds"], retrained["random_cells"]) == (4, 3, 5)
    names = [json.loads(line)["network"] for line in (tmp_path / "run" / "retrained.jsonl").read_text().splitlines()]
    assert names[0] == result["genotype"] and len(names) == 7
    for shown in (" ".join(capsys.readouterr().out.split()), (tmp_path / "run" / "report.html").read_text()):
        assert retrained["verdict"] in shown
        assert "under the shared weights" not in shown and "random children" not in shown
    assert read_json(tmp_path / "run" / "result.json") == result


def test_verification_costs_at_most_its_share_of_the_search():
    part: Any = Batches(*(np.zeros(shape) for shape in ((719, 8, 8, 1), 719, 1, 1)))
    unused: Any = None
    problem = Problem(load("digits"), part, part, unused, 600, unused)
    config = SearchConfig(steps=600, sampler=SamplerSettings(num_children=4))
    cost = searched_images(config, problem)
    assert cost == pytest.approx(600 * 4 * (64 + 64 / 3))
    plan = plan_verification(config, problem)
    trainings = (config.verify.random + 2) * config.verify.seeds
    assert plan.steps >= LEAST_STEPS and 0.95 * cost / 2 < plan.steps * trainings * 64 <= cost / 2

    def planned(steps: int, settings: dict[str, str], **others: Any) -> Plan:
        return plan_verification(override(config, settings), problem._replace(steps=steps, **others))

    assert planned(500, {}).steps == 0 and "--config.verify.steps=N" in planned(500, {}).words
    assert planned(600, {"verify.random": "0"}).steps == 0
    untested = load("digits")._replace(test_labels=np.zeros(0, np.int32))
    assert planned(600, {}, dataset=untested).steps == 0
    assert planned(1, {"verify.steps": "7"}).steps == 7
    assert planned(1, {"verify.epochs": "2"}).steps == 2 * (719 // 64)
    assert planned(600, {"strategy.evaluator": "table"}).steps == 0
    trained = {"strategy.evaluator": "train", "strategy.name": "random"}
    two, four = (planned(600, trained | {"strategy.epochs": epochs}).steps for epochs in ("2", "4"))
    assert four > two > 0
    # 7 children of 10 steps of 64 images, each judged by 500; 2 trained again for 20 steps and judged by all 719.
    settings = trained | {"strategy.evaluations": "7", "strategy.steps": "10", "derive.valid_images": "500"}
    last = override(config, settings | {"derive.finalists": "2", "derive.final_steps": "20"})
    assert searched_images(last, problem) == pytest.approx(7 * (640 + 500 / 3) + 2 * (1280 + 719 / 3))
    # In three times as many cells.
    deep = override(last, {"network.cells": "2", "derive.final_cells": "6"})
    assert searched_images(deep, problem) == pytest.approx(7 * (640 + 500 / 3) + 3 * 2 * (1280 + 719 / 3))


def _refused(config: RetrainConfig, message: str, folder: Path) -> None:
    with pytest.raises(UserError, match=message) as raised:
        run_retrain(config, folder / "run")
    assert "\n" not in str(raised.value)
    assert not (folder / "run").exists()
