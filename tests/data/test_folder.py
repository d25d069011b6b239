from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parsec.data import load
from parsec.errors import UserError


def _save(path: Path, colour: int | tuple[int, ...], mode: str = "RGB", size: tuple[int, int] = (20, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def _fill(root: Path, classes: dict[str, int], count: int) -> None:
    for name, red in classes.items():
        for i in range(count):
            _save(root / name / f"{i:02d}.png", (red, i, 0))


def test_classes_are_subfolders_in_order_and_a_fifth_is_the_test_part(tmp_path: Path):
    _fill(tmp_path, {"dogs": 200, "cats": 100}, 10)
    dataset = load("images", str(tmp_path), 8)
    assert dataset.class_names == ("cats", "dogs") and dataset.notes == ()
    assert dataset.images.shape == (16, 8, 8, 3) and dataset.test_images.shape == (4, 8, 8, 3)
    assert np.bincount(dataset.test_labels).tolist() == [2, 2]
    images = np.concatenate([dataset.images, dataset.test_images])
    labels = np.concatenate([dataset.labels, dataset.test_labels])
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.array([100, 200])[labels])
    assert sorted(zip(labels.tolist(), images[:, 0, 0, 1].tolist(), strict=True)) == [
        (label, i) for label in (0, 1) for i in range(10)
    ]
    again = load("images", str(tmp_path), 8)
    np.testing.assert_array_equal(dataset.test_images, again.test_images)


def test_every_kind_of_image_becomes_rgb(tmp_path: Path):
    for name, colour, mode in (
        ("a.jpg", (90, 90, 90), "RGB"),
        ("b.png", 90, "L"),
        ("c.bmp", (90, 90, 90), "RGB"),
        ("d.gif", 90, "L"),
        ("e.webp", (90, 90, 90), "RGB"),
        ("f.tiff", (90, 90, 90), "RGB"),
        ("g.png", (90, 90, 90, 255), "RGBA"),
        ("h.png", 90 * 256, "I;16"),
        ("deep/er/i.ppm", (90, 90, 90), "RGB"),
        ("j.unknown", (90, 90, 90), "RGB"),
    ):
        path = tmp_path / "grey" / name
        _save(path if path.suffix != ".unknown" else path.with_suffix(".png"), colour, mode)
    (tmp_path / "grey" / "j.png").rename(tmp_path / "grey" / "j.unknown")
    _save(tmp_path / "clear" / "a.png", (0, 0, 0, 0), "RGBA")
    (tmp_path / "grey" / ".hidden").write_text("no image, and no one's business")
    (tmp_path / ".cache").mkdir()
    dataset = load("images", str(tmp_path), 6)
    assert dataset.class_names == ("clear", "grey") and dataset.notes == ()
    images = np.concatenate([dataset.images, dataset.test_images]).astype(int)
    labels = np.concatenate([dataset.labels, dataset.test_labels])
    assert np.bincount(labels).tolist() == [1, 10]
    assert (abs(images[labels == 1] - 90) <= 2).all()
    assert (images[labels == 0] == 255).all(), "what is transparent turns white"


def test_the_short_side_is_scaled_and_the_centre_kept(tmp_path: Path):
    picture = np.zeros((16, 48, 3), np.uint8)
    picture[:, :16], picture[:, 16:32], picture[:, 32:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(picture).save(tmp_path / name / "wide.png")
        Image.fromarray(picture.transpose(1, 0, 2)).save(tmp_path / name / "tall.png")
    images = load("images", str(tmp_path), 8).images
    # The filter reaches one pixel beyond the cut.
    assert images.shape[1:] == (8, 8, 3)
    assert (images[..., 1] > 200).all() and (images[:, 1:-1, 1:-1] == (0, 255, 0)).all()


def test_an_image_on_its_side_is_set_upright(tmp_path: Path):
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:8] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        exif = Image.Exif()
        exif[0x0112] = 3
        Image.fromarray(picture).save(tmp_path / name / "turned.png", exif=exif)
    images = load("images", str(tmp_path), 4).images
    assert (images[:, :2] < 64).all() and (images[:, 2:] > 190).all()


def test_unreadable_files_are_counted_and_named(tmp_path: Path):
    _fill(tmp_path, {"a": 1, "b": 2}, 6)
    (tmp_path / "b" / "notes.txt").write_text("text")
    content = (tmp_path / "a" / "00.png").read_bytes()
    (tmp_path / "a" / "cut.png").write_bytes(content[:-30])
    (tmp_path / "a" / "empty.jpg").write_bytes(b"")
    dataset = load("images", str(tmp_path), 4)
    assert dataset.notes == ("3 unreadable files skipped: a/cut.png, a/empty.jpg, b/notes.txt",)
    assert len(dataset.images) + len(dataset.test_images) == 12
    for i in range(15):
        (tmp_path / "b" / f"z{i:02d}").write_text("text")
    assert load("images", str(tmp_path), 4).notes[0].endswith("z06 and 8 more")


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_a_parted_folder_keeps_its_parts(held_out: str, tmp_path: Path):
    _fill(tmp_path / "train", {"a": 10, "b": 20, "c": 30}, 5)
    _fill(tmp_path / held_out, {"a": 10, "c": 30}, 2)
    dataset = load("images", str(tmp_path), 4)
    assert dataset.class_names == ("a", "b", "c") and len(dataset.images) == 15
    assert dataset.test_labels.tolist() == [0, 0, 2, 2]
    assert dataset.test_images[:, 0, 0, 0].tolist() == [10, 10, 30, 30]
    _fill(tmp_path / held_out, {"d": 40}, 1)
    with pytest.raises(UserError, match="has the class 'd'"):
        load("images", str(tmp_path), 4)


def test_parts_are_known_in_any_case_and_what_is_left_out_is_told(tmp_path: Path):
    _fill(tmp_path / "Training", {"a": 100, "b": 200}, 4)
    _fill(tmp_path / "Val", {"a": 100, "b": 200}, 3)
    _fill(tmp_path / "TEST", {"a": 100, "b": 200}, 2)
    dataset = load("images", str(tmp_path), 4)
    assert dataset.class_names == ("a", "b") and (len(dataset.labels), len(dataset.test_labels)) == (8, 4)
    assert dataset.notes == ("the test part is TEST; left out: Val",)


def test_pixels_that_nobody_knows_the_white_of_are_unreadable(tmp_path: Path):
    _fill(tmp_path, {"a": 100, "b": 200}, 4)
    Image.fromarray(np.full((5, 5), 0.7, np.float32)).save(tmp_path / "a" / "share.tiff")
    assert load("images", str(tmp_path), 4).notes == ("1 unreadable file skipped: a/share.tiff",)


def test_a_train_folder_alone_is_parted_by_the_seed(tmp_path: Path):
    _fill(tmp_path / "train", {"a": 10, "b": 20}, 5)
    dataset = load("images", str(tmp_path), 4)
    assert len(dataset.images) == 8 and np.bincount(dataset.test_labels).tolist() == [1, 1]


def test_classes_called_train_and_test_are_classes_where_they_hold_images(tmp_path: Path):
    _fill(tmp_path, {"train": 10, "test": 20}, 5)
    assert load("images", str(tmp_path), 4).class_names == ("test", "train")


@pytest.mark.parametrize(
    ("classes", "message"),
    [({}, "it has none"), ({"a": 1}, "it has only 'a'")],
)
def test_fewer_than_two_classes_are_refused(classes: dict[str, int], message: str, tmp_path: Path):
    _fill(tmp_path, classes, 2)
    with pytest.raises(UserError, match=message):
        load("images", str(tmp_path), 4)


def test_a_class_without_a_readable_image_is_refused(tmp_path: Path):
    _fill(tmp_path, {"a": 1, "b": 2}, 2)
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match=r"class folder \S*c holds no readable image: no file"):
        load("images", str(tmp_path), 4)
    (tmp_path / "c" / "one.txt").write_text("text")
    with pytest.raises(UserError, match=r"holds no readable image: 1 files \(\.txt\), none of which Pillow reads"):
        load("images", str(tmp_path), 4)


def test_a_name_that_holds_a_line_end_is_shown_not_printed(tmp_path: Path):
    _fill(tmp_path, {"a": 0, "b": 255}, 3)
    (tmp_path / "a" / "x\nerror: all is lost\x1b[2J.png").write_bytes(b"no image")
    (note,) = load("images", str(tmp_path), 8).notes
    assert note == "1 unreadable file skipped: 'a/x\\nerror: all is lost\\x1b[2J.png'"


def test_a_size_that_no_memory_holds_is_refused_before_anything_is_decoded(tmp_path: Path):
    _fill(tmp_path, {"a": 0, "b": 255}, 3)
    with pytest.raises(UserError, match=r"needs .* of memory \(3 images of 2,000,000,000 x"):
        load("images", str(tmp_path), 2_000_000_000)


def test_a_missing_folder_or_size_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="does not exist"):
        load("images", str(tmp_path / "none"), 4)
    with pytest.raises(UserError, match=r"data_dir=FOLDER"):
        load("images", "", 4)
    with pytest.raises(UserError, match="image_size 0 is too small"):
        load("images", str(tmp_path), 0)
