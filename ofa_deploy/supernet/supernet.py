"""``Supernet``: weights for every network of a space; ``Subnet``: one of them, cut out."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import cast

import torch
from torch import Tensor, nn

from ofa_deploy.errors import InputError
from ofa_deploy.space import Arch, Block, SearchSpace, Slot
from ofa_deploy.supernet.layers import (
    Classifier,
    ConvBlock,
    ElasticMBConv,
    build_module,
    elastic_conv,
)

__all__ = ["Subnet", "Supernet"]


class Subnet(nn.Module):
    """A plain network: one torch module a block, no elastic code.

    Args:
        blocks: the lowered arch.
    """

    def __init__(self, blocks: Sequence[Block], bn_eps: float = 1e-5) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(build_module(block, bn_eps) for block in blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, 3, r, r) to logits (batch, classes)."""
        return cast(Tensor, self.blocks(x))


class Supernet(nn.Module):
    """Weights shared by every network of ``space``.

    The arch is an argument, never a state: ``net(x, arch)``. In training mode BN uses batch
    statistics and leaves the running ones alone; they only mean something after ``recalibrate``
    on an extracted subnet, or in published checkpoints.

    Args:
        space: what it holds.
        seed: for the initial weights (He, fan-out); no global random state is touched.
    """

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        with torch.random.fork_rng(devices=[]):
            self.layers = nn.ModuleDict(
                {slot.name.replace(".", "-"): _slot_module(space, slot) for slot in space.slots}
            )
        self._lower = lru_cache(4096)(space.lower_named)
        self._initialise(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.Linear):
                module.weight.normal_(0, module.in_features**-0.5, generator=generator)
                module.bias.zero_()

    def forward(self, x: Tensor, arch: Arch, *, keep: Tensor | None = None) -> Tensor:
        """Logits of one subnet.

        Args:
            x: images, shape (batch, 3, resolution, resolution).
            keep: a dropout mask over the last features, shape (batch, features), already scaled.

        Returns:
            Logits, shape (batch, classes).

        Raises:
            InputError: if the images are not of the arch's resolution.
        """
        if x.shape[-2:] != (arch.resolution, arch.resolution):
            raise InputError(
                f"expected images of {arch.resolution}x{arch.resolution} pixels for this arch, "
                f"found {x.shape[-2]}x{x.shape[-1]}"
            )
        for name, block in self._lower(arch):
            layer = self._layer(name)
            if isinstance(layer, ElasticMBConv):
                x = layer(x, block)
            elif isinstance(layer, Classifier):
                x = layer(x, keep)
            else:
                x = elastic_conv(cast(ConvBlock, layer), x)
        return x

    def _layer(self, slot: str) -> nn.Module:
        return self.layers[slot.replace(".", "-")]

    @property
    def feature_count(self) -> int:
        """Features that the last linear layer reads."""
        return cast(Classifier, self._layer("classifier")).linear.in_features

    @torch.no_grad()
    def extract(self, arch: Arch) -> Subnet:
        """A plain copy of one subnet, in eval mode, equal to ``self(x, arch)`` in eval mode."""
        named = self._lower(arch)
        with torch.random.fork_rng(devices=[]):  # torch draws initial weights that are overwritten
            subnet = Subnet([block for _, block in named], self.space.bn_eps)
            for plain, (name, block) in zip(subnet.blocks, named, strict=True):
                layer = self._layer(name)
                source = layer.extract(block) if isinstance(layer, ElasticMBConv) else layer
                plain.load_state_dict(source.state_dict())
        return subnet.eval()

    @torch.no_grad()
    def sort_channels(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Put each block's most important middle channels first, SE units too.

        Smaller widths then keep what matters. The largest subnet's function does not change. What
        ``optimizer`` remembers of each weight (momentum) moves with it.
        """
        for layer in self.layers.values():
            if isinstance(layer, ElasticMBConv):
                for tensor, dim, order in layer.sorting():
                    _permute(tensor, dim, order, optimizer)


def _slot_module(space: SearchSpace, slot: Slot) -> nn.Module:
    """The module that serves every block of a slot."""
    choices = [space.genes[column].choices for column in slot.genes]
    blocks = [slot.block(*values) for values in product(*choices)]
    largest = max(blocks, key=lambda block: (block.mid_channels, block.kernel, block.size))
    if largest.kind != "mbconv":
        return build_module(largest, space.bn_eps)
    return ElasticMBConv(largest, tuple(sorted({block.kernel for block in blocks})), space.bn_eps)


def _permute(
    tensor: Tensor, dim: int, order: Tensor, optimizer: torch.optim.Optimizer | None
) -> None:
    companions = optimizer.state.get(tensor, {}).values() if optimizer else ()
    for each in (tensor, *companions):
        if isinstance(each, Tensor) and each.shape == tensor.shape:
            each.copy_(each.index_select(dim, order.to(each.device)))
