"""A trained network as an ONNX graph, by jax2onnx (https://github.com/enpasos/jax2onnx), an extra.

The graph is called as the StableHLO program is: "pixels", uint8 [B, H, W, C] with any B, to "probabilities", float32
[B, classes]. It computes in float32 whatever the network was trained in, since few runtimes know bfloat16.
"""

from typing import Any

import jax.numpy as jnp
from jax import ShapeDtypeStruct, export

from parsec.cells.convolution import use_form
from parsec.errors import UserError
from parsec.export.stablehlo import in_float32, probabilities
from parsec.train.model_file import Model


def export_onnx(model: Model) -> bytes:
    """Returns the graph of a trained network, as an ONNX file holds it.

    Raises:
      UserError: jax2onnx is not installed.
    """
    try:
        from jax2onnx import to_onnx  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"ONNX needs jax2onnx ({error}); pip install jax2onnx onnxruntime 'orbax-checkpoint>=0.12.0'"
        ) from error
    wide = in_float32(model)

    def program(images: Any) -> Any:
        # Convolutions are operations of ONNX, grouped ones too; sums of slices would hide them.
        with use_form("lax"):
            return probabilities(wide, images)

    pixels = ShapeDtypeStruct(export.symbolic_shape(", ".join(["B", *map(str, model.metadata.image)])), jnp.uint8)
    graph: Any = to_onnx(
        program, [pixels], model_name="network", input_names=["pixels"], output_names=["probabilities"]
    )
    _pool_in_planes(graph.graph)
    return graph.SerializeToString(deterministic=True)


def _pool_in_planes(graph: Any) -> None:
    """Rewrites maxima over windows of [1, 1, B, H, W, C], which jax2onnx makes, to those of [B, C, H, W].

    Runtimes have the second alone. A version of jax2onnx that makes it is left as it is.
    """
    from onnx import TensorProto, helper  # pyright: ignore

    axes, nodes = "planes.axes", []
    for node in graph.node:
        given = {attribute.name: list(attribute.ints) for attribute in node.attribute}
        if node.op_type != "MaxPool" or len(given["kernel_shape"]) != 4:
            nodes.append(node)
            continue
        (before,), (after,) = node.input, node.output
        names = [f"{after}.{step}" for step in ("squeezed", "planes", "pooled", "places")]
        windows = {name: given[name][1:3] for name in ("kernel_shape", "strides")}
        pads = [given["pads"][at] for at in (1, 2, 5, 6)]
        nodes += [
            helper.make_node("Squeeze", [before, axes], [names[0]]),
            helper.make_node("Transpose", [names[0]], [names[1]], perm=[0, 3, 1, 2]),
            helper.make_node("MaxPool", [names[1]], [names[2]], pads=pads, **windows),
            helper.make_node("Transpose", [names[2]], [names[3]], perm=[0, 2, 3, 1]),
            helper.make_node("Unsqueeze", [names[3], axes], [after]),
        ]
    if len(nodes) != len(graph.node):
        graph.initializer.append(helper.make_tensor(axes, TensorProto.INT64, [2], [0, 1]))
        del graph.node[:]
        graph.node.extend(nodes)
