"""Workers on Ray, started on this machine: the same bytes as in one process, deaths survived, one line for errors."""

import socket
from pathlib import Path

import numpy as np
import pytest
import scored_by_workers as scored
from test_workers import here, search

from main import main
from parsec.errors import UserError
from parsec.run import cluster
from parsec.run.cluster import check_cluster, cluster_workers
from parsec.run.journal import JOURNAL
from parsec.run.workers import open_workers
from parsec.settings.search import StrategySettings

# Ray leaves sockets and files open, and warns of its own future.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _ray() -> None:
    pytest.importorskip("ray")


def test_on_ray_a_run_ends_as_in_one_process_and_survives_deaths(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = StrategySettings(name="random", evaluations=8, options=("batch=8",))
    alone = search(tmp_path / "alone", here(tmp_path), settings)
    (tmp_path / "log").unlink()
    asked = [tuple(row) for row in alone.architectures.tolist()]
    # What dies again and again counts as failed wherever its workers are, and is tested on this machine's own.
    unlucky = np.flatnonzero(np.isfinite(alone.scores[:, 0]))[1]
    make = scored.maker(tmp_path, 0.02, {asked[unlucky]: 1})
    with cluster_workers("local", make, 2) as hire, open_workers(hire, 2) as workers:
        found = search(tmp_path / "deaths", workers.evaluator, settings, workers=workers)
        first = [name for _, name in scored.begun(tmp_path)]
        told = capsys.readouterr().out
        again = search(tmp_path / "whole", workers.evaluator, settings, workers=workers)
    np.testing.assert_array_equal(found.scores, alone.scores)
    assert [first.count(name) for name in asked] == [1 + (at == unlucky) for at in range(8)]
    assert told.count("it is evaluated again") == 1 and "it counts as failed" not in told
    np.testing.assert_array_equal(again.scores, alone.scores)
    for file in (JOURNAL, "metrics.jsonl"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "alone" / file).read_bytes()
    # Two at first, and one for the death.
    processes = {process for process, _ in scored.begun(tmp_path)}
    assert len(processes) == 3


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_a_cluster_that_does_not_answer_is_one_line(form: str):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        # Nothing listens there.
        address = form.format(taken.getsockname()[1])
        with pytest.raises(
            UserError, match=rf"cluster config\.cluster={address} cannot be reached: .*refused"
        ) as refused:
            check_cluster(address)
    assert "\n" not in str(refused.value)


def test_a_search_that_cannot_reach_its_cluster_writes_nothing_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--config=digits_search", "--config.workers=2", "--config.cluster=127.0.0.1:1"]
    assert main([*words, f"--workdir={tmp_path / 'run'}"]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: the Ray cluster config.cluster=127.0.0.1:1 cannot be reached: ") and "\n" not in told
    assert not (tmp_path / "run").exists()


def test_without_a_cluster_to_belong_to_there_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(UserError, match=r"config\.cluster=auto cannot be reached: Could not find any running Ray"),
        cluster_workers("auto", scored.dies_at_once, 2),
    ):
        raise AssertionError


def test_a_port_of_something_else_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "_LONG_PATIENCE_SECONDS", 2.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match=r"cannot be reached: what answers there is no head of one"):
            check_cluster(f"127.0.0.1:{other.getsockname()[1]}")
