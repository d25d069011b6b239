"""Every strategy by name: the one list behind `--help`, the error for an unknown name and the tests all must pass.

A strategy's options are the fields of its module's `Settings`. Named settings to start from, such as those of a paper,
are in its `PRESETS`, and the option `preset` chooses one of them. A strategy of one's own is a line in `STRATEGIES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from parsec.config import amend, describe
from parsec.errors import UserError, unknown

# Only for annotations: listing the strategies must not wait for JAX.
if TYPE_CHECKING:
    from parsec.cells.domain import Domain
    from parsec.search.contract import Strategy

_PRESET = "preset"


@dataclass(frozen=True)
class Entry:
    """Where a strategy lives.

    Attributes:
      module: imported when it is first needed. It has `Settings`, a frozen dataclass of `parsec.config.option` fields;
        `make(domain, settings) -> Strategy`; and `PRESETS`, name -> `Settings`, if there are any.
      summary: one line for lists of strategies.
      carries: whether it starts from the prior that its domain may bring, `Domain.initial`.
      many: whether it searches for several objectives at once; its `make(domain, settings, objectives)` is then given
        their number. Any other reads the first.
      several: of a strategy of one objective, the one that does the same for several and has its options too; "" for
        none.
      multi_fidelity: whether it asks for (architecture, fidelity); it is then made for domains of several.
      start: the preset that options start from; "" for the defaults of `Settings`.
      adapter: module whose `adapt(strategy, domain, objectives) -> Strategy` makes a strategy of one objective search
        for several; "" where the strategy is used as it is.
    """

    module: str
    summary: str
    carries: bool = False
    many: bool = False
    several: str = ""
    multi_fidelity: bool = False
    start: str = ""
    adapter: str = ""

    def settings(self) -> type[Any]:
        """Returns the dataclass of the strategy's options."""
        return self._part("Settings")

    def defaults(self) -> Any:
        """Returns the settings that options start from."""
        return self.presets()[self.start] if self.start else self.settings()()

    def presets(self) -> Mapping[str, Any]:
        """Returns the named settings of the strategy; most have none."""
        return self._part("PRESETS", {})

    def make(self, domain: Domain, settings: Any, objectives: int = 1) -> Strategy:
        """Returns the strategy; the settings are of the class that `settings` returns."""
        if self.adapter:
            adapt = importlib.import_module(self.adapter).adapt
            return adapt(self._part("make")(domain, settings), domain, objectives)
        return self._part("make")(domain, settings, *([objectives] if self.many else []))

    def _part(self, name: str, absent: Any = None) -> Any:
        try:
            found = getattr(importlib.import_module(self.module), name, absent)
        except ImportError as error:
            raise UserError(f"cannot import strategy module {self.module}: {error}") from error
        if found is None:
            raise UserError(
                f"strategy module {self.module} has no {name}; parsec/search/registry.py says what it needs"
            )
        return found


STRATEGIES: dict[str, Entry] = {
    "random": Entry("parsec.search.random_search", "uniform sampling"),
    "local_search": Entry("parsec.search.local_search", "hill climbing with restarts"),
    "regularized_evolution": Entry("parsec.search.regularized_evolution", "ageing evolution with tournaments"),
    "reinforce": Entry("parsec.search.reinforce", "policy gradient on independent categoricals"),
    "q_learning": Entry("parsec.search.q_learning", "tabular Q-learning over the decisions in turn"),
    "parsec": Entry("parsec.search.parsec", "empirical Bayes on a factorised prior, K children per step", carries=True),
    "parsec_adaptive": Entry(
        "parsec.search.parsec_adaptive", "the same with K following the prior's entropy", carries=True
    ),
    "parsec_replay": Entry(
        "parsec.search.parsec_replay",
        "empirical Bayes on all children so far, weighted anew at every step",
        carries=True,
        several="parsec_pareto",
    ),
    "additive": Entry(
        "parsec.search.additive",
        "empirical Bayes by an additive model of scores, Thompson sampling",
        carries=True,
        several="tsemo",
    ),
    "bananas": Entry("parsec.search.bananas", "mutations ranked by an ensemble predictor"),
    "alphax": Entry("parsec.search.alphax", "Monte-Carlo tree search over the decisions with a Meta-DNN"),
    "lanas": Entry("parsec.search.lanas", "a tree of learned linear splits of the space"),
    "la_mcts": Entry("parsec.search.la_mcts", "a growing tree of learned non-linear splits"),
    "sobol": Entry("parsec.search.sobol", "quasi-random sampling by Sobol's sequence", many=True),
    "emoa": Entry("parsec.search.emoa", "steady-state evolution by non-dominated fronts and hypervolume", many=True),
    "monas": Entry("parsec.search.monas", "policy gradient on a mixed or constrained reward", many=True),
    "monas_pareto": Entry(
        "parsec.search.monas_pareto",
        "policy gradients under mixed rewards from one end of the front to the other",
        many=True,
    ),
    "npg_adf": Entry(
        "parsec.search.npg", "policy gradient, a cost's target annealed along the front", many=True, start="adf"
    ),
    "npg_adc": Entry(
        "parsec.search.npg", "policy gradient, rewarded for what nothing known dominates", many=True, start="adc"
    ),
    "mo_bananas": Entry("parsec.search.mo_bananas", "BANANAS with a predictor of every objective", many=True),
    "parsec_pareto": Entry(
        "parsec.search.parsec_replay", "empirical Bayes along random directions, all children weighted anew", many=True
    ),
    "tsemo": Entry(
        "parsec.search.tsemo", "a Gaussian process of each objective, Thompson sampling of fronts", many=True
    ),
    "ms_ehvi": Entry(
        "parsec.search.ms_ehvi", "a Gaussian process of each objective, expected hypervolume improvement", many=True
    ),
    "lanas_pareto": Entry(
        "parsec.search.lanas",
        "LaNAS told all that is known anew, along random directions",
        many=True,
        start="pareto",
        adapter="parsec.search.retold",
    ),
    "mo_bohb": Entry(
        "parsec.search.mo_bohb",
        "tree-structured Parzen estimators in Hyperband's brackets",
        many=True,
        multi_fidelity=True,
    ),
    "sh_emoa": Entry(
        "parsec.search.sh_emoa",
        "the evolution of emoa, at few epochs first and at more and more later",
        many=True,
        multi_fidelity=True,
    ),
    "sh_mo_bananas": Entry(
        "parsec.search.sh_mo_bananas",
        "mo_bananas with successive halving of every batch",
        many=True,
        multi_fidelity=True,
    ),
}


