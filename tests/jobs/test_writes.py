"""What a job says it writes is what it writes: another's file of such a name is refused, so no name may be missing."""

import ast
from pathlib import Path

import pytest

import parsec
from parsec.jobs import latency
from parsec.jobs.hyper import job as hyper
from parsec.jobs.images import budget
from parsec.jobs.retrain import job as retrain
from parsec.jobs.search import alike, conclude, factories, finals, front
from parsec.jobs.tables import build, compare, pareto
from parsec.jobs.train import export
from parsec.run import journal, saved_trials, unreadable
from parsec.run.workdir import writes
from parsec.settings import images
from parsec.settings.compare import CompareConfig
from parsec.settings.hyper import HyperConfig
from parsec.settings.images import PipelineConfig
from parsec.settings.latency import LatencyConfig
from parsec.settings.pareto import ParetoConfig
from parsec.settings.retrain import RetrainConfig
from parsec.settings.search import SearchConfig
from parsec.settings.table import TableConfig
from parsec.settings.train import TrainConfig
from parsec.train import model_file
from parsec.transfer import prior

PACKAGE = Path(parsec.__file__).parent
ENDINGS = (
    *(".json", ".jsonl", ".md", ".png", ".svg", ".html"),
    *(".npz", ".stablehlo", ".onnx", ".pt", ".safetensors"),
)
RUNNER = sorted(path for folder in ("run", "jobs", "command") for path in (PACKAGE / folder).rglob("*.py"))


def test_the_names_are_those_of_the_modules_that_write():
    search = {prior.PRIOR, conclude.REPORT, factories.CHILDREN, journal.JOURNAL, finals.COMPARED}
    search |= {front.FRONT, front.PLOT}
    assert {*search, alike.RETRAINED, unreadable.UNREADABLE, "cell.svg", "cell.png"} == set(SearchConfig.WRITES)
    assert {saved_trials.FINISHED, compare.CURVES, compare.PLOT, compare.TEXT} == set(CompareConfig.WRITES)
    fronts = {pareto.CURVES, pareto.PLOT, pareto.FRONTS, pareto.TEXT, pareto.FRONT, pareto.ARCHITECTURES}
    assert {saved_trials.FINISHED, *fronts} == set(ParetoConfig.WRITES)
    searched = {hyper.CURVES, hyper.PLOT, hyper.FRONTS, hyper.TEXT, hyper.FRONT, hyper.ARCHITECTURES}
    assert {hyper.SEARCHES, *searched} == set(HyperConfig.WRITES)
    assert {build.TABLE} == set(TableConfig.WRITES)
    assert {latency.TABLE, latency.MODEL} == set(LatencyConfig.WRITES)
    exports = {export.PROGRAM, export.SCRIPT, export.GRAPH, export.TORCH_SOURCE, export.TORCH_WEIGHTS, export.MANIFEST}
    weights = {model_file.MODEL, model_file.WEIGHTS, model_file.LAST}
    assert {*weights, *exports, unreadable.UNREADABLE} == set(TrainConfig.WRITES)
    assert {alike.RETRAINED, retrain.TABLE, retrain.PLOT} == set(RetrainConfig.WRITES)
    stages = {images.SEARCH, images.TRAIN, images.RESIDUAL}
    assert {budget.BUDGET, *stages} == set(PipelineConfig.WRITES)


@pytest.mark.parametrize("path", RUNNER, ids=lambda path: str(path.relative_to(PACKAGE)))
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
        and node.value.endswith(ENDINGS)
        and " " not in node.value
    }
    # The last two are of files that are read.
    assert written - named <= {"config.json", "nasbench201.npz", ".npz"}
