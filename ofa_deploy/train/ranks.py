"""The processes of one run: what they share, and how.

``torchrun`` starts them and says so in the environment. Gradients are reduced once a step, after
all passes. Every rank draws the same subnets, but batches, augmentation and dropout of its own;
only the first writes files.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ofa_deploy.errors import InputError

__all__ = ["ALONE", "Ranks", "here", "joined"]

T = TypeVar("T")
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        device: where it computes.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = _CPU

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def share(self, items: Iterable[T]) -> Iterator[T]:
        """Every ``count``-th item, this rank's."""
        return islice(items, self.rank, None, self.count)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean_gradients(self, network: nn.Module) -> None:
        """Replace gradients by their mean over all ranks, in one message."""
        if self.count == 1:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        flat = self.sum(torch.cat([g.reshape(-1) for g in gradients])) / self.count
        start = 0
        for gradient in gradients:
            part = flat[start : start + gradient.numel()]
            gradient.copy_(part.view_as(gradient))
            start += gradient.numel()

    def means(self, values: list[float]) -> list[float]:
        """The mean of each value over all ranks."""
        if self.count == 1:
            return values
        found = self.sum(torch.tensor(values, dtype=torch.float64, device=self.device))
        return [float(value) for value in found / self.count]

    def wait(self) -> None:
        """Go on when all are here."""
        if self.count > 1:
            dist.barrier()


ALONE = Ranks()


def here() -> Ranks:
    """This process alone, on this machine's GPU if it has one."""
    return Ranks(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started, or stay alone.

    NCCL between GPUs, gloo between CPUs.
    """
    if "RANK" not in os.environ:
        yield here()
        return
    gpu = torch.cuda.is_available()
    try:
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local = int(os.environ.get("LOCAL_RANK", rank))
    except (KeyError, ValueError):
        raise InputError(
            "RANK is set, but it or WORLD_SIZE is not a number; start with torchrun, or unset RANK"
        ) from None
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if gpu else "gloo", rank=rank, world_size=count)
    except ValueError as error:
        raise InputError(f"cannot join the other processes: {error}; use torchrun") from None
    try:
        yield Ranks(rank, count, device)
    finally:
        dist.destroy_process_group()
