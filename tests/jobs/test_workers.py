"""Many evaluations at once: in the order of proposal or as they end, none lost or counted twice by a death."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import scored_by_workers as scored

from parsec.cells import get_space
from parsec.config import check, override
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluated, Evaluator, no_pause
from parsec.jobs.search import shared_out
from parsec.jobs.search.alike import RETRAINED
from parsec.jobs.search.domain import whole_domain
from parsec.jobs.search.finals import COMPARED
from parsec.jobs.search.job import run_search
from parsec.jobs.search.shared_out import evaluate_afresh
from parsec.jobs.search.strategy import run_strategy
from parsec.run.journal import JOURNAL, Journal, Scored, Told
from parsec.run.ledger import Ledger, Rule
from parsec.run.play import play
from parsec.run.workdir import claim
from parsec.run.workers import DiedError, Workers, local_workers, open_workers
from parsec.search.registry import make_strategy
from parsec.settings.search import (
    DataSettings,
    DeriveSettings,
    NetworkSettings,
    OptimizerSettings,
    SearchConfig,
    StrategySettings,
    VerifySettings,
)

DOMAIN = whole_domain(get_space("nasbench201"))
NOTHING = Evaluated(np.zeros((0, 0), np.int32), np.zeros((0, 1)))
FOLDER = Path(__file__).parent
CONFIG = SearchConfig(
    dataset="digits",
    space="nasbench201",
    data=DataSettings(batch_size=16),
    network=NetworkSettings(channels=2, cells=1),
    optimizer=OptimizerSettings(learning_rate=0.1),
    strategy=StrategySettings(
        name="random", evaluator="train", evaluations=5, steps=3, inherit=False, options=("batch=3",)
    ),
    derive=DeriveSettings(valid_images=64),
    verify=VerifySettings(random=0),
)


def here(folder: Path) -> Evaluator:
    return scored.make(folder, 0.0, {})


def search(workdir: Path, evaluator: Evaluator, settings: StrategySettings, **more: Any) -> Evaluated:
    with claim(workdir, replace(CONFIG, strategy=settings)) as run:
        return run_strategy(run, settings, DOMAIN, 0, evaluator, **more).evaluated


@contextlib.contextmanager
def processes(folder: Path, count: int = 2, **more: Any) -> Iterator[Workers]:
    with open_workers(local_workers(scored.maker(folder, **more), count), count) as workers:
        yield workers


class InThread:
    """A worker without a process, that takes a while and may be told to die."""

    def __init__(self, evaluate: Callable[[np.ndarray], np.ndarray]) -> None:
        self._evaluate = evaluate

    def begin(self) -> tuple[str, ...]:
        return ("score",)

    def check(self) -> None:
        return None

    def evaluate(self, architectures: np.ndarray) -> np.ndarray:
        return self._evaluate(architectures)

    def end(self) -> None:
        return None


def test_processes_end_as_one_alone_does_byte_for_byte(tmp_path: Path):
    """The first of a batch takes longest; results are taken in the order of proposal all the same."""
    asked = {"random": "batch=5", "lanas": "batch=4", "alphax": "batch=3", "regularized_evolution": "batch=4"}
    with processes(tmp_path, seconds=0.02) as workers:
        for name, batch in asked.items():
            settings = StrategySettings(name=name, evaluations=12, options=(batch,))
            alone = search(tmp_path / name / "alone", here(tmp_path), settings)
            found = search(tmp_path / name / "many", workers.evaluator, settings, workers=workers)
            np.testing.assert_array_equal(found.architectures, alone.architectures)
            for file in (JOURNAL, "metrics.jsonl"):
                paths = [tmp_path / name / each / file for each in ("alone", "many")]
                assert paths[0].read_bytes() == paths[1].read_bytes()
    assert len({process for process, _ in scored.begun(tmp_path)} - {os.getpid()}) == 2


def test_a_killed_worker_s_child_is_evaluated_again_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = StrategySettings(name="random", evaluations=8, options=("batch=8",))
    alone = search(tmp_path / "alone", here(tmp_path), settings)
    (tmp_path / "log").unlink()
    asked = [tuple(row) for row in alone.architectures.tolist()]
    once, always = (at for at in range(8) if np.isfinite(alone.scores[at, 0]) and at not in (0, 7)), 100
    unlucky, deadly = next(once), next(once)
    with processes(tmp_path, deaths={asked[unlucky]: 1, asked[deadly]: always}) as workers:
        found = search(tmp_path / "many", workers.evaluator, settings, workers=workers)
    expected = alone.scores.copy()
    expected[deadly] = np.nan
    np.testing.assert_array_equal(found.scores, expected)
    begun = [name for _, name in scored.begun(tmp_path)]
    assert [begun.count(name) for name in asked] == [1 + (at in (unlucky, deadly)) for at in range(8)]
    scores = [entry for entry in Journal(tmp_path / "many").entries if isinstance(entry, Scored)]
    assert [tuple(entry.architecture.tolist()) for entry in scores] == asked
    told = capsys.readouterr().out
    assert told.count(f"the worker that evaluated {list(asked[unlucky])} died; it is evaluated again") == 1
    assert told.count(f"the worker that evaluated {list(asked[deadly])} died; it counts as failed") == 1
    assert told.count(" died; ") == 3


def test_a_worker_that_dies_between_evaluations_costs_none_of_them_a_try(tmp_path: Path):
    row = np.array([[3, 1, 3, 3, 2, 3]], np.int32)
    with processes(tmp_path, count=1, deaths={(3, 1, 3, 3, 2, 3): 1}) as workers:
        first = workers.evaluator.evaluate(row + np.int32(1), NOTHING, no_pause)
        os.kill(scored.begun(tmp_path)[0][0], signal.SIGKILL)
        time.sleep(0.2)
        assert workers.evaluator.evaluate(row, NOTHING, no_pause).tolist() == [[2.0]]
    assert first.shape == (1, 1) and len({process for process, _ in scored.begun(tmp_path)}) == 3


def test_a_worker_that_cannot_begin_ends_the_run_in_a_line():
    with (
        pytest.raises(UserError, match=r"died before it had begun.*lower --config\.workers"),
        open_workers(local_workers(scored.dies_at_once, 2), 2),
    ):
        raise AssertionError


def test_the_last_comparison_and_the_proof_tell_of_a_worker_that_died(tmp_path: Path):
    rows, notes = np.array([[3, 1, 3, 3, 2, 3], [1, 1, 1, 1, 1, 1]], np.int32), []
    with processes(tmp_path, deaths={(3, 1, 3, 3, 2, 3): 1}) as workers:
        scores = evaluate_afresh(workers.evaluator, workers, rows, no_pause, notes.append)
    np.testing.assert_array_equal(scores[:, 0], np.float32([scored.score(row) for row in rows]))
    assert notes == ["the worker that evaluated [3, 1, 3, 3, 2, 3] died; it is evaluated again"]


def test_a_stop_is_answered_while_an_evaluation_goes_on_and_leaves_no_process(tmp_path: Path):
    class StoppedError(Exception):
        pass

    began = time.monotonic()

    def pause() -> None:
        if len(scored.begun(tmp_path)) >= 2:
            raise StoppedError

    strategy = make_strategy("random", DOMAIN, {"batch": 4})
    ledger = Ledger(Rule(4), DOMAIN, None, 1, "random")
    with pytest.raises(StoppedError), processes(tmp_path, seconds=300.0) as workers:
        play(strategy, workers.evaluator, ledger, jax.random.key(0), pause=pause, pool=workers.pool)
    assert time.monotonic() - began < 250
    for process, _ in scored.begun(tmp_path):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_workers_end_with_a_process_that_is_killed(tmp_path: Path):
    program = f"""
