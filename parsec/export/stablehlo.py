"""A trained network as one StableHLO program for CPUs, CUDA GPUs and TPUs.

The program takes pixels, uint8 [B, H, W, C] with any B, and returns probabilities, float32 [B, classes]; normalisation
and weights are inside. It is written and read by `jax.export` (https://docs.jax.dev/en/latest/export/export.html),
which promises that later versions of jax read it for six months, and in practice for longer.

Its convolutions come in the forms of `parsec.cells.convolution`: the one for CPUs, and XLA's own for the rest; the
platform that runs the program picks. Equal cells in a row are scanned, so that it compiles in seconds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from parsec.cells.convolution import use_form
from parsec.cells.scan import stack
from parsec.train.derived import make_network, variable_shapes
from parsec.train.model_file import Model, logits

PLATFORMS = ("cpu", "cuda", "tpu")


def export_program(model: Model) -> bytes:
    """Returns the program of a trained network, as `jax.export` serialises it; equal networks give equal bytes."""
    blueprint, image = model.metadata.blueprint, model.metadata.image
    scanned = make_network(blueprint, train=False, scan=True)
    variables = stack(model.variables, variable_shapes(scanned, image))

    def run(form: str, variables: Any, images: jax.Array) -> jax.Array:
        with use_form(form):
            return probabilities(model._replace(network=scanned, variables=variables), images)

    def program(images: jax.Array) -> jax.Array:
        # The weights are operands of the choice: each form would have its own copy of them otherwise.
        found: Any = jax.lax.platform_dependent(
            jax.tree.map(jnp.asarray, variables), images, cpu=partial(run, "cpu"), default=partial(run, "lax")
        )
        return found

    pixels = jax.ShapeDtypeStruct(export.symbolic_shape(", ".join(["b", *map(str, image)])), jnp.uint8)
    with _without_locations():
        return bytes(export.export(jax.jit(program), platforms=PLATFORMS)(pixels).serialize())


def load_program(content: bytes) -> Any:
    """Returns the function from pixels, uint8 [B, H, W, C], to probabilities, float32 [B, classes].

    Raises:
      Exception: many kinds, where the content is none that `jax.export` wrote.
    """
    return jax.jit(export.deserialize(bytearray(content)).call)


def probabilities(model: Model, images: jax.Array | np.ndarray) -> jax.Array:
    """Returns probabilities float32 [B, classes] for raw images uint8 [B, H, W, C]; may be traced."""
    return jax.nn.softmax(logits(model, images))


def in_float32(model: Model) -> Model:
    """Returns the same network, its activations in float32."""
    blueprint = model.metadata.blueprint
    blueprint = blueprint._replace(shape=replace(blueprint.shape, dtype="float32"))
    metadata = model.metadata._replace(blueprint=blueprint)
    return model._replace(network=make_network(blueprint, train=False), metadata=metadata)


@contextmanager
def _without_locations() -> Iterator[None]:
    """Keeps the paths of this machine's source files out of what is lowered within the block."""
    limit = jax.config.jax_traceback_in_locations_limit  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)
