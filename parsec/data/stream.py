"""Images that are streamed: read and decoded while the network trains, in threads or processes, never held in memory.

Which examples (`parsec.data.examples`) make up a batch, and how each is cropped, is a function of the seed and the
step's number alone: the order is a permutation of all examples, made new for every epoch, that can be asked for single
places. Grain (https://github.com/google/grain) permutes, reads ahead and shares the work
out; how many processes decode changes no batch. Where several processes train together, each reads of every batch the
share that its own devices hold, and no more.

An image that cannot be read is passed over. In training the next readable one, in the order of the part, stands in for
it; in an evaluation it does not count. Either way it is reported by name.
"""

import contextlib
import gc
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from parsec.data.examples import Examples
from parsec.data.images import CENTRE, decode, random_crop, to_square
from parsec.data.memory import Batches, finished, memory_source, steps_per_epoch
from parsec.data.source import Batch, RawBatch, Source
from parsec.devices import divided, place, whole
from parsec.errors import UserError
from parsec.processes import end_with_parent, leaving_interrupts

# The usual mean and deviation of ImageNet's channels, in units of the pixels.
MEAN, STD = 255 * np.array([0.485, 0.456, 0.406], np.float32), 255 * np.array([0.229, 0.224, 0.225], np.float32)
# Batches that are decoded side by side in one process, each by a thread; at most twice as many wait to be taken.
_MOST_THREADS = 8
# Batches that each of several processes keeps ready.
_READY = 1
# Arrays after which one that was read must have been given back; and seconds that this is waited for at the end.
_REMEMBERED, _PATIENCE = 256, 10.0

# `feed(index) -> what step `index` is fed`; steps are asked for in their order.
Feed = Callable[[int], Batches | RawBatch]


class StreamedPart(NamedTuple):
    """One part of a dataset, and how it is read.

    Attributes:
      examples: the whole.
      rows: int32 [N], those of the part.
      image_size: side in pixels.
      crop_area: least share of an image's area that a random crop keeps in training; 1 cuts the centre out.
      workers: processes that decode; 0 decodes in threads of this one.
      seed: of order and crops.
      report: is given the names of images that could not be read, as soon as their batch is taken.
      most_unreadable: images in a row that may be passed over; beyond them an image stays black, and all are reported.
    """

    examples: Examples
    rows: np.ndarray
    image_size: int
    crop_area: float = 1.0
    workers: int = 0
    seed: int = 0
    report: Callable[[list[str]], None] = lambda names: None
    most_unreadable: int = 0

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.rows)


# One part of the images of a job, in memory or streamed.
Part = Batches | StreamedPart


