"""Every strategy by name: the one list behind `--help`, the error for an unknown name and the tests all must pass."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parsec.errors import UserError, unknown

# Only for annotations: listing the strategies must not wait for JAX.
if TYPE_CHECKING:
    from parsec.cells.domain import Domain
    from parsec.search.contract import Strategy


@dataclass(frozen=True)
class Entry:
    """Where a strategy lives.

    Attributes:
      module: the module whose `make(domain, **options)` returns it; imported when it is first needed.
      summary: one line for lists of strategies.
    """

    module: str
    summary: str

    def make(self, domain: Domain, **options: Any) -> Strategy:
        """Returns the strategy with its own options; see the module's `make`."""
        return importlib.import_module(self.module).make(domain, **options)

    def options(self) -> dict[str, Any]:
        """Returns the options of the strategy and their defaults: the keyword-only arguments of its factory."""
        parameters = inspect.signature(importlib.import_module(self.module).make).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


STRATEGIES: dict[str, Entry] = {
    "random": Entry("parsec.search.random_search", "uniform sampling"),
    "local_search": Entry("parsec.search.local_search", "hill climbing with restarts"),
    "regularized_evolution": Entry("parsec.search.regularized_evolution", "ageing evolution with tournaments"),
    "reinforce": Entry("parsec.search.reinforce", "policy gradient on independent categoricals"),
    "q_learning": Entry("parsec.search.q_learning", "tabular Q-learning over the decisions in turn"),
    "parsec": Entry("parsec.search.parsec", "empirical Bayes on a factorised prior, K children per step"),
    "parsec_adaptive": Entry("parsec.search.parsec_adaptive", "the same with K following the prior's entropy"),
    "bananas": Entry("parsec.search.bananas", "mutations ranked by an ensemble predictor"),
    "alphax": Entry("parsec.search.alphax", "Monte-Carlo tree search over the decisions with a Meta-DNN"),
    "lanas": Entry("parsec.search.lanas", "a tree of learned linear splits of the space"),
    "la_mcts": Entry("parsec.search.la_mcts", "a growing tree of learned non-linear splits"),
}


def make_strategy(name: str, domain: Domain, options: Mapping[str, Any] | None = None) -> Strategy:
    """Returns the strategy called `name` for a domain.

    Args:
      name: a key of `STRATEGIES`.
      domain: the search space.
      options: the strategy's options; what is absent keeps its default.

    Raises:
      UserError: for an unknown name or option (naming the nearest), or a value of another type than the default's.
    """
    if name not in STRATEGIES:
        raise unknown("strategy", name, STRATEGIES)
    known = STRATEGIES[name].options()
    checked = {}
    for option, value in (options or {}).items():
        if option not in known:
            raise _unknown_option(name, option, known)
        default = known[option]
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if default is not None and type(value) is not type(default):
            raise UserError(f"option {option} of strategy {name} is {value!r}; it must be a {type(default).__name__}")
        checked[option] = value
    return STRATEGIES[name].make(domain, **checked)


def parse_option(name: str, option: str, text: str) -> Any:
    """Returns the text of a strategy's option as a value of its default's type.

    Args:
      name: a key of `STRATEGIES`.
      option: of that strategy.
      text: as written in a flag; what cannot be read stays text, which `make_strategy` refuses.

    Raises:
      UserError: for an unknown option, naming the nearest.
    """
    known = STRATEGIES[name].options()
    if option not in known:
        raise _unknown_option(name, option, known)
    default = known[option]
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    for kind in (type(default),) if isinstance(default, int | float | str) else (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _unknown_option(name: str, option: str, known: Mapping[str, Any]) -> UserError:
    if not known:
        return UserError(f"strategy {name} has no options; {option!r} was given")
    return unknown(f"option of strategy {name}", option, known)
