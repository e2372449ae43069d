"""Augmentation of training batches, decided by a seed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import kornia.augmentation as kornia
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from kornia.augmentation.auto import AutoAugment
from torch import Tensor, nn

from ofa_deploy.data import MEAN, augmentation_names

__all__ = ["Augmentation"]

_POLICIES = {"autoaugment": "imagenet", "autoaugment-cifar": "cifar10"}


@dataclass(frozen=True)
class Augmentation:
    """What is done to each image of a batch, one name after the other.

    ``crop``
        A window of the image's own size out of the image padded by an eighth of it, borders
        reflected (4 pixels at 32, as in He et al. 2016).
    ``flip``
        Half of the images are mirrored.
    ``rrc``
        A window of 8 to 100 % of the area and of aspect 3:4 to 4:3, resized.
    ``autoaugment``, ``autoaugment-cifar``
        One of the 25 pairs of operations of Cubuk et al. 2019 an image, for ImageNet or CIFAR-10;
        probabilities are theirs, magnitudes lie in kornia's steps.
    ``jitter``
        Brightness, contrast and saturation by up to 40 %, hue by up to a tenth of the circle, in an
        order that the batch shares.
    ``erase``
        A fifth of the images lose a rectangle, which becomes grey.

    Attributes:
        names: in order; none for images as they are.
    """

    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read names joined by ``+``, such as ``crop+flip``, or ``none``.

        Raises:
            UnknownNameError: if a name is not one of ``AUGMENTATIONS``.
            InputError: if one stands there twice, or ``none`` beside others.
        """
        return cls(augmentation_names(text))

    def __str__(self) -> str:
        return "+".join(self.names) or "none"

    @torch.no_grad()
    def apply(self, images: npt.NDArray[np.uint8] | Tensor, seed: int) -> Tensor:
        """Vary a batch, each image on its own.

        Args:
            images: uint8, shape (n, 3, h, w); left as they are.
            seed: the same one varies the same batch alike; torch's generators are left alone.

        Returns:
            float32 from 0 to 1, of the same shape and on the same device.
        """
        made = torch.tensor(images) if isinstance(images, np.ndarray) else images
        if not len(made):
            return made.to(torch.float32)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed accelerators too. kornia draws on the CPU,
            # wherever the images are.
            torch.default_generator.manual_seed(seed)
            for name in self.names:
                made = _step(name)(made)
        return _unit(made)


def _step(name: str) -> Callable[[Tensor], Tensor]:
    return _PLAIN.get(name) or (lambda images: _varied(name, _unit(images)))


def _unit(images: Tensor) -> Tensor:
    """Levels 0..255 to 0..1; what is there already is kept there."""
    if images.dtype == torch.uint8:
        return images.to(torch.float32).div_(255)
    return images.clamp(0, 1)


def _crop(images: Tensor) -> Tensor:
    """Windows of the padded images. Slices of bytes: kornia's take eight times as long."""
    height, width = images.shape[-2:]
    pad = max(1, height // 8)
    padded = F.pad(images, (pad, pad, pad, pad), mode="reflect")
    corners = torch.randint(2 * pad + 1, (len(images), 2)).tolist()
    windows = [
        image[:, top : top + height, left : left + width]
        for image, (top, left) in zip(padded, corners, strict=True)
    ]
    return torch.stack(windows)


def _flip(images: Tensor) -> Tensor:
    mirrored = torch.rand(len(images), 1, 1, 1) < 0.5
    return torch.where(mirrored.to(images.device), images.flip(-1), images)


_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {"crop": _crop, "flip": _flip}


def _varied(name: str, images: Tensor) -> Tensor:
    """What kornia does to images from 0 to 1."""
    height, width = images.shape[-2:]
    if name not in _POLICIES:
        varied: Tensor = _module(name, height, width)(images)
        return varied
    pairs = _policy(name)
    chosen = torch.randint(len(pairs), (len(images),))
    made = torch.empty_like(images)
    for pair in sorted(set(chosen.tolist())):  # kornia draws one pair for a whole batch
        mask = (chosen == pair).to(images.device)
        made[mask] = pairs[pair](images[mask])
    return made


@lru_cache(maxsize=16)
def _module(name: str, height: int, width: int) -> nn.Module:
    make: dict[str, Callable[[], Any]] = {
        "rrc": lambda: kornia.RandomResizedCrop(
            (height, width), scale=(0.08, 1.0), cropping_mode="resample"
        ),
        "jitter": lambda: kornia.ColorJitter(0.4, 0.4, 0.4, 0.1),
        "erase": lambda: kornia.RandomErasing(p=0.2, value=sum(MEAN) / len(MEAN)),
    }
    module: nn.Module = make[name]()
    return module


@lru_cache(maxsize=2)
def _policy(name: str) -> list[nn.Module]:
    return list(AutoAugment(_POLICIES[name]).children())
