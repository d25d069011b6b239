"""The ONNX graph computes what the network does."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from tiny_network import CELLS, DARTS, expected_probabilities, random_images, save_random

from parsec.cells.network import Shape
from parsec.errors import UserError
from parsec.export.onnx import export_onnx
from parsec.train.derived import Blueprint
from parsec.train.model_file import load_model


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_graph_gives_the_networks_probabilities_for_every_batch_size(tmp_path: Path, dtype: str):
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    # A DARTS cell of three has every operation; the second network is computed in float32 all the same.
    shape = Shape(channels=4, cells=3 if dtype == "float32" else 1, num_classes=3)
    narrow = CELLS._replace(blueprint=Blueprint("darts", DARTS, Shape(**{**vars(shape), "dtype": dtype})))
    model = load_model(save_random(tmp_path, narrow))
    wide = CELLS._replace(blueprint=Blueprint("darts", DARTS, shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = export_onnx(model)
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for count in (5, 1):
        images = random_images(count)
        found = session.run(["probabilities"], {"pixels": images})[0]
        expected = expected_probabilities(load_model(save_random(tmp_path, wide)), images)
        assert expected.max() - expected.min() > 0.2
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_without_jax2onnx_the_extra_is_named(exported: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match="pip install jax2onnx onnxruntime"):
        export_onnx(load_model(exported))
