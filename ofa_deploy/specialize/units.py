"""Where two networks can be compared within: their units, and what a parent says of them."""

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import cast

import torch
from torch import Tensor

from ofa_deploy.errors import MismatchError
from ofa_deploy.space import Arch, Block, SearchSpace
from ofa_deploy.supernet import Subnet

__all__ = ["Parent", "Unit", "check_parent", "units_of"]


@dataclass(frozen=True)
class Unit:
    """Consecutive blocks of a network: the stem, a stage, the head, the classifier.

    Attributes:
        start: the index of its first block in ``Subnet.blocks``.
    """

    name: str
    start: int
    blocks: tuple[Block, ...]

    @property
    def stop(self) -> int:
        """The index after its last block's."""
        return self.start + len(self.blocks)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return sum(block.macs for block in self.blocks)


def units_of(space: SearchSpace, arch: Arch) -> tuple[Unit, ...]:
    """A network's units, from input to output; the last is the classifier."""
    units: list[Unit] = []
    for name, group in groupby(space.lower_named(arch), lambda pair: _unit_name(pair[0])):
        blocks = tuple(block for _, block in group)
        units.append(Unit(name, units[-1].stop if units else 0, blocks))
    return tuple(units)


def _unit_name(slot: str) -> str:
    first, *rest = slot.split(".")
    return f"{first}.{rest[0]}" if first == "stages" else first


@dataclass(frozen=True)
class Parent:
    """A trained network to learn from, in eval mode, with BN statistics of its own.

    Attributes:
        arch: at the resolution that it is used at.
        sha256: of the weights it came from.
    """

    space: SearchSpace
    arch: Arch
    subnet: Subnet
    sha256: str

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Its units."""
        return units_of(self.space, self.arch)

    @torch.no_grad()
    def through(self, x: Tensor, unit: int) -> Tensor:
        """What comes out of a unit, counted from 0, for images (batch, 3, r, r)."""
        for position in range(self.units[unit].stop):
            x = self.subnet.blocks[position](x)
        return x

    @torch.no_grad()
    def soft_labels(self, x: Tensor) -> Tensor:
        """Probabilities, shape (batch, classes)."""
        return cast(Tensor, self.subnet(x)).float().softmax(1)


def check_parent(units: tuple[Unit, ...], parent: Parent, classes: int) -> None:
    """See that a parent has the student's units, map sizes and classes.

    Raises:
        MismatchError: naming the first that differs.
    """
    theirs = parent.units
    if [unit.name for unit in units] != [unit.name for unit in theirs]:
        raise MismatchError(
            f"the parent of space {parent.space.name} has the stages "
            f"{', '.join(unit.name for unit in theirs)}, the subnet "
            f"{', '.join(unit.name for unit in units)}; name a parent with the same"
        )
    for own, their in zip(units, theirs, strict=True):
        if own.blocks[-1].out_size != their.blocks[-1].out_size:
            raise MismatchError(
                f"after {own.name} the parent's maps are {their.blocks[-1].out_size} pixels wide, "
                f"the subnet's {own.blocks[-1].out_size}; name a parent with the same strides"
            )
    if parent.space.classes != classes:
        raise MismatchError(
            f"the parent tells {parent.space.classes} classes apart, the subnet {classes}"
        )
