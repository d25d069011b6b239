"""Reading files: what is said of them, and digests by which a run knows its data again."""

import hashlib
from pathlib import Path

import numpy as np

from parsec.files import arrays_digest, describe, file_digest


def test_a_file_is_described_by_its_size_and_digest(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"content")
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"content").hexdigest()
    assert describe(tmp_path / "a") == f"{tmp_path / 'a'} (7 bytes, sha256 {hashlib.sha256(b'content').hexdigest()})"
    assert "No such file" in describe(tmp_path / "b")


def test_digests_of_arrays_tell_contents_types_shapes_and_parts_apart():
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    changed = images.copy()
    changed[2, 1, 1] += 1
    others = [images, changed, images.reshape(2, 3, 2), images.astype(np.int32), images.view(np.int8), images[:2]]
    assert len({arrays_digest(array) for array in others}) == len(others)
    assert arrays_digest(images, images[:0]) != arrays_digest(images[:0], images)
    assert arrays_digest(images[:, ::-1]) == arrays_digest(images[:, ::-1].copy())
