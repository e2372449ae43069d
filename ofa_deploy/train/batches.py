"""Batches of training images: which, how varied, in this process or in workers beside it."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ofa_deploy.data import Images
from ofa_deploy.files import digest
from ofa_deploy.supernet import standardised, to_tensor
from ofa_deploy.train.augment import Augmentation
from ofa_deploy.train.config import Common
from ofa_deploy.train.ranks import ALONE, Ranks
from ofa_deploy.train.workers import prepared

__all__ = ["Batches", "draw_seed"]

Batch = tuple[Tensor, Tensor]


def draw_seed(config: Common, step: int, purpose: str, ranks: Ranks = ALONE) -> int:
    """The seed of what a rank draws in a step, for one purpose."""
    rank = [ranks.rank] if ranks.rank else []
    return int(digest([config.seed, step, purpose, *rank])[:12], 16)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, images: int) -> npt.NDArray[np.int64]:
    """The permutation of an epoch, kept because every step of the epoch asks for it."""
    order = np.random.default_rng([seed, epoch, 0x0DE7]).permutation(images)
    order.flags.writeable = False
    return order


@dataclass(frozen=True)
class Batches:
    """A rank's batch of every step; it depends on (seed, step, rank, number of ranks) only.

    The ranks share one permutation of the images an epoch; what does not fill a step is left out.
    """

    config: Common
    images: Images
    resolution: int
    ranks: Ranks = ALONE

    @property
    def steps_per_epoch(self) -> int:
        """Whole steps in one pass over the images."""
        return len(self.images) // self.config.images_a_step

    def at(self, step: int) -> Batch:
        """Images, float32, shape (batch, 3, resolution, resolution), and int64 labels."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _order(self.config.seed, epoch, len(self.images))
        start = (position * self.config.processes + self.ranks.rank) * self.config.batch
        chosen = order[start : start + self.config.batch]
        images = self.images.batch(chosen)
        labels = torch.from_numpy(self.images.labels[chosen])
        augmentation = Augmentation.parse(self.config.augment)
        if not augmentation.names:
            return to_tensor(images, self.resolution), labels
        varied = augmentation.apply(images, draw_seed(self.config, step, "augment", self.ranks))
        return standardised(varied, self.resolution), labels

    def stream(self, first: int, stop: int, workers: int = 0) -> Generator[Batch, None, None]:
        """The batches of the steps from ``first`` to ``stop``, in order; closing ends the workers.

        Args:
            workers: processes that make batches ahead of the step; 0 makes them here.

        Raises:
            OfaDeployError: what a worker met, such as an image that cannot be read.
            DeviceError: if a worker dies.
        """
        steps = range(first, stop)
        if not workers:
            yield from map(self.at, steps)
            return
        with closing(prepared(self._as_arrays, steps, workers)) as made:
            for images, labels in made:
                yield torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)

    def _as_arrays(self, step: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """A batch as ``workers`` hands it on: its images with the channels last, as they lie."""
        images, labels = self.at(step)
        return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()), labels.numpy()
