"""The 1,797 handwritten digits that come with scikit-learn: real images with no download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998 (its
test part); 8x8 pixels, each the number of set bits in a 4x4 block, 0 .. 16.
"""

import numpy as np

from parsec.data.dataset import Dataset, resized, with_test_part

_TEST_FRACTION = 0.2


def load_digits(data_dir: str, image_size: int) -> Dataset:
    """Returns the digits, a fifth of them, stratified, as the test part.

    Args:
      data_dir: not needed; the digits lie inside scikit-learn.
      image_size: side in pixels; 0 keeps the 8x8 of the source.

    Returns:
      A `Dataset` of 1,438 training and 359 test images, one channel, 0 .. 16 scaled to 0 .. 255.
    """
    del data_dir
    images, labels = source_digits()
    whole = Dataset("digits", images, labels, images[:0], labels[:0], tuple(str(d) for d in range(10)))
    return resized(with_test_part(whole, _TEST_FRACTION), image_size)


def source_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns all digits in the source's order: images uint8 [1797, 8, 8, 1], 0 .. 255, and labels int32 [1797]."""
    # scikit-learn takes a second to import, which a run on other data need not spend.
    from sklearn import datasets

    pixels, target = datasets.load_digits(return_X_y=True)
    images = np.rint(np.asarray(pixels).reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return images, np.asarray(target).astype(np.int32)
