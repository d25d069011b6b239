"""The benchmark of transfer between real images: what it says of a prior, and what each of its searches starts from."""

import argparse

import numpy as np
import pytest

from benchmarks import transfer_images
from benchmarks.transfer_images import REPORT, STARTS, judge, measure, text
from parsec.cells import get_space
from parsec.cells.space import uniform_logits
from parsec.settings.search import SearchConfig
from parsec.tables.table import make_table

SPACE = get_space("nasbench201")
ROWS = np.stack(np.unravel_index(np.arange(5**6), (5,) * 6), 1)
# An architecture is as good as its options' numbers add up to.
TABLE = make_table("toy", np.array([5] * 6), ROWS, {REPORT: ROWS.sum(1).astype(float)})


def sure_of(option: int) -> np.ndarray:
    logits = np.zeros((6, 5), np.float32)
    logits[:, option] = 20
    return logits


def test_a_prior_is_judged_by_its_mode_and_by_what_it_draws():
    found = judge(TABLE, np.stack([uniform_logits(SPACE), sure_of(4)]))
    assert found["drawn"] == pytest.approx([12.0, 24.0]) and found["mode"][1] == 24.0
    assert found["entropy"] == pytest.approx([6 * np.log(5), 0.0], abs=1e-4)


def test_each_start_has_its_prior_and_the_same_images(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[SearchConfig, np.ndarray]] = []

    def learn(config: SearchConfig, initial: np.ndarray, every: int) -> np.ndarray:
        asked.append((config, initial))
        return np.stack([initial, *[sure_of(3)] * (config.steps // every)])

    monkeypatch.setattr(transfer_images, "learn", learn)
    sizes = {"source_size": 11, "size": 16, "source_steps": 4, "steps": 8, "every": 2, "batch_size": 8, "channels": 4}
    options = argparse.Namespace(data_dir="nowhere", learning_rate=0.5, **sizes)
    found = measure(options, 7, TABLE)
    (source, first), *targets = asked
    assert (source.data.image_size, source.steps, source.seed, source.prior.learning_rate) == (11, 4, 7, 0.5)
    assert {(config.data.image_size, config.steps, config.seed) for config, _ in targets} == {(16, 8, 7)}
    means = [judge(TABLE, initial[None])["drawn"][0] for initial in (first, *(initial for _, initial in targets))]
    assert means == pytest.approx([12, 12, 18], abs=1e-3)
    assert set(found) == {"source", *STARTS} and {len(found[name]["mode"]) for name in STARTS} == {5}
    assert found["carried, kept fixed"]["drawn"] == pytest.approx([18] * 5, abs=1e-3)
    table = text([found, found], 2)
    assert "| fresh | drawn | 12.00 ± 0.00 | 18.00 ± 0.00 | 18.00 ± 0.00 |" in table
