"""Measures AlphaX on published tables: queries to the optimum, seconds for 10,000 evaluations, and its Meta-DNN.

    python -m benchmarks.alphax --data_dir=DIR [--tables=nb201,nb101_surrogate6] [--seeds=100] [--evolution_seeds=100]
        [--budget=4000] [--option=NAME=VALUE ...] [--evaluations=10000] [--cells=1000] [--out=FILE.json]

DIR holds nasbench201.npz and nasbench101_sample30k.npz. A query is the first evaluation of an architecture; a run stops
at the best one of the table and counts as `budget` if it never meets it. Uniform search without repeats needs
(N + 1) / 2 queries in the mean. Scores on nb101_surrogate6 are a surrogate's. A figure of 0 seeds, evaluations or cells
skips its part.
"""

import argparse
import ast
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from parsec.cells.domain import Domain
from parsec.errors import UserError, unknown
from parsec.search.alphax.meta_dnn import Training, new_meta_dnn, predict, rank_correlation, train
from parsec.search.alphax.values import VALUES
from parsec.search.contract import Strategy
from parsec.search.registry import make_strategy
from parsec.tables.nasbench101 import load_nasbench101
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.table import Table, table_domain

# The column that is searched, by table.
TABLES = {"nb201": "valid_200", "nb101_surrogate6": "surrogate_valid_108"}
# Times the mean over the regularized evolution's that the published AlphaX claims, and over random search's.
CLAIMED = {"random": 3.0, "regularized_evolution": 2.8}


def load(folder: Path, name: str) -> tuple[Table, Domain]:
    """Returns a table of `TABLES` and its domain."""
    if name == "nb201":
        table = load_nasbench201(folder / "nasbench201.npz", "cifar10")
        return table, table_domain(table)
    return load_nasbench101("surrogate", folder, 6)


def queries_to_optimum(strategy: Strategy, score_of: dict[bytes, float], best: float, budget: int, seed: int) -> int:
    """Returns the distinct architectures evaluated up to the first of score `best`; -1 if `budget` did not reach it.

    Asks without a new architecture are free, up to twenty times the budget.
    """
    keys = np.random.default_rng(seed).integers(0, 2**32, (20 * budget + 1, 2), dtype=np.uint32)
    state = strategy.init(jax.random.wrap_key_data(keys[-1]))
    seen: set[bytes] = set()
    for data in keys[:-1]:
        asked, state = strategy.ask(jax.random.wrap_key_data(data), state)
        rows = [row.tobytes() for row in np.asarray(asked, np.int32)]
        scores = np.array([[score_of[row]] for row in rows], np.float32)
        seen.update(rows)
        if scores.max() >= best:
            return len(seen)
        if len(seen) >= budget:
            return -1
        state, _ = strategy.tell(state, asked, scores)
    return -1


def measure(strategy: Strategy, table: Table, column: str, budget: int, seeds: int) -> dict[str, Any]:
    """Returns how many queries one strategy needs to the best architecture of a column."""
    if strategy.jittable:
        strategy = strategy._replace(ask=jax.jit(strategy.ask), tell=jax.jit(strategy.tell))
    scores = table.objective(column).astype(np.float32)
    score_of = _scores_by_row(table, scores)
    started = time.perf_counter()
    found = [queries_to_optimum(strategy, score_of, float(np.nanmax(scores)), budget, seed) for seed in range(seeds)]
    queries = np.array([n if n > 0 else budget for n in found])
    return {
        "seeds": seeds,
        "reached": int(sum(n > 0 for n in found)),
        "mean": float(queries.mean()),
        "standard_error": float(queries.std(ddof=1) / np.sqrt(seeds)) if seeds > 1 else 0.0,
        "quartiles": np.quantile(queries, [0.25, 0.5, 0.75]).tolist(),
        "largest": int(queries.max()),
        "seconds_per_seed": (time.perf_counter() - started) / seeds,
    }


def time_evaluations(strategy: Strategy, table: Table, column: str, evaluations: int) -> dict[str, float]:
    """Returns the seconds one run of so many evaluations takes, compilation included."""
    score_of = _scores_by_row(table, table.objective(column).astype(np.float32))
    keys = np.random.default_rng(0).integers(0, 2**32, (evaluations + 1, 2), dtype=np.uint32)
    wall, processor = time.perf_counter(), time.process_time()
    state = strategy.init(jax.random.wrap_key_data(keys[-1]))
    for data in keys[:-1]:
        asked, state = strategy.ask(jax.random.wrap_key_data(data), state)
        scores = [[score_of[row.tobytes()]] for row in np.asarray(asked, np.int32)]
        state, _ = strategy.tell(state, asked, np.array(scores, np.float32))
    return {
        "evaluations": evaluations,
        "seconds": time.perf_counter() - wall,
        "processor_seconds": time.process_time() - processor,
    }


