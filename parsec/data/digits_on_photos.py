"""Digits on photographs: a task that tells cells apart, of real pixels that come with scikit-learn, with no download.

Each of the digits of `parsec.data.digits` is used four times: turned by up to 15 degrees, enlarged 1.3 to 1.7 times,
moved by up to 1.5 pixels, and combined with a piece of one of scikit-learn's two sample photographs, as the absolute
difference of the two, channel by channel. MNIST-M was made so, from MNIST and photographs of BSDS500 (Y. Ganin and
V. Lempitsky, Unsupervised Domain Adaptation by Backpropagation, ICML 2015, arXiv:1409.7495, section 4.1). A digit has
no brightness or colour of its own here, only an outline among those of the photograph.
"""

import math

import numpy as np
from PIL import Image

from parsec.data.dataset import Dataset, resized, stratified
from parsec.data.digits import source_digits

_SIDE = 16
_USES = 4
_MOST_DEGREES = 15.0
_ENLARGED = (1.3, 1.7)
_MOST_PIXELS = 1.5
# A piece of a photograph is 1, 2 or 3 times as large as the canvas, and shrunk to it.
_COARSEST = 3
_TEST_FRACTION = 0.25
# Photographs are cut into upright strips, and each of these into a left part behind training digits and a right part
# behind test digits, so that the two kinds are alike and share no pixel.
_STRIP = 160
_TRAIN_STRIP = 112


def load_digits_on_photos(data_dir: str, image_size: int) -> Dataset:
    """Returns the digits on photographs, always the same.

    The test part shares no digit and no pixel of a photograph with the training images. A validation part that is split
    from these shares digits with the others, each on another background.

    Args:
      data_dir: not needed; digits and photographs lie inside scikit-learn.
      image_size: side in pixels; 0 keeps the 16x16 that the images are made at.

    Returns:
      A `Dataset` of 5,392 training and 1,796 test images, three channels.
    """
    del data_dir
    digits, labels = source_digits()
    photos = _sample_photos()
    train, test = stratified(labels, _TEST_FRACTION, 0)
    behind_train = _strips(photos, 0, _TRAIN_STRIP)
    behind_test = _strips(photos, _TRAIN_STRIP, _STRIP)
    chosen, test_chosen = np.repeat(train, _USES), np.repeat(test, _USES)
    dataset = Dataset(
        "digits_on_photos",
        _on_photos(np.random.default_rng(0), digits[chosen], behind_train),
        labels[chosen],
        _on_photos(np.random.default_rng(1), digits[test_chosen], behind_test),
        labels[test_chosen],
        tuple(str(digit) for digit in range(10)),
    )
    return resized(dataset, image_size)


def _on_photos(rng: np.random.Generator, digits: np.ndarray, photos: list[Image.Image]) -> np.ndarray:
    """Returns digits uint8 [N, 8, 8, 1] on random pieces of the photographs, uint8 [N, 16, 16, 3]."""
    pairs = [(_placed(rng, digit[..., 0]), _piece(rng, photos[rng.integers(len(photos))])) for digit in digits]
    return np.stack([np.abs(piece.astype(np.int16) - placed[..., None]).astype(np.uint8) for placed, piece in pairs])


def _placed(rng: np.random.Generator, digit: np.ndarray) -> np.ndarray:
    """Returns the digit uint8 [8, 8] turned, enlarged and moved on a black canvas, int16 [16, 16]."""
    angle = math.radians(rng.uniform(-_MOST_DEGREES, _MOST_DEGREES))
    scale = rng.uniform(*_ENLARGED)
    row, column = _SIDE / 2 + rng.uniform(-_MOST_PIXELS, _MOST_PIXELS, 2)
    # A black frame, so that the digit's edge fades as its inside does.
    framed = Image.fromarray(np.pad(digit, 1))
    across, down = math.cos(angle) / scale, math.sin(angle) / scale
    middle = framed.width / 2
    # Pillow is told where in the digit a pixel (x, y) of the canvas lies: (ax + by + c, dx + ey + f).
    source = (
        *(across, down, middle - across * column - down * row),
        *(-down, across, middle + down * column - across * row),
    )
    canvas = framed.transform((_SIDE, _SIDE), Image.Transform.AFFINE, source, Image.Resampling.BILINEAR)
    return np.asarray(canvas, np.int16)


def _piece(rng: np.random.Generator, photo: Image.Image) -> np.ndarray:
    """Returns a random piece of the photograph, shrunk 1, 2 or 3 times, uint8 [16, 16, 3]."""
    shrunk = int(rng.integers(1, _COARSEST + 1))
    x, y = (int(rng.integers(0, length - shrunk * _SIDE + 1)) for length in photo.size)
    return np.asarray(photo.crop((x, y, x + shrunk * _SIDE, y + shrunk * _SIDE)).reduce(shrunk))


def _strips(photos: list[Image.Image], left: int, right: int) -> list[Image.Image]:
    """Returns columns `left` to `right` of every strip of every photograph."""
    return [
        photo.crop((start + left, 0, start + right, photo.height))
        for photo in photos
        for start in range(0, photo.width, _STRIP)
    ]


def _sample_photos() -> list[Image.Image]:
    # scikit-learn takes a second to import, which a run on other data need not spend.
    from sklearn import datasets

    return [Image.fromarray(np.asarray(photo)) for photo in datasets.load_sample_images().images]