def names(many: bool, multi_fidelity: bool = False) -> tuple[str, ...]:
    """Returns the strategies that search for several objectives, or those for one; of one fidelity, or of several."""
    wanted = (many, multi_fidelity)
    return tuple(name for name, entry in STRATEGIES.items() if (entry.many, entry.multi_fidelity) == wanted)


def in_charge(name: str, objectives: int) -> str:
    """Returns who searches where the strategy `name` is asked to, for so many objectives."""
    return (STRATEGIES[name].several if objectives > 1 else "") or name


def make_strategy(name: str, domain: Domain, options: Mapping[str, Any] | None = None, objectives: int = 1) -> Strategy:
    """Returns the strategy called `name` for a domain.

    Args:
      name: a key of `STRATEGIES`.
      domain: the search space.
      options: as of `read_options`.
      objectives: M, numbers in each score it will be told.

    Raises:
      UserError: as `read_options`, for options that do not fit each other, or for a strategy of several fidelities
        where there is one.
    """
    settings = read_options(name, options or {})
    if STRATEGIES[name].multi_fidelity and len(domain.fidelities) < 2:
        raise UserError(
            f"strategy {name} chooses among trainings of several lengths, and here is one; nb201_pareto:epochs and "
            f"nb101_pareto have more, and of one length there are {', '.join(names(many=True))}"
        )
    return STRATEGIES[name].make(domain, settings, objectives)


def read_options(name: str, options: Mapping[str, Any]) -> Any:
    """Returns the settings of a strategy.

    Args:
      name: a key of `STRATEGIES`.
      options: option -> value, or its text as written in a flag; what is absent keeps its default, or the value of the
        preset that the option `preset` names.

    Raises:
      UserError: for an unknown name, option or preset (naming the nearest), or a value of the wrong type or out of
        range.
    """
    if name not in STRATEGIES:
        raise unknown("strategy", name, STRATEGIES)
    entry, given = STRATEGIES[name], dict(options)
    base, presets = entry.defaults(), entry.presets()
    if presets and _PRESET in given:
        preset = str(given.pop(_PRESET))
        if preset not in presets:
            raise unknown(f"{_PRESET} of strategy {name}", preset, presets)
        base = presets[preset]
    known = [field.name for field in fields(base)]
    for option in given:
        if not known:
            raise UserError(f"strategy {name} has no options; {option!r} was given")
        if option not in known:
            raise unknown(f"option of strategy {name}", option, known + [_PRESET] * bool(presets))
    return amend(base, given, f"{name}.")


def explain_options(strategies: Iterable[str]) -> list[str]:
    """Returns the paragraphs that `--help` has on the options of the strategies that a config may name."""
    return ["Options of strategies, set as --config.options=NAME.OPTION=VALUE:", *map(describe_options, strategies)]


def describe_options(name: str) -> str:
    """Returns one line for each option of a strategy, as `NAME.OPTION=DEFAULT`, what it is, its type and its range.

    Raises:
      UserError: for an unknown name.
    """
    if name not in STRATEGIES:
        raise unknown("strategy", name, STRATEGIES)
    entry = STRATEGIES[name]
    text = describe(entry.defaults(), f"{name}.") or f"{name} has no options"
    presets = entry.presets()
    return text + (f"\n{name}.{_PRESET}=NAME sets what is not given: {', '.join(presets)}" if presets else "")
