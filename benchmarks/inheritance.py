"""Measures what inheriting weights saves: validation accuracy after e epochs with and without it, child by child.

    python -m benchmarks.inheritance [--children=24] [--epochs=1,2,4] [--channels=4] [--cells=1] [--seeds=1]
        [--out=FILE.json]

The children are NAS-Bench-201 cells on the digits that come with scikit-learn. The first eight are random; each later
one changes one decision of a random earlier one, as a local search's or a tree's proposals do. Both arms train the same
children in the same order, from the same fresh weights on the same batches, under the same cosine; they differ in
whether a child starts with what fits of its nearest evaluated one. Inherited weights were themselves inherited, so a
late child stands on the epochs of a whole line of ancestors; this is what the search does, and why its scores are
compared within an arm only. The rank correlation with the longest fresh training says whether they still order the
children.
"""

import argparse
import itertools
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import stats

from parsec.cells import get_space
from parsec.cells.domain import product_domain
from parsec.evaluate.contract import Evaluated, Evaluator, no_pause
from parsec.evaluate.supernet import OBJECTIVE
from parsec.evaluate.training import training_evaluator
from parsec.jobs.search.problem import Problem, in_memory, load_problem, search_recipe
from parsec.settings.search import DataSettings, NetworkSettings, OptimizerSettings, SearchConfig
from parsec.train.many import make_trainer

RANDOM_CHILDREN = 8


def family(count: int, seed: int) -> np.ndarray:
    """Returns the children in order, int32 [RANDOM_CHILDREN + count, L], all different."""
    space = get_space("nasbench201")
    domain = product_domain(tuple(map(int, space.sizes)))
    rng = np.random.default_rng(seed)
    rows = list(np.asarray(domain.sample(jax.random.key(seed), RANDOM_CHILDREN)))
    while len(rows) < RANDOM_CHILDREN + count:
        candidates = domain.neighbours(rows[rng.integers(len(rows))])
        child = candidates[rng.integers(len(candidates))]
        if not any(np.array_equal(child, row) for row in rows):
            rows.append(child)
    return np.stack(rows)


def train_in_turn(evaluator: Evaluator, children: np.ndarray) -> np.ndarray:
    """Returns each child's accuracy in percent, float64 [N]."""
    scores = np.zeros((0, 1))
    for at, child in enumerate(children):
        scores = np.append(scores, [evaluator.evaluate(child[None], Evaluated(children[:at], scores), no_pause)[0]], 0)
    return scores[:, 0]


def measure(config: SearchConfig, problem: Problem, children: np.ndarray, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the accuracies of the children after so many epochs, fresh and inherited, float64 [N] each."""
    space, (_, train, valid) = get_space(config.space), in_memory(problem)
    steps = epochs * (problem.train.num_examples // config.data.batch_size)
    key = jax.random.key(config.seed)
    recipe = search_recipe(config)
    trainer = make_trainer(space, problem.shape, recipe, train, devices=jax.local_devices()[:1])
    with tempfile.TemporaryDirectory() as folder:
        fresh, inherited = (
            training_evaluator(
                space,
                problem.shape,
                trainer,
                valid,
                steps=steps,
                objectives=(OBJECTIVE,),
                bonus=lambda architectures: np.zeros(len(architectures)),
                cost=lambda architectures: np.zeros(len(architectures)),
                key=key,
                folder=at,
            )
            for at in (None, Path(folder))
        )
        return train_in_turn(fresh, children), train_in_turn(inherited, children)


def epochs_needed(accuracy: float, curve: dict[int, float]) -> float | None:
    """Returns after how many epochs a curve of accuracy by epochs reaches the accuracy, interpolated; None if never."""
    points = sorted(curve.items())
    if accuracy <= points[0][1]:
        return float(points[0][0])
    for (before, low), (after, high) in itertools.pairwise(points):
        if low < accuracy <= high:
            return before + (after - before) * (accuracy - low) / (high - low)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--children", type=int, default=24)
    parser.add_argument("--epochs", default="1,2,4")
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("inheritance.json"))
    arguments = parser.parse_args()
    base = SearchConfig(
        dataset="digits",
        space="nasbench201",
        data=DataSettings(batch_size=32),
        network=NetworkSettings(channels=arguments.channels, cells=arguments.cells),
        optimizer=OptimizerSettings(learning_rate=0.1),
    )
    lengths = [int(text) for text in arguments.epochs.split(",")]
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        config = replace(base, seed=seed)
        problem, children = load_problem(config), family(arguments.children, seed)
        for epochs in lengths:
            began = time.perf_counter()
            fresh, inherited = (scores[RANDOM_CHILDREN:] for scores in measure(config, problem, children, epochs))
            rows.append({"seed": seed, "epochs": epochs, "fresh": fresh.tolist(), "inherited": inherited.tolist()})
            print(
                f"seed {seed}, {epochs} epochs: fresh {np.nanmean(fresh):.2f} %, "
                f"inherited {np.nanmean(inherited):.2f} %, {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    figures = summarise(rows, lengths)
    print(
        f"\n{'epochs':>6}{'fresh':>9}{'inherited':>11}{'difference':>20}{'saved':>8}{'rank fresh':>12}{'inherited':>11}"
    )
    for row in figures:
        saved = f"{row['times_fewer_epochs']:.1f} x" if row["times_fewer_epochs"] else "more"
        print(
            f"{row['epochs']:>6}{row['fresh']:>9.2f}{row['inherited']:>11.2f}"
            f"{row['difference']:>+11.2f} ± {row['standard_error']:<6.2f}{saved:>8}"
            f"{row['rank_fresh']:>12.2f}{row['rank_inherited']:>11.2f}"
        )
    arguments.out.write_text(json.dumps({"summary": figures, "children": rows}, indent=1) + "\n")
    print(f"written to {arguments.out}")


def summarise(rows: list[dict[str, Any]], lengths: list[int]) -> list[dict[str, Any]]:
    """Returns a row for each number of epochs, over all seeds; "saved" is the fresh epochs that equal the inherited."""

    def accuracies(arm: str, epochs: int) -> np.ndarray:
        return np.concatenate([row[arm] for row in rows if row["epochs"] == epochs])

    curve = {epochs: float(np.nanmean(accuracies("fresh", epochs))) for epochs in lengths}
    truth = accuracies("fresh", max(lengths))
    figures = []
    for epochs in lengths:
        fresh, inherited = accuracies("fresh", epochs), accuracies("inherited", epochs)
        gain = (inherited - fresh)[np.isfinite(inherited - fresh)]
        needed = epochs_needed(float(np.nanmean(inherited)), curve)
        ranks: list[Any] = [stats.spearmanr(arm, truth, nan_policy="omit") for arm in (fresh, inherited)]
        figures.append(
            {
                "epochs": epochs,
                "children": len(gain),
                "fresh": float(np.nanmean(fresh)),
                "inherited": float(np.nanmean(inherited)),
                "difference": float(gain.mean()),
                "standard_error": float(gain.std(ddof=1) / np.sqrt(len(gain))),
                "times_fewer_epochs": None if needed is None else needed / epochs,
                "rank_fresh": float(ranks[0].statistic),
                "rank_inherited": float(ranks[1].statistic),
            }
        )
    return figures


if __name__ == "__main__":
    main()
