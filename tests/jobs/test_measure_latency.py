"""The job that measures latencies: what it leaves, what it says again, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs import latency as config
from parsec.cells import get_space
from parsec.cells.genotypes import to_text
from parsec.errors import UserError
from parsec.jobs.latency import MODEL, TABLE, run_latency
from parsec.settings.search import NetworkSettings
from parsec.tables.table import load_table

SMALL = replace(
    config.get_config("quick"),
    space="nasbench201",
    cells=10,
    rounds=3,
    image_size=8,
    network=NetworkSettings(channels=2, cells=1, stem_stride=2),
)
SPACE = get_space("nasbench201")


def finished(folder: Path, architecture: list[int], space: str = "nasbench201") -> str:
    """Writes the run directory of a search that found a cell, as far as others read it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"job": "parsec.jobs.search.job:run_search"}))
    text = to_text(get_space(space), np.array(architecture))
    (folder / "result.json").write_text(json.dumps({"space": space, "genotype": text}))
    return str(folder)


def test_random_and_found_cells_are_measured_and_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = finished(tmp_path / "search", [3, 3, 3, 3, 3, 3])
    config, where = replace(SMALL, from_runs=(found,)), tmp_path / "run"
    result = run_latency(config, where)
    assert "10 random ones, 1 found ones" in capsys.readouterr().out
    table = load_table(where / TABLE)
    assert len(table) == 11 and table.architectures[-1].tolist() == [3] * 6
    assert (table.columns["latency_ms"] > 0).all() and np.isfinite(table.columns["predicted_latency_ms"]).all()
    # The model's file says what the columns do.
    model = json.loads((where / MODEL).read_text())
    effects = [model["effects"][choice.name] for choice in SPACE.choices]
    predicted = [
        model["intercept"]
        + sum(of[choice.options[at]] for of, choice, at in zip(effects, SPACE.choices, row, strict=True))
        for row in table.architectures
    ]
    np.testing.assert_allclose(predicted, table.columns["predicted_latency_ms"], rtol=1e-9)
    assert result["found"][0]["run"] == found and result["found"][0]["latency_ms"] == table.columns["latency_ms"][-1]
    # Measured once: the same command reports it.
    again = run_latency(config, where)
    assert again == result


def test_every_cell_of_fronts_is_measured_and_shared_ones_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    runs, texts = [], [to_text(SPACE, np.array([option] * 6)) for option in range(5)]
    for name, of in (("first", (1, 2, 3)), ("second", (3, 4))):
        found = Path(finished(tmp_path / name, [of[-1]] * 6))
        front = {"members": [{"genotype": texts[option]} for option in of]}
        (found / "result.json").write_text(
            json.dumps(json.loads((found / "result.json").read_text()) | {"front": front})
        )
        runs.append(str(found))
    told = run_latency(replace(SMALL, rounds=2, from_runs=tuple(runs)), tmp_path / "run")
    assert [each["genotype"] for each in told["found"]] == [texts[option] for option in (1, 2, 3, 3, 4)]
    assert [each["run"] for each in told["found"]] == [runs[0]] * 3 + [runs[1]] * 2
    table = load_table(tmp_path / "run" / TABLE)
    assert len(table) == 14 and told["cells"] == 10 and told["found"][2]["latency_ms"] == told["found"][3]["latency_ms"]
    shown = "".join(capsys.readouterr().out.split())
    assert all(f"{each['params']:,.0f}parameters" in shown for each in told["found"]) and "5.second," in shown


def test_what_cannot_be_measured_is_refused(tmp_path: Path):
    other = finished(tmp_path / "other", [0] * 32, "darts")
    with pytest.raises(UserError, match=r"its cell is of darts, and config\.space=nasbench201"):
        run_latency(replace(SMALL, from_runs=(other,)), tmp_path / "a")
    with pytest.raises(UserError, match=r"config\.cells=20000 is more than nasbench201 has, 15625"):
        run_latency(replace(SMALL, cells=20_000), tmp_path / "b")
    with pytest.raises(UserError, match="there is no such directory"):
        run_latency(replace(SMALL, from_runs=(str(tmp_path / "none"),)), tmp_path / "c")
    with pytest.raises(UserError, match="leaves no normal cell in darts"):
        run_latency(replace(SMALL, space="darts"), tmp_path / "d")
    with pytest.raises(UserError, match="did you mean 'quick'"):
        config.get_config("quik")
