"""Crops of single images, their rectangle read off an image whose colours are coordinates."""

import numpy as np
import pytest
from PIL import Image

from parsec.data.images import CENTRE, random_crop, to_square

WIDTH, HEIGHT, SIZE = 240, 180, 60


def rectangle(crop: Image.Image) -> tuple[float, float, float, float]:
    """Returns (left, top, width, height) of what was cut out of the image of `coordinates`."""
    pixels = np.asarray(crop, np.float64)
    (left, right), (top, bottom) = pixels[0, [0, -1], 0], pixels[[0, -1], 0, 1]
    # From the centre of the first pixel to that of the last is one pixel less than the whole.
    wide, high = ((last - first) * SIZE / (SIZE - 1) for first, last in ((left, right), (top, bottom)))
    return left - wide / SIZE / 2 + 0.5, top - high / SIZE / 2 + 0.5, wide, high


def coordinates() -> Image.Image:
    rows, columns = np.indices((HEIGHT, WIDTH), np.uint8)
    return Image.fromarray(np.stack([columns, rows, rows], -1))


@pytest.mark.parametrize("least_area", [0.08, 0.5])
def test_random_crops_have_every_share_ratio_and_place(least_area: float):
    rng, image = np.random.default_rng(0), coordinates()
    found = np.array([rectangle(random_crop(image, SIZE, least_area, rng)) for _ in range(400)])
    left, top, wide, high = found.T
    shares, ratios = wide * high / (WIDTH * HEIGHT), wide / high
    assert least_area * 0.9 < shares.min() < least_area + 0.05 and 0.9 < shares.max() < 1.02
    assert 0.71 < ratios.min() < 0.78 and 1.28 < ratios.max() < 1.4
    for first, length, whole in ((left, wide, WIDTH), (top, high, HEIGHT)):
        assert first.min() > -2 and (first + length).max() < whole + 2
        room = length < 0.8 * whole
        places = first[room] / (whole - length[room])
        assert places.min() < 0.1 and places.max() > 0.9 and 0.4 < places.mean() < 0.6


def test_where_no_rectangle_fits_it_is_the_centre():
    found = rectangle(random_crop(coordinates(), SIZE, 1.0, np.random.default_rng(0)))
    np.testing.assert_allclose(found, (30, 0, 180, 180), atol=3)


def test_the_centre_is_224_of_256_parts_of_the_short_side():
    side = HEIGHT * 224 / 256
    found = rectangle(to_square(coordinates(), SIZE, CENTRE))
    np.testing.assert_allclose(found, ((WIDTH - side) / 2, (HEIGHT - side) / 2, side, side), atol=1)