def meta_dnn_correlation(folder: Path, cells: int, splits: int = 5) -> dict[str, Any]:
    """Returns rank correlations of the Meta-DNN on NAS-Bench-101 cells that it was not trained on.

    Each split trains on `cells` random cells of the sample, by their validation accuracy after 108 epochs, and predicts
    all others of it.
    """
    table, domain = load_nasbench101("sample", folder, 7)
    scores = table.objective("valid_108").astype(np.float64)
    training = Training()
    values, found = VALUES["ranks"], []
    for split in range(splits):
        order = np.random.default_rng(split).permutation(len(scores))
        known, unseen = order[:cells], order[cells:]
        targets = values.targets(np.sort(scores[known]), scores[known])
        folds = (np.arange(cells) % training.members).astype(np.int32)
        first, more = jax.random.split(jax.random.key(split))
        meta = new_meta_dnn(first, domain.features, table.architectures.shape[1], training)
        # As often as a search has trained by the time it knows so many.
        for again in range(10):
            key = jax.random.fold_in(more, again)
            meta = train(key, meta, domain.features, table.architectures[known], targets, folds, training)
        predictions = predict(meta, domain.features, table.architectures[unseen], training).mean(0)
        found.append((rank_correlation(predictions, scores[unseen]), float(meta.correlation)))
    return {
        "training_cells": cells,
        "unseen_cells": len(scores) - cells,
        "splits": splits,
        "spearman_unseen": float(np.mean([unseen for unseen, _ in found])),
        "lowest_of_splits": float(min(unseen for unseen, _ in found)),
        "spearman_held_out_estimate": float(np.mean([held_out for _, held_out in found])),
    }


def main() -> None:
    """Prints the figures and writes them as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--tables", default="nb201")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--evolution_seeds", type=int, default=100)
    parser.add_argument("--budget", type=int, default=4000)
    parser.add_argument("--option", action="append", default=[], help="NAME=VALUE of alphax, repeatable")
    parser.add_argument("--evaluations", type=int, default=10_000)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("alphax.json"))
    arguments = parser.parse_args()
    options = dict(_option(text) for text in arguments.option)
    figures: dict[str, Any] = {"options": options}
    for name in arguments.tables.split(","):
        if name not in TABLES:
            raise unknown("table", name, TABLES)
        table, domain = load(arguments.data_dir, name)
        size, column = len(table.architectures), TABLES[name]
        row: dict[str, Any] = {"architectures": size, "random": {"mean": (size + 1) / 2}}
        for strategy, seeds in (("alphax", arguments.seeds), ("regularized_evolution", arguments.evolution_seeds)):
            if seeds:
                made = make_strategy(strategy, domain, options if strategy == "alphax" else {})
                row[strategy] = measure(made, table, column, arguments.budget, seeds)
                print(f"{name} {strategy}: {_line(row[strategy])}", flush=True)
        if arguments.seeds:
            for other in CLAIMED.keys() & row.keys():
                times = row[other]["mean"] / row["alphax"]["mean"]
                row[f"times_fewer_than_{other}"] = times
                print(
                    f"{name}: {times:.1f} times fewer than {other} ({row[other]['mean']:.0f}); claim {CLAIMED[other]}"
                )
        figures[name] = row
    if arguments.evaluations:
        table, domain = load(arguments.data_dir, "nb201")
        made = make_strategy("alphax", domain, options)
        figures["timing"] = time_evaluations(made, table, TABLES["nb201"], arguments.evaluations)
        print(f"{arguments.evaluations} evaluations on nb201: {figures['timing']}", flush=True)
    if arguments.cells:
        figures["meta_dnn"] = meta_dnn_correlation(arguments.data_dir, arguments.cells)
        print(f"Meta-DNN on NAS-Bench-101: {figures['meta_dnn']}", flush=True)
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"written to {arguments.out}")


def _scores_by_row(table: Table, scores: np.ndarray) -> dict[bytes, float]:
    rows = np.ascontiguousarray(table.architectures, np.int32)
    return {row.tobytes(): float(score) for row, score in zip(rows, scores, strict=True)}


def _line(figures: dict[str, Any]) -> str:
    return (
        f"{figures['reached']}/{figures['seeds']} reached, mean {figures['mean']:.1f} +- "
        f"{figures['standard_error']:.1f}, median {figures['quartiles'][1]:.0f}, largest {figures['largest']}, "
        f"{figures['seconds_per_seed']:.1f} s a seed"
    )


def _option(text: str) -> tuple[str, Any]:
    name, found, value = text.partition("=")
    if not found:
        raise UserError(f"an option is NAME=VALUE, not {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    main()
