"""Streamed images: which come when, whatever decodes them, what is unreadable, and what is refused."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from grain.multiprocessing import SharedMemoryArray
from PIL import Image

from configs import imagenet_search
from parsec.data import load, stream
from parsec.data.examples import StreamedDataset, open_stream, split_rows
from parsec.data.memory import finished
from parsec.data.stream import MEAN, STD, StreamedPart, feeding, open_source, stream_once
from parsec.errors import UserError
from parsec.jobs.search.problem import load_problem, open_sources

COUNT = 10


def fill(root: Path, count: int = COUNT, classes: tuple[str, ...] = ("cats", "dogs")) -> None:
    """Makes class folders whose images are of one colour each: red says the class, green the number."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (20, 12), (100 * label, 20 * i, 50)).save(root / name / f"{i:02d}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two classes, parted: twenty images to train on, four for the test."""
    fill(tmp_path / "train")
    fill(tmp_path / "val", 2)
    return tmp_path


def part_of(dataset: StreamedDataset, **changes: Any) -> StreamedPart:
    return StreamedPart(dataset.examples, dataset.rows, 8, **changes)


def which(images: Any) -> list[int]:
    """Returns the number of each image among the twenty, read off its colour; -1 where it is black."""
    centre = np.asarray(images)[:, 4, 4].astype(int)
    return np.where(centre[:, 2] == 50, centre[:, 0] // 100 * COUNT + centre[:, 1] // 20, -1).tolist()


def steps(part: StreamedPart, indices: Iterator[int] | range, batch_size: int = 8) -> list[list[int]]:
    with feeding(part, batch_size) as feed:
        return [which(feed(index).images) for index in indices]


def test_a_folder_is_listed_with_its_parts_and_none_of_it_is_decoded(folder: Path):
    (folder / "train" / "cats" / "notes.txt").write_text("text")
    dataset = open_stream("imagenet", str(folder), 8)
    assert dataset.class_names == ("cats", "dogs")
    assert (len(dataset.rows), len(dataset.test_rows)) == (21, 4)
    assert dataset.labels is not None and np.bincount(dataset.labels).tolist() == [11, 10]
    assert dataset.examples.name(10) == "train/cats/notes.txt" and dataset.test_examples.name(0) == "val/cats/00.png"


def test_without_a_test_part_it_is_that_of_images_in_memory(folder: Path):
    dataset, in_memory = (read(str(folder / "train")) for read in (
        lambda path: open_stream("stream:images", path, 8), lambda path: load("images", path, 8),
    ))  # fmt: skip
    part = StreamedPart(dataset.test_examples, dataset.test_rows, 8)
    ((raw, weights),) = stream_once(part, 4)
    assert weights.tolist() == [1, 1, 1, 1]
    np.testing.assert_array_equal(raw.images, in_memory.test_images)
    np.testing.assert_array_equal(raw.labels, in_memory.test_labels)
    assert not set(dataset.rows) & set(dataset.test_rows) and len(dataset.rows) == 16


def test_a_batch_is_a_function_of_seed_and_step_and_no_image_comes_twice_in_an_epoch(folder: Path):
    dataset = open_stream("imagenet", str(folder), 8)
    part = part_of(dataset, seed=3)
    whole = steps(part, range(6))
    assert steps(part, iter((4, 5, 1, 2))) == [whole[4], whole[5], whole[1], whole[2]]
    # Twenty images are two whole batches of eight.
    for epoch in range(3):
        assert len({*whole[2 * epoch], *whole[2 * epoch + 1]}) == 16
    assert sorted(whole[0]) != sorted(whole[2]) and steps(part._replace(seed=4), range(1)) != whole[:1]
    with feeding(part, 8) as feed:
        raw = feed(0)
        assert np.asarray(raw.labels).tolist() == [at // COUNT for at in whole[0]]
        assert raw.images.dtype == np.uint8 and raw.images.shape == (8, 8, 8, 3)
        np.testing.assert_array_equal(raw.mean, MEAN)
        np.testing.assert_array_equal(raw.std, STD)


def test_processes_decode_the_same_batches_as_threads(folder: Path):
    for i in range(COUNT):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "train" / "cats" / f"{i:02d}.png")
    (folder / "train" / "dogs" / "03.png").write_bytes(b"no image")
    dataset = open_stream("imagenet", str(folder), 8)
    found = []
    for workers in (0, 2):
        names: list[str] = []
        part = part_of(dataset, crop_area=0.3, workers=workers, report=names.extend, most_unreadable=5)
        with feeding(part, 8) as feed:
            batches = [feed(index) for index in range(1, 7)]
        found.append((np.stack([raw.images for raw in batches]), np.stack([raw.labels for raw in batches]), set(names)))
    for threads, processes in zip(*found, strict=True):
        np.testing.assert_array_equal(threads, processes)
    assert found[0][2] == {"train/dogs/03.png"}


def test_a_ctrl_c_while_they_start_does_not_reach_the_processes_and_one_that_died_is_told_in_a_line(folder: Path):
    part = part_of(open_stream("imagenet", str(folder), 8), workers=1)
    sent: list[int] = []

    def interrupt() -> None:
        while len(sent) < 20:
            for child in decoding_children(os.getpid()):
                os.kill(child, signal.SIGINT)
                sent.append(child)
            time.sleep(0.05)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with feeding(part, 8) as feed:
        assert len(which(feed(0).images)) == 8
        thread.join()
        feed(1)
        (child,) = decoding_children(os.getpid())
        os.kill(child, signal.SIGKILL)
        with pytest.raises(UserError, match=r"a process that decodes images died.*config\.data\.workers"):
            for index in range(2, 20):
                feed(index)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_processes_end_with_the_one_that_they_work_for(folder: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "from parsec.data.examples import open_stream\n"
        "from parsec.data.stream import StreamedPart, feeding, stream_once\n"
        "if __name__ == '__main__':\n"
        f"    dataset = open_stream('imagenet', {str(folder)!r}, 8)\n"
        "    with feeding(StreamedPart(dataset.examples, dataset.rows, 8, workers=1), 8) as feed:\n"
        "        feed(0)\n"
        "        print('fed', flush=True)\n"
        "        input()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stdout.readline() == "fed\n"
        children = decoding_children(run.pid)
        assert len(children) == 1
        run.kill()
    for _ in range(100):
        left = [child for child in children if Path(f"/proc/{child}/cmdline").exists()]
        left = [child for child in left if "Z" not in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2][:3]]
        if not left:
            break
        time.sleep(0.1)
    assert not left


def test_a_program_that_streamed_ends_well(folder: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "from parsec.data.examples import open_stream\n"
        "from parsec.data.stream import StreamedPart, feeding, stream_once\n"
        "if __name__ == '__main__':\n"
        f"    dataset = open_stream('imagenet', {str(folder)!r}, 8)\n"
        "    part = StreamedPart(dataset.examples, dataset.rows, 8, workers=2)\n"
        "    with feeding(part, 8) as feed:\n"
        "        kept = [feed(index) for index in range(3)]\n"
        "    for raw, real in stream_once(part, 2):\n"
        "        pass\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    # Shared memory that nobody gave back would be cleaned up, and complained of, by Python's own tracker.
    assert (done.stdout, done.stderr) == ("", "")


class LeftInMemory:
    """An iterator whose arrays lie in shared memory that nobody frees."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __next__(self) -> tuple[SharedMemoryArray, np.ndarray]:
        array = SharedMemoryArray((3,), np.int32)
        array[:] = len(self.names)
        self.names.append(array.shm.name)
        return array, np.zeros(1)

    def close(self) -> None:
        pass

    def left(self) -> list[bool]:
        """Returns whether the memory of each array is there."""
        return [Path("/dev/shm", name.lstrip("/")).exists() for name in self.names]


