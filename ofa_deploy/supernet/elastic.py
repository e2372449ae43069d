"""Layers whose weights many subnets share.

Each holds the plain module of its largest block. ``forward`` takes the ``Block`` to be: the weights
are sliced for it, nothing is remembered. ``extract`` copies the slice into a plain module.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_deploy.space import Block
from ofa_deploy.supernet.modules import (
    Bottleneck,
    Classifier,
    ConvBlock,
    MBConv,
    activate,
    build_module,
    shrink,
)

__all__ = [
    "Elastic",
    "ElasticBottleneck",
    "ElasticClassifier",
    "ElasticConv",
    "ElasticMBConv",
    "build_elastic",
]

Permutation = tuple[Tensor, int, Tensor]  # tensor, dimension, new order


def _first(tensor: Tensor, *sizes: int) -> Tensor:
    """The leading part of a tensor, or itself: a slice costs microseconds, hundreds a network."""
    if tensor.shape[: len(sizes)] == sizes:
        return tensor
    return tensor[tuple(slice(size) for size in sizes)]


def _batch_norm(x: Tensor, bn: nn.BatchNorm2d) -> Tensor:
    """BN over the first channels of ``bn``, as many as ``x`` has.

    While training, batch statistics are used and the running ones left alone: a mixture over
    subnets would belong to none of them.
    """
    channels = x.shape[1]
    mean = var = None
    if not bn.training:
        mean, var = (
            _first(cast(Tensor, bn.running_mean), channels),
            _first(cast(Tensor, bn.running_var), channels),
        )
    weight, bias = _first(bn.weight, channels), _first(bn.bias, channels)
    return F.batch_norm(x, mean, var, weight, bias, bn.training, 0.0, bn.eps)


def _conv_bn(
    x: Tensor, conv: nn.Conv2d, bn: nn.BatchNorm2d, outputs: int, stride: int = 1
) -> Tensor:
    """The first channels of a convolution and its BN: ``outputs`` of as many as ``x`` has."""
    weight = _first(conv.weight, outputs, x.shape[1])
    return _batch_norm(F.conv2d(x, weight, None, stride, conv.padding), bn)


class Elastic(nn.Module):
    """A slot of a supernet, for blocks that need nothing of their own.

    Args:
        largest: the block with the most of everything.
    """

    def __init__(self, largest: Block, bn_eps: float) -> None:
        super().__init__()
        self.bn_eps = bn_eps
        self.full = build_module(largest, bn_eps)

    def forward(self, x: Tensor, block: Block) -> Tensor:
        """What ``block`` computes."""
        return cast(Tensor, self.full(x))

    @torch.no_grad()
    def extract(self, block: Block) -> nn.Module:
        """A plain module with a copy of the weights that ``block`` uses."""
        plain = build_module(block, self.bn_eps)
        state = self.full.state_dict()
        for device in {source.device for source in state.values()} - {torch.device("cpu")}:
            plain.to(device)
        for name, target in plain.state_dict().items():
            source = self.weight(name, block, state[name])
            target.copy_(_first(source, *target.shape))
        return plain

    def weight(self, name: str, block: Block, full: Tensor) -> Tensor:
        """The tensor whose first channels ``block`` uses."""
        return full

    def sorting(self) -> Iterator[Permutation]:
        """How to order the middle channels by importance.

        Importance is the L1 norm of the weights that read a channel, descending and stable.
        Applying every permutation leaves the largest block's function as it was.
        """
        return iter(())


class ElasticConv(Elastic):
    """A ``ConvBlock`` with fewer channels, in or out."""

    full: ConvBlock

    def forward(self, x: Tensor, block: Block) -> Tensor:
        y = _conv_bn(x, self.full.conv, self.full.bn, block.out_channels, block.stride)
        y = activate(y, block.activation)
        return x + y if block.residual else y


class ElasticMBConv(Elastic):
    """An ``MBConv`` of the greatest kernel and width that acts as any smaller one.

    Width takes the first channels. A smaller kernel is the centre of the next larger one, passed
    through a learned matrix shared by all channels; so 3x3 from 7x7 goes through both (Cai et al.
    2020, once-for-all). The matrices start as identity.

    Args:
        kernels: the kernel sizes it may be asked for, ascending.
    """

    full: MBConv

    def __init__(self, largest: Block, bn_eps: float, kernels: tuple[int, ...]) -> None:
        super().__init__(largest, bn_eps)
        self.kernels = kernels
        self.transforms = nn.ParameterDict(
            {f"{big}to{small}": torch.eye(small**2) for small, big in pairwise(kernels)}
        )

    def kernel_weight(self, channels: int, kernel: int) -> Tensor:
        """Depthwise weights, shape (channels, 1, kernel, kernel)."""
        weight = _first(self.full.depthwise.weight, channels)
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
            y = activate(_conv_bn(y, full.expand, full.expand_bn, mid), block.activation)
        weight = self.kernel_weight(mid, block.kernel)
        y = F.conv2d(y, weight, None, block.stride, block.kernel // 2, 1, mid)
        y = activate(_batch_norm(y, full.depthwise_bn), block.activation)
        if block.se:
            y = self._squeeze(y, mid, block.se)
        y = _conv_bn(y, full.project, full.project_bn, block.out_channels)
        return x + y if block.residual else y

    def _squeeze(self, x: Tensor, mid: int, hidden: int) -> Tensor:
        reduce, expand = self.full.squeeze.reduce, self.full.squeeze.expand
        scale = x.mean((2, 3), keepdim=True)
        assert reduce.bias is not None and expand.bias is not None
        down, up = _first(reduce.weight, hidden, mid), _first(expand.weight, mid, hidden)
        scale = F.relu(F.conv2d(scale, down, _first(reduce.bias, hidden)))
        scale = F.conv2d(scale, up, _first(expand.bias, mid))
        return x * F.hardsigmoid(scale)

    def weight(self, name: str, block: Block, full: Tensor) -> Tensor:
        if name == "depthwise.weight":
            return self.kernel_weight(block.mid_channels, block.kernel)
        return full

    def sorting(self) -> Iterator[Permutation]:
        """As in ``Elastic``; then the SE's hidden units, by the weights that read them."""
        full = self.full
        if not full.block.expands:
            return  # the middle channels are the input's
        order = _by_importance(full.project.weight)
        for layer in (full.expand, full.expand_bn, full.depthwise, full.depthwise_bn):
            yield from _reordered(layer, order)
        yield full.project.weight, 1, order
        if full.block.se:
            reduce, expand = full.squeeze.reduce, full.squeeze.expand
            yield reduce.weight, 1, order
            yield from _reordered(expand, order)
            hidden = _by_importance(expand.weight)
            yield expand.weight, 1, hidden
            yield from _reordered(reduce, hidden)


