"""A trained network on a disk: what it is in model.json, its weights in model.safetensors.

    model.json          {"schema": 1, "space", "genotype", "shape": {channels, cells, num_classes, stem_stride, dtype,
                        stem}, "class_names", "image": [height, width, channels], "centre", "mean", "std",
                        "sha256": {file of weights: digest}}
    model.safetensors   the weights to be used: the best by validation, or the last where nothing was held out
    last.safetensors    the weights after the last step

A tensor's name is its path in the plain network's tree, joined by points: "params.cell_0.slot_1.depthwise_0",
"batch_stats.cell_0.slot_1.norm_0.mean". All are float32. The auxiliary head and scanned cells are things of training
and do not occur. `centre` is the share of an image's short side that the network is shown. `mean` and `std` are those
of each channel of the training images, in units of the pixels 0 .. 255; an input is (pixel - mean) / std. Equal weights
give equal files, byte for byte.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load, save

from parsec.cells.network import Shape
from parsec.cells.scan import stack, unstack
from parsec.data.memory import normalise
from parsec.errors import UserError, one_line
from parsec.files import read_bytes, write_bytes_atomic
from parsec.train.derived import Blueprint, Variables, make_network, variable_shapes

MODEL, WEIGHTS, LAST = "model.json", "model.safetensors", "last.safetensors"
SCHEMA = 1


class Metadata(NamedTuple):
    """Everything about a trained network but its weights.

    Attributes:
      blueprint: what the network is.
      class_names: one for each class.
      image: height, width and channels of its images.
      mean: of each channel, in units of the pixels.
      std: likewise, positive.
      centre: share of an image's short side that the network is shown, from its centre.
    """

    blueprint: Blueprint
    class_names: tuple[str, ...]
    image: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    centre: float = 1.0


class Model(NamedTuple):
    """A trained network.

    Attributes:
      network: the plain module in evaluation form, `network.apply(variables, normalised images) -> logits`.
      variables: {"params": tree, "batch_stats": tree} of float32 numpy arrays.
      metadata: the rest.
    """

    network: nn.Module
    variables: Variables
    metadata: Metadata


def save_model(folder: Path, metadata: Metadata, weights: Variables, last: Variables) -> None:
    """Writes a trained network into a folder; each file is whole or not there.

    Args:
      folder: exists.
      metadata: of the network.
      weights: those to be used, of the scanned or the plain form; an auxiliary head is left out.
      last: those after the last step.

    Raises:
      UserError: a file cannot be written.
    """
    blueprint = metadata.blueprint
    described = {
        "schema": SCHEMA,
        "space": blueprint.space,
        "genotype": blueprint.genotype,
        "shape": asdict(blueprint.shape),
        "class_names": list(metadata.class_names),
        "image": list(metadata.image),
        "centre": metadata.centre,
        "mean": list(metadata.mean),
        "std": list(metadata.std),
    }
    contents = {LAST: save(_named(last)), WEIGHTS: save(_named(weights))}
    for name, content in contents.items():
        write_bytes_atomic(folder / name, content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    write_bytes_atomic(folder / MODEL, (json.dumps(described | {"sha256": digests}, indent=2) + "\n").encode())


def load_model(folder: Path, weights: str = WEIGHTS) -> Model:
    """Returns a trained network.

    Args:
      folder: a run directory that `save_model` wrote to.
      weights: which of the two files of weights.

    Raises:
      UserError: a file is missing or damaged, of a later schema, or the weights are not those of this network.
    """
    metadata, digests = _read(folder)
    path = folder / weights
    content = read_bytes(path)
    if (found := hashlib.sha256(content).hexdigest()) != digests.get(weights):
        known = str(digests.get(weights))
        raise UserError(f"{path} is damaged or of another training: its sha256 is {found[:12]}..., not {known[:12]}...")
    try:
        named = load(content)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged: {one_line(error)}") from error
    tree = unflatten_dict({tuple(name.split(".")): value for name, value in named.items()})
    _check(path, tree, metadata)
    return Model(make_network(metadata.blueprint, train=False), tree, metadata)


def load_metadata(folder: Path) -> Metadata:
    """Returns what model.json says; raises `UserError` where there is none or it is not such a file."""
    return _read(folder)[0]


def logits(model: Model, images: jax.Array | np.ndarray) -> jax.Array:
    """Returns logits float32 [B, classes] for raw images uint8 [B, H, W, C] of the model's size; may be traced."""
    metadata = model.metadata
    mean, std = jnp.asarray(metadata.mean, jnp.float32), jnp.asarray(metadata.std, jnp.float32)
    inputs = normalise(jnp.asarray(images), mean, std, metadata.blueprint.shape.dtype)
    found: Any = model.network.apply(model.variables, inputs)
    return found