def test_shared_memory_that_was_read_and_not_freed_is_freed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream, "_REMEMBERED", 3)
    elements = LeftInMemory()
    readers = [stream._Reader(elements, deque())]
    taken = [stream._next(readers[0])[0] for _ in range(5)]
    assert [array.tolist() for array in taken] == [[at] * 3 for at in range(5)]
    assert not any(isinstance(array, SharedMemoryArray) for array in taken)
    assert elements.left() == [False, False, True, True, True]
    # What grain has freed itself is no error.
    stream._give_back(elements.names[3])
    stream._close(readers)
    assert elements.left() == [False] * 5 and not readers


def decoding_children(parent: int) -> list[int]:
    """Returns the processes that Grain started for a process."""
    children = [pid for path in Path(f"/proc/{parent}/task").glob("*/children") for pid in path.read_text().split()]
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_the_next_readable_image_stands_in_for_one_that_is_not(folder: Path):
    part = part_of(open_stream("imagenet", str(folder), 8), seed=1, most_unreadable=5)
    whole = steps(part, range(4))
    for broken in ("03", "04"):
        (folder / "train" / "cats" / f"{broken}.png").write_bytes(b"no image")
    names: list[str] = []
    instead = [[{3: 5, 4: 5}.get(at, at) for at in batch] for batch in whole]
    assert steps(part._replace(report=names.extend), range(4)) == instead
    assert set(names) == {"train/cats/03.png", "train/cats/04.png"}
    # Of a longer row of them, all that were tried are reported, so that whoever counts may stop.
    names.clear()
    for broken in range(1, 10):
        (folder / "train" / "cats" / f"{broken:02d}.png").write_bytes(b"no image")
    steps(part._replace(report=names.extend, most_unreadable=2), range(2))
    assert "train/cats/09.png" in names and max(names.count(name) for name in names) >= 2