class ElasticBottleneck(Elastic):
    """A ``Bottleneck`` with fewer channels, in, in the middle or out."""

    full: Bottleneck

    def forward(self, x: Tensor, block: Block) -> Tensor:
        full, mid, outputs = self.full, block.mid_channels, block.out_channels
        y = activate(_conv_bn(x, full.conv1, full.bn1, mid), block.activation)
        y = activate(_conv_bn(y, full.conv2, full.bn2, mid, block.stride), block.activation)
        y = _conv_bn(y, full.conv3, full.bn3, outputs)
        if block.projects:
            x = _conv_bn(shrink(x, block.stride), full.shortcut, full.shortcut_bn, outputs)
        return activate(x + y, block.activation)

    def sorting(self) -> Iterator[Permutation]:
        """As in ``Elastic``, for the channels after the first convolution and after the second."""
        full = self.full
        stages = (
            (full.conv1, full.bn1, full.conv2),
            (full.conv2, full.bn2, full.conv3),
        )
        for writer, bn, reader in stages:
            order = _by_importance(reader.weight)
            yield from _reordered(writer, order)
            yield from _reordered(bn, order)
            yield reader.weight, 1, order


class ElasticClassifier(Elastic):
    """A ``Classifier`` that may read fewer channels."""

    full: Classifier

    def forward(self, x: Tensor, block: Block, keep: Tensor | None = None) -> Tensor:
        """Logits. ``keep`` scales the features: a dropout mask."""
        full = self.full
        x = x.mean((2, 3), keepdim=True)
        if block.mid_channels:
            weight = _first(full.features.weight, block.mid_channels, x.shape[1])
            x = activate(F.conv2d(x, weight), block.activation)
        x = x.flatten(1)
        if keep is not None:
            x = x * keep[:, : x.shape[1]]
        weight = _first(full.linear.weight, block.out_channels, x.shape[1])
        return F.linear(x, weight, full.linear.bias)


def build_elastic(blocks: "list[Block]", bn_eps: float) -> Elastic:
    """The layer that serves every block of a slot; the last is the largest."""
    largest = blocks[-1]
    match largest.kind:
        case "conv":
            return ElasticConv(largest, bn_eps)
        case "mbconv":
            kernels = tuple(sorted({block.kernel for block in blocks}))
            return ElasticMBConv(largest, bn_eps, kernels)
        case "bottleneck":
            return ElasticBottleneck(largest, bn_eps)
        case "classifier":
            return ElasticClassifier(largest, bn_eps)
        case "maxpool":
            return Elastic(largest, bn_eps)


def _by_importance(weight: Tensor) -> Tensor:
    norms = weight.detach().abs().sum((0, 2, 3), dtype=torch.float64)
    return torch.argsort(norms, descending=True, stable=True)


def _reordered(layer: nn.Module, order: Tensor) -> Iterator[Permutation]:
    """Parameters and buffers with one entry a channel along their first dimension."""
    yield from ((parameter, 0, order) for parameter in layer.parameters())
    yield from ((buffer, 0, order) for buffer in layer.buffers() if buffer.ndim)