import pathlib, sys, time
sys.path.insert(0, {str(FOLDER)!r})
import scored_by_workers as scored
from parsec.run.workers import local_workers, open_workers
if __name__ == "__main__":
    import numpy as np
    with open_workers(local_workers(scored.maker(pathlib.Path({str(tmp_path)!r}), 1000.0), 1), 1) as workers:
        workers.evaluator.evaluate(np.zeros((1, 6), np.int32), None, None)
"""
    (tmp_path / "program.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(FOLDER.parents[1])}
    with subprocess.Popen([sys.executable, str(tmp_path / "program.py")], env=environment) as master:
        deadline = time.monotonic() + 120
        while not scored.begun(tmp_path):
            assert time.monotonic() < deadline and master.poll() is None
            time.sleep(0.1)
        master.kill()
    (process, _), deadline = scored.begun(tmp_path)[0], time.monotonic() + 30
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("name", ["alphax", "lanas", "regularized_evolution"])
def test_an_asynchronous_run_that_is_killed_anywhere_loses_and_repeats_nothing(name: str, tmp_path: Path):
    settings = StrategySettings(name=name, evaluations=30)
    rng, lock = random.Random(0), threading.Lock()
    evaluated: list[tuple[int, ...]] = []
    # The first four go on when all of them have begun; where no four are evaluated at once, this ends the test.
    deaths, first_four = {7, 19}, threading.Barrier(4, timeout=60)

    def evaluate(architectures: np.ndarray) -> np.ndarray:
        with lock:
            evaluated.append(tuple(architectures[0].tolist()))
            begun = len(evaluated)
        if deaths and begun <= 4:
            first_four.wait()
        time.sleep(rng.uniform(0.0, 0.01))
        if begun in deaths:
            raise DiedError
        return np.array([[scored.score(architectures[0])]], np.float32)

    def run(workdir: Path) -> Evaluated:
        with open_workers(lambda place: InThread(evaluate), 4) as workers:
            return search(workdir, workers.evaluator, settings, workers=workers, asynchronous=True)

    whole = run(tmp_path / "whole")
    # Two more evaluations were begun than there are: a worker died in each.
    assert len(evaluated) == 32 and len(set(evaluated)) == len(whole.scores) == 30
    lines = (tmp_path / "whole" / JOURNAL).read_bytes().splitlines(keepends=True)
    entries = Journal(tmp_path / "whole").entries
    told = [entry.ask for entry in entries if isinstance(entry, Told)]
    assert sorted(told) == list(range(1, len(told) + 1))
    deaths.clear()
    for cut in (10, 40):
        workdir = tmp_path / str(cut)
        with claim(workdir, replace(CONFIG, strategy=settings)):
            (workdir / JOURNAL).write_bytes(b"".join(lines[:cut]))
        known = [entry for entry in entries[:cut] if isinstance(entry, Scored)]
        evaluated.clear()
        found = run(workdir)
        assert (workdir / JOURNAL).read_bytes().startswith(b"".join(lines[:cut]))
        again = {tuple(entry.architecture.tolist()) for entry in known}
        assert not again & set(evaluated) and len(evaluated) == len(set(evaluated)) == 30 - len(known)
        assert {tuple(row) for row in found.architectures.tolist()} == again | set(evaluated)
        np.testing.assert_array_equal(
            found.scores[:, 0], np.float32([scored.score(row) for row in found.architectures])
        )
        assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 30


def test_a_batch_is_told_whole_and_no_worker_waits_for_it(tmp_path: Path):
    """Of three asked for at once the first is held back until four more were begun by the other worker."""
    first, free, begun = [], threading.Event(), []

    def evaluate(architectures: np.ndarray) -> np.ndarray:
        name = tuple(architectures[0].tolist())
        first.append(name) if not first else None
        begun.append(name)
        if len(begun) == 7:
            free.set()
        if name == first[0]:
            assert free.wait(60)
        return np.array([[1.0]], np.float32)

    settings = StrategySettings(name="random", evaluations=9, options=("batch=3",))
    with open_workers(lambda place: InThread(evaluate), 2) as workers:
        search(tmp_path, workers.evaluator, settings, workers=workers, asynchronous=True)
    told = [entry.ask for entry in Journal(tmp_path).entries if isinstance(entry, Told)]
    assert told[0] == 2 and sorted(told) == [1, 2, 3]


def test_a_strategy_that_leaves_workers_idle_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = StrategySettings(name="local_search", evaluations=3)
    with open_workers(lambda place: InThread(lambda rows: np.ones((1, 1), np.float32)), 3) as workers:
        search(tmp_path / "waits", workers.evaluator, settings, workers=workers)
        assert "local_search asks for 1 at once: 2 workers are idle" in capsys.readouterr().out
        search(tmp_path / "does not", workers.evaluator, settings, workers=workers, asynchronous=True)
        assert "idle" not in capsys.readouterr().out


@pytest.mark.slow
def test_short_trainings_in_processes_are_those_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The last comparison and the proof beside random cells are shared out as well."""
    hired: list[int] = []

    def count_hired(make: Callable[[], Evaluator], count: int) -> Any:
        hired.append(count)
        return local_workers(make, count)

    monkeypatch.setattr(shared_out, "local_workers", count_hired)
    files = ("result.json", "metrics.jsonl", JOURNAL, COMPARED, RETRAINED)
    config = replace(
        CONFIG,
        derive=replace(CONFIG.derive, finalists=3, final_steps=4),
        verify=VerifySettings(random=5, steps=2, seeds=2),
    )
    run_search(config, tmp_path / "run")
    alone = [(tmp_path / "run" / file).read_bytes() for file in files]
    result = run_search(replace(config, workers=2), tmp_path / "many")
    assert hired == [2, 2, 2]
    assert [(tmp_path / "many" / file).read_bytes() for file in files] == alone
    assert result["evaluations"] == 5 and not any("not reproducible" in text for text in result["warnings"])


