"""A student whose units are compared with a parent's, and linear maps where widths differ.

Where a unit of the student is narrower than the parent's, a 1x1 map U (thin to wide) stands behind
it and V (wide to thin) before the next unit, which then reads V·U times what it read. Neither has a
bias. After imitation V·U is merged into a neighbour, exactly or not at all:

``next``
    Into what reads the map first, if that is linear and all of it: a 1x1 or larger convolution
    (without a bias zero padding stays zero), a classifier, both paths of a bottleneck that projects
    (averages of maps commute with mixing channels). Not past a residual, nor a depthwise kernel.
``previous``
    Into the projection of an inverted residual without a shortcut, BN folded in: that ends linear.
    BN is set anew, so that it gives the same with the statistics of the calibration images.
``side``
    Nowhere. Then U is a side branch of the loss alone: the next unit reads the thin output itself.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from ofa_deploy.space import Block
from ofa_deploy.specialize.units import Unit
from ofa_deploy.supernet import Subnet, recalibrate
from ofa_deploy.supernet.modules import Bottleneck, Classifier, ConvBlock, MBConv
from ofa_deploy.train import ALONE, Ranks

__all__ = ["Bridge", "Mode", "Student", "bridge_mode", "merge", "training"]

Mode = Literal["none", "next", "previous", "side"]
M = TypeVar("M", bound=nn.Module)

_TOLERANCE = 1e-9  # in double precision, relative to the greatest output


def training(network: M) -> M:
    """Training mode in which BN takes batch statistics and leaves the running ones alone."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
    return network


def bridge_mode(before: Block, after: Block, width: int) -> Mode:
    """What stands between two units, and where it will be merged.

    Args:
        before: the last block of the first unit.
        after: the first block of the second.
        width: the parent's channels between them.
    """
    if before.out_channels == width:
        return "none"
    if before.out_channels > width:
        return "side"  # V·U would lose what the student has
    if _reads_linearly(after):
        return "next"
    return "previous" if before.kind == "mbconv" and not before.residual else "side"


def _reads_linearly(block: Block) -> bool:
    match block.kind:
        case "conv":
            return not block.residual
        case "mbconv":
            return block.expands and not block.residual
        case "bottleneck":
            return block.projects
        case "classifier":
            return True
        case "maxpool":
            return False


class Bridge(nn.Module):
    """U and V behind a unit; they begin by handing the first channels through.

    Attributes:
        up: U.
        down: V, or None where only the loss sees U.
    """

    def __init__(self, thin: int, wide: int, mode: Mode) -> None:
        super().__init__()
        self.mode = mode
        self.up = _first_channels(thin, wide)
        self.down = None if mode == "side" else _first_channels(wide, thin)

    def forward(self, x: Tensor) -> Tensor:
        """What the next unit reads."""
        return x if self.down is None else cast(Tensor, self.down(self.up(x)))


def _first_channels(inputs: int, outputs: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 1, bias=False)
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.weight[:, :, 0, 0].fill_diagonal_(1)
    return layer


