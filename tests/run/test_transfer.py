"""A transfer: two searches, the second from where the first one's prior ended."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parsec import prior as priors
from parsec.cells import get_space
from parsec.errors import UserError
from parsec.run.compare_settings import CompareConfig
from parsec.run.metrics import read_metrics
from parsec.run.settings import (
    DataSettings,
    DeriveSettings,
    LikelihoodSettings,
    NetworkSettings,
    PriorSettings,
    SamplerSettings,
    SearchConfig,
    StrategySettings,
)
from parsec.run.transfer import run_transfer
from parsec.transfer.prior import read_prior

SPACE = get_space("nasbench201")
SOURCE = SearchConfig(
    dataset="digits",
    space="nasbench201",
    steps=6,
    metrics_every=1,
    data=DataSettings(batch_size=16, valid_batch_size=32),
    network=NetworkSettings(channels=2, cells=1),
    sampler=SamplerSettings(num_children=2),
    likelihood=LikelihoodSettings(reduction="mean"),
    prior=PriorSettings(learning_rate=0.5),
    derive=DeriveSettings(random_children=2, valid_images=64),
)
# The same program, so that it is compiled once: only the seed differs.
TARGET = replace(SOURCE, seed=1)


def test_the_target_starts_from_the_carried_prior(tmp_path: Path):
    result = run_transfer(SOURCE, TARGET, tmp_path)
    assert json.loads((tmp_path / "target" / "result.json").read_text()) == result
    source, target = (read_metrics(tmp_path / name) for name in ("source", "target"))
    learnt = read_prior(tmp_path / "source", tmp_path)
    logits = np.array([[learnt[choice.name][option] for option in choice.options] for choice in SPACE.choices])
    carried = float(priors.entropy(logits.astype(np.float32), SPACE.mask))
    uniform = 6 * np.log(5)
    assert carried == pytest.approx(source[-1]["entropy"], rel=1e-4)
    # The metrics hold the entropy after a step, and one step of Adam is at most 0.5 a logit.
    assert target[0]["entropy"] < source[0]["entropy"] < uniform
    assert abs(target[0]["entropy"] - carried) < uniform - carried
    # As a search of its own, by the plain option, it is the same search.
    again = run_transfer(SOURCE, TARGET, tmp_path)
    assert again == result
    assert result["config"]["prior"]["initial"] == "../source"


def test_a_source_or_target_that_learns_no_prior_is_one_line_and_runs_nothing(tmp_path: Path):
    other = replace(SOURCE, strategy=StrategySettings(name="alphax"))
    for pair, message in (
        ((other, TARGET), "the source of a transfer must learn a prior.*alphax"),
        ((SOURCE, other), "the target of a transfer must learn a prior.*alphax"),
        ((SOURCE, CompareConfig()), "the target of a transfer must be a search; CompareConfig"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            run_transfer(*pair, tmp_path)
        assert "\n" not in str(raised.value)
    assert not any(tmp_path.iterdir())


def test_what_the_target_would_refuse_is_said_before_the_source_is_searched(tmp_path: Path):
    with pytest.raises(UserError, match="none of the choices of darts"):
        run_transfer(SOURCE, replace(TARGET, space="darts"), tmp_path)
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "report.html").write_text("mine\n")
    with pytest.raises(UserError, match=r"holds report\.html"):
        run_transfer(SOURCE, TARGET, tmp_path)
    assert not (tmp_path / "source").exists()