def test_the_last_image_is_followed_by_the_first(folder: Path):
    (folder / "train" / "dogs" / "09.png").write_bytes(b"no image")
    part = part_of(open_stream("imagenet", str(folder), 8), most_unreadable=1)
    assert sorted(at for batch in steps(part, range(1), 20) for at in batch) == [0, 0, *range(1, 19)]


def test_where_no_image_can_be_read_it_stops(folder: Path):
    for path in (folder / "train").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the 20 images of a part can be read"):
        steps(part_of(open_stream("imagenet", str(folder), 8), most_unreadable=100), range(1))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_evaluation_sees_every_readable_image_once(folder: Path, workers: int):
    (folder / "train" / "dogs" / "02.png").write_bytes(b"no image")
    names: list[str] = []
    part = part_of(open_stream("imagenet", str(folder), 8), workers=workers, report=names.extend)
    images, labels, weights = [], [], []
    for raw, real in stream_once(part, 8):
        images += which(raw.images)
        labels += np.asarray(raw.labels).tolist()
        weights += real.tolist()
    assert weights == [1.0] * 12 + [0.0] + [1.0] * 7 + [0.0] * 4
    kept = [at for at, weight in zip(images, weights, strict=True) if weight]
    assert kept == [at for at in range(20) if at != 12]
    assert [label for label, weight in zip(labels, weights, strict=True) if weight] == [at // COUNT for at in kept]
    assert names == ["train/dogs/02.png"]


@pytest.mark.parametrize("among", [2, 4])
def test_the_shares_of_several_processes_are_the_whole_batches(
    among: int, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("cats/03.png", "dogs/05.png"):
        (folder / "train" / name).write_bytes(b"no image")
    part = part_of(open_stream("imagenet", str(folder), 8), crop_area=0.3, most_unreadable=3)

    def read() -> tuple[list[np.ndarray], list[np.ndarray], set[str]]:
        names: list[str] = []
        telling = part._replace(report=names.extend)
        with feeding(telling, 8) as feed:
            fed = [feed(index) for index in range(1, 6)]
        seen = [(raw.images, raw.labels, weights) for raw, weights in stream_once(telling, 8)]
        trained = [np.stack([np.asarray(getattr(raw, name)) for raw in fed]) for name in ("images", "labels")]
        return trained, [np.stack([np.asarray(each) for each in part]) for part in zip(*seen, strict=True)], set(names)

    whole = read()
    monkeypatch.setattr(stream, "_joined", lambda shares, size, mesh: [np.asarray(share) for share in shares])
    shares = []
    for place in range(among):
        monkeypatch.setattr(stream, "_own_share", lambda size, mesh, place=place: stream._Share(place, among))
        shares.append(read())
    for kind in (0, 1):
        for expected, *parts in zip(whole[kind], *(share[kind] for share in shares), strict=True):
            assert all(len(one[0]) == 8 // among for one in parts)
            np.testing.assert_array_equal(np.concatenate(parts, 1), expected)
    assert whole[2] == set.union(*(share[2] for share in shares)) == {"train/cats/03.png", "train/dogs/05.png"}
    assert whole[1][2].sum() == 18


@pytest.mark.parametrize(
    ("held", "share"),
    [
        ([slice(None)], (0, 1)),
        ([slice(4, 6), slice(6, 8)], (1, 2)),
        ([slice(4, 6), slice(4, 6)], (2, 4)),
        # No share of equal ones: all is read, and each device is sent its own.
        ([slice(0, 2), slice(4, 6)], (0, 1)),
        ([slice(2, 8)], (0, 1)),
        ([slice(2, 6)], (0, 1)),
    ],
)
def test_a_process_reads_what_its_devices_hold(
    held: list[slice], share: tuple[int, int], monkeypatch: pytest.MonkeyPatch
):
    placement = SimpleNamespace(
        addressable_devices_indices_map=lambda shape: {at: (row,) for at, row in enumerate(held)}
    )
    monkeypatch.setattr(stream, "divided", lambda mesh: placement)
    assert stream._own_share(8, None) == share


def test_an_evaluation_sees_the_centre_and_a_training_what_was_cropped(tmp_path: Path):
    picture = np.zeros((256, 512, 3), np.uint8)
    picture[16:240, 144:368] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.fromarray(picture).save(tmp_path / name / f"{i}.png")
    dataset = open_stream("stream:images", str(tmp_path), 32)
    ((raw, _),) = stream_once(StreamedPart(dataset.examples, dataset.rows, 32), 16)
    # 224 of 256 pixels of the short side; the filter reaches one beyond the cut.
    seen = np.asarray(raw.images)
    assert (seen[:, 1:-1, 1:-1] == 255).all() and (seen[:, 0] < 230).all() and (seen[:, :, -1] < 230).all()
    part = StreamedPart(dataset.examples, dataset.rows, 32, crop_area=0.08)
    with feeding(part, 16) as feed:
        first, again = feed(0).images, feed(1).images
    with feeding(part, 16) as feed:
        np.testing.assert_array_equal(first, feed(0).images)
    shares = (np.asarray(first) > 128).mean((1, 2, 3))
    assert len(set(shares)) > 12 and not np.array_equal(first, again), "each image, each epoch, has a crop of its own"
    with feeding(part._replace(crop_area=1.0), 16) as feed:
        whole = np.asarray(feed(0).images)
    assert (whole == whole[:1]).all()


def test_the_digest_is_of_names_and_sizes(folder: Path):
    first = open_stream("imagenet", str(folder), 8).digest
    path = folder / "val" / "cats" / "00.png"
    content = path.read_bytes()
    path.write_bytes(content[::-1])
    assert open_stream("imagenet", str(folder), 8).digest == first
    path.write_bytes(content + b" ")
    second = open_stream("imagenet", str(folder), 8).digest
    path.write_bytes(content)
    path.rename(path.with_name("zero.png"))
    assert len({first, second, open_stream("imagenet", str(folder), 8).digest}) == 3


def test_validation_images_are_stratified_and_never_trained_on(folder: Path):
    dataset = open_stream("imagenet", str(folder), 8)
    train, valid = split_rows(dataset, 0.2, 0)
    assert sorted([*train, *valid]) == list(range(20)) and [int((valid < COUNT).sum()), len(valid)] == [2, 4]
    assert len(split_rows(dataset, 0.0, 0)[1]) == 0
    with pytest.raises(UserError, match=r"valid_fraction 0\.01 parts the 20"):
        split_rows(dataset, 0.01, 0)
    unknown = dataset._replace(labels=None)
    assert len(split_rows(unknown, 0.2, 0)[1]) == 4
    assert split_rows(unknown, 0.2, 0)[1].tolist() != split_rows(unknown, 0.2, 1)[1].tolist()


@pytest.mark.parametrize(
    ("name", "data_dir", "size", "says"),
    [
        ("imagenet", "NOWHERE", 8, "does not exist"),
        ("stream:images", "", 8, "data_dir=FOLDER"),
        ("imagenet", "EMPTY", 8, "a subfolder of images for each of at least 2 classes; it has none"),
        ("imagenet", "HOLLOW", 8, r"class folder \S*b holds no image: no file"),
        (
            "imagenet",
            "",
            8,
            r"imagenet2012 is not prepared in .*tar.*image-net\.org.*tfds build imagenet2012 --data_dir",
        ),
        ("stream:tfds:mnits", "", 8, "has no 'mnits'; did you mean 'mnist'"),
        (
            "stream:imges",
            "",
            8,
            "unknown dataset 'stream:imges'; streamed are imagenet, stream:images and stream:tfds:",
        ),
        ("imagenet", "", 0, "image_size 0 is too small"),
    ],
)
def test_what_cannot_be_streamed_is_told_in_a_line(
    name: str, data_dir: str, size: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "prepared"))
    (tmp_path / "EMPTY").mkdir()
    fill(tmp_path / "HOLLOW", 1, ("a",))
    (tmp_path / "HOLLOW" / "b").mkdir()
    with pytest.raises(UserError, match=says) as caught:
        open_stream(name, str(tmp_path / data_dir) if data_dir else "", size)
    assert "\n" not in str(caught.value)


def test_a_batch_must_not_be_larger_than_the_data(folder: Path):
    part = part_of(open_stream("imagenet", str(folder), 8))
    with pytest.raises(UserError, match="batch_size=21 is larger than the 20 images"), feeding(part, 21):
        pass


def test_streamed_names_are_refused_where_images_must_be_in_memory():
    for name in ("imagenet", "stream:tfds:mnist"):
        with pytest.raises(UserError, match=rf"dataset '{name}' is streamed, which only the training of one network"):
            load(name)


def store_imagenet(folder: Path, splits: dict[str, list[int]]) -> None:
    """Prepares a few images as TensorFlow Datasets prepares imagenet2012; labels by split, red says the number."""
    known = tfds.builder("imagenet2012", data_dir=str(folder), file_format="array_record").info
    with tfds.core.registered.skip_registration():

        class Made(tfds.core.GeneratorBasedBuilder):
            VERSION = known.version

            def _info(self) -> tfds.core.DatasetInfo:
                return tfds.core.DatasetInfo(builder=self, features=known.features)

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                return {split: self._examples(labels) for split, labels in splits.items()}

            def _examples(self, labels: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
                for i, label in enumerate(labels):
                    file = io.BytesIO()
                    Image.new("RGB", (20, 12), (10 * i, 0, 0)).save(file, "JPEG", quality=95)
                    file.seek(0)
                    yield i, {"image": file, "label": label, "file_name": f"{i}.JPEG"}

            def _generate_examples(self) -> None:
                raise NotImplementedError

        Made.name = "imagenet2012"
        Made(data_dir=str(folder), file_format="array_record").download_and_prepare()


def test_prepared_imagenet_is_read_record_by_record(tmp_path: Path):
    store_imagenet(tmp_path, {"train": [5, 900, 7, 8, 9, 10], "test": [-1, -1], "validation": [3, 4, 5]})
    dataset = open_stream("imagenet", str(tmp_path), 8)
    assert len(dataset.class_names) == 1000 and (len(dataset.rows), len(dataset.test_rows)) == (6, 3)
    # Labels of the split "test" are secret.
    ((raw, weights),) = stream_once(StreamedPart(dataset.test_examples, dataset.test_rows, 8), 3)
    assert sorted(np.asarray(raw.labels).tolist()) == [3, 4, 5] and weights.tolist() == [1, 1, 1]
    for workers in (0, 1):
        part = StreamedPart(dataset.examples, dataset.rows, 8, workers=workers)
        with feeding(part, 6) as feed:
            raw = feed(0)
        reds = np.asarray(raw.images)[:, 4, 4, 0].astype(int)
        assert sorted(np.asarray(raw.labels).tolist()) == [5, 7, 8, 9, 10, 900]
        order = np.round(reds / 10).astype(int)
        assert [[5, 900, 7, 8, 9, 10][at] for at in order] == np.asarray(raw.labels).tolist()
    assert dataset.examples.name(4) == "train[4]"
    assert open_stream("stream:tfds:imagenet2012", str(tmp_path), 8).digest == dataset.digest


def test_a_search_draws_its_two_parts_from_prepared_imagenet(tmp_path: Path):
    store_imagenet(tmp_path, {"train": [5, 900, 7, 8, 9, 10], "validation": [3, 4, 5]})
    config = imagenet_search.get_config("quick")
    data = replace(config.data, batch_size=4, valid_batch_size=2, valid_fraction=0.34, image_size=8)
    config = replace(config, data_dir=str(tmp_path), data=data)
    problem = load_problem(config)
    assert problem.shape.num_classes == 1000 and problem.image == (8, 8, 3)
    with open_sources(config, problem) as (train, valid, _):
        parts = [sorted(np.asarray(source.batch(0).labels).tolist()) for source in (train, valid)]
    assert sorted(parts[0] + parts[1]) == [5, 7, 8, 9, 10, 900]


def test_a_source_augments_and_normalises_what_is_read(folder: Path):
    part, key = part_of(open_stream("imagenet", str(folder), 8), seed=3), jax.random.key(0)
    with feeding(part, 8) as feed, open_source(part, key, 8, augmentation="flip") as source:
        for index in (2, 3, 1):
            raw, batch = feed(index), source.batch(index)
            expected = finished(raw, key, index, augmentation="flip")
            np.testing.assert_allclose(batch.images, expected.images, atol=1e-6)
            np.testing.assert_array_equal(batch.labels, raw.labels)
    assert (source.num_examples, source.steps_per_epoch) == (20, 2)
    with pytest.raises(UserError, match="batch_size=21 is larger"), open_source(part, key, 21):
        pass


def test_importing_the_data_does_not_import_grain():
    code = "import sys, parsec.data, parsec.data.stream; print('grain' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
