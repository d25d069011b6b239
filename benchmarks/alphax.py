"""Measures AlphaX's speed on NAS-Bench-201 and what its Meta-DNN predicts of NAS-Bench-101.

    python -m benchmarks.alphax --data_dir=DIR [--evaluations=10000] [--cells=1000] [--out=FILE.json]

DIR holds nasbench201.npz and nasbench101_sample30k.npz. A figure of 0 evaluations or cells skips its part. How many
queries it needs, with and without its parts, is `benchmarks.ablations`.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from parsec.search.alphax.meta_dnn import Training, new_meta_dnn, predict, rank_correlation, train
from parsec.search.alphax.values import VALUES
from parsec.search.contract import Strategy
from parsec.search.registry import make_strategy
from parsec.tables.nasbench101 import load_nasbench101
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.table import Table, table_domain


def time_evaluations(strategy: Strategy, table: Table, column: str, evaluations: int) -> dict[str, float]:
    """Returns the seconds one run of so many evaluations takes, compilation included."""
    scores = table.objective(column).astype(np.float32)
    keys = np.random.default_rng(0).integers(0, 2**32, (evaluations + 1, 2), dtype=np.uint32)
    wall, processor = time.perf_counter(), time.process_time()
    state = strategy.init(jax.random.wrap_key_data(keys[-1]))
    for data in keys[:-1]:
        asked, state = strategy.ask(jax.random.wrap_key_data(data), state)
        state, _ = strategy.tell(state, asked, scores[table.find(np.asarray(asked))][:, None])
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
    parser.add_argument("--evaluations", type=int, default=10_000)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("alphax.json"))
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    if arguments.evaluations:
        table = load_nasbench201(arguments.data_dir / "nasbench201.npz", "cifar10")
        made = make_strategy("alphax", table_domain(table))
        figures["timing"] = time_evaluations(made, table, "valid_200", arguments.evaluations)
        print(f"{arguments.evaluations} evaluations on nb201: {figures['timing']}", flush=True)
    if arguments.cells:
        figures["meta_dnn"] = meta_dnn_correlation(arguments.data_dir, arguments.cells)
        print(f"Meta-DNN on NAS-Bench-101: {figures['meta_dnn']}", flush=True)
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
