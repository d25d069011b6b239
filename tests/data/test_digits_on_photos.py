"""Digits on photographs: always the same, parts that share nothing, and made of the pixels that they are said to be."""

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from parsec.data import Dataset, digits_on_photos, load
from parsec.data.dataset import checked
from parsec.data.digits import source_digits


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load("digits_on_photos")


@pytest.fixture
def calls(monkeypatch) -> list[tuple[list[bytes], list[Image.Image]]]:
    """The digits and the photographs that each part is made of, the pixels not made."""
    seen = []

    def record(rng: np.random.Generator, digits: np.ndarray, photos: list[Image.Image]) -> np.ndarray:
        seen.append(([digit.tobytes() for digit in digits], photos))
        return np.zeros((len(digits), 16, 16, 3), np.uint8)

    monkeypatch.setattr(digits_on_photos, "_on_photos", record)
    return seen


def test_the_parts_have_the_sizes_and_classes_that_are_promised(dataset: Dataset):
    assert checked(dataset).name == "digits_on_photos"
    assert dataset.images.shape == (5392, 16, 16, 3) and dataset.test_images.shape == (1796, 16, 16, 3)
    assert dataset.class_names == tuple("0123456789")
    for labels in (dataset.labels, dataset.test_labels):
        shares = np.bincount(labels, minlength=10) / len(labels)
        assert (abs(shares - 0.1) < 0.01).all()


def test_every_digit_is_used_four_times_and_in_one_part_only(calls: list):
    made = load("digits_on_photos")
    (train, _), (test, _) = calls
    images, labels = source_digits()
    known = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    assert not set(train) & set(test)
    counts = {digit: (train + test).count(digit) for digit in (train[0], train[-1], test[0], test[-1])}
    assert set(counts.values()) == {4} and len(train) + len(test) == 4 * len(images)
    np.testing.assert_array_equal([known[digit] for digit in train], made.labels)
    np.testing.assert_array_equal([known[digit] for digit in test], made.test_labels)


def test_the_parts_share_no_pixel_of_a_photograph(calls: list, monkeypatch):
    # Every pixel tells its column, as red, and its photograph, as blue.
    columns = np.zeros((427, 640, 3), np.uint8)
    columns[..., 0], columns[..., 1] = np.arange(640) % 256, np.arange(640) // 256
    monkeypatch.setattr(
        digits_on_photos, "_sample_photos", lambda: [Image.fromarray(columns), Image.fromarray(columns + np.uint8(8))]
    )
    load("digits_on_photos")
    seen = [{tuple(pixel) for photo in photos for pixel in np.asarray(photo)[0]} for _, photos in calls]
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) == 2 * 640
    assert all(photo.height == 427 for _, photos in calls for photo in photos)


def test_photographs_show_at_the_corners_in_their_own_colours(dataset: Dataset):
    photos = [np.asarray(photo, np.int16) for photo in datasets.load_sample_images().images]
    colours = {tuple(pixel) for photo in photos for pixel in photo.reshape(-1, 3).tolist()}
    # The canvas's corners are out of a digit's reach: there the photograph shows as it is, one time in three unshrunk.
    corners = [tuple(image[0, 0].tolist()) in colours for image in dataset.images[:400]]
    assert np.mean(corners) > 0.4


def test_digits_and_photographs_are_combined_by_their_absolute_difference():
    digits = source_digits()[0][:20]

    def on(colour: tuple[int, int, int]) -> np.ndarray:
        plain = [Image.new("RGB", (60, 60), colour)]
        return digits_on_photos._on_photos(np.random.default_rng(0), digits, plain).astype(int)

    on_black, on_colour = on((0, 0, 0)), on((200, 100, 0))
    assert on_black.max() > 200 and (on_black == 0).mean() > 0.3
    np.testing.assert_array_equal(on_colour, abs(np.array([200, 100, 0]) - on_black))


def test_digits_stay_upright_and_whole():
    images, labels = source_digits()
    rng = np.random.default_rng(0)
    seven = images[np.flatnonzero(labels == 7)[:50]]
    placed = np.stack([digits_on_photos._placed(rng, digit[..., 0]) for digit in np.repeat(seven, 4, 0)])
    # Ink grows with the square of the enlargement; little of it leaves the canvas.
    growth = placed.sum((1, 2)).mean() / seven.sum((1, 2, 3)).mean()
    assert 1.3**2 < growth < 1.7**2
    assert abs(placed[:, :, :8].mean() / placed.mean() - 1) < 0.2
    # The bar of a seven is above.
    assert placed[:, :6].mean() > placed[:, 10:].mean()


def test_it_can_be_made_larger(dataset: Dataset):
    assert load("digits_on_photos", image_size=24).images.shape == (len(dataset.images), 24, 24, 3)
