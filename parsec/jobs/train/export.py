"""The exports of a trained network, in its run directory: written by a training at its end, or by `--export=RUN_DIR`.

model.stablehlo                pixels to probabilities as one program, see `parsec.export.stablehlo`
load_and_run.py                a script that runs it without this package
model.onnx                     the same as an ONNX graph, where jax2onnx is installed and it is asked for
torch_network.py, model.pt     the same as a PyTorch module and its weights, likewise with torch
export.json                    {"schema": 1, "model": sha256 of model.json, "files": {name: sha256}, "jax",
                               "platforms", "input", "output"}
"""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from parsec.errors import UserError, one_line, unknown
from parsec.export.onnx import export_onnx
from parsec.export.run_script import run_script
from parsec.export.stablehlo import PLATFORMS, export_program
from parsec.export.torch_module import export_torch
from parsec.files import read_bytes, write_bytes_atomic
from parsec.run.workdir import locate, write_json_atomic
from parsec.settings.images import TRAIN
from parsec.train.model_file import MODEL, Model, load_model

MANIFEST, PROGRAM, SCRIPT, GRAPH, TORCH_SOURCE, TORCH_WEIGHTS = (
    "export.json",
    "model.stablehlo",
    "load_and_run.py",
    "model.onnx",
    "torch_network.py",
    "model.pt",
)
SCHEMA = 1
# Each format and the package that it needs.
FORMATS = {"stablehlo": "jax", "onnx": "jax2onnx", "torch": "torch"}
_INSTALLED_BY = {"onnx": "jax2onnx onnxruntime 'orbax-checkpoint>=0.12.0'", "torch": "torch"}


def export_model(directory: Path, formats: Sequence[str] = ("stablehlo",)) -> list[Path]:
    """Writes the trained network of a run directory in other forms, and returns the files; each is whole or not there.

    Args:
      directory: of a finished training, or of a run with such a stage.
      formats: names of `FORMATS`.

    Raises:
      UserError: the directory holds no trained network or a damaged one, a format is unknown or its package is not
        installed, or a file cannot be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown("format of exports", name, FORMATS)
    directory = network_directory(directory)
    model = load_model(directory)
    contents: dict[str, bytes] = {}
    for name in formats:
        contents |= _exported(name, model)
    described = read_bytes(directory / MODEL)
    height, width, channels = model.metadata.image
    before = _files_of(directory, _digest(described))
    for name, content in contents.items():
        write_bytes_atomic(directory / name, content)
    manifest = {
        "schema": SCHEMA,
        "model": _digest(described),
        "files": before | {name: _digest(content) for name, content in contents.items()},
        "jax": jax.__version__,
        "platforms": list(PLATFORMS),
        "input": f"uint8 [B, {height}, {width}, {channels}]",
        "output": f"float32 [B, {len(model.metadata.class_names)}]",
    }
    write_json_atomic(directory / MANIFEST, manifest)
    return [directory / name for name in (*contents, MANIFEST)]


def run_export(directory: str, formats: Sequence[str]) -> None:
    """Answers `--export`: writes the formats that are named, or all whose packages are installed, and prints the files.

    Raises:
      UserError: see `export_model`.
    """
    missing = [name for name, package in FORMATS.items() if importlib.util.find_spec(package) is None]
    for path in export_model(Path(directory), formats or [name for name in FORMATS if name not in missing]):
        print(path)
    if missing and not formats:
        wanted = " ".join(_INSTALLED_BY[name] for name in missing)
        print(f"not written for want of their packages: {', '.join(missing)} (pip install {wanted})")


def network_directory(directory: Path | str) -> Path:
    """Returns the folder of the trained network in a run directory, absolute: its own, or where a stage trained it."""
    path = locate(directory)
    return path / TRAIN if (path / TRAIN / MODEL).is_file() and not (path / MODEL).exists() else path


def read_export(directory: Path, name: str) -> bytes:
    """Returns an exported file, once it and the description of the network are known to be as they were written.

    Raises:
      UserError: there is no export or none of this file, it is of a later schema or of another network, or damaged.
    """
    path = directory / MANIFEST
    again = f"python main.py --export={directory} writes it anew"
    if not path.is_file():
        raise UserError(f"{directory} holds a trained network and no export of it: there is no {MANIFEST}; {again}")
    try:
        found = json.loads(read_bytes(path))
        if found["schema"] != SCHEMA:
            raise UserError(f"{path} has schema {found['schema']!r}; this version reads {SCHEMA}")
        of_model, files = str(found["model"]), dict(found["files"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not the description of an export: {one_line(error)}; {again}") from error
    if of_model != _digest(read_bytes(directory / MODEL)):
        raise UserError(f"{path} is of another network than {directory / MODEL}, or one is damaged; {again}")
    content = read_bytes(directory / name)
    if files.get(name) != _digest(content):
        known = str(files.get(name))
        raise UserError(f"{directory / name} is damaged: its sha256 is not {known[:12]}...; {again}")
    return content


def _exported(name: str, model: Model) -> dict[str, bytes]:
    if name == "onnx":
        return {GRAPH: export_onnx(model)}
    if name == "torch":
        source, weights = export_torch(model)
        return {TORCH_SOURCE: source.encode(), TORCH_WEIGHTS: weights}
    program = export_program(model)
    return {PROGRAM: program, SCRIPT: run_script(model.metadata, PROGRAM, program).encode()}


def _files_of(directory: Path, model: str) -> dict[str, str]:
    """Returns the digests of what was exported of the same network before."""
    try:
        found: Any = json.loads((directory / MANIFEST).read_bytes())
        return dict(found["files"]) if found["model"] == model and found["schema"] == SCHEMA else {}
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
