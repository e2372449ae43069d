"""Subnet modules to the arrays that the graph builder takes, with BN folded into convolutions."""

import torch
from torch import nn

from ofa_deploy.graph import BlockWeights
from ofa_deploy.supernet.modules import Bottleneck, Classifier, ConvBlock, MaxPool, MBConv
from ofa_deploy.supernet.supernet import Subnet

__all__ = ["folded_weights"]


def folded_weights(subnet: Subnet) -> list[BlockWeights]:
    """One mapping of float32 arrays a block, as ``graph.build_onnx`` takes them."""
    return [_block_weights(module) for module in subnet.blocks]


def _block_weights(module: nn.Module) -> BlockWeights:
    match module:
        case ConvBlock():
            return _folded("conv", module.conv, module.bn)
        case MBConv():
            weights: BlockWeights = {}
            if module.block.expands:
                weights |= _folded("expand", module.expand, module.expand_bn)
            weights |= _folded("depthwise", module.depthwise, module.depthwise_bn)
            if module.block.se:
                weights |= _plain("reduce", module.squeeze.reduce)
                weights |= _plain("excite", module.squeeze.expand)
            return weights | _folded("project", module.project, module.project_bn)
        case MaxPool():
            return {}
        case Bottleneck():
            weights = {}
            for name in ("1", "2", "3"):
                conv, bn = getattr(module, f"conv{name}"), getattr(module, f"bn{name}")
                weights |= _folded(f"conv{name}", conv, bn)
            if module.block.projects:
                weights |= _folded("shortcut", module.shortcut, module.shortcut_bn)
            return weights
        case Classifier():
            features = _plain("features", module.features) if module.block.mid_channels else {}
            return features | _plain("linear", module.linear)
        case _:
            raise TypeError(f"{type(module).__name__} is not a module of a Subnet")


@torch.no_grad()
def _folded(name: str, conv: nn.Conv2d, bn: nn.BatchNorm2d) -> BlockWeights:
    """Fold in float64: scale = gamma / sqrt(var + eps)."""
    assert bn.running_mean is not None and bn.running_var is not None
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = bn.bias.double() - bn.running_mean.double() * scale
    return {
        f"{name}.weight": weight.float().contiguous().cpu().numpy(),
        f"{name}.bias": bias.float().cpu().numpy(),
    }


@torch.no_grad()
def _plain(name: str, layer: nn.Conv2d | nn.Linear) -> BlockWeights:
    weights = {f"{name}.weight": layer.weight.contiguous().cpu().numpy()}
    if layer.bias is not None:
        weights[f"{name}.bias"] = layer.bias.cpu().numpy()
    return weights
