"""The yardstick: one child of a space as an ordinary eager PyTorch network, in channels_last layout.

The same operations in the same order as `parsec.supernet.objective.static_child`, written with PyTorch's own
convolutions, poolings and batch normalisation (batch statistics, no affine parameters). Its weights are those that
`child_weights` picks from a supernet, so the two compute the same loss. Import it only where torch is installed.
"""

from typing import Any

import jax
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # noqa: N812  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]

from parsec.cells.network import Shape
from parsec.cells.space import Cell, Genotype, Space
from parsec.errors import unknown


class TorchChild(nn.Module):
    """The network of one genotype.

    Attributes:
      parts: the parameters, by the names they have in the static network.
    """

    def __init__(self, space: Space, genotype: Genotype, shape: Shape, weights: Any, device: str = "cpu"):
        """Copies the weights.

        Args:
          space: "darts" or "nasbench201".
          genotype: the child.
          shape: size of the network.
          weights: tree of float arrays of the static network, as `child_weights` returns it.
          device: where PyTorch is to run it.

        Raises:
          UserError: this space's network has not been written for PyTorch.
        """
        super().__init__()
        if space.name not in _NETWORKS:
            raise unknown("space for PyTorch", space.name, _NETWORKS)
        self._network = _NETWORKS[space.name]
        self._genotype = genotype
        self._shape = shape
        self.parts = _parameters(jax.tree.map(np.asarray, weights))
        self.to(device)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits float32 [B, classes] for images [B, C, H, W], best in channels_last layout."""
        return self._network(self.parts, self._genotype, self._shape, images)


def torch_images(images: np.ndarray, device: str, dtype: str) -> Tensor:
    """Returns images [B, H, W, C] as a tensor [B, C, H, W] in channels_last layout."""
    moved = torch.tensor(np.asarray(images, np.float32), device=device).permute(0, 3, 1, 2)
    return moved.to(getattr(torch, dtype), memory_format=torch.channels_last)


def log_likelihood(child: TorchChild, images: Tensor, labels: Tensor) -> Tensor:
    """Returns the sum over the batch of log p(label | image), a scalar, for labels int64 [B]."""
    return -F.cross_entropy(child(images), labels, reduction="sum")


def _parameters(tree: Any) -> Any:
    """Returns the arrays as nested modules of parameters, kernels in PyTorch's axes."""
    parts: Any = nn.ModuleDict()
    for name, value in tree.items():
        if isinstance(value, dict):
            parts[name] = _parameters(value)
            continue
        array = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        parts.register_parameter(name, nn.Parameter(torch.tensor(array.copy())))
    return parts


def _darts(parts: Any, genotype: Genotype, shape: Shape, images: Tensor) -> Tensor:
    before = last = _stem(parts["stem"], images, shape)
    reductions = (shape.cells // 3, 2 * shape.cells // 3)
    halved = False
    for at in range(shape.cells):
        older = _factorized_reduce if halved else _relu_conv
        inputs = (older(parts[f"older_{at}"], before), _relu_conv(parts[f"newer_{at}"], last))
        halved = at in reductions
        kind = "reduce" if halved else "normal"
        before, last = last, _cell(parts[f"cell_{at}"], genotype[kind], inputs, 2 if halved else 1)
    return _head(parts["head"], last)


def _nasbench201(parts: Any, genotype: Genotype, shape: Shape, images: Tensor) -> Tensor:
    x = _stem(parts["stem"], images, shape)
    for stage in range(3):
        if stage > 0:
            block = parts[f"residual_{stage}"]
            deep = _relu_conv(block["second"], _relu_conv(block["first"], x, stride=2))
            x = deep + _conv(F.avg_pool2d(x, 2, 2), block.shortcut)
        for at in range(shape.cells):
            x = _cell(parts[f"cell_{stage}_{at}"], genotype["cell"], (x,), 1)
    return _head(parts["head"], F.relu(_norm(x)))


_NETWORKS = {"darts": _darts, "nasbench201": _nasbench201}


def _cell(parts: Any, cell: Cell, inputs: tuple[Tensor, ...], stride: int) -> Tensor:
    nodes: list[Any] = [*inputs, *([None] * cell.num_nodes)]
    for at, edge in enumerate(cell.edges):
        own = stride if edge.source < cell.num_inputs else 1
        result = _operation(edge.operation, parts[f"slot_{at}"], nodes[edge.source], own)
        nodes[edge.target] = result if nodes[edge.target] is None else nodes[edge.target] + result
    return torch.cat([nodes[at] for at in cell.concat], 1) if cell.concat else nodes[-1]


def _operation(name: str, weights: Any, x: Tensor, stride: int) -> Tensor:
    if name == "none":
        return torch.zeros_like(x[:, :, ::stride, ::stride])
    if name == "skip_connect":
        return x if stride == 1 else _factorized_reduce(weights["reduce"], x)
    if name == "max_pool_3x3":
        return F.max_pool2d(x, 3, stride, 1)
    if name == "avg_pool_3x3":
        return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
    if name.startswith("nor_conv"):
        return _relu_conv(weights, x, stride)
    dilation = 2 if name.startswith("dil") else 1
    for repeat in range(1 if name.startswith("dil") else 2):
        kernel = getattr(weights, f"depthwise_{repeat}")
        x = _conv(F.relu(x), kernel, stride if repeat == 0 else 1, dilation, groups=x.shape[1])
        x = _norm(_conv(x, getattr(weights, f"pointwise_{repeat}")))
    return x


def _stem(parts: Any, images: Tensor, shape: Shape) -> Tensor:
    return _norm(_conv(images, parts.kernel, shape.stem_stride))


def _relu_conv(parts: Any, x: Tensor, stride: int = 1) -> Tensor:
    return _norm(_conv(F.relu(x), parts.kernel, stride))


def _factorized_reduce(parts: Any, x: Tensor) -> Tensor:
    x = F.relu(x)
    # Where the size is even, PyTorch's own rounding makes the two grids equal.
    shifted = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1:, 1:]
    return _norm(torch.cat([_conv(x, parts.even, 2), _conv(shifted, parts.odd, 2)], 1))


def _head(parts: Any, x: Tensor) -> Tensor:
    linear = parts["linear"]
    return F.linear(x.float().mean((2, 3)), linear.kernel, linear.bias)


def _conv(x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1, groups: int = 1) -> Tensor:
    margin = dilation * (kernel.shape[-1] - 1) // 2
    return F.conv2d(x, kernel.to(x.dtype), None, stride, margin, dilation, groups)


def _norm(x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, training=True)
