"""BN statistics of a subnet's own, measured on images."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from ofa_deploy.errors import InputError

__all__ = ["Alone", "Sharing", "device_of", "recalibrate"]

T = TypeVar("T")


class Sharing(Protocol):
    """How processes part the work of an evaluation among them."""

    def share(self, items: Iterable[T], /) -> Iterator[T]:
        """This process's part of the items."""

    def sum(self, tensor: Tensor, /) -> Tensor:
        """The sum over all processes, in place."""


class Alone:
    """One process, which does it all."""

    def share(self, items: Iterable[T], /) -> Iterator[T]:
        """All items."""
        return iter(items)

    def sum(self, tensor: Tensor, /) -> Tensor:
        """The tensor as it is."""
        return tensor


_ALONE = Alone()


@torch.no_grad()
def recalibrate(subnet: nn.Module, batches: Iterable[Tensor], *, sharing: Sharing = _ALONE) -> None:
    """Give every BN of a plain network statistics of its own, from images.

    Each BN normalises with its current batch while the batch means and *biased* variances are
    averaged, weighted by batch size, as once-for-all does. The network is left in eval mode.

    Args:
        subnet: what ``Supernet.extract`` gives.
        batches: images, each of shape (batch, 3, r, r); of several processes, this one's share.
        sharing: the processes that take part; all end with the same statistics.

    Raises:
        InputError: if there is no image, or a single one where a BN sees 1x1 maps.
    """
    norms = [module for module in subnet.modules() if isinstance(module, nn.BatchNorm2d)]
    sums = {norm: (torch.zeros_like(norm.weight), torch.zeros_like(norm.weight)) for norm in norms}
    seen = torch.zeros(1)
    subnet.eval()
    hooks = [norm.register_forward_pre_hook(_collector(sums)) for norm in norms]
    for norm in norms:
        norm.train()
        norm.track_running_stats = False
    try:
        for batch in batches:
            subnet(batch.to(device_of(subnet)))
            seen += len(batch)
    finally:
        for hook, norm in zip(hooks, norms, strict=True):
            hook.remove()
            norm.track_running_stats = True
        subnet.eval()
    images = int(sharing.sum(seen.to(device_of(subnet))))
    if not images:
        raise InputError("recalibrating needs at least one image, found none")
    for norm, (mean, variance) in sums.items():
        cast(Tensor, norm.running_mean).copy_(sharing.sum(mean) / images)
        cast(Tensor, norm.running_var).copy_(sharing.sum(variance) / images)


def device_of(network: nn.Module) -> torch.device:
    """Where its weights are."""
    return next((each.device for each in network.parameters()), torch.device("cpu"))


def _collector(
    sums: dict[nn.BatchNorm2d, tuple[Tensor, Tensor]],
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def collect(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            raise InputError("recalibrating needs batches of at least two images, found one")
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        for total, value in zip(sums[cast(nn.BatchNorm2d, module)], (mean, variance), strict=True):
            total += value * len(inputs[0])

    return collect
