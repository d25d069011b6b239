"""Making a table: every architecture of a space trained from scratch on a dataset, in one compiled program.

The table is a benchmark of one's own, after NAS-Bench-201 (Dong and Yang, arXiv 2001.00326): strategies are compared on
it with `--config=table_compare`. Architectures that are the same network are trained once. Files: `table.npz` in the
format of `parsec.tables.table`, `result.json` with what the table looks like, `metrics.jsonl` with a line a chunk.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from parsec.cells import Space, get_space
from parsec.cells.costs import cost_table, table_costs
from parsec.cells.genotypes import to_text
from parsec.cells.isomorphism import representatives
from parsec.cells.network import Shape
from parsec.data import Dataset, channel_statistics, load, split
from parsec.data.memory import held_out_batches, training_batches
from parsec.errors import UserError
from parsec.files import writing
from parsec.jobs.footprint import check_table_memory
from parsec.jobs.search.alike import make_recipe
from parsec.jobs.search.problem import check_cells
from parsec.report.ranking import rank_correlation
from parsec.run.loop import run_steps
from parsec.run.opening import begin, report_finished
from parsec.run.progress import announce
from parsec.run.workdir import RESULT, Claim, write_json_atomic
from parsec.settings.table import TableConfig
from parsec.tables.table import Table, make_table, save_table
from parsec.train.each import Outcome, Parts, train_each
from parsec.train.many import make_trainer
from parsec.train.recipe import Recipe

TABLE = "table.npz"
# Spaces up to this many architectures are listed one by one.
LARGEST = 2**20


class Rows(NamedTuple):
    """The architectures of a table, and which of them are trained.

    Attributes:
      architectures: int32 [N, L], in lexicographic order.
      representative: the row whose training each row reports, int32 [N].
    """

    architectures: np.ndarray
    representative: np.ndarray

    @property
    def trained(self) -> np.ndarray:
        """The rows that are trained, ascending int32 [U]."""
        return np.unique(self.representative)


def run_build_table(config: TableConfig, workdir: Path) -> dict[str, Any]:
    """Makes a table, goes on with one that was cut short, or reports a finished one.

    Args:
      config: see `TableConfig`.
      workdir: the run directory.

    Returns:
      What result.json holds.

    Raises:
      UserError: for a space that is too large, unusable data, or a run directory that belongs to another run.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; what was trained is saved.
    """
    space = get_space(config.space)
    result = report_finished(config, workdir, _show)
    if result is not None:
        return result
    check_table_memory(config, space)
    rows = choose_rows(space, config.architectures, config.seed)
    dataset = load(config.dataset, config.data_dir, config.training.image_size)
    parts = load_parts(config, dataset)
    shape = Shape(num_classes=len(dataset.class_names), **asdict(config.network))
    check_cells(space, shape)
    recipe = make_recipe(config.training, len(parts.train.labels))
    title, plan = f"training {space.name} on {config.dataset}", _plan(config, rows, parts, recipe)
    with begin(config, workdir, {"images": dataset.digest}, title, plan, dataset.notes) as run:
        costs = table_costs(cost_table(space, shape, dataset.images.shape[1:]), rows.architectures)
        print("compiling one program for every architecture, a minute or so on a CPU", flush=True)
        keys = jax.random.split(jax.random.key(config.seed), config.seeds)
        trainer = make_trainer(space, shape, recipe, parts.train)

        def train(architectures: np.ndarray) -> Outcome:
            return train_each(trainer, architectures, keys, recipe.steps, parts.valid, parts.test)

        figures = _train_all(config, run, rows, costs[:, 1], train)
        table = assemble(rows, space, figures, costs, has_test=parts.test is not None)
        with writing(run.path):
            save_table(run.path / TABLE, table)
        result = _summarise(config, space, rows, table)
        write_json_atomic(run.path / RESULT, result)
        _show(result, run.path)
        return result


def choose_rows(space: Space, count: int, seed: int) -> Rows:
    """Returns the architectures of a table.

    Args:
      space: whose architectures they are.
      count: how many different networks to train, drawn by the seed; 0 takes all. Where the space is small enough to be
        listed, every architecture that is one of these networks is a row of the table.
      seed: of the draw.

    Raises:
      UserError: the space cannot be listed and no count is given.
    """
    rng = np.random.default_rng(seed)
    if space.cardinality > LARGEST:
        if count == 0:
            raise UserError(
                f"space {space.name} has {space.cardinality:.2g} architectures, too many to train all (the most is "
                f"{LARGEST}); say how many to draw with --config.architectures=N"
            )
        drawn = np.zeros((0, len(space.sizes)), np.int32)
        while len(drawn) < count:
            more = rng.integers(0, space.sizes, (count - len(drawn), len(space.sizes)), dtype=np.int32)
            drawn = np.unique(np.concatenate([drawn, more]), axis=0)
        return Rows(drawn, representatives(space, drawn))
    listed = np.stack(np.unravel_index(np.arange(space.cardinality), space.sizes), 1).astype(np.int32)
    same_as = representatives(space, listed)
    distinct = np.unique(same_as)
    if 0 < count < len(distinct):
        distinct = rng.permutation(distinct)[:count]
    kept = np.flatnonzero(np.isin(same_as, distinct))
    return Rows(listed[kept], np.searchsorted(kept, same_as[kept]).astype(np.int32))


def load_parts(config: TableConfig, dataset: Dataset) -> Parts:
    """Returns the dataset's parts in the devices' memory, split by the config's seed; raises `UserError`."""
    train, valid = split(dataset, config.training.valid_fraction, config.seed)
    mean, std = channel_statistics(dataset.images[train])
    test = held_out_batches(dataset, mean, std) if len(dataset.test_labels) else None
    return Parts(training_batches(dataset, train, mean, std), training_batches(dataset, valid, mean, std), test)


