"""A trained network in PyTorch. Needs torch alone: `network = load("model.pt")`, `network(pixels) -> probabilities`.

Pixels are uint8 [B, H, W, C], probabilities float32 [B, classes]; `network.logits` is what a loss takes. The weights
are in the state dict, to be trained further: `network.train()` normalises by the batch. All is float32.
"""

from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]


def load(path: Any) -> "Network":
    """Returns the network of a file {"network": description, "state_dict": weights}, ready to predict."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    network = Network(content["network"])
    network.load_state_dict(content["state_dict"])
    return network.eval()


class Network(nn.Module):
    """A stem, cells or residual blocks in a row, and a linear layer on the mean over places.

    `description` is plain data: "space" ("darts", "nasbench201" or "resnet"), "cells" {kind: {"edges": [[operation,
    source, target]], "num_inputs", "num_nodes", "concat"}}, "shape" {"channels", "cells", "num_classes", "stem_stride",
    "stem"}, "image" [H, W, C], "mean", "std".
    """

    mean: Tensor
    std: Tensor

    def __init__(self, description: dict[str, Any]):
        super().__init__()
        shape, self.space = description["shape"], description["space"]
        channels, colours = shape["channels"], description["image"][2]
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(description[name]).view(1, -1, 1, 1), persistent=False)
        wide = 3 * channels if self.space == "darts" else channels
        if shape["stem"] == "imagenet":
            self.stem: nn.Module = ImageNetStem(colours, channels)
            older, newer = channels, channels
        else:
            self.stem = Stem(colours, wide, shape["stem_stride"])
            older, newer = wide, wide
        self.names: list[str] = []
        build = {"darts": self._add_darts, "nasbench201": self._add_nasbench201, "resnet": self._add_resnet}
        width = build[self.space](description, channels, older, newer)
        if self.space != "darts":
            self.last_norm = norm(width)
        self.head = nn.ModuleDict({"linear": nn.Linear(width, shape["num_classes"])})

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns probabilities float32 [B, classes] for pixels uint8 [B, H, W, C]."""
        return self.logits(pixels).softmax(-1)

    def logits(self, pixels: Tensor) -> Tensor:
        """Returns logits float32 [B, classes] for pixels uint8 [B, H, W, C]."""
        before, x = self.stem((pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std)
        for name in self.names:
            if self.space == "darts":
                inputs = [getattr(self, f"older_{name}")(before), getattr(self, f"newer_{name}")(x)]
                before, x = x, getattr(self, f"cell_{name}")(inputs)
            else:
                x = getattr(self, name)(x)
        if self.space != "darts":
            x = functional.relu(self.last_norm(x))
        return self.head["linear"](x.mean((2, 3)))

    def _add_darts(self, description: dict[str, Any], channels: int, older: int, newer: int) -> int:
        cells = description["shape"]["cells"]
        halved = description["shape"]["stem"] == "imagenet"
        for at in range(cells):
            reduces = at in (cells // 3, 2 * cells // 3)
            channels *= 2 if reduces else 1
            first = FactorizedReduce(older, channels) if halved else ReluConv(1, older, channels)
            self.add_module(f"older_{at}", first)
            self.add_module(f"newer_{at}", ReluConv(1, newer, channels))
            cell = Cell(description["cells"]["reduce" if reduces else "normal"], channels, 2 if reduces else 1)
            self.add_module(f"cell_{at}", cell)
            self.names.append(str(at))
            older, newer, halved = newer, channels * len(cell.concat), reduces
        return newer

    def _add_nasbench201(self, description: dict[str, Any], channels: int, older: int, newer: int) -> int:
        for stage in range(3):
            if stage:
                self._add(f"residual_{stage}", ResidualBlock(channels, 2 * channels))
                channels *= 2
            for at in range(description["shape"]["cells"]):
                self._add(f"cell_{stage}_{at}", Cell(description["cells"]["cell"], channels, 1))
        return channels

    def _add_resnet(self, description: dict[str, Any], channels: int, older: int, newer: int) -> int:
        width = newer
        for stage in range(3):
            for at in range(description["shape"]["cells"]):
                stride = 2 if stage and not at else 1
                self._add(f"block_{stage}_{at}", PreActivationBlock(width, channels * 2**stage, stride))
                width = channels * 2**stage
        return width

    def _add(self, name: str, module: nn.Module) -> None:
        self.add_module(name, module)
        self.names.append(name)


class Cell(nn.Module):
    """One cell: each edge adds its operation's result to its target."""

    def __init__(self, cell: dict[str, Any], channels: int, stride: int):
        super().__init__()
        self.edges, self.concat, self.nodes = cell["edges"], cell["concat"], cell["num_nodes"]
        for at, (operation, source, _) in enumerate(self.edges):
            here = stride if source < cell["num_inputs"] else 1
            self.add_module(f"slot_{at}", OPERATIONS[operation](channels, here))

    def forward(self, x: Any) -> Tensor:
        nodes: list[Any] = [*(x if isinstance(x, list) else [x]), *([None] * self.nodes)]
        for at, (_, source, target) in enumerate(self.edges):
            result = getattr(self, f"slot_{at}")(nodes[source])
            nodes[target] = result if nodes[target] is None else nodes[target] + result
        return torch.cat([nodes[at] for at in self.concat], 1) if self.concat else nodes[-1]


class Stem(nn.Module):
    def __init__(self, inputs: int, channels: int, stride: int):
        super().__init__()
        self.kernel, self.norm = conv(3, inputs, channels, stride), norm(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.kernel(x))
        return x, x


class ImageNetStem(nn.Module):
    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.first = Stem(inputs, channels // 2, 2)
        self.second = ReluConv(3, channels // 2, channels, 2)
        self.third = ReluConv(3, channels, channels, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        older = self.second(self.first(x)[0])
        return older, self.third(older)


class ReluConv(nn.Module):
    def __init__(self, size: int, inputs: int, channels: int, stride: int = 1):
        super().__init__()
        self.kernel, self.norm = conv(size, inputs, channels, stride), norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.kernel(functional.relu(x)))


class Separable(nn.Module):
    def __init__(self, size: int, channels: int, stride: int, dilation: int = 1, repeats: int = 1):
        super().__init__()
        self.repeats = repeats
        for at in range(repeats):
            depthwise = conv(size, channels, channels, 1 if at else stride, dilation, groups=channels)
            self.add_module(f"depthwise_{at}", depthwise)
            self.add_module(f"pointwise_{at}", conv(1, channels, channels))
            self.add_module(f"norm_{at}", norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        for at in range(self.repeats):
            x = getattr(self, f"depthwise_{at}")(functional.relu(x))
            x = getattr(self, f"norm_{at}")(getattr(self, f"pointwise_{at}")(x))
        return x


class FactorizedReduce(nn.Module):
    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.even = conv(1, inputs, channels // 2, 2)
        self.odd = conv(1, inputs, channels - channels // 2, 2)
        self.norm = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(x)
        shifted = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], 1))


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.first = ReluConv(3, inputs, channels, 2)
        self.second = ReluConv(3, channels, channels)
        self.shortcut = conv(1, inputs, channels)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
        return self.second(self.first(x)) + self.shortcut(pooled)


class PreActivationBlock(nn.Module):
    def __init__(self, inputs: int, channels: int, stride: int):
        super().__init__()
        self.norm_0, self.norm_1 = norm(inputs), norm(channels)
        self.kernel_0, self.kernel_1 = conv(3, inputs, channels, stride), conv(3, channels, channels)
        self.shortcut = conv(1, inputs, channels, stride) if stride > 1 or inputs != channels else None

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.norm_0(x))
        added = self.kernel_1(functional.relu(self.norm_1(self.kernel_0(active))))
        return added + (x if self.shortcut is None else self.shortcut(active))


class Zero(nn.Module):
    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class Skip(nn.Module):
    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.reduce = FactorizedReduce(channels, channels) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(x)


def conv(size: int, inputs: int, channels: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    margin = dilation * (size - 1) // 2
    return nn.Conv2d(inputs, channels, size, stride, margin, dilation, groups, bias=False)


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1)


OPERATIONS: dict[str, Any] = {
    "none": lambda channels, stride: Zero(stride),
    "skip_connect": Skip,
    "max_pool_3x3": lambda channels, stride: nn.MaxPool2d(3, stride, 1),
    "avg_pool_3x3": lambda channels, stride: nn.AvgPool2d(3, stride, 1, count_include_pad=False),
    "sep_conv_3x3": lambda channels, stride: Separable(3, channels, stride, repeats=2),
    "sep_conv_5x5": lambda channels, stride: Separable(5, channels, stride, repeats=2),
    "dil_conv_3x3": lambda channels, stride: Separable(3, channels, stride, dilation=2),
    "dil_conv_5x5": lambda channels, stride: Separable(5, channels, stride, dilation=2),
    "nor_conv_1x1": lambda channels, stride: ReluConv(1, channels, channels, stride),
    "nor_conv_3x3": lambda channels, stride: ReluConv(3, channels, channels, stride),
}
