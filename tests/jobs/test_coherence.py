"""Settings that would be ignored are refused by name, and no shipped config holds one."""

from dataclasses import replace

import pytest

from parsec.cells import get_space
from parsec.command.config_files import list_configs, load_config
from parsec.config import override
from parsec.errors import UserError
from parsec.jobs.search.coherence import check_search
from parsec.settings.search import SearchConfig

PLAIN = SearchConfig()
VARIANTS = ("", "quick", "smoke", "joint", "paper")


def shipped() -> list[str]:
    found = []
    for name in list_configs():
        for variant in VARIANTS:
            try:
                config = load_config(f"{name}:{variant}" if variant else name).config
            except UserError:
                continue
            if isinstance(config, SearchConfig):
                found.append(f"{name}:{variant}" if variant else name)
    return found


@pytest.mark.parametrize("chosen", shipped())
def test_no_shipped_config_holds_a_setting_that_is_ignored(chosen: str):
    config = load_config(chosen).config
    check_search(config, get_space(config.space))


@pytest.mark.parametrize("chosen", shipped())
@pytest.mark.parametrize("off", ["verify.random", "derive.finalists"])
def test_a_preset_is_switched_off_by_one_option(chosen: str, off: str):
    config = override(load_config(chosen).config, {off: "0"})
    check_search(config, get_space(config.space))


@pytest.mark.parametrize(
    ("settings", "named", "needs"),
    [
        ({"likelihood.temperature": "3"}, "likelihood.temperature=3.0", "likelihood.reduction=tempered"),
        ({"likelihood.ess_floor": "0.5"}, "likelihood.ess_floor=0.5", "likelihood.reduction=tempered"),
        ({"sampler.children_per_nat": "1"}, "sampler.children_per_nat=1.0", "sampler.budget=adaptive"),
        ({"prior.update": "natural", "prior.b1": "0.5"}, "prior.b1=0.5", "prior.update=adam"),
        ({"prior.sharpness": "0.5"}, "prior.sharpness=0.5", "prior.initial=RUN_DIR"),
        ({"prior.mixture": "0.5"}, "prior.mixture=0.5", "prior.initial=RUN_DIR"),
        ({"prior.trust_radius": "0"}, "prior.trust_radius=0.0", "prior.initial=RUN_DIR"),
        (
            {"strategy.name": "parsec_adaptive", "prior.initial": "x", "prior.trust_radius": "1"},
            "prior.trust_radius=1.0",
            "config.strategy.options=trust_radius=1",
        ),
        ({"constraints": "params<9"}, "constraints=params<9", "a strategy that is told scores"),
        ({"objectives": "accuracy,-params"}, "objectives=accuracy,-params", "config.strategy.evaluator=train"),
        (
            {"objectives": "accuracy,-params", "strategy.name": "emoa"},
            "objectives=accuracy,-params",
            "short trainings of single cells",
        ),
        ({"derive.samples": "4"}, "derive.samples=4", "derive.rule=best_of_samples"),
        ({"derive.final_cells": "9"}, "derive.final_cells=9", "strategy.evaluator=train"),
        (
            {"strategy.name": "random", "strategy.evaluator": "train", "derive.final_cells": "2"},
            "derive.final_cells=2",
            "config.network.cells or more",
        ),
        (
            {"derive.rule": "best_of_samples", "strategy.name": "random"},
            "derive.rule=best_of_samples",
            "weights and prior together",
        ),
        ({"strategy.name": "random", "strategy.evaluator": "table"}, "strategy.evaluator=table", "config.table=FILE"),
        ({"strategy.epochs": "1"}, "strategy.epochs=1.0", "strategy.evaluator=train"),
        (
            {"strategy.name": "random", "strategy.inherit": "false"},
            "strategy.inherit=False",
            "strategy.evaluator=train",
        ),
        ({"strategy.evaluator": "train", "steps": "9"}, "steps=9", "shared weights"),
        ({"strategy.evaluator": "train", "prior.b1": "0.5"}, "prior.b1=0.5", "shared weights"),
        ({"strategy.evaluations": "9"}, "strategy.evaluations=9", "a strategy that is told scores"),
        ({"data.workers": "2"}, "data.workers=2", "a streamed dataset: config.dataset=imagenet, stream:images"),
        ({"data.crop_area": "0.5"}, "data.crop_area=0.5", "a streamed dataset"),
        ({"dataset": "imagenet", "verify.steps": "9"}, "verify.steps=9", "config.verify.random=0"),
        (
            {"dataset": "imagenet", "strategy.name": "random", "strategy.evaluator": "train"},
            "strategy.evaluator=train",
            "--config.strategy.evaluator=supernet, or --config.dataset=images",
        ),
        ({"verify.random": "3"}, "verify.random=3", "at least 5 random cells for a verdict, or 0 for none"),
        ({"verify.steps": "9", "verify.share": "0.2"}, "verify.share=0.2", "config.verify.epochs=0 and"),
        ({"strategy.name": "random", "prior.initial": "x"}, "prior.initial=x", "weights and prior together"),
        ({"strategy.name": "lanas", "prior.initial": "x"}, "prior.initial=x", "from a prior: parsec, parsec_adaptive"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_a_setting_that_would_be_ignored_is_refused_with_what_gives_it_a_meaning(
    settings: dict[str, str], named: str, needs: str
):
    config = override(PLAIN, settings)
    with pytest.raises(UserError) as refused:
        check_search(config, get_space("darts"))
    assert named in str(refused.value) and needs in str(refused.value) and "\n" not in str(refused.value)


def test_a_setting_left_alone_is_no_offence():
    check_search(replace(PLAIN, strategy=replace(PLAIN.strategy, name="random")), get_space("nasbench201"))
