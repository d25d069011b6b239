"""A trained network comes back from its files as it was, and anything else is refused in one line."""

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells.network import Shape
from parsec.cells.scan import stack, unstack
from parsec.data.memory import normalise
from parsec.errors import UserError
from parsec.train.derived import Blueprint, init_variables, make_network, variable_shapes
from parsec.train.model_file import LAST, MODEL, WEIGHTS, Metadata, load_metadata, load_model, logits, save_model

TEXT = "|nor_conv_1x1~0|+|skip_connect~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|skip_connect~2|"
CELLS = Metadata(
    Blueprint("nasbench201", TEXT, Shape(channels=4, cells=2, num_classes=3)),
    ("a", "b", "c"),
    (8, 8, 1),
    (90.5,),
    (60.25,),
)
SHAPE = asdict(CELLS.blueprint.shape)
PLAIN = CELLS._replace(blueprint=Blueprint("resnet", "resnet", Shape(channels=4, cells=3, num_classes=3)))


@cache
def variables(metadata: Metadata, seed: int):
    """Returns fresh weights in scanned form with averages that are no zeros and ones."""
    network = make_network(metadata.blueprint, train=True, auxiliary=True, scan=True)
    fresh = init_variables(network, jax.random.key(seed), metadata.image)
    averages = jax.tree.map(lambda leaf: leaf + 0.1 * (1 + seed), fresh["batch_stats"])
    return {"params": fresh["params"], "batch_stats": averages}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_model(path, CELLS, variables(CELLS, 0), variables(CELLS, 1))
    return path


@pytest.mark.parametrize("metadata", [CELLS, PLAIN])
def test_a_loaded_network_computes_what_was_saved(metadata: Metadata, tmp_path: Path):
    best, last = variables(metadata, 0), variables(metadata, 1)
    save_model(tmp_path, metadata, best, last)
    images = np.random.default_rng(0).integers(0, 256, (5, *metadata.image), dtype=np.uint8)
    inputs = normalise(jnp.asarray(images), jnp.asarray(metadata.mean), jnp.asarray(metadata.std))
    scanned = jax.jit(make_network(metadata.blueprint, train=False, scan=True).apply)
    any_model = load_model(tmp_path)
    found = jax.jit(lambda weights: logits(any_model._replace(variables=weights), images))
    for name, weights in ((WEIGHTS, best), (LAST, last)):
        model = load_model(tmp_path, name)
        assert model.metadata == metadata
        np.testing.assert_allclose(found(model.variables), scanned(weights, inputs), rtol=1e-5, atol=1e-5)


def test_equal_weights_give_equal_files(folder: Path, tmp_path: Path):
    save_model(tmp_path, CELLS, variables(CELLS, 0), variables(CELLS, 1))
    for name in (MODEL, WEIGHTS, LAST):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_files_know_nothing_of_training(folder: Path):
    from safetensors.numpy import load_file

    named = load_file(folder / WEIGHTS)
    assert "params.cell_2_1.slot_0.kernel" in named
    assert "batch_stats.residual_1.first.norm.mean" in named
    assert not [name for name in named if "auxiliary" in name or "scan" in name]
    assert {str(value.dtype) for value in named.values()} == {"float32"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "schema 2; this version reads 1"),
        ({"space": "dart"}, "did you mean 'darts'"),
        ({"genotype": TEXT.replace("none", "nine")}, "did you mean 'none'"),
        ({"class_names": ["a", "b"]}, "names 2 classes for a network of 3"),
        ({"shape": {"channels": 4}}, "is not the description of a trained network"),
        ({"image": [8, 8]}, "is not the description of a trained network"),
        ({"shape": SHAPE | {"channels": 6}}, "the network's is ["),
        ({"shape": SHAPE | {"cells": 3}}, "is missing"),
        ({"shape": SHAPE | {"dtype": "float64"}}, "is not the description of a trained network"),
    ],
)
def test_another_description_is_refused(folder: Path, tmp_path: Path, change: dict, says: str):
    for name in (WEIGHTS, LAST):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / MODEL).write_text(json.dumps(json.loads((folder / MODEL).read_text()) | change))
    with pytest.raises(UserError) as raised:
        load_model(tmp_path)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_and_damaged_files_are_refused(folder: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"holds no trained network: there is no model\.json"):
        load_model(tmp_path)
    (tmp_path / MODEL).write_text("[" * 100_000)
    with pytest.raises(UserError, match="is not the description"):
        load_metadata(tmp_path)
    (tmp_path / MODEL).write_bytes((folder / MODEL).read_bytes())
    with pytest.raises(UserError, match=r"cannot read .*model\.safetensors"):
        load_model(tmp_path)
    (tmp_path / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-5])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        load_model(tmp_path)


def test_stacking_is_the_inverse_of_taking_apart():
    scanned = variables(CELLS, 0)["params"]
    like = variable_shapes(make_network(CELLS.blueprint, train=True, auxiliary=True, scan=True), CELLS.image)["params"]
    plain = unstack(scanned)
    assert {"cell_0_0", "cell_0_1"} <= set(plain)
    jax.tree.map(np.testing.assert_array_equal, stack(plain, like), scanned)