@contextlib.contextmanager
def open_source(
    part: Part,
    key: jax.Array,
    batch_size: int,
    *,
    augmentation: str = "none",
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> Iterator[Source]:
    """Yields the source of a part's batches, wherever its images are; see `parsec.data.memory.memory_source`.

    Of a streamed part the batches are as `feeding` reads them, its own crops included, then augmented and normalised.

    Raises:
      UserError: the batch is empty, or larger than the data; or, of a batch, a decoding process died.
    """
    if isinstance(part, Batches):
        yield memory_source(part, key, batch_size, augmentation=augmentation, dtype=dtype, mesh=mesh)
        return

    @partial(jax.jit, out_shardings=divided(mesh))
    def finish(raw: RawBatch, index: jax.Array) -> Batch:
        return finished(raw, key, index, augmentation=augmentation, dtype=dtype)

    per_epoch = steps_per_epoch(part.num_examples, batch_size)
    with feeding(part, batch_size, mesh) as feed:
        yield Source(lambda index: finish(feed(index), jnp.asarray(index, jnp.int32)), part.num_examples, per_epoch)


@contextlib.contextmanager
def feeding(part: Part, batch_size: int, mesh: Mesh | None = None) -> Iterator[Feed]:
    """Yields what gives each training step its images: all of them where they are in memory, or the step's own batch.

    Batches are read ahead of the steps, from the first that is asked for on; whoever asks out of turn waits.

    Args:
      part: the images.
      batch_size: B.
      mesh: the devices that a batch that was read is divided among.

    Raises:
      UserError: the batch is empty, or larger than the data; or, of a feed, a decoding process died.
    """
    if isinstance(part, Batches):
        in_memory: Batches = part
        yield lambda index: in_memory
        return
    per_epoch = steps_per_epoch(part.num_examples, batch_size)
    batches = _training_shares(part, batch_size, per_epoch, _own_share(batch_size, mesh))
    readers: list[_Reader] = []
    expected = -1

    def feed(index: int) -> RawBatch:
        nonlocal expected
        if index != expected:
            # One at a time: each holds processes and batches.
            _close(readers)
            readers.append(_read_ahead(batches[index:], part.workers))
        images, labels, at, missed = _next(readers[0])
        expected = index + 1
        _report(part, at, missed)
        return _raw(_joined((images, labels), batch_size, mesh), mesh)

    try:
        yield feed
    finally:
        _close(readers)


def stream_once(part: StreamedPart, batch_size: int, mesh: Mesh | None = None) -> Iterator[tuple[RawBatch, jax.Array]]:
    """Yields every image of a part once, in order, for an evaluation.

    Args:
      part: the images; `crop_area` and `seed` mean nothing here.
      batch_size: B.
      mesh: the devices that a batch is divided among.

    Yields:
      A batch of B, and weights float32 [B]: 1, and 0 for an image that cannot be read, or that fills the last batch up.

    Raises:
      UserError: a decoding process died.
    """
    share = _own_share(batch_size, mesh)
    batches, size = _evaluation_shares(part, batch_size, share), batch_size // share.among
    readers = [_read_ahead(batches, part.workers)]
    try:
        for index in range(-(-part.num_examples // batch_size)):
            # Of the last batch, this process's share may be empty.
            images, labels, at, missed = _next(readers[0]) if index < len(batches) else _nothing(part.image_size)
            _report(part, at, missed)
            weights = (missed == 0).astype(np.float32)
            filled = [
                np.pad(array, [(0, size - len(array)), *[(0, 0)] * (array.ndim - 1)])
                for array in (images, labels, weights)
            ]
            images, labels, weights = _joined(filled, batch_size, mesh)
            yield _raw((images, labels), mesh), weights
    finally:
        _close(readers)


class _Share(NamedTuple):
    """The `place`-th of `among` equal shares of every batch."""

    place: int
    among: int


def _own_share(batch_size: int, mesh: Mesh | None) -> _Share:
    """Returns the share of a batch that is what this process's devices hold; all of it where no share is."""
    held = divided(mesh).addressable_devices_indices_map((batch_size,)).values()
    rows = {row for part in held if part is not None for row in range(*part[0].indices(batch_size))}
    first, size = min(rows), len(rows)
    alike = max(rows) - first < size and first % size == batch_size % size == 0
    return _Share(first // size, batch_size // size) if alike else _Share(0, 1)


def _training_shares(part: StreamedPart, batch_size: int, per_epoch: int, share: _Share) -> Any:
    """Returns a share of each training batch, as a map dataset without end."""
    places = _grain().MapDataset.range(part.num_examples).seed(part.seed).shuffle()
    images = places.random_map(_ForTraining(*_read_by(part), part.crop_area, part.most_unreadable + 1))
    shares = images.batch(batch_size // share.among, drop_remainder=True)
    return shares[share.place : per_epoch * share.among : share.among].repeat()


def _evaluation_shares(part: StreamedPart, batch_size: int, share: _Share) -> Any:
    """Returns a share of each batch of all images in order, as a map dataset; of the last it may be shorter or none."""
    images = _grain().MapDataset.range(part.num_examples).map(_ForEvaluation(*_read_by(part)))
    return images.batch(batch_size // share.among)[share.place :: share.among]


@dataclass(frozen=True)
class _ForTraining:
    """Reads the image at a place of a part, cropped at random: (pixels, label, place, images passed over)."""

    examples: Examples
    rows: np.ndarray
    image_size: int
    crop_area: float
    most: int

    def __call__(self, place: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        for missed in range(min(self.most, len(self.rows))):
            # Whatever a damaged file or record leads to, it is unreadable.
            with contextlib.suppress(Exception):
                content, label = self.examples.read(int(self.rows[(place + missed) % len(self.rows)]))
                image = random_crop(decode(content, "RGB"), self.image_size, self.crop_area, rng)
                return _element(np.asarray(image), label, place, missed)
        return _element(_black(self.image_size), 0, place, min(self.most, len(self.rows)))


@dataclass(frozen=True)
class _ForEvaluation:
    """Reads the image at a place of a part, its centre: (pixels, label, place, 1 where it cannot be read)."""

    examples: Examples
    rows: np.ndarray
    image_size: int

    def __call__(self, place: int) -> tuple[np.ndarray, ...]:
        with contextlib.suppress(Exception):
            content, label = self.examples.read(int(self.rows[place]))
            # What is cut away of the short side is left out of the draft too.
            image = to_square(decode(content, "RGB", math.ceil(self.image_size / CENTRE)), self.image_size, CENTRE)
            return _element(np.asarray(image), label, place, 0)
        return _element(_black(self.image_size), 0, place, 1)


def _element(pixels: np.ndarray, *numbers: int) -> tuple[np.ndarray, ...]:
    return pixels, *(np.array(number, np.int32) for number in numbers)


def _black(size: int) -> np.ndarray:
    return np.zeros((size, size, 3), np.uint8)


def _nothing(size: int) -> tuple[np.ndarray, ...]:
    return np.zeros((0, size, size, 3), np.uint8), *(np.zeros(0, np.int32),) * 3


def _read_by(part: StreamedPart) -> tuple[Examples, np.ndarray, int]:
    return part.examples, part.rows, part.image_size


def _joined(shares: Sequence[np.ndarray], batch_size: int, mesh: Mesh | None) -> list[jax.Array]:
    """Returns arrays [B, ...] on the mesh's devices, of each of which this process gives its share."""
    # Each device is sent its own examples, and no others.
    return [
        jax.make_array_from_process_local_data(divided(mesh), share, (batch_size, *share.shape[1:])) for share in shares
    ]


def _raw(fed: Sequence[jax.Array], mesh: Mesh | None) -> RawBatch:
    return RawBatch(*fed, *place((MEAN, STD), whole(mesh)))


def _report(part: StreamedPart, at: np.ndarray, missed: np.ndarray) -> None:
    """Reports the images passed over: so many from each place on; raises `UserError` where those are all there are."""
    places = [int(place) + beyond for place, count in zip(at, missed, strict=True) for beyond in range(int(count))]
    if places:
        part.report([part.examples.name(int(part.rows[place % part.num_examples])) for place in places])
    if (missed >= part.num_examples).any():
        raise UserError(f"none of the {part.num_examples} images of a part can be read")


class _Reader(NamedTuple):
    """Reads batches ahead.

    Attributes:
      elements: Grain's iterator.
      shared: names of the shared memory that the last batches came in.
    """

    elements: Any
    shared: deque[str]


def _read_ahead(batches: Any, workers: int) -> _Reader:
    """Returns a reader of a map dataset that decodes ahead, in `workers` processes or else in threads."""
    grain = _grain()
    if workers:
        resource_tracker.ensure_running()
        ahead = batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_READY)
        return _Reader(iter(ahead.mp_prefetch(options, worker_init_fn=_begin_worker)), deque())
    threads = min(os.cpu_count() or 1, _MOST_THREADS)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return _Reader(iter(batches.to_iter_dataset(options)), deque())


def _next(reader: _Reader) -> tuple[np.ndarray, ...]:
    try:
        # The first call starts the processes.
        with leaving_interrupts():
            arrays = next(reader.elements)
    except RuntimeError as error:
        # Grain's word for it; the functions that read raise nothing.
        if "terminated unexpectedly" not in str(error):
            raise
        raise UserError(
            "a process that decodes images died, for lack of memory or of room in /dev/shm; lower "
            "--config.data.workers, or set it to 0"
        ) from error
    held = [array for array in arrays if getattr(array, "shm", None) is not None]
    reader.shared.extend(array.shm.name for array in held)
    while len(reader.shared) > _REMEMBERED:
        _give_back(reader.shared.popleft())
    # Copies: JAX may keep an array until the interpreter ends, by when shared memory must have been given back.
    return tuple(map(np.array, arrays)) if held else arrays


def _close(readers: list[_Reader]) -> None:
    shared = [name for reader in readers for name in reader.shared]
    try:
        while readers:
            readers.pop().elements.close()
    finally:
        # Grain's iterators are cycles; one that outlives the interpreter complains.
        gc.collect()
        # Grain gives shared memory back in a thread, in turn; what is in its queue at the end is complained of too.
        returning = getattr(_grain().multiprocessing.SharedMemoryArray, "_del_thread_pool", None)
        if returning is not None:
            # Where the interpreter ends already, so has the thread.
            with contextlib.suppress(ValueError):
                returning.apply_async(int).wait(_PATIENCE)
        for name in shared:
            _give_back(name)


def _give_back(name: str) -> None:
    """Frees what a batch that was taken came in and Grain has not freed, as happens to few where processes starve."""
    with contextlib.suppress(FileNotFoundError):
        left = SharedMemory(name)
        left.close()
        left.unlink()


def _begin_worker(worker: int, workers: int) -> None:
    """Has a process that decodes end when the one that it works for does, however that is."""
    del worker, workers
    end_with_parent()


def _grain() -> Any:
    # Two seconds, which a run on images in memory need not spend.
    import grain
    from absl import flags

    # Grain asks for flags of its own when it starts a process, whoever the program's command line belongs to.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    return grain
