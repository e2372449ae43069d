"""Accuracy of subnets, with BN statistics of their own."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_deploy.data import ImageSet, normalise
from ofa_deploy.space import Arch
from ofa_deploy.supernet.modules import channels_last
from ofa_deploy.supernet.recalibration import recalibrate
from ofa_deploy.supernet.supernet import Subnet, Supernet

__all__ = ["batches", "cut", "resized", "to_tensor", "top1"]

_BATCH = 250


def to_tensor(images: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", resolution: int) -> Tensor:
    """uint8 images (n, 3, h, w) to a normalised float32 tensor of the asked resolution.

    Channels last: convolutions on CPUs are up to twice as fast so.
    """
    tensor = resized(torch.from_numpy(normalise(images)), resolution)
    return tensor.contiguous(memory_format=torch.channels_last)


def resized(images: Tensor, resolution: int) -> Tensor:
    """Images (n, 3, h, w) at another resolution, bilinear with anti-aliasing."""
    if images.shape[-1] == resolution:
        return images
    size = (resolution, resolution)
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def batches(images: ImageSet, resolution: int, size: int = _BATCH) -> Iterator[Tensor]:
    """All images in order, as normalised batches of equal size, give or take one."""
    count = -(-len(images) // size)
    for part in np.array_split(images.images, count) if count else ():
        yield to_tensor(part, resolution)


def cut(net: Supernet, arch: Arch, calibration: ImageSet) -> Subnet:
    """Extract a subnet and recalibrate its BN on ``calibration``."""
    subnet = channels_last(net.extract(arch))
    recalibrate(subnet, batches(calibration, arch.resolution))
    return subnet


@torch.no_grad()
def top1(network: nn.Module, images: ImageSet, resolution: int) -> float:
    """Share of images classified right, in percent."""
    predicted = [network(batch).argmax(1) for batch in batches(images, resolution)]
    return 100 * float((torch.cat(predicted).numpy() == images.labels).mean())
