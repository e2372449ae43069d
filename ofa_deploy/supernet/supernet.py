"""``Supernet``: weights for every network of a space; ``Subnet``: one of them, cut out."""

from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn

from ofa_deploy.errors import InputError
from ofa_deploy.space import Arch, Block, SearchSpace
from ofa_deploy.supernet.elastic import Elastic, ElasticClassifier, build_elastic
from ofa_deploy.supernet.modules import build_module, initialise

__all__ = ["Subnet", "Supernet", "check_size"]

_MOST_PARAMS = 10**9


class Subnet(nn.Module):
    """A plain network: one torch module a block, no elastic code."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*modules)

    @classmethod
    def of(cls, blocks: Sequence[Block], bn_eps: float = 1e-5) -> "Subnet":
        """A network for a lowered arch, with weights yet to be loaded or initialised."""
        return cls([build_module(block, bn_eps) for block in blocks])

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, 3, r, r) to logits (batch, classes)."""
        return cast(Tensor, self.blocks(x))


def check_size(space: SearchSpace) -> None:
    """See that a supernet of the space could exist.

    Raises:
        InputError: if its largest network has more than a billion parameters.
    """
    params = space.cost(space.largest).params
    if params > _MOST_PARAMS:
        raise InputError(
            f"space {space.name}: its largest network has {params:,} parameters, more than the "
            f"{_MOST_PARAMS:,} allowed; choose fewer channels"
        )


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
        check_size(space)
        self.space = space
        self.layers = nn.ModuleDict(
            {
                slot.name.replace(".", "-"): build_elastic(
                    [block for _, block in slot.blocks()], space.bn_eps
                )
                for slot in space.slots
            }
        )
        self._lower = lru_cache(4096)(space.lower_named)
        initialise(self, torch.Generator().manual_seed(seed))

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
        *body, (_, last) = self._lower(arch)
        for name, block in body:
            x = self.layer(name)(x, block)
        return cast(Tensor, self.classifier(x, last, keep))

    def layer(self, slot: str) -> Elastic:
        """The layer of a slot of the space."""
        return cast(Elastic, self.layers[slot.replace(".", "-")])

    @property
    def classifier(self) -> ElasticClassifier:
        """The last layer."""
        return cast(ElasticClassifier, self.layer("classifier"))

    @property
    def feature_count(self) -> int:
        """Features that the last linear layer reads, at most."""
        return self.classifier.full.linear.in_features

    @torch.no_grad()
    def extract(self, arch: Arch) -> Subnet:
        """A plain copy of one subnet, in eval mode, equal to ``self(x, arch)`` in eval mode."""
        modules = [self.layer(name).extract(block) for name, block in self._lower(arch)]
        return Subnet(modules).eval()

    @torch.no_grad()
    def sort_channels(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Put each block's most important middle channels first, SE units too.

        Smaller widths then keep what matters. The largest subnet's function does not change. What
        ``optimizer`` remembers of each weight (momentum) moves with it.
        """
        for layer in self.layers.values():
            for tensor, dim, order in cast(Elastic, layer).sorting():
                _permute(tensor, dim, order, optimizer)


def _permute(
    tensor: Tensor, dim: int, order: Tensor, optimizer: torch.optim.Optimizer | None
) -> None:
    companions = optimizer.state.get(tensor, {}).values() if optimizer else ()
    for each in (tensor, *companions):
        if isinstance(each, Tensor) and each.shape == tensor.shape:
            each.copy_(each.index_select(dim, order.to(each.device)))
