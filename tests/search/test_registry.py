"""The registry: every entry can be made, and a mistake is answered with one line."""

import math
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from parsec.cells.domain import product_domain
from parsec.command.launch import explain
from parsec.errors import UserError
from parsec.search.registry import STRATEGIES, Entry, describe_options, make_strategy, names, read_options

DOMAIN = replace(product_domain((3, 2, 4)), fidelities=(4, 12))
OUT_OF_RANGE = [
    ("random", {"batch": 0}),
    ("regularized_evolution", {"population": 0}),
    ("regularized_evolution", {"sample": 0}),
    ("reinforce", {"learning_rate": 0.0}),
    ("reinforce", {"learning_rate": math.inf}),
    ("reinforce", {"momentum": 1.0}),
    ("q_learning", {"learning_rate": 1.1}),
    ("q_learning", {"epsilon": 1.5}),
    ("q_learning", {"anneal": 0}),
    ("q_learning", {"trace": -0.1}),
    ("parsec", {"children": 1}),
    ("parsec", {"learning_rate": 0.0}),
    ("parsec", {"temperature": 0.0}),
    ("parsec_adaptive", {"children_per_nat": 0.0}),
    ("parsec_replay", {"ess": 0.5}),
    ("parsec_pareto", {"smoothing": 0.0}),
    ("bananas", {"members": 1}),
    ("bananas", {"candidates": 1}),
    ("bananas", {"ridge": 0.0}),
    ("bananas", {"capacity": 5}),
    ("sobol", {"batch": 0}),
    ("emoa", {"population": 1}),
    ("monas", {"alpha": 1.5}),
    ("npg_adc", {"hottest": 0.5}),
    ("npg_adf", {"stages": 1}),
    ("mo_bananas", {"capacity": 5}),
    ("mo_bohb", {"good": 1.0}),
    ("sh_emoa", {"stage": 0}),
    ("sh_mo_bananas", {"capacity": 5}),
    ("alphax", {"candidates": 0}),
    ("alphax", {"exploration": -0.1}),
    ("alphax", {"exploration": math.inf}),
    ("alphax", {"rollout_weight": 1.5}),
    ("alphax", {"members": 1}),
    ("alphax", {"first_play": math.nan}),
    ("lanas", {"height": 0}),
    ("lanas", {"height": 13}),
    ("lanas", {"select": 0}),
    ("lanas", {"ridge": 0.0}),
    ("lanas", {"batch": 0}),
    ("lanas", {"expert": 0}),
    ("la_mcts", {"leaf_size": 0}),
    ("la_mcts", {"exploration": -1.0}),
    ("la_mcts", {"ridge": 0.0}),
]
WRONG = ["", "x", "4.5e", "[1", "none", "true", None, [], [4], {}, object()]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_entry_has_settings_with_one_line_of_help_each_and_a_summary(name: str) -> None:
    entry = STRATEGIES[name]
    assert entry.summary and "\n" not in entry.summary
    settings = entry.settings()
    start = read_options(name, {})
    assert is_dataclass(settings) and start == (entry.presets()[entry.start] if entry.start else settings())
    lines = describe_options(name).splitlines()
    for field in fields(settings):
        text = field.metadata["help"]
        assert text and "\n" not in text
        assert any(
            line.startswith(f"{name}.{field.name}={getattr(start, field.name)}") and text in line for line in lines
        )
    strategy = make_strategy(name, DOMAIN)
    assert callable(strategy.init) and callable(strategy.ask) and callable(strategy.tell)