def test_an_asynchronous_search_says_that_it_is_not_reproducible(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    class Measures(InThread):
        def begin(self) -> tuple[str, ...]:
            return ("valid_accuracy", "valid_log_likelihood")

    measured = np.array([[50.0, -1.0]], np.float32)
    monkeypatch.setattr(shared_out, "local_workers", lambda make, count: lambda place: Measures(lambda rows: measured))
    result = run_search(replace(CONFIG, workers=2, asynchronous=True), tmp_path / "run")
    assert result["evaluations"] == 5 and result["config"]["asynchronous"] is True
    assert any(text.startswith("not reproducible: ") for text in result["warnings"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 of this machine, asked again whenever one is free: not reproducible" in printed
    assert "warning: not reproducible" in printed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": "0"}, r"config\.workers=0 is out of range; it must be at least 1 and at most 10,000"),
        ({"workers": "-2"}, r"config\.workers=-2 is out of range"),
        (
            {"workers": "2", "strategy.evaluator": "supernet"},
            r"config\.workers=2 means nothing here; it needs short",
        ),
        ({"workers": "2", "strategy.inherit": "true"}, r"config\.workers=2 .* needs config\.strategy\.inherit=false"),
        ({"asynchronous": "true"}, r"config\.asynchronous=True .* needs config\.workers=2 or more"),
        ({"cluster": "nowhere"}, r"config\.cluster='nowhere' is no address of a Ray cluster; write local to start one"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_one_line_and_writes_nothing(settings: dict[str, str], message: str, tmp_path: Path):
    # A search on shared weights keeps its other settings as they are by default.
    base = CONFIG if "strategy.evaluator" not in settings else replace(CONFIG, strategy=StrategySettings(name="random"))
    with pytest.raises(UserError, match=message):
        run_search(check(override(base, settings)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
