"""The problem that a search works on: the images in their parts, the size of the network, and what learns on them.

The images lie in the device's memory, or are streamed (`parsec.data.stream`): read while shared weights learn on them.
Nothing else differs then, but that no short training of single cells is there.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from parsec.cells import Space, get_space
from parsec.cells.network import STEM_STRIDES, Shape
from parsec.cells.space import POOLS, SKIPS, operation_share, uniform_logits
from parsec.data import Dataset, channel_statistics, load, split
from parsec.data.examples import StreamedDataset, is_streamed, open_stream, split_rows
from parsec.data.memory import Batches, steps_per_epoch, training_batches
from parsec.data.source import Batch, Source
from parsec.data.stream import Part, StreamedPart, open_source
from parsec.devices import batch_mesh, place, traced_for, whole
from parsec.errors import UserError
from parsec.evaluate.registry import EVALUATORS
from parsec.evaluate.supernet import Score, make_score
from parsec.files import expanded
from parsec.jobs.footprint import check_search_memory
from parsec.joint.contract import Info, Joint, Parts, State
from parsec.joint.registry import SHARED
from parsec.joint.settings import JointSettings
from parsec.keys import fold
from parsec.run.unreadable import Unreadable
from parsec.settings.search import SearchConfig, joint_entry
from parsec.supernet.objective import Child, make_child
from parsec.supernet.supernet import cell_kinds, make_supernet
from parsec.tables.published import open_published
from parsec.tables.table import Table
from parsec.train.recipe import Recipe, make_optimizer

# Images that the evaluation of a trained child looks at together.
_EVAL_BATCH_SIZE = 500


class Problem(NamedTuple):
    """The images of a search, and the supernet's size that they ask for.

    Attributes:
      dataset: names, notes, and the test part, which no search touches; listed and not read where it is streamed.
      train: for the weights.
      valid: for the architecture.
      shape: of the networks.
      steps: of the search.
      mesh: the devices that the shared weights learn on.
    """

    dataset: Dataset | StreamedDataset
    train: Part
    valid: Part
    shape: Shape
    steps: int
    mesh: Mesh

    @property
    def example(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a small batch of images."""
        return jax.ShapeDtypeStruct((2, *self.image), jnp.dtype(self.shape.dtype))

    @property
    def image(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        if isinstance(self.train, StreamedPart):
            return self.train.image_size, self.train.image_size, 3
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


class InMemory(NamedTuple):
    """The images of a problem, all of them in memory."""

    dataset: Dataset
    train: Batches
    valid: Batches


class Sources(NamedTuple):
    """Where the batches of a search come from.

    Attributes:
      train: for the weights.
      valid: for the architecture.
      waited: tells for how many seconds both were waited for; None where nothing is read.
    """

    train: Source
    valid: Source
    waited: Callable[[], float] | None


class JointSearch(NamedTuple):
    """A joint search with the parts that it was made of, and the names that a progress bar shows."""

    search: Joint
    parts: Parts
    show: tuple[str, ...]


@lru_cache(maxsize=1)
def load_problem(config: SearchConfig) -> Problem:
    """Returns the images, parted, in the device's memory or listed to be streamed, and the sizes that follow.

    Raises:
      UserError: missing or damaged data, a part with too few images, or a network that does not fit in memory.
    """
    mesh = search_mesh(config)
    dataset, train, valid = (_list if is_streamed(config.dataset) else _read)(config)
    per_epoch = steps_per_epoch(train.num_examples, config.data.batch_size, "config.data.batch_size")
    if EVALUATORS[config.strategy.evaluator].shared:
        steps_per_epoch(valid.num_examples, config.data.valid_batch_size, "config.data.valid_batch_size")
    shape = Shape(num_classes=len(dataset.class_names), **asdict(config.network))
    steps = config.steps or max(round(config.epochs * per_epoch), 1)
    return Problem(dataset, train, valid, shape, steps, mesh)


def search_mesh(config: SearchConfig) -> Mesh:
    """Returns the devices that a config asks for; raises `UserError`."""
    groups, children = config.sampler.groups, config.sampler.num_children
    if children % groups:
        nearest = max(n for n in range(1, groups) if children % n == 0)
        raise UserError(
            f"config.sampler.groups={groups} does not divide config.sampler.num_children={children} evenly; give "
            f"--config.sampler.groups={nearest}, or another number of children"
        )
    sizes = {f"config.data.{name}": getattr(config.data, name) for name in ("batch_size", "valid_batch_size")}
    return batch_mesh(config.devices, sizes, groups)


def in_memory(problem: Problem) -> InMemory:
    """Returns the images of a problem of which none are streamed, as `check_search` sees to where they may not be."""
    dataset, train, valid = problem[:3]
    assert isinstance(dataset, Dataset) and isinstance(train, Batches) and isinstance(valid, Batches)
    return InMemory(dataset, train, valid)


def naming_unreadable(config: SearchConfig, problem: Problem, directory: Path) -> Problem:
    """Returns the problem with parts that name what cannot be read in unreadable.json of a run directory.

    Raises:
      UserError: that file is damaged; or, of a batch, more than config.data.unreadable_limit images cannot be read.
    """
    if not (isinstance(problem.train, StreamedPart) and isinstance(problem.valid, StreamedPart)):
        return problem
    add = Unreadable(directory, config.data.unreadable_limit).add
    return problem._replace(train=problem.train._replace(report=add), valid=problem.valid._replace(report=add))


def make_joint(config: SearchConfig) -> JointSearch:
    """Returns what trains the shared weights of a config: its joint search, else uniform children."""
    space, problem = get_space(config.space), load_problem(config)
    supernet = make_supernet(space, problem.shape, auxiliary_skip=config.supernet.auxiliary_skip)
    optimizer = make_optimizer(search_recipe(config, problem.steps))
    shares = {"skip": operation_share(space, SKIPS), "pool": operation_share(space, POOLS)}
    child = make_child(space, supernet)
    parts = Parts(supernet, child, space.mask, optimizer, problem.steps, shares, problem.mesh)
    entry = joint_entry(config) or SHARED
    return JointSearch(
        entry.make(parts, JointSettings(config.sampler, config.likelihood, config.prior)), parts, entry.show
    )


def start_state(config: SearchConfig, joint: JointSearch, problem: Problem, logits: np.ndarray | None = None) -> State:
    """Returns the state before the first step, from logits float32 [L, O]; uniform ones by default."""
    space, example = get_space(config.space), problem.example
    images = jnp.zeros(example.shape, example.dtype)
    state = joint.search.init(
        fold(jax.random.key(config.seed), "weights"), images, uniform_logits(space) if logits is None else logits
    )
    return place(state, whole(problem.mesh))


def make_step(
    config: SearchConfig, joint: JointSearch, problem: Problem, sources: Sources
) -> Callable[[State, int], tuple[State, Info]]:
    """Returns `step(state, index) -> (state, info)`, compiled once for every child, batch and index."""
    sample_key = place(fold(jax.random.key(config.seed), "children"), whole(problem.mesh))
    program = make_program(joint.search, problem.mesh)

    def step(state: State, index: int) -> tuple[State, Info]:
        batches = sources.train.batch(index), sources.valid.batch(index)
        return program(state, sample_key, *batches, jnp.asarray(index, jnp.int32))

    return step


def make_program(search: Joint, mesh: Mesh) -> Any:
    """Returns the step of a joint search as `jax.jit` gives it, `program(state, key, train, valid, index)`.

    The key is that of the whole search; the batches are divided among the mesh's devices, all else is whole on each.
    The arguments may be shapes, for devices that are elsewhere.
    """

    def advance(state: State, key: jax.Array, train: Batch, valid: Batch, index: jax.Array) -> tuple[State, Info]:
        return search.step(state, jax.random.fold_in(key, index), train, valid, index)

    return jax.jit(traced_for(mesh, advance), donate_argnums=0, out_shardings=whole(mesh))


@contextmanager
def open_sources(config: SearchConfig, problem: Problem) -> Iterator[Sources]:
    """Yields the sources of batches for the weights and for the architecture; what reads them ends with it."""
    data, dtype, key = config.data, config.network.dtype, jax.random.key(config.seed)
    waited = 0.0

    def timed(source: Source) -> Source:
        def batch(index: int) -> Batch:
            nonlocal waited
            began = time.monotonic()
            fed = source.batch(index)
            waited += time.monotonic() - began
            return fed

        return source._replace(batch=batch)

    with (
        open_source(
            problem.train,
            fold(key, "training batches"),
            data.batch_size,
            augmentation=data.augmentation,
            dtype=dtype,
            mesh=problem.mesh,
        ) as train,
        open_source(
            problem.valid, fold(key, "validation batches"), data.valid_batch_size, dtype=dtype, mesh=problem.mesh
        ) as valid,
    ):
        streamed = isinstance(problem.train, StreamedPart)
        yield Sources(timed(train), timed(valid), (lambda: waited) if streamed else None)


def make_validation(config: SearchConfig, problem: Problem, child: Child) -> Score:
    """Returns the function that scores a child on validation images, the same for all."""
    return make_score(
        child,
        problem.valid,
        batch_size=config.data.valid_batch_size,
        num_images=config.derive.valid_images,
        dtype=config.network.dtype,
        seed=config.seed,
        mesh=problem.mesh,
    )


def search_recipe(config: SearchConfig, steps: int = 0) -> Recipe:
    """Returns the recipe by which a search trains shared weights, or a child's own, whose steps each is given."""
    optimizer, data = config.optimizer, config.data
    return Recipe(
        steps=steps,
        batch_size=data.batch_size,
        learning_rate=optimizer.learning_rate,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        augmentation=data.augmentation,
        eval_batch_size=_EVAL_BATCH_SIZE,
        nesterov=optimizer.nesterov,
        final_learning_rate=optimizer.final_learning_rate,
        clip=optimizer.clip,
    )


def open_table(config: SearchConfig) -> Table | None:
    """Returns the published table by which the config's cell is judged, or None where it names none.

    Raises:
      UserError: it is unusable, or has no figures for this space or dataset.
    """
    return open_published(get_space(config.space), config.dataset, expanded(config.table)) if config.table else None


def check_cells(space: Space, shape: Shape) -> None:
    """Raises `UserError` where the size leaves a kind of cell without a place, or another size unread."""
    if shape.stem in STEM_STRIDES and shape.stem_stride != 1:
        raise UserError(f"config.network.stem_stride means nothing to the stem of {shape.stem}; leave one of them out")
    missing = sorted(set(space.cells) - set(cell_kinds(space, shape).values()))
    if missing:
        raise UserError(
            f"config.network.cells={shape.cells} leaves no {' and no '.join(missing)} cell in {space.name}; "
            "give more cells"
        )


def _read(config: SearchConfig) -> InMemory:
    """Returns a config's dataset, and its parts in the device's memory; raises `UserError`."""
    dataset = load(config.dataset, config.data_dir, config.data.image_size)
    height, width, channels = dataset.images.shape[1:]
    check_search_memory(config, get_space(config.space), (height, width, channels))
    train, valid = split(dataset, config.data.valid_fraction, config.seed)
    mean, std = channel_statistics(dataset.images[train])
    return InMemory(dataset, *(training_batches(dataset, rows, mean, std) for rows in (train, valid)))


def _list(config: SearchConfig) -> tuple[StreamedDataset, StreamedPart, StreamedPart]:
    """Returns a config's streamed dataset, and how its parts are read; raises `UserError`."""
    data = config.data
    dataset = open_stream(config.dataset, config.data_dir, data.image_size)
    check_search_memory(config, get_space(config.space), (data.image_size, data.image_size, 3))
    train, valid = split_rows(dataset, data.valid_fraction, config.seed)

    def part(rows: np.ndarray, crop_area: float) -> StreamedPart:
        return StreamedPart(
            dataset.examples,
            rows,
            data.image_size,
            crop_area,
            data.workers,
            config.seed,
            most_unreadable=data.unreadable_limit,
        )

    return dataset, part(train, data.crop_area), part(valid, 1.0)