@pytest.mark.parametrize("name", STRATEGIES)
def test_text_and_values_give_the_same_settings(name: str) -> None:
    default = read_options(name, {})
    values = {field.name: getattr(default, field.name) for field in fields(default)}
    assert read_options(name, values) == read_options(name, {at: str(value) for at, value in values.items()}) == default
    for field in fields(default):
        # An option that is none by default is a number otherwise.
        value = 1.0 if getattr(default, field.name) is None else getattr(default, field.name)
        changed: Any = field.metadata["choices"] and next(c for c in field.metadata["choices"] if c != value)
        changed = changed or (value + (1 if value < 100 else -1) if isinstance(value, int) else value / 2 + 0.25)
        assert getattr(read_options(name, {field.name: str(changed)}), field.name) == changed


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_option_of_the_wrong_type_is_one_line_that_names_it(name: str) -> None:
    for field in fields(STRATEGIES[name].settings()):
        for wrong in [value for value in WRONG if field.default is not None or value not in ("none", None)]:
            with pytest.raises(UserError) as refused:
                read_options(name, {field.name: wrong})
            assert "\n" not in str(refused.value) and f"{name}.{field.name}" in str(refused.value)


@pytest.mark.parametrize("name", ["alphax", "lanas"])
def test_a_preset_sets_what_is_not_given(name: str) -> None:
    presets = STRATEGIES[name].presets()
    assert presets["default"] == read_options(name, {}) != presets["paper"]
    assert read_options(name, {"preset": "paper"}) == presets["paper"]
    found = read_options(name, {"batch": "3", "preset": "paper"})
    assert found.batch == 3 and found.exploration == presets["paper"].exploration
    with pytest.raises(UserError, match=f"unknown preset of strategy {name} 'papre'.*did you mean 'paper'"):
        read_options(name, {"preset": "papre"})
    assert f"{name}.preset=NAME" in describe_options(name) and "paper" in describe_options(name)


def test_help_lists_the_options_of_each_strategy_where_it_is_compared() -> None:
    shown, fronts = explain("nb201_compare"), explain("nb201_pareto")
    for name in names(many=False):
        assert describe_options(name) in shown
    for name in (*names(many=True), *names(many=True, multi_fidelity=True)):
        assert describe_options(name) in fronts and describe_options(name) not in shown
    assert "alphax.exploration=0.03 " in shown and "alphax.preset=NAME" in shown


@pytest.mark.parametrize("name", names(many=True, multi_fidelity=True))
def test_where_there_is_one_training_none_can_be_chosen(name: str) -> None:
    said = f"strategy {name} chooses among trainings of several lengths, and here is one"
    for fidelities in ((), (200,)):
        with pytest.raises(UserError, match=said) as refused:
            make_strategy(name, replace(DOMAIN, fidelities=fidelities))
        assert "\n" not in str(refused.value)


def test_strategies_are_listed_without_jax() -> None:
    program = "import sys, parsec.search.registry, parsec.settings.search; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_a_module_that_is_no_strategy_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, "absent", Entry("no_such_module", ""))
    with pytest.raises(UserError, match="cannot import strategy module no_such_module: No module named"):
        make_strategy("absent", DOMAIN)
    monkeypatch.setitem(STRATEGIES, "bare", Entry("parsec.errors", ""))
    with pytest.raises(UserError, match=r"strategy module parsec\.errors has no Settings"):
        make_strategy("bare", DOMAIN)


def test_an_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown strategy 'parsek'.*did you mean 'parsec'"):
        make_strategy("parsek", DOMAIN)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"option of strategy parsec 'childern'.*did you mean 'children'"):
        make_strategy("parsec", DOMAIN, {"childern": 4})
    with pytest.raises(UserError, match="local_search has no options"):
        make_strategy("local_search", DOMAIN, {"restarts": 4})


def test_an_option_of_the_wrong_type_is_refused_and_an_int_serves_as_a_float() -> None:
    with pytest.raises(UserError, match=r"^parsec\.children=4\.5 does not fit; it must be an integer$"):
        make_strategy("parsec", DOMAIN, {"children": 4.5})
    assert make_strategy("parsec", DOMAIN, {"temperature": 1}).jittable


@pytest.mark.parametrize(("name", "options"), OUT_OF_RANGE)
def test_an_option_out_of_range_is_refused(name: str, options: dict[str, float]) -> None:
    with pytest.raises(UserError) as refused:
        make_strategy(name, DOMAIN, options)
    said = str(refused.value)
    assert "\n" not in said and f"{name}.{next(iter(options))}=" in said
