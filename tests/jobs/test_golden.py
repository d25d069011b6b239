"""Small runs whose outcome is kept: a change that was meant to change no result is shown to have changed none.

`python -m tests.jobs.test_golden` writes golden.json anew, after a change that is meant to. Rows of a table are kept
exactly; what a processor computes in floating point is kept to a few digits.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs.digits_search import get_config
from parsec.cells.domain import product_domain
from parsec.evaluate.table import table_evaluator
from parsec.jobs.search.job import run_search
from parsec.run.trials import Task, play_run
from parsec.search.registry import make_strategy
from parsec.tables.digits201 import load_digits201

GOLDEN = Path(__file__).with_name("golden.json")
STRATEGIES = ("random", "regularized_evolution", "parsec", "q_learning", "lanas")


def comparison() -> dict[str, list[int]]:
    """Returns the rows that each strategy is charged for in one run on the shipped table."""
    table = load_digits201()
    domain, evaluator = product_domain(table.sizes), table_evaluator(table, ("valid",))
    return {
        name: play_run(make_strategy(name, domain), evaluator, domain, Task(name, {}, ("valid",), 24, "unique", 0), 0)[
            0
        ].tolist()
        for name in STRATEGIES
    }


def search(workdir: Path) -> dict[str, Any]:
    """Returns what a few steps of a search found and measured."""
    config = replace(get_config("quick"), steps=6, prior=replace(get_config("quick").prior, warmup=0.3))
    result = run_search(config, workdir)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    measured = {name: [line[name] for line in lines] for name in ("loss", "valid_loss", "entropy", "ess")}
    return {"architecture": result["architecture"], "entropy": result["entropy"], **measured}


def test_strategies_are_charged_for_the_same_architectures():
    assert comparison() == json.loads(GOLDEN.read_text())["comparison"]


def test_a_search_finds_and_measures_the_same(tmp_path: Path):
    kept, found = json.loads(GOLDEN.read_text())["search"], search(tmp_path)
    assert found.pop("architecture") == kept.pop("architecture")
    for name, values in kept.items():
        as_floats = [np.array(each, np.float64) for each in (found[name], values)]
        np.testing.assert_allclose(*as_floats, rtol=2e-3, err_msg=name)


if __name__ == "__main__":
    assert jax.default_backend() == "cpu"
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps({"comparison": comparison(), "search": search(Path(folder))}, indent=1) + "\n")
