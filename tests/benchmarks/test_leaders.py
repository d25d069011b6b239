"""The benchmark that follows searches by a table: leaders, means and arrivals from a journal's lines."""

import json
from pathlib import Path

import numpy as np

from benchmarks.leaders import REPORT, arrives, follow, text
from parsec.tables.table import make_table

ROWS = np.stack(np.unravel_index(np.arange(5**6), (5,) * 6), 1)
# An architecture is as good as its options' numbers add up to.
TABLE = make_table("toy", np.array([5] * 6), ROWS, {REPORT: ROWS.sum(1).astype(float)})


def journal(folder: Path, scores: list[tuple[int, float | None]]) -> Path:
    """Writes a run whose n-th cell has six times an option, and a score."""
    folder.mkdir()
    lines = [{"ask": 1, "architectures": [[option] * 6 for option, _ in scores]}]
    lines += [{"architecture": [option] * 6, "scores": [score, 0.0]} for option, score in scores]
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_leaders_means_and_arrivals(tmp_path: Path):
    run = journal(tmp_path / "run", [(0, None), (3, 0.5), (1, 0.9), (2, 0.7), (4, 1.5)])
    found = follow(run, TABLE, [1, 2, 3, 5, 6])
    # What scored best leads, whatever the table thinks of it; nothing does where every training failed.
    np.testing.assert_array_equal(found[0], [np.nan, 18, 6, 24, np.nan])
    np.testing.assert_allclose(found[1], [np.nan, 9, 8, 12, np.nan])
    # After two trainings the leader is there, after three not any more.
    assert arrives(run, TABLE, 17) == 5 and arrives(run, TABLE, 6) == 2 and arrives(run, TABLE, 25) is None
    shown = text(["one", "two"], np.stack([found, found + 2]), [1, 2, 3, 5, 6])
    assert "| all | leader | nan ± nan | 19.00 ± 1.41 | 7.00 ± 1.41 |" in shown
