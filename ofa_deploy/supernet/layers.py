"""Layers whose weights many subnets share, and the plain modules cut from them.

An elastic layer's ``forward`` takes the ``Block`` to be: the weights are sliced for it, nothing is
remembered. ``extract`` copies the slice into plain torch modules.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_deploy.errors import InputError
from ofa_deploy.space import Block

__all__ = [
    "Classifier",
    "ConvBlock",
    "ElasticMBConv",
    "MBConv",
    "SqueezeExcite",
    "activate",
    "build_module",
    "channels_last",
    "elastic_conv",
]

Permutation = tuple[Tensor, int, Tensor]  # tensor, dimension, new order


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
        case "hswish":
            return F.hardswish(x)
        case "none":
            return x
        case _:
            raise InputError(f"unknown activation {activation!r}")


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al. 2018) with ReLU and hard sigmoid, as in MobileNetV3."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * F.hardsigmoid(self.expand(scale))


class ConvBlock(nn.Module):
    """Convolution, BN, activation."""

    def __init__(self, block: Block, bn_eps: float) -> None:
        super().__init__()
        self.block = block
        self.conv = nn.Conv2d(
            block.in_channels,
            block.out_channels,
            block.kernel,
            block.stride,
            block.kernel // 2,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(block.out_channels, bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.bn(self.conv(x)), self.block.activation)


class MBConv(nn.Module):
    """Inverted residual: [expansion], depthwise, [squeeze-excite], linear projection."""

    def __init__(self, block: Block, bn_eps: float) -> None:
        super().__init__()
        self.block = block
        mid, padding = block.mid_channels, block.kernel // 2
        if block.expands:
            self.expand = nn.Conv2d(block.in_channels, mid, 1, bias=False)
            self.expand_bn = nn.BatchNorm2d(mid, bn_eps)
        self.depthwise = nn.Conv2d(
            mid, mid, block.kernel, block.stride, padding, groups=mid, bias=False
        )
        self.depthwise_bn = nn.BatchNorm2d(mid, bn_eps)
        if block.se:
            self.squeeze = SqueezeExcite(mid, block.se)
        self.project = nn.Conv2d(mid, block.out_channels, 1, bias=False)
        self.project_bn = nn.BatchNorm2d(block.out_channels, bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.block.expands:
            y = activate(self.expand_bn(self.expand(y)), self.block.activation)
        y = activate(self.depthwise_bn(self.depthwise(y)), self.block.activation)
        if self.block.se:
            y = self.squeeze(y)
        y = cast(Tensor, self.project_bn(self.project(y)))
        return x + y if self.block.residual else y


class Classifier(nn.Module):
    """Global average pool, [1x1 features, activation], linear."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block
        features = block.mid_channels or block.in_channels
        if block.mid_channels:
            self.features = nn.Conv2d(block.in_channels, features, 1, bias=False)
        self.linear = nn.Linear(features, block.out_channels)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Logits, shape (batch, classes). ``keep`` scales the features: a dropout mask."""
        x = x.mean((2, 3), keepdim=True)
        if self.block.mid_channels:
            x = activate(self.features(x), self.block.activation)
        x = x.flatten(1)
        return cast(Tensor, self.linear(x if keep is None else x * keep))


def build_module(block: Block, bn_eps: float) -> nn.Module:
    """The plain module that computes ``block``."""
    match block.kind:
        case "conv":
            return ConvBlock(block, bn_eps)
        case "mbconv":
            return MBConv(block, bn_eps)
        case _:
            return Classifier(block)


def _batch_norm(x: Tensor, bn: nn.BatchNorm2d) -> Tensor:
    """BN over the first channels of ``bn``, as many as ``x`` has.

    While training, batch statistics are used and the running ones left alone: a mixture over
    subnets would belong to none of them.
    """
    channels = x.shape[1]
    mean = var = None
    if not bn.training:
        mean, var = (
            cast(Tensor, bn.running_mean)[:channels],
            cast(Tensor, bn.running_var)[:channels],
        )
    return F.batch_norm(
        x, mean, var, bn.weight[:channels], bn.bias[:channels], bn.training, 0.0, bn.eps
    )


def elastic_conv(layer: ConvBlock, x: Tensor) -> Tensor:
    """A fixed convolution as part of a supernet: its BN keeps the rules of ``_batch_norm``."""
    return activate(_batch_norm(layer.conv(x), layer.bn), layer.block.activation)


def _copy_norm(target: nn.BatchNorm2d, source: nn.BatchNorm2d) -> None:
    channels = target.num_features
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(target, name).copy_(getattr(source, name)[:channels])


class ElasticMBConv(nn.Module):
    """An ``MBConv`` of the greatest kernel and width that acts as any smaller one.

    Width takes the first channels. A smaller kernel is the centre of the next larger one, passed
    through a learned matrix shared by all channels; so 3x3 from 7x7 goes through both (Cai et al.
    2020, once-for-all). The matrices start as identity.

    Args:
        largest: the block with the greatest kernel and expansion ratio.
        kernels: the kernel sizes it may be asked for, ascending.
    """

    def __init__(self, largest: Block, kernels: tuple[int, ...], bn_eps: float) -> None:
        super().__init__()
        self.kernels = kernels
        self.full = MBConv(largest, bn_eps)
        self.transforms = nn.ParameterDict(
            {f"{big}to{small}": torch.eye(small**2) for small, big in pairwise(kernels)}
        )

    def kernel_weight(self, channels: int, kernel: int) -> Tensor:
        """Depthwise weights, shape (channels, 1, kernel, kernel)."""
        weight = self.full.depthwise.weight[:channels]
        for small, big in zip(self.kernels[-2::-1], self.kernels[:0:-1], strict=True):
            if big <= kernel:
                break
            border = (big - small) // 2
            centre = weight[:, :, border : border + small, border : border + small]
            matrix = self.transforms[f"{big}to{small}"]
            weight = F.linear(centre.reshape(channels, 1, small**2), matrix)
            weight = weight.view(channels, 1, small, small)
        return weight

    def forward(self, x: Tensor, block: Block) -> Tensor:
        full, mid, y = self.full, block.mid_channels, x
        if block.expands:
            y = F.conv2d(y, full.expand.weight[:mid])
            y = activate(_batch_norm(y, full.expand_bn), block.activation)
        weight = self.kernel_weight(mid, block.kernel)
        y = F.conv2d(y, weight, None, block.stride, block.kernel // 2, 1, mid)
        y = activate(_batch_norm(y, full.depthwise_bn), block.activation)
        if block.se:
            y = self._squeeze(y, mid, block.se)
        y = _batch_norm(F.conv2d(y, full.project.weight[:, :mid]), full.project_bn)
        return x + y if block.residual else y

    def _squeeze(self, x: Tensor, mid: int, hidden: int) -> Tensor:
        reduce, expand = self.full.squeeze.reduce, self.full.squeeze.expand
        scale = x.mean((2, 3), keepdim=True)
        scale = F.relu(F.conv2d(scale, reduce.weight[:hidden, :mid], reduce.bias[:hidden]))  # type: ignore[index]
        scale = F.conv2d(scale, expand.weight[:mid, :hidden], expand.bias[:mid])  # type: ignore[index]
        return x * F.hardsigmoid(scale)

    @torch.no_grad()
    def extract(self, block: Block) -> MBConv:
        """A plain ``MBConv`` with a copy of the weights that ``block`` uses."""
        full, mid = self.full, block.mid_channels
        plain = MBConv(block, full.project_bn.eps)
        if block.expands:
            plain.expand.weight.copy_(full.expand.weight[:mid])
            _copy_norm(plain.expand_bn, full.expand_bn)
        plain.depthwise.weight.copy_(self.kernel_weight(mid, block.kernel))
        _copy_norm(plain.depthwise_bn, full.depthwise_bn)
        if block.se:
            reduce, expand = full.squeeze.reduce, full.squeeze.expand
            plain.squeeze.reduce.weight.copy_(reduce.weight[: block.se, :mid])
            plain.squeeze.reduce.bias.copy_(reduce.bias[: block.se])  # type: ignore[union-attr,index]
            plain.squeeze.expand.weight.copy_(expand.weight[:mid, : block.se])
            plain.squeeze.expand.bias.copy_(expand.bias[:mid])  # type: ignore[union-attr,index]
        plain.project.weight.copy_(full.project.weight[:, :mid])
        _copy_norm(plain.project_bn, full.project_bn)
        return plain

    def sorting(self) -> Iterator[Permutation]:
        """How to order the middle channels by importance, and then the SE's hidden units.

        Importance is the L1 norm of the weights that read a channel (projection) or a hidden unit
        (the SE's expansion), descending and stable. Applying every permutation leaves the largest
        block's function as it was.
        """
        full = self.full
        if not full.block.expands:
            return  # the middle channels are the input's
        order = _by_importance(full.project.weight)
        for layer in (full.expand, full.expand_bn, full.depthwise, full.depthwise_bn):
            yield from ((tensor, 0, order) for tensor in _channel_tensors(layer))
        yield full.project.weight, 1, order
        if full.block.se:
            reduce, expand = full.squeeze.reduce, full.squeeze.expand
            yield reduce.weight, 1, order
            yield from ((tensor, 0, order) for tensor in _channel_tensors(expand))
            hidden = _by_importance(expand.weight)
            yield expand.weight, 1, hidden
            yield from ((tensor, 0, hidden) for tensor in _channel_tensors(reduce))


def _by_importance(weight: Tensor) -> Tensor:
    norms = weight.detach().abs().sum((0, 2, 3), dtype=torch.float64)
    return torch.argsort(norms, descending=True, stable=True)


def _channel_tensors(layer: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers with one entry a channel along their first dimension."""
    yield from layer.parameters()
    yield from (buffer for buffer in layer.buffers() if buffer.ndim)
