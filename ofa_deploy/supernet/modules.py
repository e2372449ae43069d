"""Plain torch modules, one a kind of block: what a ``Subnet`` is made of.

They come with uninitialised weights: call ``initialise``, or load or copy weights into them.
"""

from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_deploy.errors import InputError
from ofa_deploy.space import Block

__all__ = [
    "Bottleneck",
    "Classifier",
    "ConvBlock",
    "MBConv",
    "MaxPool",
    "SqueezeExcite",
    "activate",
    "build_module",
    "channels_last",
    "initialise",
    "shrink",
]

M = TypeVar("M", bound=nn.Module)


def channels_last(module: M) -> M:
    """Lay weights out channels last: convolutions on CPUs are up to twice as fast so."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def activate(x: Tensor, activation: str) -> Tensor:
    """Apply an activation by its name in a ``Block``."""
    match activation:
        case "relu":
            return F.relu(x)
        case "relu6":
            return F.relu6(x)
        case "hswish":
            return F.hardswish(x)
        case "none":
            return x
        case _:
            raise InputError(f"unknown activation {activation!r}")


class Conv2d(nn.Conv2d):
    """A convolution whose weights are not drawn on construction, which takes as long as copying."""

    def reset_parameters(self) -> None:
        """Leave them to ``initialise``, or to whoever copies or loads weights."""


class Linear(nn.Linear):
    """As ``Conv2d``."""

    def reset_parameters(self) -> None:
        """As in ``Conv2d``."""


class BatchNorm2d(nn.BatchNorm2d):
    """As ``Conv2d``; the running statistics start as (0, 1)."""

    def reset_parameters(self) -> None:
        """As in ``Conv2d``."""


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights: He's normal (fan-out) for convolutions, no biases, BN as identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
        elif isinstance(module, nn.Linear):
            module.weight.normal_(0, module.in_features**-0.5, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.BatchNorm2d.reset_parameters(module)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            module.bias.zero_()


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> Conv2d:
    return Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al. 2018) with ReLU and hard sigmoid, as in MobileNetV3."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = Conv2d(channels, hidden, 1)
        self.expand = Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * F.hardsigmoid(self.expand(scale))


class ConvBlock(nn.Module):
    """Convolution, BN, activation, and the input added if it is residual."""

    def __init__(self, block: Block, bn_eps: float) -> None:
        super().__init__()
        self.block = block
        self.conv = _conv(block.in_channels, block.out_channels, block.kernel, block.stride)
        self.bn = BatchNorm2d(block.out_channels, bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        y = activate(self.bn(self.conv(x)), self.block.activation)
        return x + y if self.block.residual else y


class MaxPool(nn.Module):
    """Max-pooling."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.block.kernel, self.block.stride, self.block.kernel // 2)


class MBConv(nn.Module):
    """Inverted residual: [expansion], depthwise, [squeeze-excite], linear projection."""

    def __init__(self, block: Block, bn_eps: float) -> None:
        super().__init__()
        self.block = block
        mid = block.mid_channels
        if block.expands:
            self.expand = _conv(block.in_channels, mid)
            self.expand_bn = BatchNorm2d(mid, bn_eps)
        self.depthwise = _conv(mid, mid, block.kernel, block.stride, groups=mid)
        self.depthwise_bn = BatchNorm2d(mid, bn_eps)
        if block.se:
            self.squeeze = SqueezeExcite(mid, block.se)
        self.project = _conv(mid, block.out_channels)
        self.project_bn = BatchNorm2d(block.out_channels, bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.block.expands:
            y = activate(self.expand_bn(self.expand(y)), self.block.activation)
        y = activate(self.depthwise_bn(self.depthwise(y)), self.block.activation)
        if self.block.se:
            y = self.squeeze(y)
        y = cast(Tensor, self.project_bn(self.project(y)))
        return x + y if self.block.residual else y


class Bottleneck(nn.Module):
    """ResNet's block: 1x1, 3x3 with the stride, 1x1, and a shortcut."""

    def __init__(self, block: Block, bn_eps: float) -> None:
        super().__init__()
        self.block = block
        mid = block.mid_channels
        self.conv1 = _conv(block.in_channels, mid)
        self.bn1 = BatchNorm2d(mid, bn_eps)
        self.conv2 = _conv(mid, mid, block.kernel, block.stride)
        self.bn2 = BatchNorm2d(mid, bn_eps)
        self.conv3 = _conv(mid, block.out_channels)
        self.bn3 = BatchNorm2d(block.out_channels, bn_eps)
        if block.projects:
            self.shortcut = _conv(block.in_channels, block.out_channels)
            self.shortcut_bn = BatchNorm2d(block.out_channels, bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        block = self.block
        y = activate(self.bn1(self.conv1(x)), block.activation)
        y = activate(self.bn2(self.conv2(y)), block.activation)
        y = cast(Tensor, self.bn3(self.conv3(y)))
        if block.projects:
            x = self.shortcut_bn(self.shortcut(shrink(x, block.stride)))
        return activate(x + y, block.activation)


def shrink(x: Tensor, stride: int) -> Tensor:
    """Average-pool by ``stride``; at the borders over what is there."""
    return x if stride == 1 else F.avg_pool2d(x, stride, stride, ceil_mode=True)


class Classifier(nn.Module):
    """Global average pool, [1x1 features, activation], linear."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block
        features = block.mid_channels or block.in_channels
        if block.mid_channels:
            self.features = _conv(block.in_channels, features)
        self.linear = Linear(features, block.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (batch, classes)."""
        x = x.mean((2, 3), keepdim=True)
        if self.block.mid_channels:
            x = activate(self.features(x), self.block.activation)
        return cast(Tensor, self.linear(x.flatten(1)))


def build_module(block: Block, bn_eps: float) -> nn.Module:
    """The plain module that computes ``block``."""
    match block.kind:
        case "conv":
            return ConvBlock(block, bn_eps)
        case "maxpool":
            return MaxPool(block)
        case "mbconv":
            return MBConv(block, bn_eps)
        case "bottleneck":
            return Bottleneck(block, bn_eps)
        case "classifier":
            return Classifier(block)
