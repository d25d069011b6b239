"""Measures what the parts of AlphaX and LaNAS are worth, beside strategies without them, on published tables.

    python -m benchmarks.ablations --data_dir=DIR [--tables=nb201,digits201,nb101_five,nb101_sample]
        [--variants=random,lanas,lanas:height=3:ridge=0.1,...] [--first_seed=0] [--seeds=100] [--budget=2000]
        [--out=FILE.json]

DIR holds nasbench201.npz, ecnas_5v_4epochs.npz and nasbench101_sample30k.npz; digits201 comes with the package. A query
is the first evaluation of an architecture, counted alike for every strategy. A run ends at the table's best
architecture or after `budget` queries, which then count as its number: a mean of such runs is a lower bound. Regret is
the table's best score less the best score told so far. FILE.json keeps every run; what it already holds is not measured
again.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from parsec.cells.domain import Domain
from parsec.errors import unknown
from parsec.search.contract import Strategy
from parsec.search.registry import make_strategy
from parsec.tables.digits201 import load_digits201
from parsec.tables.nasbench101 import load_nasbench101
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.table import Table, table_domain

# The column that is searched, by table.
TABLES = {
    "nb201": "valid_200",
    "nb201_cifar100": "valid_200",
    "nb201_ImageNet16-120": "valid_200",
    "digits201": "valid",
    "nb101_five": "valid_4",
    "nb101_sample": "valid_108",
    "nb101_surrogate6": "surrogate_valid_108",
}
# Strategy, options, and whether it may see the enumerated space.
VARIANTS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "random": ("random", {}, True),
    "local_search": ("local_search", {}, True),
    "regularized_evolution": ("regularized_evolution", {}, True),
    "bananas": ("bananas", {}, True),
    "alphax": ("alphax", {}, True),
    "alphax_paper": ("alphax", {"preset": "paper"}, True),
    "alphax_no_lookahead": ("alphax", {"outlook_weight": 0.0}, True),
    "alphax_no_lookahead_no_choice": ("alphax", {"outlook_weight": 0.0, "candidates": 1}, True),
    "alphax_no_tree": ("alphax", {"depth": 0}, True),
    "alphax_no_tree_1024": ("alphax", {"depth": 0, "candidates": 1024}, True),
    "lanas": ("lanas", {}, True),
    "lanas_earlier": ("lanas", {"target": "log_rank", "pair_weight": 1.0}, True),
    "lanas_no_tree": ("lanas", {"height": 1}, True),
    "lanas_uniform": ("lanas", {"proposal": "uniform"}, True),
    "lanas_released": ("lanas", {"preset": "released"}, True),
    "lanas_paper": ("lanas", {"preset": "paper"}, True),
    "lanas_no_pool": ("lanas", {}, False),
    "lanas_no_pool_no_tree": ("lanas", {"height": 1}, False),
    "la_mcts": ("la_mcts", {}, True),
}
CHECKPOINTS = (100, 200, 500)


def load(folder: Path, name: str) -> tuple[Table, Domain]:
    """Returns a table of `TABLES` and its domain."""
    if name == "nb101_five":
        return load_nasbench101("five_vertices", folder, 5)
    if name == "nb101_sample":
        return load_nasbench101("sample", folder, 7)
    if name == "nb101_surrogate6":
        return load_nasbench101("surrogate", folder, 6)
    if name == "digits201":
        table = load_digits201()
    else:
        dataset = name.removeprefix("nb201").removeprefix("_") or "cifar10"
        table = load_nasbench201(folder / "nasbench201.npz", dataset)
    return table, table_domain(table)


def one_run(strategy: Strategy, table: Table, scores: np.ndarray, budget: int, seed: int) -> tuple[int, list[float]]:
    """Returns the queries up to the best architecture, -1 if `budget` did not reach it, and regrets at `CHECKPOINTS`.

    Asks without a new architecture are free, up to twenty times the budget. Scores are float32 [N], NaN for a failure.
    """
    keys = np.random.default_rng(seed).integers(0, 2**32, (20 * budget + 1, 2), dtype=np.uint32)
    state = strategy.init(jax.random.wrap_key_data(keys[-1]))
    best = float(np.nanmax(scores))
    so_far, curve, seen = -np.inf, [], set()
    for data in keys[:-1]:
        asked, state = strategy.ask(jax.random.wrap_key_data(data), state)
        asked = np.asarray(asked, np.int32)
        rows = table.find(asked)
        told = np.where(rows >= 0, scores[rows], np.nan).astype(np.float32)
        for row, score in zip(rows.tolist(), told.tolist(), strict=True):
            if row < 0 or row in seen:
                continue
            seen.add(row)
            so_far = max(so_far, score) if np.isfinite(score) else so_far
            curve.append(so_far)
            if so_far >= best or len(curve) == budget:
                regrets = [best - curve[min(at, len(curve)) - 1] for at in CHECKPOINTS]
                return (len(curve) if so_far >= best else -1), regrets
        state, _ = strategy.tell(state, asked, told[:, None])
    return -1, [best - curve[min(at, len(curve)) - 1] for at in CHECKPOINTS]


def summarise(runs: dict[str, tuple[int, list[float]]], budget: int) -> dict[str, Any]:
    """Returns the figures of some runs by seed; a run that never arrived counts as `budget` queries."""
    queries = np.array([found if found > 0 else budget for found, _ in runs.values()])
    regrets = np.array([regrets for _, regrets in runs.values()])
    error = 1.0 / np.sqrt(len(runs))
    return {
        "seeds": len(runs),
        "reached": int(sum(found > 0 for found, _ in runs.values())),
        "mean": float(queries.mean()),
        "standard_error": float(queries.std(ddof=1) * error) if len(runs) > 1 else 0.0,
        "median": float(np.median(queries)),
        "largest": int(queries.max()),
        **{f"regret_{at}": float(mean) for at, mean in zip(CHECKPOINTS, regrets.mean(0), strict=True)},
    }


def line(name: str, figures: dict[str, Any]) -> str:
    """Returns one row of a Markdown table."""
    bound = "at least " if figures["reached"] < figures["seeds"] else ""
    over = figures["reached"] * 2 <= figures["seeds"]
    median = f"over {figures['largest']}" if over else f"{figures['median']:g}"
    regrets = " | ".join(f"{figures[f'regret_{at}']:.3f}" for at in CHECKPOINTS)
    return (
        f"| {name} | {figures['seeds']} | {figures['reached']} | {bound}{figures['mean']:.1f} ± "
        f"{figures['standard_error']:.1f} | {median} | {regrets} |"
    )


def main() -> None:
    """Prints a row of figures for every variant on every table and keeps every run as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--tables", default="nb201,digits201,nb101_five,nb101_sample")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--budget", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("ablations.json"))
    arguments = parser.parse_args()
    kept: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    wanted = [str(seed) for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)]
    for table_name in arguments.tables.split(","):
        if table_name not in TABLES:
            raise unknown("table", table_name, TABLES)
        table, domain = load(arguments.data_dir, table_name)
        scores = table.objective(TABLES[table_name]).astype(np.float32)
        for variant in arguments.variants.split(","):
            name, options, pool = _variant(variant)
            runs = kept.setdefault(f"{table_name}/{variant}/{arguments.budget}", {})
            started = time.perf_counter()
            missing = [seed for seed in wanted if seed not in runs]
            if missing:
                made = make_strategy(name, domain if pool else replace(domain, pool=None), options)
                if made.jittable:
                    made = made._replace(ask=jax.jit(made.ask), tell=jax.jit(made.tell))
                for seed in missing:
                    runs[seed] = one_run(made, table, scores, arguments.budget, int(seed))
                arguments.out.write_text(json.dumps(kept) + "\n")
            figures = summarise({seed: runs[seed] for seed in wanted}, arguments.budget)
            spent = (time.perf_counter() - started) / max(len(missing), 1)
            print(f"{table_name} {line(variant, figures)} {spent:.1f} s a seed", flush=True)


def _variant(text: str) -> tuple[str, dict[str, Any], bool]:
    base, *given = text.split(":")
    if base not in VARIANTS:
        raise unknown("variant", base, VARIANTS)
    name, options, pool = VARIANTS[base]
    parts = [option.partition("=") for option in given]
    return name, options | {option: value for option, _, value in parts}, pool


if __name__ == "__main__":
    main()