def _read(folder: Path) -> tuple[Metadata, dict[str, str]]:
    """Returns what model.json says of the network, and the sha256 of each file of weights."""
    path = folder / MODEL
    if not path.is_file():
        raise UserError(f"{folder} holds no trained network: there is no {MODEL}; a finished training writes it")
    try:
        found = json.loads(read_bytes(path))
        if found["schema"] != SCHEMA:
            raise UserError(f"{path} has schema {found['schema']!r}; this version reads {SCHEMA}")
        shape = Shape(**found["shape"])
        counts = (shape.channels, shape.cells, shape.num_classes, shape.stem_stride)
        if any(type(count) is not int or count < 1 for count in counts):
            raise ValueError(f"a size is no number in {found['shape']}")
        if shape.dtype not in ("float32", "bfloat16") or shape.stem not in ("cifar", "imagenet"):
            raise ValueError(f"no network has dtype {shape.dtype!r} and stem {shape.stem!r}")
        height, width, channels = map(int, found["image"])
        metadata = Metadata(
            Blueprint(str(found["space"]), str(found["genotype"]), shape),
            tuple(map(str, found["class_names"])),
            (height, width, channels),
            tuple(map(float, found["mean"])),
            tuple(map(float, found["std"])),
            # Earlier ones did not say, and were shown all of it.
            float(found.get("centre", 1.0)),
        )
        if not 0 < metadata.centre <= 1:
            raise ValueError(f"no network is shown {metadata.centre} of an image")
        digests = dict(found["sha256"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not the description of a trained network: {one_line(error)}") from error
    if len(metadata.class_names) != metadata.blueprint.shape.num_classes:
        classes = metadata.blueprint.shape.num_classes
        raise UserError(f"{path} names {len(metadata.class_names)} classes for a network of {classes}")
    return metadata, digests


def _named(variables: Variables) -> dict[str, np.ndarray]:
    flat: dict[Any, Any] = dict(
        flatten_dict(unstack({"params": variables["params"], "batch_stats": variables["batch_stats"]}))
    )
    kept = {".".join(path): np.asarray(leaf, np.float32) for path, leaf in flat.items() if "auxiliary" not in path}
    return {name: np.ascontiguousarray(kept[name]) for name in sorted(kept)}


def _check(path: Path, tree: Variables, metadata: Metadata) -> None:
    """Raises `UserError` unless the tree has the names and shapes of the network's variables."""
    like = variable_shapes(make_network(metadata.blueprint, train=False, scan=True), metadata.image)
    try:
        stacked: dict[Any, Any] = dict(flatten_dict(stack(tree, like)))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} does not hold this network's weights: {one_line(error)} is missing or odd") from error
    wanted: dict[Any, Any] = dict(flatten_dict(like))
    for name, leaf in wanted.items():
        if stacked[name].shape != leaf.shape:
            where = ".".join(name)
            raise UserError(f"{path}: {where} is {list(stacked[name].shape)}, the network's is {list(leaf.shape)}")
