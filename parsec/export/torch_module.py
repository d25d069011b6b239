"""A trained network as a PyTorch module with the weights in its state dict; torch is an extra.

Two files: torch_network.py, a copy of `parsec.export.torch_network`, which needs torch alone; and model.pt, which holds
the description of the network as plain data and the state dict. Its names are those of model.safetensors, its kernels
[outputs, inputs, k, k] as PyTorch has them.
"""

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from parsec.cells.genotypes import from_text
from parsec.errors import UserError, unknown
from parsec.train.derived import known_space
from parsec.train.model_file import Metadata, Model
from parsec.train.residual import RESIDUAL

# What PyTorch calls the parameters of a normalisation.
_RENAMED = {"scale": "weight", "mean": "running_mean", "var": "running_var"}


def export_torch(model: Model) -> tuple[str, bytes]:
    """Returns the source text of the module and the content of model.pt.

    Raises:
      UserError: torch is not installed, or the network is of a space or has an operation of one's own.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]

        from parsec.export import torch_network
    except ImportError as error:
        raise UserError(f"the PyTorch module needs torch ({error}); pip install torch") from error
    described = _description(model.metadata)
    operations = {edge[0] for cell in described["cells"].values() for edge in cell["edges"]}
    for operation in sorted(operations - set(torch_network.OPERATIONS)):
        raise unknown("operation of the PyTorch module", operation, torch_network.OPERATIONS)
    weights = {name: torch.from_numpy(value.copy()) for name, value in state_dict(model.variables).items()}
    network = torch_network.Network(described)
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict(weights | counters)
    content = io.BytesIO()
    torch.save({"network": described, "state_dict": network.state_dict()}, content)
    return Path(torch_network.__file__).read_text(encoding="utf-8"), content.getvalue()


def state_dict(variables: Any) -> dict[str, np.ndarray]:
    """Returns a network's variables by PyTorch's names and in its layouts, float32."""
    flat: dict[Any, Any] = dict(flatten_dict(variables))
    return dict(_converted(path[1:], np.asarray(leaf, np.float32)) for path, leaf in flat.items())


def _converted(path: tuple[str, ...], value: np.ndarray) -> tuple[str, np.ndarray]:
    *_, module, name = "", *path
    if value.ndim == 4:
        return ".".join((*path, "weight")), value.transpose(3, 2, 0, 1)
    if module == "linear":
        return ".".join((*path[:-1], "weight" if name == "kernel" else name)), value.T
    return ".".join((*path[:-1], _RENAMED.get(name, name))), value


def _description(metadata: Metadata) -> dict[str, Any]:
    blueprint = metadata.blueprint
    cells = {}
    if blueprint.space != RESIDUAL:
        space = known_space(blueprint.space)
        if space.name not in ("darts", "nasbench201"):
            raise UserError(f"the PyTorch module knows the networks of darts, nasbench201 and resnet, not {space.name}")
        genotype = space.decode(from_text(space, blueprint.genotype))
        cells = {
            kind: {
                "edges": [[edge.operation, edge.source, edge.target] for edge in cell.edges],
                "num_inputs": cell.num_inputs,
                "num_nodes": cell.num_nodes,
                "concat": list(cell.concat),
            }
            for kind, cell in genotype.items()
        }
    return {
        "space": blueprint.space,
        "cells": cells,
        "shape": asdict(blueprint.shape),
        "class_names": list(metadata.class_names),
        "image": list(metadata.image),
        "mean": list(metadata.mean),
        "std": list(metadata.std),
    }
