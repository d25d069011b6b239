"""What a job says it writes is what it writes: another's file of such a name is refused, so no name may be missing."""

import ast
from pathlib import Path

import pytest

from parsec.run import (
    alike,
    budget,
    compare,
    conclude,
    export,
    factories,
    finals,
    front,
    hyper,
    journal,
    latency,
    pareto,
    pipeline_settings,
    retrain,
    saved_trials,
    table,
    unreadable,
)
from parsec.run.compare_settings import CompareConfig
from parsec.run.hyper_settings import HyperConfig
from parsec.run.latency_settings import LatencyConfig
from parsec.run.pareto_settings import ParetoConfig
from parsec.run.pipeline_settings import PipelineConfig
from parsec.run.retrain_settings import RetrainConfig
from parsec.run.settings import SearchConfig
from parsec.run.table_settings import TableConfig
from parsec.run.train_settings import TrainConfig
from parsec.run.workdir import writes
from parsec.train import model_file
from parsec.transfer import prior

RUN = Path(compare.__file__).parent


def test_the_names_are_those_of_the_modules_that_write():
    search = {prior.PRIOR, conclude.REPORT, factories.CHILDREN, journal.JOURNAL, finals.COMPARED}
    search |= {front.FRONT, front.PLOT}
    assert {*search, alike.RETRAINED, unreadable.UNREADABLE, "cell.svg", "cell.png"} == set(SearchConfig.WRITES)
    assert {saved_trials.FINISHED, compare.CURVES, compare.PLOT, compare.TEXT} == set(CompareConfig.WRITES)
    fronts = {pareto.CURVES, pareto.PLOT, pareto.FRONTS, pareto.TEXT, pareto.FRONT, pareto.ARCHITECTURES}
    assert {saved_trials.FINISHED, *fronts} == set(ParetoConfig.WRITES)
    searched = {hyper.CURVES, hyper.PLOT, hyper.FRONTS, hyper.TEXT, hyper.FRONT, hyper.ARCHITECTURES}
    assert {hyper.SEARCHES, *searched} == set(HyperConfig.WRITES)
    assert {table.TABLE} == set(TableConfig.WRITES)
    assert {latency.TABLE, latency.MODEL} == set(LatencyConfig.WRITES)
    exports = {export.PROGRAM, export.SCRIPT, export.GRAPH, export.TORCH_SOURCE, export.TORCH_WEIGHTS, export.MANIFEST}
    weights = {model_file.MODEL, model_file.WEIGHTS, model_file.LAST}
    assert {*weights, *exports, unreadable.UNREADABLE} == set(TrainConfig.WRITES)
    assert {alike.RETRAINED, retrain.TABLE, retrain.PLOT} == set(RetrainConfig.WRITES)
    stages = {pipeline_settings.SEARCH, pipeline_settings.TRAIN, pipeline_settings.RESIDUAL}
    assert {budget.BUDGET, *stages} == set(PipelineConfig.WRITES)


@pytest.mark.parametrize("path", sorted(RUN.glob("*.py")), ids=lambda path: path.stem)
def test_every_file_name_in_the_runner_is_one_that_a_job_names(path: Path):
    """A name added to a module, and forgotten in `WRITES`, would be written over another's file."""
    named = {
        name
        for config in (
            *(SearchConfig(), CompareConfig(), ParetoConfig(), TableConfig()),
            *(TrainConfig(), RetrainConfig(), PipelineConfig(), LatencyConfig(), HyperConfig()),
        )
        for name in writes(config)
    }
    written = {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.endswith((".json", ".jsonl", ".md", ".png", ".svg", ".html"))
        and " " not in node.value
    }
    assert written - named <= {"config.json"}
