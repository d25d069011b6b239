import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.data.augment import AUGMENTATIONS, augment, cutout
from parsec.errors import UserError


def _windows(image: np.ndarray, pad: int) -> dict[bytes, tuple[int, int, bool]]:
    """Every image that a crop from the padded one, mirrored or not, can give."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    found = {}
    for row in range(2 * pad + 1):
        for column in range(2 * pad + 1):
            window = padded[row : row + height, column : column + width]
            found[window.tobytes()] = (row, column, False)
            found[np.ascontiguousarray(window[:, ::-1]).tobytes()] = (row, column, True)
    return found


@pytest.mark.parametrize(("name", "pad"), [("flip", 0), ("shift", 1), ("crop_flip", 2)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_every_result_is_a_window_of_the_padded_image_and_all_occur(name: str, pad: int, dtype: type):
    image = np.random.default_rng(0).integers(1, 256, (16, 18, 3)).astype(dtype)
    batch = 4000
    once = jax.jit(lambda key, images: augment(key, images, name))
    many = np.asarray(once(jax.random.key(1), np.broadcast_to(image, (batch, 16, 18, 3))))
    assert many.dtype == dtype
    windows = _windows(image, pad)
    seen = [windows[row.tobytes()] for row in many]
    flips = np.mean([flipped for _, _, flipped in seen])
    assert flips == 0 if name == "shift" else abs(flips - 0.5) < 0.05
    counts = np.unique([row * 9 + column for row, column, _ in seen], return_counts=True)[1]
    places = (2 * pad + 1) ** 2
    assert len(counts) == places
    expected = batch / places
    assert ((counts - expected) ** 2 / expected).sum() < places + 6 * np.sqrt(2 * places)


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_an_augmentation_is_a_function_of_its_key(name: str, key: jax.Array):
    images = jax.random.randint(key, (6, 8, 8, 1), 0, 256).astype(jnp.uint8)
    once = jax.jit(lambda key, images: augment(key, images, name))
    np.testing.assert_array_equal(once(key, images), once(jax.random.key(0), images))
    same = np.array_equal(once(key, images), once(jax.random.key(9), images))
    assert same == (name == "none")


def test_cutout_hides_one_square_at_most(key: jax.Array):
    once = jax.jit(cutout, static_argnums=2)
    hidden = np.asarray(once(key, jnp.ones((500, 12, 12, 3), jnp.bfloat16), 4)).astype(np.float32) == 0
    assert (hidden.all(-1) == hidden.any(-1)).all()
    rows, columns = hidden.any((2, 3)).sum(1), hidden.any((1, 3)).sum(1)
    np.testing.assert_array_equal(hidden[..., 0].sum((1, 2)), rows * columns)
    assert rows.max() == columns.max() == 4 and rows.min() == columns.min() == 2
    images = jnp.ones((2, 5, 5, 1))
    np.testing.assert_array_equal(once(key, images, 0), images)
    with pytest.raises(UserError, match="negative"):
        cutout(key, images, -1)


def test_an_unknown_augmentation_is_named_with_the_nearest(key: jax.Array):
    with pytest.raises(UserError, match=r"unknown augmentation 'crop'.*did you mean 'crop_flip'"):
        augment(key, jnp.zeros((1, 4, 4, 1)), "crop")
