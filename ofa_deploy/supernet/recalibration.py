"""BN statistics of a subnet's own, measured on images."""

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from ofa_deploy.errors import InputError

__all__ = ["recalibrate"]


@torch.no_grad()
def recalibrate(subnet: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give every BN of a plain network statistics of its own, from images.

    Each BN normalises with its current batch while the batch means and *biased* variances are
    averaged, weighted by batch size, as once-for-all does. The network is left in eval mode.

    Args:
        subnet: what ``Supernet.extract`` gives.
        batches: images, each of shape (batch, 3, r, r).

    Raises:
        InputError: if there is no image, or a single one where a BN sees 1x1 maps.
    """
    norms = [module for module in subnet.modules() if isinstance(module, nn.BatchNorm2d)]
    sums = {norm: (torch.zeros_like(norm.weight), torch.zeros_like(norm.weight)) for norm in norms}
    images = 0
    subnet.eval()
    hooks = [norm.register_forward_pre_hook(_collector(sums)) for norm in norms]
    for norm in norms:
        norm.train()
        norm.track_running_stats = False
    try:
        for batch in batches:
            subnet(batch)
            images += len(batch)
    finally:
        for hook, norm in zip(hooks, norms, strict=True):
            hook.remove()
            norm.track_running_stats = True
        subnet.eval()
    if not images:
        raise InputError("recalibrating needs at least one image, found none")
    for norm, (mean, variance) in sums.items():
        cast(Tensor, norm.running_mean).copy_(mean / images)
        cast(Tensor, norm.running_var).copy_(variance / images)


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
