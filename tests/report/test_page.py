"""The report page: built from a run directory's files alone, self-contained, repeatable, and true in what it tells."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells import DARTS, NASBENCH201
from parsec.cells.genotypes import to_text
from parsec.cells.network import Shape
from parsec.errors import UserError
from parsec.jobs.search.conclude import write_report
from parsec.report.page import usage

VOID = {"meta", "rect", "path", "polygon", "circle", "line", "polyline"}


class _Balanced(HTMLParser):
    """Collects the page's text and every outside address; fails where tags do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def _result(**changes: Any) -> dict[str, Any]:
    architecture = np.random.default_rng(3).integers(0, DARTS.sizes)
    return {
        "space": "darts",
        "architecture": architecture.tolist(),
        "genotype": to_text(DARTS, architecture),
        "seed": 7,
        "num_classes": 3,
        "config": {"network": {"channels": 8, "cells": 2, "stem_stride": 2, "dtype": "float32"}},
        "valid_accuracy": 91.25,
        "random_valid_accuracy": 85.0,
        "params": 123_456,
        "flops": 9_876_543,
        "table": None,
        "warnings": [],
        **changes,
    }


def _run(folder: Path, steps: int = 300) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"job": "digits_search", "config": {"optimizer": {"learning_rate": 0.05}}, "versions": {"jax": "0.10.2"}}
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            loss = None if step == 50 else 2.0 / step
            row = {"step": step, "loss": loss, "accuracy": 1 - 1 / step, "entropy": 9.0, "ess": 2.5, "num_children": 4}
            row |= {"control_entropy": 9.5, "mode_skip": 0.25, "mode_pool": None if step < 9 else 0.5}
            if step % 100 == 0:
                row["rank_correlation"] = 0.5
            file.write(json.dumps(row) + "\n")
    return folder


def _parse(page: Path) -> tuple[_Balanced, str]:
    parser = _Balanced()
    parser.feed(page.read_text(encoding="utf-8"))
    parser.close()
    assert parser.open == []
    return parser, " ".join(parser.text)


def test_the_page_says_what_the_run_found(tmp_path: Path) -> None:
    ranks = {"all": 0.6789, "best_third": None}
    record = {"cells": 200, "ranked_by": "test_200", "accuracy": ranks, "log_likelihood": ranks | {"best_third": -0.25}}
    result = _result(
        rank_correlation=record, warnings=["the mode is <mostly> skips"], table={"cifar10": {"test": 93.61}}
    )
    page = write_report(result, _run(tmp_path))
    parser, text = _parse(page)
    assert page.name == "report.html"
    assert parser.links == []
    for part in (
        "digits_search, seed 7, 300 steps",
        "91.25 %",
        "85.00 %",
        "0.679 with test_200 of 200 cells",
        "0.679 with test_200 of 200 cells, -0.250 within the best third",
        "0.123 M",
        "9.877 M",
        "the mode is <mostly> skips",
        "cifar10.test",
        "93.61",
        "optimizer.learning_rate",
        "0.05",
        "versions.jax",
        "training loss",
        "effective sample size (dashed: children)",
        "entropy of the prior (nats) (dashed: where likelihoods say nothing)",
        "share of skips and zeros in the prior's mode",
        "share of pools in the prior's mode",
        "rank correlation",
        "normal cell",
        "reduce cell",
        "normal_2a_operation",
    ):
        assert part in text
    assert "control entropy" not in text and "num children" not in text
    # Nothing is fetched: the only addresses are the names of SVG's own language.
    addresses = set(re.findall(r"https?://[^\"' ]+", page.read_text(encoding="utf-8")))
    assert addresses == {"http://www.w3.org/2000/svg"}


def test_equal_runs_have_equal_pages(tmp_path: Path) -> None:
    pages = [write_report(_result(), _run(tmp_path / name)).read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]
    assert str(tmp_path).encode() not in pages[0]


def test_a_run_of_two_steps_or_none_has_a_page(tmp_path: Path) -> None:
    for steps in (0, 1, 2):
        _parse(write_report(_result(), _run(tmp_path / str(steps), steps)))


def test_an_accuracy_that_was_not_measured_is_not_shown_as_a_number(tmp_path: Path) -> None:
    _, text = _parse(write_report(_result(valid_accuracy=float("nan")), _run(tmp_path, 1)))
    assert "not measured" in text
    assert "nan %" not in text


def test_a_long_run_does_not_make_a_large_page(tmp_path: Path) -> None:
    assert write_report(_result(), _run(tmp_path, 20_000)).stat().st_size < 150_000


def test_the_printed_program_builds_the_found_network(tmp_path: Path) -> None:
    architecture = np.array([3, 1, 2, 4, 0, 3], np.int32)
    result = _result(
        space="nasbench201", architecture=architecture.tolist(), genotype=to_text(NASBENCH201, architecture)
    )
    page = write_report(result, _run(tmp_path)).read_text(encoding="utf-8")
    program = unescape(page.split("<pre>")[1].split("</pre>")[0])
    assert program == usage(result)
    names: dict[str, Any] = {}
    exec(program, names)
    np.testing.assert_array_equal(names["architecture"], architecture)
    network = names["network"]
    assert isinstance(network, nn.Module)
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    logits, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x), images)
    assert logits.shape == (2, 3)
    assert names["shape"] == Shape(channels=8, cells=2, num_classes=3, stem_stride=2)


def test_a_damaged_config_is_refused_in_one_line_and_the_old_page_stays(tmp_path: Path) -> None:
    before = write_report(_result(), _run(tmp_path)).read_bytes()
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="is not the config of a run"):
        write_report(_result(), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
