"""Sizes that no machine has are refused with the number, before anything is allocated, compiled or written."""

from pathlib import Path

import numpy as np
import pytest

import main
from parsec import footprint
from parsec.cells import get_space
from parsec.jobs.footprint import network_needs
from parsec.settings.search import NetworkSettings

SEARCH = "--config=digits_search:quick"
COMPARE = "--config=digits201_compare"
TABLE = "--config=digits201_table:quick"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([SEARCH, "--config.data.image_size=100000"], ["TiB", "1,797 images of 100,000 x 100,000", "image_size"]),
        ([SEARCH, "--config.data.image_size=1000000"], ["PiB", "1,000,000"]),
        ([SEARCH, "--config.data.image_size=1000000000000000000"], ["out of range", "2,147,483,647"]),
        ([SEARCH, "--config.network.channels=1000000"], ["TiB", "weights, gradient and momentum", "channels"]),
        ([SEARCH, "--config.network.cells=1000000"], ["at most 1,000"]),
        ([SEARCH, "--config.sampler.num_children=2000000000"], ["GiB", "children of a step"]),
        ([SEARCH, "--config.derive.random_children=2000000000"], ["GiB", "random children"]),
        ([SEARCH, f"--config.seed={2**32}"], ["at most 4,294,967,295"]),
        ([SEARCH, "--config.seed=" + "9" * 30], ["at most 4,294,967,295"]),
        ([SEARCH, "--config.steps=" + "9" * 30], ["at least 0", "out of range"]),
        ([SEARCH, "--config.epochs=inf"], ["not a finite number"]),
        ([SEARCH, "--config.epochs=1e300"], ["at most 100,000"]),
        ([COMPARE, "--config.seeds=1000000000"], ["TiB", "1,000,000,000 runs of 500 queries", "config.seeds"]),
        ([COMPARE, "--config.workers=1000000"], ["at most 1,024"]),
        ([TABLE, "--config.architectures=2000000000"], ["GiB", "architectures"]),
        ([TABLE, "--config.seeds=1000000000"], ["at most 1,000"]),
    ],
)
def test_an_absurd_size_is_one_line_with_the_number(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    named: list[str],
):
    # As on a usual machine, wherever the test runs.
    monkeypatch.setattr(footprint, "free_memory", lambda: 2**33)
    assert main.main([*words, f"--workdir={tmp_path / 'run'}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    for part in named:
        assert part in captured.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_what_is_estimated_is_less_than_what_is_taken(name: str):
    """The bound holds for a real network: its smallest child has as many weights, its first cell as many nodes."""
    from parsec.cells.costs import cost_table
    from parsec.cells.network import Shape

    space = get_space(name)
    settings = NetworkSettings(channels=8, cells=3, stem_stride=2)
    needs = network_needs(settings, space, (32, 32, 3), batch_size=4)
    layout = next(iter(space.cells.values()))
    nodes = layout.num_inputs + layout.num_nodes
    assert needs["the activations of a cell"] == nodes * 4 * 16 * 16 * 8 * 4
    table = cost_table(space, Shape(8, 3, 10, 2), (32, 32, 3))
    # Every operation of every slot has its weights in the supernet.
    weights = sum(int(np.max(costs[..., 0], 1).sum()) for costs in table.slots.values())
    assert 0 < needs["weights, gradient and momentum"] <= 3 * 4 * (weights + table.skeleton.params)
