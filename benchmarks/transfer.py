"""What a prior learnt on one dataset saves on another, on the NAS-Bench-201 table, beside wrong priors and none at all.

    python -m benchmarks.transfer --data_dir=DIR [--strategy=parsec] [--source=cifar10]
        [--targets=cifar100,ImageNet16-120] [--seeds=100] [--first_seed=0] [--asks=40] [--budget=500]
        [--checkpoints=50,100,200] [--plot=FILE.png] [--out=FILE.json]

A strategy, `parsec`, `parsec_replay` or `additive`, is told the validation accuracy after 200 epochs of the source's
cells, in so many asks of eight; its prior starts the same strategy on the target, which is judged by the test accuracy
after 200 epochs of the best cell so far by validation. A seed's prior is learnt by that seed alone. Two controls are
learnt alike: `shuffled` is told each ask's scores dealt out among its children at random, and `wrong` their negatives,
the most misleading prior there is. A query is the first evaluation of a cell on the target, as in the comparisons;
those of the source are not counted.

A saving is the queries after which the mean curve first reaches what the strategy without a prior reaches in the mean
after so many queries, divided by these; above 1 the prior hurts, and `never` is said where the budget did not suffice.
"""

import argparse
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells import get_space
from parsec.cells.domain import Domain
from parsec.evaluate.contract import Evaluator
from parsec.evaluate.table import table_evaluator
from parsec.keys import fold
from parsec.report.comparison import incumbents, regret_curve
from parsec.report.regret import draw_regret
from parsec.run.ledger import Rule
from parsec.run.play import play_lanes
from parsec.search.registry import make_strategy
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.table import Table, table_domain
from parsec.transfer.prior import open_prior

OBJECTIVE, REPORT = "valid_200", "test_200"
# Those that may start from a prior. Only `parsec` has a trust radius; of the others scores say how far to go.
STRATEGIES = ("parsec", "parsec_replay", "additive")


class Start(NamedTuple):
    """How a search on the target begins.

    Attributes:
      source: "none", "learnt", "shuffled" or "wrong".
      mixture: the uniform distribution's share in the prior.
      trust_radius: strength of the trust term; None lets the prior learn freely.
    """

    source: str
    mixture: float = 0.0
    trust_radius: float | None = None

    def __str__(self) -> str:
        """Returns the row's heading."""
        if self.source == "none":
            return "no prior"
        radius = "inf" if self.trust_radius is None else f"{self.trust_radius:g}"
        return f"{self.source}, mixture {self.mixture:g}, trust radius {radius}"


# Of PARSEC; a strategy without a trust radius has those that let the prior learn freely.
STARTS = (
    Start("none"),
    *(Start("learnt", mixture) for mixture in (0.0, 0.2, 0.5)),
    *(Start("learnt", 0.2, radius) for radius in (0.0, 1.0)),
    *(Start("shuffled", mixture) for mixture in (0.0, 0.2)),
    *(Start("wrong", mixture) for mixture in (0.0, 0.2, 0.5)),
    *(Start("wrong", 0.2, radius) for radius in (0.0, 1.0)),
)

# Of the plot: too many lines tell nothing.
_DRAWN = (STARTS[0], Start("learnt", 0.2), Start("learnt", 0.2, 0.0), Start("shuffled", 0.2), Start("wrong", 0.2))


def learn_prior(name: str, keys: jax.Array, evaluator: Evaluator, domain: Domain, told: str, asks: int) -> np.ndarray:
    """Returns the logits that a strategy learns from each of keys [n], float32 [n, L, O].

    Args:
      name: of the strategy.
      keys: one of each run.
      evaluator: of a table.
      domain: its domain.
      told: "learnt" tells the scores as they are, "shuffled" and "wrong" as in the module's text.
      asks: of the strategy.
    """
    strategy, lookup = make_strategy(name, domain), evaluator.traced
    assert lookup is not None

    def step(state: Any, key: jax.Array) -> tuple[Any, None]:
        asked, state = strategy.ask(fold(key, "ask"), state)
        _, scores = lookup(jnp.asarray(asked))
        if told == "shuffled":
            scores = jax.random.permutation(fold(key, "shuffle"), scores)
        state, _ = strategy.tell(state, asked, -scores if told == "wrong" else scores)
        return state, None

    def run(key: jax.Array) -> jax.Array:
        state, _ = jax.lax.scan(step, strategy.init(fold(key, "init")), jax.random.split(key, asks))
        if strategy.logits is None:
            return state.prior.logits
        return jnp.asarray(strategy.logits(fold(key, "prior"), state))

    return np.asarray(jax.jit(jax.vmap(run))(keys))


