import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsec.data import load, split
from parsec.data.dataset import Dataset, channel_statistics, checked, class_sizes, resized, stratified, with_test_part
from parsec.errors import UserError


def _dataset(labels: list[int], side: int = 4, channels: int = 3) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(labels), side, side, channels), np.uint8)
    names = tuple(f"class {i}" for i in range(max(labels) + 1))
    return Dataset("made", images, np.array(labels), images[:0], np.zeros(0, np.int32), names)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    fraction=st.floats(0, 0.95),
    seed=st.integers(0, 2**31),
)
def test_stratified_takes_its_share_of_all_and_of_each_class(labels: list[int], fraction: float, seed: int):
    target = np.array(labels)
    left, taken = stratified(target, fraction, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([left, taken])), np.arange(len(labels)))
    assert (np.diff(left) > 0).all() and (np.diff(taken) > 0).all()
    assert set(target[left]) == set(target), "no class may be taken whole"
    given_back = 0
    for label in set(labels):
        members = np.flatnonzero(target == label)
        share = np.isin(members, taken).sum()
        assert abs(share - fraction * len(members)) <= 1 + 1e-9
        given_back += share == len(members) - 1
    assert abs(len(taken) - fraction * len(labels)) <= 0.5 + given_back + 1e-9


def test_stratified_halves_exactly_and_depends_on_the_seed_only():
    labels = np.repeat(np.arange(10), 50)
    left, taken = stratified(labels, 0.5, 3)
    assert np.bincount(labels[left]).tolist() == [25] * 10 == np.bincount(labels[taken]).tolist()
    np.testing.assert_array_equal(taken, stratified(labels, 0.5, 3)[1])
    other = stratified(labels, 0.5, 4)[1]
    # Two independent halves share half of their members: 125, with a deviation near 6.
    assert 95 < len(np.intersect1d(taken, other)) < 155


def test_split_parts_the_training_images_and_refuses_an_empty_part():
    dataset = _dataset([0, 1] * 20)
    train, valid = split(dataset, 0.5, 0)
    assert len(train) == len(valid) == 20 and train.dtype == valid.dtype == np.int32
    for fraction in (0.0, 0.001, 1.0, -0.1, float("nan")):
        with pytest.raises(UserError, match="part"):
            split(dataset, fraction, 0)


def test_a_test_part_is_moved_not_copied():
    dataset = _dataset([0, 1, 2] * 10)
    parted = with_test_part(dataset, 0.2)
    assert len(parted.images) == 24 and len(parted.test_images) == 6
    rows = {image.tobytes() for image in (*parted.images, *parted.test_images)}
    assert rows == {image.tobytes() for image in dataset.images}
    assert np.bincount(parted.test_labels).tolist() == [2, 2, 2]


def test_channel_statistics_equal_numpys():
    images = np.random.default_rng(1).integers(0, 256, (50, 7, 5, 3), np.uint8)
    images[..., 2] = 9
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std[:2], images.std((0, 1, 2))[:2], rtol=1e-6)
    assert std[2] == 1 and mean.dtype == std.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((4, 4, 4, 3), np.float32)}, "float32"),
        ({"images": np.zeros((4, 4, 4, 2), np.uint8)}, r"\[4, 4, 4, 2\]"),
        ({"labels": np.array([0, 1, 0])}, "4 images and 3 labels"),
        ({"labels": np.array([0, 1, 0, 2])}, "a label 2; with 2 classes they run from 0 to 1"),
        ({"labels": np.array([0, 1, 0, -1])}, "a label -1"),
        ({"labels": np.array([0.0, 1.0, 0.0, 1.0])}, "float64"),
        ({"test_images": np.zeros((2, 5, 5, 3), np.uint8), "test_labels": np.zeros(2, np.int32)}, r"\[5, 5, 3\]"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8), "labels": np.zeros(0, np.int32)}, "no training image"),
    ],
)
def test_checked_refuses_what_the_types_do_not_promise(change: dict, message: str):
    with pytest.raises(UserError, match=message) as caught:
        checked(_dataset([0, 1, 0, 1])._replace(**change))
    assert "\n" not in str(caught.value)


def test_checked_gives_int32_labels():
    assert checked(_dataset([0, 1])).labels.dtype == np.int32


def test_resized_halves_by_averaging_and_leaves_the_right_size_alone():
    dataset = _dataset([0, 1], side=8, channels=1)
    assert resized(dataset, 8) is dataset and resized(dataset, 0) is dataset
    flat = dataset._replace(images=np.full_like(dataset.images, 77))
    assert (resized(flat, 4).images == 77).all()
    half = resized(dataset, 4)
    assert half.images.shape == (2, 4, 4, 1) and half.test_images.shape == (0, 4, 4, 1)
    blocks = dataset.images.reshape(2, 4, 2, 4, 2, 1).mean((2, 4))
    assert np.corrcoef(half.images.ravel(), blocks.ravel())[0, 1] > 0.8
    with pytest.raises(UserError, match="negative"):
        resized(dataset, -1)


def test_an_unknown_dataset_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown dataset 'digit'.*did you mean 'digits'"):
        load("digit")


def test_the_sizes_of_classes_are_told_in_words():
    images = np.zeros((7, 2, 2, 1), np.uint8)
    labels, test_labels = np.array([0, 0, 0, 0, 1, 2, 2], np.int32), np.array([0, 2], np.int32)
    dataset = Dataset("mine", images, labels, images[:2], test_labels, ("ant", "bee", "cat"))
    assert class_sizes(dataset) == "3, from 'bee' with 1 to 'ant' with 4 to learn from; none for the test of 'bee'"
    assert class_sizes(dataset._replace(test_labels=labels)).endswith("to learn from")
