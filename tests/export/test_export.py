"""`--export` and the end of a training write what export.json says."""

import hashlib
import json
from pathlib import Path

import pytest
from tiny_network import CELLS, save_random

import main
from parsec.errors import UserError
from parsec.jobs.train import export
from parsec.jobs.train.export import MANIFEST, PROGRAM, SCRIPT, export_model, read_export
from parsec.train.model_file import MODEL


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_manifest_says_what_was_exported_of_what(exported: Path):
    found = json.loads((exported / MANIFEST).read_text())
    assert found["schema"] == 1
    assert found["model"] == digest(exported / MODEL)
    assert found["files"] == {name: digest(exported / name) for name in (PROGRAM, SCRIPT)}
    assert (found["input"], found["output"]) == ("uint8 [B, 8, 8, 3]", "float32 [B, 3]")
    assert found["platforms"] == ["cpu", "cuda", "tpu"]
    assert not list(exported.glob(".*"))


def test_exports_of_the_same_network_stay_known_and_those_of_another_do_not(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(export, "export_onnx", lambda model: b"graph")
    monkeypatch.setattr(export, "export_program", lambda model: b"program")
    assert export_model(directory, ["onnx"]) == [directory / "model.onnx", directory / MANIFEST]
    assert set(json.loads((directory / MANIFEST).read_text())["files"]) == {PROGRAM, SCRIPT, "model.onnx"}
    assert read_export(directory, "model.onnx") == b"graph"
    save_random(directory, CELLS._replace(class_names=("x", "y", "z")))
    export_model(directory)
    assert set(json.loads((directory / MANIFEST).read_text())["files"]) == {PROGRAM, SCRIPT}
    with pytest.raises(UserError, match=r"model\.onnx is damaged"):
        read_export(directory, "model.onnx")


def test_the_command_writes_the_formats_named_and_says_which(directory: Path, capsys: pytest.CaptureFixture[str]):
    for name in (PROGRAM, SCRIPT, MANIFEST):
        (directory / name).unlink()
    assert main.main([f"--export={directory}", "stablehlo"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(directory / name) for name in (PROGRAM, SCRIPT, MANIFEST)]
    assert main.main([f"--export={directory}", "onx"]) == 2
    assert "did you mean 'onnx'" in capsys.readouterr().err
    assert main.main([f"--export={directory / 'none'}"]) == 2
    assert "holds no trained network" in capsys.readouterr().err