def search(
    name: str, keys: jax.Array, evaluator: Evaluator, domain: Domain, logits: np.ndarray, start: Start, budget: int
) -> np.ndarray:
    """Returns the rows that searches from priors, float32 [n, L, O], are charged for, int32 [n, budget]."""
    options = {} if start.trust_radius is None else {"trust_radius": start.trust_radius}

    def run(key: jax.Array, initial: jax.Array) -> jax.Array:
        carried = domain if start.source == "none" else replace(domain, initial=initial)
        strategy = make_strategy(name, carried, options)
        return play_lanes(strategy, evaluator, Rule(budget), key[None]).rows[0]

    return np.asarray(jax.jit(jax.vmap(run))(keys, jnp.asarray(open_prior(logits, domain.mask, 1.0, start.mixture))))


def savings(
    curves: Mapping[str, np.ndarray], fresh: str, checkpoints: Sequence[int]
) -> dict[str, dict[str, float | None]]:
    """Returns for each start, and each checkpoint, its queries to the fresh curve's level there over those.

    Args:
      curves: mean figure, higher is better, after every query, float64 [budget], by start; NaN before the first.
      fresh: the one that had no prior.
      checkpoints: queries; those beyond the budget are left out.
    """

    def ratio(curve: np.ndarray, queries: int) -> float | None:
        there = np.flatnonzero(curve >= curves[fresh][queries - 1])
        return float(there[0] + 1) / queries if len(there) else None

    within = [queries for queries in checkpoints if queries <= len(curves[fresh])]
    return {name: {str(queries): ratio(curve, queries) for queries in within} for name, curve in curves.items()}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the figures of every start on every target, and draws the regret where a plot is asked for."""
    source, domain = _load(options.data_dir, options.source)
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(0), seed))(
        options.first_seed + jnp.arange(options.seeds)
    )
    name, checkpoints = options.strategy, [int(each) for each in options.checkpoints.split(",")]
    starts = [start for start in STARTS if name == "parsec" or start.trust_radius is None]
    learn = functools.partial(learn_prior, name, jax.vmap(lambda key: fold(key, "source"))(keys))
    scored = table_evaluator(source, (OBJECTIVE,))
    priors = {told: learn(scored, domain, told, options.asks) for told in ("learnt", "shuffled", "wrong")}
    priors["none"] = np.zeros_like(priors["learnt"])
    report: dict[str, Any] = {"options": {key: str(value) for key, value in vars(options).items()}, "targets": {}}
    for target in options.targets.split(","):
        table, domain = _load(options.data_dir, target)
        evaluator, told = table_evaluator(table, (OBJECTIVE,)), table.objective(OBJECTIVE)
        tested = table.objective(REPORT)
        rows = {
            str(start): search(name, keys, evaluator, domain, priors[start.source], start, options.budget)
            for start in starts
        }
        curves = {start: tested[incumbents(found, told)].mean(0) for start, found in rows.items()}
        saved = savings(curves, str(STARTS[0]), checkpoints)
        told_at = [at for at in (*checkpoints, options.budget) if at <= options.budget]
        report["targets"][target] = {
            start: {"test": {str(at): float(curve[at - 1]) for at in told_at}}
            | {"deviation": float(tested[incumbents(rows[start], told)][:, -1].std(ddof=1)), "saving": saved[start]}
            for start, curve in curves.items()
        }
        if options.plot:
            drawn = {str(start): regret_curve(rows[str(start)], told, tested) for start in _DRAWN if start in starts}
            path = options.plot.with_stem(f"{options.plot.stem}_{target}")
            title = f"{table.name}, {target}: priors learnt on {options.source}, {options.seeds} seeds, 95 % bands"
            draw_regret(path, drawn, title, REPORT)
    return report


def text(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a target's figures as a Markdown table."""
    columns = list(next(iter(figures.values()))["test"])
    saved = list(next(iter(figures.values()))["saving"])
    head = [f"after {at}" for at in columns] + ["deviation at the end"] + [f"queries / {at}" for at in saved]
    lines = [f"| start | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for name, found in figures.items():
        ratios = ["never" if value is None else f"{value:.2f}" for value in found["saving"].values()]
        cells = [f"{value:.2f}" for value in found["test"].values()] + [f"{found['deviation']:.2f}", *ratios]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints a table for every target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--strategy", choices=STRATEGIES, default=STRATEGIES[0])
    parser.add_argument("--source", default="cifar10")
    parser.add_argument("--targets", default="cifar100,ImageNet16-120")
    for name, default in {"seeds": 100, "first_seed": 0, "asks": 40, "budget": 500}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--checkpoints", default="50,100,200", help="queries of which savings are told")
    parser.add_argument("--plot", type=Path, default=None, help="PNG file, of which the target's name becomes a part")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    options = parser.parse_args()
    report = measure(options)
    for target, figures in report["targets"].items():
        print(f"\n{options.source} to {target}: test accuracy, mean of {options.seeds} seeds\n\n{text(figures)}")
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def _load(folder: Path, dataset: str) -> tuple[Table, Domain]:
    table = load_nasbench201(folder / "nasbench201.npz", dataset)
    return table, replace(table_domain(table), common=get_space("nasbench201").common)


if __name__ == "__main__":
    main()
