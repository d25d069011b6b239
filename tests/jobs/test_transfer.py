"""A transfer: two searches, the second from where the first one's prior ended."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parsec import prior as priors
from parsec.cells import get_space
from parsec.errors import UserError
from parsec.jobs import transfer
from parsec.jobs.search.job import initial_logits
from parsec.jobs.transfer import run_transfer
from parsec.run.metrics import read_metrics
from parsec.run.workdir import write_json_atomic
from parsec.search.registry import STRATEGIES
from parsec.settings.compare import CompareConfig
from parsec.settings.images import PipelineConfig, leave_shared
from parsec.settings.search import (
    DataSettings,
    DeriveSettings,
    LikelihoodSettings,
    NetworkSettings,
    PriorSettings,
    SamplerSettings,
    SearchConfig,
    StrategySettings,
)
from parsec.transfer.prior import named_logits, read_prior

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
# The same program: only the seed differs.
TARGET = replace(SOURCE, seed=1)


@pytest.mark.usefixtures("one_program")
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


def test_a_search_starts_from_the_prior_as_it_was_opened(tmp_path: Path):
    logits = np.random.default_rng(0).normal(0, 2, SPACE.mask.shape).astype(np.float32)
    write_json_atomic(tmp_path / "prior.json", named_logits(SPACE, logits))
    prior = PriorSettings(initial=str(tmp_path), mixture=0.2, sharpness=0.5)
    opened = initial_logits(replace(TARGET, prior=prior), SPACE, tmp_path / "run").logits
    found = priors.probabilities(opened, SPACE.mask)
    np.testing.assert_allclose(found, 0.8 * priors.probabilities(0.5 * logits, SPACE.mask) + 0.04, atol=1e-6)


def test_a_pipeline_is_a_target_whose_search_starts_from_the_prior(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ran = []
    monkeypatch.setattr(transfer, "run_search", lambda *given: ran.append(given))
    monkeypatch.setattr(transfer, "run_pipeline", lambda *given: ran.append(given))
    whole = PipelineConfig(dataset="digits", image_size=0, search=leave_shared(TARGET))
    run_transfer(SOURCE, whole, tmp_path)
    (source, first), (target, second) = ran
    assert (source, first, second) == (SOURCE, tmp_path / "source", tmp_path / "target")
    initial = target.search.prior.initial
    # The search of a pipeline runs in a folder of its own.
    assert (second / "search" / initial).resolve() == first and replace(
        target, search=replace(target.search, prior=whole.search.prior)
    ) == whole


def test_a_search_that_is_told_scores_is_source_and_target_where_it_carries_a_prior(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ran = []
    monkeypatch.setattr(transfer, "run_search", lambda config, path: ran.append(config.strategy.name))
    plain = SearchConfig(dataset="digits", space="nasbench201")
    told = {name: replace(plain, strategy=StrategySettings(name=name, evaluator="train")) for name in STRATEGIES}
    run_transfer(told["additive"], replace(told["parsec"], prior=PriorSettings(mixture=0.5)), tmp_path)
    assert ran == ["additive", "parsec"]


def test_a_target_without_data_is_told_before_the_source_is_searched(tmp_path: Path):
    target = replace(TARGET, dataset="images", data_dir=str(tmp_path), data=replace(TARGET.data, image_size=8))
    with pytest.raises(UserError) as refused:
        run_transfer(SOURCE, target, tmp_path / "run")
    assert str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "run" / "source").exists()


def test_a_source_or_target_that_learns_no_prior_is_one_line_and_runs_nothing(tmp_path: Path):
    other = replace(SOURCE, strategy=StrategySettings(name="alphax"))
    for pair, message in (
        ((other, TARGET), "the source of a transfer must learn a prior.*alphax"),
        ((SOURCE, other), "the target of a transfer must start from a prior: strategy parsec, .*not alphax"),
        ((CompareConfig(), TARGET), "the source of a transfer must be a search; CompareConfig"),
        ((SOURCE, CompareConfig()), "the target of a transfer must be a search; CompareConfig"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            run_transfer(*pair, tmp_path)
        assert "\n" not in str(raised.value)
    assert not any(tmp_path.iterdir())
    ignored = replace(TARGET, strategy=replace(TARGET.strategy, epochs=1.5))
    with pytest.raises(UserError, match=r"^target\.strategy\.epochs=1\.5 means nothing here; it needs target\."):
        run_transfer(SOURCE, ignored, tmp_path)


def test_what_the_target_would_refuse_is_said_before_the_source_is_searched(tmp_path: Path):
    with pytest.raises(UserError, match="none of the choices of darts"):
        run_transfer(SOURCE, replace(TARGET, space="darts"), tmp_path)
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "report.html").write_text("mine\n")
    with pytest.raises(UserError, match=r"holds report\.html"):
        run_transfer(SOURCE, TARGET, tmp_path)
    assert not (tmp_path / "source").exists()