def assemble(rows: Rows, space: Space, figures: dict[str, np.ndarray], costs: np.ndarray, *, has_test: bool) -> Table:
    """Returns the table, every row with the figures of the architecture trained for it.

    Args:
      rows: N architectures of which U were trained.
      space: theirs.
      figures: `loss`, `valid` and `test` float32 [U, S], and `seconds` float32 [U], in the order of `rows.trained`.
      costs: parameters and FLOPs, int64 [N, 2].
      has_test: whether there is a test part.
    """
    places = np.searchsorted(rows.trained, rows.representative)
    columns: dict[str, np.ndarray] = {}
    for name in ("valid", "test", "loss") if has_test else ("valid", "loss"):
        of_seeds = figures[name][places].astype(np.float64)
        columns[name] = of_seeds.mean(1)
        columns |= {f"{name}_{seed}": of_seeds[:, seed] for seed in range(of_seeds.shape[1])}
    columns |= {"params": costs[:, 0], "flops": costs[:, 1]}
    columns |= {"seconds": figures["seconds"][places], "representative": rows.representative}
    return make_table("table", space.sizes, rows.architectures, columns)


def _train_all(
    config: TableConfig, run: Claim, rows: Rows, flops: np.ndarray, train: Callable[[np.ndarray], Outcome]
) -> dict[str, np.ndarray]:
    """Returns `loss`, `valid` and `test` float32 [U, S], and `seconds` float32 [U]."""
    trained = rows.trained
    chunks = _chunks(flops[trained], config.chunk, config.seed)
    empty = np.full((len(trained), config.seeds), np.nan, np.float32)
    state = {"loss": empty, "valid": empty, "test": empty, "seconds": np.full(len(trained), np.nan, np.float32)}

    def step(state: dict[str, np.ndarray], index: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        places = chunks[index]
        began = _clock()
        outcome = train(rows.architectures[trained[places]])
        seconds = (_clock() - began) / len(places)
        state = {name: values.copy() for name, values in state.items()}
        state["seconds"][places] = seconds
        for name, values in outcome._asdict().items():
            state[name][places] = values
        valid = outcome.valid.mean(1)
        good = valid[np.isfinite(valid)]
        metrics = {
            "failed": int(len(valid) - len(good)),
            "valid_mean": float(good.mean()) if good.size else float("nan"),
            "valid_best": float(good.max()) if good.size else float("nan"),
        }
        return state, metrics

    return run_steps(
        run,
        state,
        step,
        len(chunks),
        label=f"chunks of {config.chunk} architectures",
        show=("valid_mean", "valid_best", "failed"),
        save_minutes=config.save_minutes,
        tensorboard=False,
    )


def _chunks(flops: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Returns places of the trained architectures, int [T, at most size], every one at least once.

    A chunk's architectures cost alike, so that their time can be shared out and devices finish together; chunks come in
    a drawn order, so that the time left is told rightly from the first.
    """
    size = min(size, len(flops))
    count = -(-len(flops) // size)
    ordered = np.resize(np.argsort(flops, kind="stable"), (count, size))
    return ordered[np.random.default_rng(seed).permutation(count)]


def _clock() -> float:
    """Returns seconds of one device's time, up to a constant.

    On a CPU that is the processor's own count for this process, which other work on the machine leaves alone.
    """
    if jax.default_backend() == "cpu":
        return time.process_time()
    return time.monotonic() * jax.local_device_count()


def _plan(config: TableConfig, rows: Rows, parts: Parts, recipe: Recipe) -> dict[str, Any]:
    train, valid, test = (0 if part is None else len(part.labels) for part in parts)
    return {
        "architectures": f"{len(rows.trained)} networks to train for {len(rows.architectures)} rows",
        "images": f"{train} to train, {valid} for validation, {test} for the test, {parts.train.images.shape[1:]} each",
        "network": f"{config.network.cells} cells, {config.network.channels} channels, {config.network.dtype}",
        "training": f"{config.seeds} seeds, {recipe.steps} steps, batch {recipe.batch_size}",
        "device": f"{jax.local_device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}",
    }


def _summarise(config: TableConfig, space: Space, rows: Rows, table: Table) -> dict[str, Any]:
    trained = rows.trained
    runs = np.stack([table.columns[f"valid_{seed}"][trained] for seed in range(config.seeds)], 1)
    runs = runs[np.isfinite(runs).all(1)]
    valid = table.columns["valid"][trained]
    result: dict[str, Any] = {
        "space": space.name,
        "dataset": config.dataset,
        "seed": config.seed,
        "seeds": config.seeds,
        "rows": len(table),
        "trained": len(trained),
        "failed": len(trained) - len(runs),
        "table": TABLE,
    }
    if not len(runs):
        return result | {"best": None}
    best = trained[np.nanargmax(valid)]
    quantiles = np.nanpercentile(valid, [0, 5, 25, 50, 75, 95, 100])
    result["best"] = {
        "architecture": table.architectures[best].tolist(),
        "genotype": to_text(space, table.architectures[best]),
        "valid": float(table.columns["valid"][best]),
        "test": float(table.columns["test"][best]) if "test" in table.columns else None,
    }
    result["valid_quantiles"] = dict(zip(("0", "5", "25", "50", "75", "95", "100"), quantiles.tolist(), strict=True))
    if config.seeds > 1:
        pairs = [rank_correlation(runs[:, a], runs[:, b]) for a in range(config.seeds) for b in range(a)]
        result["seed_deviation_median"] = float(np.median(runs.std(1, ddof=1)))
        result["seed_rank_correlation"] = _mean_or_none(pairs)
    if "test" in table.columns:
        result["valid_test_rank_correlation"] = rank_correlation(valid, table.columns["test"][trained])
    return result


def _mean_or_none(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _show(result: dict[str, Any], path: Path) -> None:
    best = result["best"]
    rows: dict[str, Any] = {"networks": f"{result['trained']} trained, {result['failed']} failed"}
    if best is not None:
        quantiles = result["valid_quantiles"]
        rows["validation accuracy"] = f"median {quantiles['50']:.2f} %, best {quantiles['100']:.2f} %"
        rows["best"] = best["genotype"]
    rows["table"] = path / TABLE
    announce(f"table of {result['space']} on {result['dataset']}", rows)
    # On a line of its own, to be copied.
    print(f"python main.py --config=table_compare --config.objective=valid --config.table={path / TABLE}")
