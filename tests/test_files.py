"""Reading files: what is said of them, and digests by which a run knows its data again."""

import hashlib
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from parsec import files
from parsec.errors import UserError
from parsec.files import arrays_digest, describe, existing_folder, expanded, file_digest, read_npz


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


def member(shape: tuple[int, ...], content: bytes) -> bytes:
    """An entry of an .npz whose header promises float64 of a shape, and what it really holds."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue() + content


def test_arrays_are_read_by_name_and_other_entries_passed_over(tmp_path: Path):
    path = tmp_path / "a.npz"
    arrays = {"a": np.arange(6).reshape(2, 3).T, "empty": np.zeros((0, 3)), "text": np.array(["x", "yz"])}
    np.savez_compressed(path, **arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("read.me", "not an array")
    found = read_npz(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize(
    ("shape", "content"),
    [((10**14,), b"\0" * 80), ((3, 10**30), b""), ((2,), b"\0" * 8), ((2,), b"\0" * 24), ((-2,), b"\0" * 16)],
)
def test_an_array_that_is_not_as_large_as_it_says_is_refused(tmp_path: Path, shape: tuple[int, ...], content: bytes):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", member(shape, content))
    with pytest.raises(UserError, match=r"damaged or no \.npz file: .*a\.npy promises"):
        read_npz(tmp_path / "a.npz")


def test_a_file_of_one_array_under_the_name_of_many_is_named_as_such(tmp_path: Path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.arange(3))
    with pytest.raises(UserError, match=r"a\.npz \(.*is an \.npy file of one array"):
        read_npz(tmp_path / "a.npz")


def test_a_file_that_would_unpack_to_too_much_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(2**18))
    assert read_npz(path)["a"].shape == (2**18,)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it was unpacked"))
    monkeypatch.setattr(files, "_SUSPECT", 2**20)
    with pytest.raises(UserError, match=r"would unpack to 2\.0 MiB, [\d,]+ times its size"):
        read_npz(path)
    monkeypatch.setattr(files, "_RATIO", 10**9)
    monkeypatch.setattr(files, "LARGEST_NPZ", 2**21)
    with pytest.raises(UserError, match=r"at most 2\.0 MiB"):
        read_npz(path)


def test_missing_files_and_folders_are_one_line(tmp_path: Path):
    with pytest.raises(UserError, match=r"there is no file .*absent\.npz"):
        read_npz(tmp_path / "absent.npz")
    with pytest.raises(UserError, match="Is a directory"):
        read_npz(tmp_path)
    with pytest.raises(UserError, match="~nosuchuser"):
        expanded("~nosuchuser/a")
    for name, said in (("n" * 300, "File name too long"), ("~nosuchuser", "nosuchuser"), ("absent", "does not exist")):
        with pytest.raises(UserError, match=said):
            existing_folder(name)


def test_a_file_that_could_not_be_written_leaves_nothing_beside_the_old_one(tmp_path: Path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), files.replacing(path) as hidden:
        hidden.write_bytes(b"half")
        raise RuntimeError
    assert [each.name for each in tmp_path.iterdir()] == ["a.npz"] and path.read_bytes() == b"old"


def test_whoever_has_no_home_keeps_caches_among_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_home() == tmp_path / ".cache"
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert files.cache_home() == Path(tempfile.gettempdir())
