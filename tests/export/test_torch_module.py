"""The PyTorch module computes what the network does, its weights in a state dict, its file alone."""

import ast
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_network import CELLS, DARTS, SIZE, expected_probabilities, save_random

import parsec.export
from parsec.cells.network import Shape
from parsec.errors import UserError
from parsec.export.torch_module import export_torch, state_dict
from parsec.train.derived import Blueprint
from parsec.train.model_file import Metadata, load_model

NETWORKS = {
    "nasbench201": CELLS,
    "darts": CELLS._replace(blueprint=Blueprint("darts", DARTS, Shape(channels=4, cells=3, num_classes=3))),
    "odd size": CELLS._replace(image=(7, 7, 3)),
    "imagenet stem": CELLS._replace(
        blueprint=Blueprint("darts", DARTS, Shape(channels=4, cells=2, num_classes=3, stem="imagenet")),
        image=(32, 32, 3),
    ),
    "resnet": CELLS._replace(blueprint=Blueprint("resnet", "resnet", SIZE)),
}


@pytest.mark.parametrize("metadata", NETWORKS.values(), ids=NETWORKS)
def test_the_module_gives_the_networks_probabilities(tmp_path: Path, metadata: Metadata):
    torch = pytest.importorskip("torch")
    from parsec.export import torch_network

    model = load_model(save_random(tmp_path, metadata))
    source, content = export_torch(model)
    assert source == Path(torch_network.__file__).read_text()
    network = torch_network.load(io.BytesIO(content))
    images = np.random.default_rng(0).integers(0, 256, (3, *metadata.image), dtype=np.uint8)
    with torch.no_grad():
        found = network(torch.from_numpy(images)).numpy()
    expected = expected_probabilities(model, images)
    assert expected.max() - expected.min() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_state_dict_has_the_names_and_layouts_of_pytorch(exported: Path):
    model = load_model(exported)
    weights = state_dict(model.variables)
    assert weights["stem.kernel.weight"].shape == (4, 3, 3, 3)
    kernel = model.variables["params"]["stem"]["kernel"]
    np.testing.assert_array_equal(weights["stem.kernel.weight"][1, 2, 0, 1], kernel[0, 1, 2, 1])
    assert weights["head.linear.weight"].shape == (3, 16)
    assert {"stem.norm.weight", "stem.norm.bias", "stem.norm.running_mean", "stem.norm.running_var"} <= set(weights)


def test_the_copied_file_needs_torch_alone():
    path = Path(next(iter(parsec.export.__path__))) / "torch_network.py"
    tree = ast.parse(path.read_text())
    named = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    named |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert named == {"torch", "typing"}


def test_without_torch_the_extra_is_named(exported: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="pip install torch"):
        export_torch(load_model(exported))
