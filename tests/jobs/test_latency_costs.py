"""A measured model of latency as a cost of a search: read from its run directory, kept to, refused where it is none."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from parsec.cells import get_space
from parsec.cells.costs import named_costs
from parsec.cells.domain import add_up
from parsec.cells.network import Shape
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluated, Evaluator
from parsec.jobs.latency_model import MODEL, describe_model, read_model
from parsec.jobs.search.coherence import check_search
from parsec.jobs.search.domain import known_costs, search_domain
from parsec.jobs.search.job import run_search
from parsec.jobs.search.strategy import run_strategy
from parsec.run.workdir import claim
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
# Convolutions are the slower ones here, none is fastest.
EFFECTS = np.tile([0.0, 0.1, 0.6, 1.0, 0.3], (6, 1))
TOLD = {
    "device": "a device",
    "network": {"cells": 5, "channels": 16},
    "batch": [1, 32, 32, 3],
}
CONFIG = SearchConfig(
    dataset="digits",
    space="nasbench201",
    data=DataSettings(batch_size=32),
    network=NetworkSettings(channels=2, cells=1),
    optimizer=OptimizerSettings(learning_rate=0.1),
    strategy=StrategySettings(name="emoa", options=("population=4",), evaluator="train", evaluations=8, steps=2),
    derive=DeriveSettings(valid_images=256, finalists=3, final_steps=3),
    verify=VerifySettings(random=0),
)


@pytest.fixture
def measured(tmp_path: Path) -> str:
    (tmp_path / "latency").mkdir()
    (tmp_path / "latency" / MODEL).write_text(json.dumps(describe_model(SPACE, 1.5, EFFECTS, TOLD)))
    return str(tmp_path / "latency")


def test_the_model_that_is_read_is_the_one_that_was_written(measured: str):
    model = read_model(measured, SPACE)
    assert model.intercept == 1.5
    np.testing.assert_array_equal(model.effects, EFFECTS)
    assert model.words == "5 cells, 16 channels, batches of 1 x 32 x 32 x 3 on a device"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "has schema 2; 1 is read here"),
        ({"space": "darts"}, "is of the space 'darts', and config.space=nasbench201"),
        ({"effects": {}}, "is damaged"),
        ({"intercept": float("nan")}, "not finite"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_in_a_line(measured: str, change: dict, said: str):
    path = Path(measured) / MODEL
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=said) as refused:
        read_model(measured, SPACE)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=r"there is no latency\.json; give the run directory of a finished --config="):
        read_model(str(path.parent.parent), SPACE)


# By samples and by mutations; what strategies ask of a domain within limits is tested in test_strategy_search.
@pytest.mark.parametrize("name", ["random", "emoa"])
def test_what_a_strategy_evaluates_is_fast_enough_and_small_enough(name: str, measured: str, tmp_path: Path):
    table = known_costs("nasbench201", Shape(2, 1, 10), (8, 8, 1), measured)
    domain = search_domain(SPACE, lambda: table, ("latency_ms<3.3", "params<2000"))

    def evaluate(rows: np.ndarray, *_: object) -> np.ndarray:
        return rows.sum(1, keepdims=True).astype(np.float32)

    settings = StrategySettings(name=name, evaluations=16)
    with claim(tmp_path / "run", replace(CONFIG, strategy=settings)) as run:
        found = run_strategy(run, settings, domain, 0, Evaluator(("score",), evaluate)).evaluated
    assert isinstance(found, Evaluated) and len(found.scores) == 16
    assert (1.5 + add_up(EFFECTS, found.architectures) < 3.3 + 1e-6).all()
    assert all(named_costs(table, row)["params"] < 2000 for row in found.architectures)


@pytest.mark.slow
def test_a_front_of_accuracy_and_latency_within_a_limit(measured: str, tmp_path: Path):
    config = replace(CONFIG, latency=measured, objectives=("accuracy", "-latency_ms"), constraints=("latency_ms<=3.5",))
    result = run_search(config, tmp_path / "run")
    assert result["front"]["objectives"] == ["accuracy", "-latency_ms"]
    assert result["front"]["reference"] == [0.0, -3.5] and result["front"]["ideal"] == [100.0, -1.5]
    for member in result["front"]["members"]:
        expected = 1.5 + add_up(EFFECTS, np.array([member["architecture"]]))[0]
        assert member["latency_ms"] == pytest.approx(expected, abs=0.004) and member["latency_ms"] <= 3.5
        assert member["objectives"][1] == -member["latency_ms"]
    assert result["latency_ms"] == result["front"]["members"][-1]["latency_ms"]
    assert "latency_ms" in (tmp_path / "run" / "front.md").read_text()
    # Its model belongs to the run: another one is another search.
    path = Path(measured) / MODEL
    path.write_text(path.read_text().replace('"intercept": 1.5', '"intercept": 1.6'))
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(UserError, match="latency"):
        run_search(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latency": "runs/latency"}, "needs latency_ms in config.constraints or config.objectives"),
        ({"objectives": ("accuracy", "-latency_ms")}, "--config.latency=RUN_DIR"),
    ],
)
def test_a_latency_without_a_model_and_a_model_without_a_use_are_refused(changes: dict, said: str):
    with pytest.raises(UserError, match=said):
        check_search(replace(CONFIG, **changes), SPACE)


def test_a_limit_on_a_latency_without_a_model_is_refused():
    costs = partial(known_costs, "nasbench201", Shape(2, 1, 10), (8, 8, 1), "")
    with pytest.raises(UserError, match=r"config.constraints names latency_ms, which a model predicts"):
        search_domain(SPACE, costs, ("latency_ms<8",))