class Student(nn.Module):
    """A subnet, cut into units, with maps between them while there are any.

    Args:
        parents: channels behind each unit of the parent, or None where there is none to imitate.
    """

    def __init__(
        self, subnet: Subnet, units: Sequence[Unit], parents: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.subnet, self.units = subnet, tuple(units)
        self.bridges = nn.ModuleDict()
        if parents is None:
            return
        for i, (unit, wide, after) in enumerate(zip(units, parents, units[1:], strict=False)):
            mode = bridge_mode(unit.blocks[-1], after.blocks[0], wide)
            if mode != "none":
                self.bridges[str(i)] = Bridge(unit.blocks[-1].out_channels, wide, mode)

    def bridge(self, unit: int) -> Bridge | None:
        """The maps behind a unit."""
        key = str(unit)
        return cast(Bridge, self.bridges[key]) if key in self.bridges else None

    def unit(self, index: int, x: Tensor) -> Tensor:
        """A unit's output, from what the unit before it gives."""
        if index and (bridge := self.bridge(index - 1)) is not None:
            x = bridge(x)
        unit = self.units[index]
        for position in range(unit.start, unit.stop):
            x = self.subnet.blocks[position](x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, 3, r, r) to logits (batch, classes)."""
        for index in range(len(self.units)):
            x = self.unit(index, x)
        return x

    def imitation(self, x: Tensor, index: int, *, below: bool) -> Tensor:
        """A unit's output as the parent's is compared with: through U where widths differ.

        Args:
            below: whether gradients reach the units before it.
        """
        with torch.set_grad_enabled(below and torch.is_grad_enabled()):
            for before in range(index):
                x = self.unit(before, x)
        x = self.unit(index, x)
        bridge = self.bridge(index)
        return x if bridge is None else cast(Tensor, bridge.up(x))

    def parts(self, index: int) -> nn.ModuleList:
        """What imitation of a unit alone may move: its blocks, V before it and U behind it."""
        unit = self.units[index]
        parts = [self.subnet.blocks[i] for i in range(unit.start, unit.stop)]
        if index and (bridge := self.bridge(index - 1)) is not None and bridge.down is not None:
            parts.append(bridge.down)
        if (behind := self.bridge(index)) is not None:
            parts.append(behind.up)
        return nn.ModuleList(parts)


@torch.no_grad()
def merge(student: Student, batches: Callable[[], Iterable[Tensor]], ranks: Ranks = ALONE) -> None:
    """Do away with the maps; what the student computes stays, and is seen to.

    Where there were maps, the student is left in eval mode, with BN statistics of the calibration
    images; without maps nothing happens.

    Args:
        batches: gives this rank's calibration images, each (batch, 3, r, r).

    Raises:
        AssertionError: if the merged student gives other outputs.
    """
    if not student.bridges:
        return
    recalibrate(student, batches(), sharing=ranks)
    unmerged = copy.deepcopy(student).double()
    merged = copy.deepcopy(unmerged)
    moved = _merge_all(merged)
    if moved:
        _take_statistics(merged, moved, batches(), ranks)
    for batch in islice(batches(), 1):
        _see_equal(unmerged, merged, batch[:8].to(ranks.device).double())
    student.bridges = nn.ModuleDict()
    student.load_state_dict(merged.state_dict())


def _merge_all(student: Student) -> list[MBConv]:
    """Merge every pair of maps; returns the blocks whose projection took one."""
    moved = []
    for key, bridge in student.bridges.items():
        assert isinstance(bridge, Bridge)
        if bridge.down is None:
            continue
        product = bridge.down.weight[:, :, 0, 0] @ bridge.up.weight[:, :, 0, 0]
        before, after = student.units[int(key)], student.units[int(key) + 1]
        if bridge.mode == "next":
            _into_next(student.subnet.blocks[after.start], product)
        else:
            moved.append(cast(MBConv, student.subnet.blocks[before.stop - 1]))
            _into_previous(moved[-1], product)
    student.bridges = nn.ModuleDict()
    return moved


def _into_next(module: nn.Module, product: Tensor) -> None:
    match module:
        case ConvBlock():
            readers: list[nn.Conv2d | nn.Linear] = [module.conv]
        case MBConv():
            readers = [module.expand]
        case Bottleneck():
            readers = [module.conv1, module.shortcut]
        case Classifier():
            readers = [module.features if module.block.mid_channels else module.linear]
        case _:
            raise TypeError(f"{type(module).__name__} reads no map linearly")
    for reader in readers:
        reader.weight.copy_(torch.einsum("oi...,ij->oj...", reader.weight, product))


def _into_previous(module: MBConv, product: Tensor) -> None:
    """Fold BN into the projection, mix its outputs, and leave a BN that only adds."""
    bn = module.project_bn
    assert bn.running_mean is not None and bn.running_var is not None
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    weight = module.project.weight * scale[:, None, None, None]
    shift = bn.bias - bn.running_mean * scale
    module.project.weight.copy_(torch.einsum("ij,jk...->ik...", product, weight))
    bn.running_mean.zero_()
    bn.running_var.fill_(1 - bn.eps)
    bn.weight.fill_(1)
    bn.bias.copy_(product @ shift)


def _take_statistics(
    student: Student, moved: Sequence[MBConv], batches: Iterable[Tensor], ranks: Ranks
) -> None:
    """Let BNs that only add normalise by what they see, and undo it by scale and shift."""
    sums = {module: torch.zeros(2, module.project.out_channels).double() for module in moved}
    sums = {module: total.to(ranks.device) for module, total in sums.items()}
    seen = torch.zeros(1, dtype=torch.float64, device=ranks.device)

    def collect(module: MBConv, z: Tensor) -> None:
        sums[module] += torch.stack((z.sum((0, 2, 3)), z.square().sum((0, 2, 3)))) / z[0, 0].numel()

    hooks = [
        module.project.register_forward_hook(lambda _, __, z, module=module: collect(module, z))
        for module in moved
    ]
    student.eval()
    for batch in batches:
        student(batch.to(ranks.device).double())
        seen += len(batch)
    for hook in hooks:
        hook.remove()
    images = ranks.sum(seen)
    for module, total in sums.items():
        mean, square = ranks.sum(total) / images
        bn, variance = module.project_bn, (square - mean.square()).clamp_min(0)
        bn.weight.copy_((variance + bn.eps).sqrt())
        bn.bias.add_(mean)
        cast(Tensor, bn.running_mean).copy_(mean)
        cast(Tensor, bn.running_var).copy_(variance)


def _see_equal(unmerged: Student, merged: Student, images: Tensor) -> None:
    expected, found = unmerged.eval()(images), merged.eval()(images)
    difference = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    if not difference <= _TOLERANCE:
        raise AssertionError(f"merging the maps changed the outputs by {difference:.2g}")
