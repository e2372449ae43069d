"""Accuracy of subnets, with BN statistics of their own."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_deploy.data import MEAN, STD, Images, normalise
from ofa_deploy.space import Arch
from ofa_deploy.supernet.modules import channels_last
from ofa_deploy.supernet.recalibration import Alone, Sharing, device_of, recalibrate
from ofa_deploy.supernet.supernet import Subnet, Supernet

__all__ = ["batches", "cut", "resized", "standardised", "to_tensor", "top1"]

_BATCH = 250
_ALONE = Alone()


def to_tensor(images: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", resolution: int) -> Tensor:
    """uint8 images (n, 3, h, w) to a normalised float32 tensor of the asked resolution.

    Channels last: convolutions on CPUs are up to twice as fast so.
    """
    tensor = resized(torch.from_numpy(normalise(images)), resolution)
    return tensor.contiguous(memory_format=torch.channels_last)


def standardised(images: Tensor, resolution: int) -> Tensor:
    """Images (n, 3, h, w) from 0 to 1, as ``to_tensor`` gives them for uint8."""
    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (MEAN, STD))
    tensor = resized((images - mean) / std, resolution)
    return tensor.contiguous(memory_format=torch.channels_last)


def resized(images: Tensor, resolution: int) -> Tensor:
    """Images (n, 3, h, w) at another resolution, bilinear with anti-aliasing."""
    if images.shape[-1] == resolution:
        return images
    size = (resolution, resolution)
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def batches(
    images: Images, resolution: int, size: int = _BATCH, *, sharing: Sharing = _ALONE
) -> Iterator[Tensor]:
    """This process's images in order, as normalised batches of equal size, give or take one."""
    return (batch for _, batch in _labelled(images, resolution, size, sharing))


def _labelled(
    images: Images, resolution: int, size: int, sharing: Sharing
) -> Iterator[tuple["np.ndarray[tuple[int], np.dtype[np.int64]]", Tensor]]:
    count = -(-len(images) // size)
    parts = np.array_split(np.arange(len(images)), count) if count else []
    for part in sharing.share(parts):
        yield images.labels[part], to_tensor(images.batch(part), resolution)


def cut(net: Supernet, arch: Arch, calibration: Images, *, sharing: Sharing = _ALONE) -> Subnet:
    """Extract a subnet and recalibrate its BN on ``calibration``."""
    subnet = channels_last(net.extract(arch))
    recalibrate(subnet, batches(calibration, arch.resolution, sharing=sharing), sharing=sharing)
    return subnet


@torch.no_grad()
def top1(
    network: nn.Module, images: Images, resolution: int, *, sharing: Sharing = _ALONE
) -> float:
    """Share of images classified right, in percent; each process looks at its part of them."""
    device = device_of(network)
    right = torch.zeros(1, dtype=torch.float64, device=device)
    for labels, batch in _labelled(images, resolution, _BATCH, sharing):
        found = network(batch.to(device)).argmax(1).cpu().numpy()
        right += int((found == labels).sum())
    return 100 * float(sharing.sum(right)) / len(images)
