import numpy as np
from sklearn import datasets

from parsec.data import load


def test_digits_are_all_there_scaled_and_parted():
    dataset = load("digits")
    assert dataset.images.shape == (1438, 8, 8, 1) and dataset.test_images.shape == (359, 8, 8, 1)
    assert dataset.images.dtype == np.uint8 and dataset.labels.dtype == np.int32
    assert dataset.images.min() == 0 and dataset.images.max() == 255
    assert dataset.class_names == tuple("0123456789")
    source, target = datasets.load_digits(return_X_y=True)
    wanted = sorted(zip(np.asarray(source).sum(1).tolist(), np.asarray(target).tolist(), strict=True))
    images = np.concatenate([dataset.images, dataset.test_images])
    labels = np.concatenate([dataset.labels, dataset.test_labels])
    # Back on the scale of 0 .. 16, every pixel sum and its label are those of the source.
    sums = np.rint(images.reshape(len(images), -1) * (16 / 255)).sum(1)
    assert sorted(zip(sums.tolist(), labels.tolist(), strict=True)) == wanted
    shares = np.bincount(dataset.test_labels) / np.bincount(labels)
    assert (abs(shares - 0.2) < 0.01).all()


def test_digits_can_be_enlarged():
    assert load("digits", image_size=16).images.shape == (1438, 16, 16, 1)
