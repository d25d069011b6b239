"""The registry: every entry can be made, and a mistake is answered with one line."""

import inspect

import pytest

from parsec.cells.domain import product_domain
from parsec.errors import UserError
from parsec.search.registry import STRATEGIES, make_strategy

DOMAIN = product_domain((3, 2, 4))
OUT_OF_RANGE = [
    ("random", {"batch": 0}),
    ("regularized_evolution", {"population": 0}),
    ("regularized_evolution", {"sample": 0}),
    ("reinforce", {"learning_rate": 0.0}),
    ("reinforce", {"momentum": 1.0}),
    ("q_learning", {"epsilon": 1.5}),
    ("q_learning", {"anneal": 0}),
    ("parsec", {"children": 1}),
    ("parsec", {"temperature": 0.0}),
    ("parsec_adaptive", {"children_per_nat": 0.0}),
    ("bananas", {"members": 1}),
    ("bananas", {"capacity": 5}),
]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_entry_has_documented_options_and_a_summary(name: str) -> None:
    entry = STRATEGIES[name]
    assert entry.summary and "\n" not in entry.summary
    strategy = make_strategy(name, DOMAIN)
    assert callable(strategy.init) and callable(strategy.ask) and callable(strategy.tell)
    module = __import__(entry.module, fromlist=["make"])
    documented = inspect.getdoc(module.make) or ""
    for option in entry.options():
        assert f"{option}:" in documented, f"option {option} of {name} is not documented"


def test_an_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown strategy 'parsek'.*did you mean 'parsec'"):
        make_strategy("parsek", DOMAIN)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"option of strategy parsec 'childern'.*did you mean 'children'"):
        make_strategy("parsec", DOMAIN, {"childern": 4})
    with pytest.raises(UserError, match="local_search has no options"):
        make_strategy("local_search", DOMAIN, {"restarts": 4})


def test_an_option_of_the_wrong_type_is_refused_and_an_int_serves_as_a_float() -> None:
    with pytest.raises(UserError, match=r"option children of strategy parsec is 4\.5; it must be a int"):
        make_strategy("parsec", DOMAIN, {"children": 4.5})
    assert make_strategy("parsec", DOMAIN, {"temperature": 1}).jittable


@pytest.mark.parametrize(("name", "options"), OUT_OF_RANGE)
def test_an_option_out_of_range_is_refused(name: str, options: dict[str, float]) -> None:
    with pytest.raises(UserError) as refused:
        make_strategy(name, DOMAIN, options)
    assert "\n" not in str(refused.value) and name in str(refused.value)
