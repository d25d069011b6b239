"""What a prior learnt on real images saves on more of them: shared weights, judged by the NAS-Bench-201 table.

    python -m benchmarks.transfer_images --data_dir=DIR [--seeds=3] [--first_seed=0] [--source_size=11] [--size=16]
        [--source_steps=800] [--steps=800] [--every=100] [--batch_size=64] [--channels=16] [--learning_rate=0.03]
        [--out=FILE.json]

A search of weights and prior together, `nb201_search:joint` made shorter, learns on CIFAR-10 at `source_size` pixels a
side; 11 of 16 is half of the pixels. Its prior starts the same search at `size` pixels, on fresh weights, beside one
from a uniform prior with the same seed, and from the prior kept fixed. Each is judged by the published test accuracy
after 200 epochs: of the prior's mode, and in the mean over the cells that the prior would draw. Steps of the source are
not counted in a start's own; a step costs by the number of pixels.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from parsec import prior as priors
from parsec.cells import get_space
from parsec.cells.space import uniform_logits
from parsec.command.config_files import load_config
from parsec.command.launch import prepare_process
from parsec.jobs.search.problem import load_problem, make_joint, make_step, open_sources, start_state
from parsec.settings.search import SearchConfig
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.table import Table

REPORT = "test_200"


class Start(NamedTuple):
    """How a search on the target begins.

    Attributes:
      carried: whether from the source's prior.
      fixed: whether it stays as it is, as with `prior.trust_radius=0`.
    """

    carried: bool
    fixed: bool = False


STARTS = {
    "fresh": Start(False),
    "carried": Start(True),
    "carried, kept fixed": Start(True, fixed=True),
}


def learn(config: SearchConfig, initial: np.ndarray, every: int) -> np.ndarray:
    """Returns the logits before the first step and after each `every` steps of a search, float32 [N, L, O].

    Args:
      config: the search.
      initial: logits float32 [L, O] that its prior starts from.
      every: steps between them.
    """
    problem, joint = load_problem(config), make_joint(config)
    state, logits = start_state(config, joint, problem, initial), joint.search.logits
    assert logits is not None
    kept = [np.array(logits(state))]
    with open_sources(config, problem) as sources:
        step = make_step(config, joint, problem, sources)
        for index in range(problem.steps):
            state, _ = step(state, index)
            if (index + 1) % every == 0:
                kept.append(np.array(logits(state)))
    return np.stack(kept)


def judge(table: Table, logits: np.ndarray) -> dict[str, list[float]]:
    """Returns what the table says of priors float32 [N, L, O]: of their modes, and in the mean over what they draw."""
    mask, figures = get_space("nasbench201").mask, table.columns[REPORT]
    modes = np.stack([np.asarray(priors.mode(each, mask)) for each in logits])
    drawn = [np.exp(np.asarray(priors.log_probability(each, mask, table.architectures), np.float64)) for each in logits]
    return {
        "mode": figures[table.find(modes)].tolist(),
        "drawn": [float(np.dot(share, figures) / share.sum()) for share in drawn],
        "entropy": [float(priors.entropy(each, mask)) for each in logits],
    }


def measure(options: argparse.Namespace, seed: int, table: Table) -> dict[str, Any]:
    """Returns what each start comes to with one seed, and what the source did, by name."""
    source, target = (_config(options, seed, size, steps) for size, steps in _sizes(options))
    uniform = uniform_logits(get_space("nasbench201"))
    learnt = learn(source, uniform, options.every)
    found = {"source": judge(table, learnt)}
    for name, start in STARTS.items():
        if start.fixed:
            # It learns nothing, so that no step is needed to see it.
            found[name] = judge(table, np.stack([learnt[-1]] * (options.steps // options.every + 1)))
            continue
        found[name] = judge(table, learn(target, learnt[-1] if start.carried else uniform, options.every))
    return found


def text(seeds: Sequence[Mapping[str, Any]], every: int) -> str:
    """Returns the figures of several seeds as a Markdown table: mean and deviation, at half and at all of the steps."""
    lines = ["| start | what | at the start | half of the steps | all steps |", "|---|---|---|---|---|"]
    for name in seeds[0]:
        for what in ("drawn", "mode"):
            curves = np.array([seed[name][what] for seed in seeds])
            places = (0, (curves.shape[1] - 1) // 2, -1)
            cells = [f"{curves[:, at].mean():.2f} ± {_deviation(curves[:, at]):.2f}" for at in places]
            lines.append(f"| {name} | {what} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Measured every {every} steps, {len(seeds)} seeds."])


def main() -> None:
    """Measures seed by seed, and prints the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    numbers = {"seeds": 3, "first_seed": 0, "source_size": 11, "size": 16}
    for name, default in {
        **numbers,
        "source_steps": 800,
        "steps": 800,
        "every": 100,
        "batch_size": 64,
        "channels": 16,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--learning_rate", type=float, default=0.03, help="of the prior")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    options = parser.parse_args()
    prepare_process()
    # JAX looked at its environment when it was imported; without a cache every search would compile its program again.
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR"))
    table = load_nasbench201(options.data_dir / "nasbench201.npz", "cifar10")
    found: list[dict[str, Any]] = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        began = time.monotonic()
        found.append(measure(options, seed, table))
        print(f"\nseed {seed}: {time.monotonic() - began:.0f} s\n\n{text(found, options.every)}", flush=True)
        if options.out:
            report = {"options": {key: str(value) for key, value in vars(options).items()}, "seeds": found}
            options.out.write_text(json.dumps(report, indent=1) + "\n")


def _sizes(options: argparse.Namespace) -> tuple[tuple[int, int], tuple[int, int]]:
    return (options.source_size, options.source_steps), (options.size, options.steps)


def _config(options: argparse.Namespace, seed: int, size: int, steps: int) -> SearchConfig:
    config = load_config("nb201_search:joint").config
    return replace(
        config,
        data_dir=str(options.data_dir),
        seed=seed,
        steps=steps,
        data=replace(config.data, image_size=size, batch_size=options.batch_size, valid_batch_size=options.batch_size),
        network=replace(config.network, channels=options.channels),
        prior=replace(config.prior, learning_rate=options.learning_rate, warmup=0.5),
    )


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
