"""`--predict` says what the network takes images for, and refuses everything else in one line with exit code 2."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_network import CELLS, save_random

import main
from parsec.data.images import decode, to_square
from parsec.jobs.train.export import MANIFEST, PROGRAM
from parsec.jobs.train.predict import predict
from parsec.train.model_file import MODEL, WEIGHTS, load_model, logits

READABLE = ["clear.png", "grey.png", "more/colour.png", "palette.gif", "turned.jpg"]


def flip(path: Path) -> None:
    """Damages one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Returns the one line that a command ends with, its exit code 2 and nothing else printed."""
    assert main.main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: ")
    return printed.err


def test_each_image_has_a_line_and_a_row_and_unreadable_files_are_named(
    exported: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    table = tmp_path / "found.csv"
    assert main.main([f"--predict={exported}", str(photos), f"--out={table}"]) == 0
    printed = capsys.readouterr()
    images = np.stack([np.asarray(to_square(decode(photos / name, "RGB", 8), 8)) for name in READABLE])
    scores = np.asarray(logits(load_model(exported), images))
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    names = [CELLS.class_names[best] for best in shares.argmax(1)]
    lines = [line.rsplit(" ", 1) for line in printed.out.splitlines()]
    assert [line[0] for line in lines] == [f"{photos / f}: {n}" for f, n in zip(READABLE, names, strict=True)]
    np.testing.assert_allclose([float(line[1]) for line in lines], shares.max(1), atol=6e-5)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(row["file"], row["class"]) for row in rows] == [
        (str(photos / f), n) for f, n in zip(READABLE, names, strict=True)
    ]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], shares.max(1), atol=1e-5)
    said = printed.err.splitlines()
    assert [line.split(":")[0] for line in said[:2]] == [
        f"cannot read {photos / n}" for n in ("empty.png", "notes.txt")
    ]
    assert said[2:] == ["5 images read, 2 files left out"]


def test_more_images_than_a_batch_keep_their_order(exported: Path, tmp_path: Path):
    kinds = np.random.default_rng(2).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    paths = [tmp_path / f"{at:03}.png" for at in range(70)]
    for at, path in enumerate(paths):
        Image.fromarray(kinds[at % 3]).save(path)
    found = [row.probability for row in predict(exported, paths)]
    assert len(set(found[:3])) == 3
    np.testing.assert_allclose(found, (found[:3] * 24)[:70], atol=1e-6)


def test_a_directory_without_a_finished_network_is_refused(
    directory: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert "holds no trained network" in refused(capsys, f"--predict={tmp_path / 'none'}", photos)
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "result.json").write_text("{}")
    assert "a finished training writes it" in refused(capsys, f"--predict={tmp_path / 'search'}", photos)
    (directory / MANIFEST).unlink()
    assert f"no {MANIFEST}; python main.py --export=" in refused(capsys, f"--predict={directory}", photos)


def test_a_damaged_export_is_refused(directory: Path, photos: Path, capsys: pytest.CaptureFixture[str]):
    flip(directory / PROGRAM)
    assert f"{PROGRAM} is damaged" in refused(capsys, f"--predict={directory}", photos)
    (directory / PROGRAM).unlink()
    assert f"cannot read {directory / PROGRAM}" in refused(capsys, f"--predict={directory}", photos)
    (directory / MANIFEST).write_text("[" * 100_000)
    assert "is not the description of an export" in refused(capsys, f"--predict={directory}", photos)


def test_an_export_of_another_network_is_refused(directory: Path, photos: Path, capsys: pytest.CaptureFixture[str]):
    save_random(directory, CELLS._replace(class_names=("x", "y", "z")))
    assert "is of another network than" in refused(capsys, f"--predict={directory}", photos)


@pytest.mark.parametrize("name", [MODEL, MANIFEST])
def test_a_schema_of_the_future_is_refused(
    directory: Path, photos: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    edit(directory / name, schema=2)
    assert f"{name} has schema 2; this version reads 1" in refused(capsys, f"--predict={directory}", photos)


def test_images_that_cannot_be_read_are_refused_in_one_line(
    exported: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    line = refused(capsys, f"--predict={exported}", photos / "notes.txt", tmp_path / "none.png")
    assert "no image could be read of 2: " in line
    assert "notes.txt (no image that Pillow reads)" in line
    assert "none.png (No such file or directory)" in line
    for at in range(8):
        (tmp_path / f"{at}\n.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    assert refused(capsys, f"--predict={exported}", tmp_path).endswith("and 3 more\n")
    (tmp_path / "nothing").mkdir()
    assert "there is no file in" in refused(capsys, f"--predict={exported}", tmp_path / "nothing")
    assert "needs image files" in refused(capsys, f"--predict={exported}")


def test_flags_that_do_not_go_together_are_refused(exported: Path, photos: Path, capsys: pytest.CaptureFixture[str]):
    ask = f"--predict={exported}"
    assert "--config does not go with --predict" in refused(capsys, ask, photos, "--config=digits_search")
    assert "--export does not go with --predict" in refused(capsys, ask, photos, f"--export={exported}")
    assert "--out does not go with --export" in refused(capsys, f"--export={exported}", "--out=a.csv")
    assert "has no flag --config.seed=1" in refused(capsys, ask, photos, "--config.seed=1")
    assert "--out=FILE.csv goes with --predict" in refused(capsys, "--out=a.csv")


def test_a_table_is_written_over_no_image_and_into_no_missing_folder(
    exported: Path, photos: Path, capsys: pytest.CaptureFixture[str]
):
    before = (photos / "grey.png").read_bytes()
    assert "must be the name of a .csv file" in refused(
        capsys, f"--predict={exported}", photos, f"--out={photos / 'grey.png'}"
    )
    assert (photos / "grey.png").read_bytes() == before
    assert "there is no such folder" in refused(capsys, f"--predict={exported}", photos, "--out=none/of/a.csv")


def test_a_flipped_bit_in_the_weights_is_found(directory: Path, capsys: pytest.CaptureFixture[str]):
    flip(directory / WEIGHTS)
    assert f"{WEIGHTS} is damaged or of another training" in refused(capsys, f"--export={directory}", "stablehlo")
