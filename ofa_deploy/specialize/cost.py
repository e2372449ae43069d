"""What specialisation and its networks cost, in multiply-accumulates, dense and sparse.

A step costs its forward pass and twice that backward: once for the gradients of what a layer read,
once for those of its weights. Frozen layers and a parent cost their forward pass. *Dense* accounts
for every weight: what this machine computes, whose kernels know no sparsity. *Sparse* accounts
for living weights only, as if zeros were free; on a step after which RigL grows, the gradients of
weights are dense all the same (Evci et al. 2020).
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.specialize.bridges import Mode, bridge_mode
from ofa_deploy.specialize.config import SparseSettings, SpecializeConfig
from ofa_deploy.specialize.masks import live_counts, maskable
from ofa_deploy.specialize.plan import Imitate, SpecialPhase, specialize_plan
from ofa_deploy.specialize.units import Unit, units_of
from ofa_deploy.supernet import Subnet

__all__ = ["Macs", "PhaseMacs", "StepCost", "forecast_macs", "layer_macs"]


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates in both accounts."""

    dense: float
    sparse: float

    def times(self, factor: float) -> "Macs":
        """So many times that."""
        return Macs(self.dense * factor, self.sparse * factor)


@torch.no_grad()
def layer_macs(subnet: Subnet, resolution: int) -> dict[str, int]:
    """Multiply-accumulates of each weight tensor for one image, by its name in the subnet."""
    found: dict[str, int] = {}
    probe = copy.deepcopy(subnet).eval()
    hooks = []
    for name, layer in probe.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):

            def count(
                layer: nn.Module, _: object, output: Tensor, name: str = f"{name}.weight"
            ) -> None:
                weight = layer.get_parameter("weight")
                found[name] = output.numel() * (weight.numel() // weight.shape[0])

            hooks.append(layer.register_forward_hook(count))
    device = next(probe.parameters()).device
    probe(torch.zeros(1, 3, resolution, resolution, device=device))
    for hook in hooks:
        hook.remove()
    return found


@dataclass(frozen=True)
class StepCost:
    """What a step of each kind costs for one image.

    Attributes:
        units: of the student, and ``parents`` of the parent, if it has one.
        dead: multiply-accumulates of dead weights.
        by_gradient: whether growth asks for dense gradients.
    """

    units: tuple[Unit, ...]
    parents: tuple[Unit, ...] = ()
    dead: float = 0.0
    by_gradient: bool = False

    @classmethod
    def of(
        cls,
        config: SpecializeConfig,
        space: SearchSpace,
        arch: Arch,
        parents: tuple[Unit, ...] = (),
    ) -> "StepCost":
        """From what a run is asked to do."""
        units = units_of(space, arch)
        if not isinstance(config, SparseSettings) or not config.sparsity:
            return cls(units, parents)
        subnet = Subnet.of(space.lower(arch), space.bn_eps)
        weights = maskable(subnet, units, config.dense)
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        counts = live_counts(shapes, 1 - config.sparsity, config.densities)
        macs = layer_macs(subnet, arch.resolution)
        dead = sum(macs[name] * (1 - counts[name] / weights[name].numel()) for name in weights)
        return cls(units, parents, dead, config.growth == "rigl")

    @property
    def forward(self) -> int:
        """A dense forward pass."""
        return sum(unit.macs for unit in self.units)

    def of_step(self, phase: SpecialPhase, local: int) -> Macs:
        """A step of a phase."""
        if isinstance(phase.task, Imitate):
            macs = self._imitation(phase.task)
            return Macs(macs, macs)
        taught = sum(unit.macs for unit in self.parents) if phase.task.soft else 0
        sparse = 3 * (self.forward - self.dead)
        if self.by_gradient and phase.drop(local):
            sparse += self.dead
        return Macs(3 * self.forward + taught, sparse + taught)

    def _imitation(self, task: Imitate) -> float:
        index = task.unit
        own = [unit.macs for unit in self.units[: index + 1]]
        taught = sum(unit.macs for unit in self.parents[: index + 1])
        trained = sum(own) if task.below else own[-1]
        maps = [self._bridge(i) for i in range(index + 1)]
        handed = sum(up + down for up, down in maps[:-1] if down) + maps[-1][0]
        behind_before = maps[-2][1] if index else 0
        learned = handed if task.below else maps[-1][0] + behind_before
        return sum(own) + handed + 2 * (trained + learned) + taught

    def _bridge(self, index: int) -> tuple[int, int]:
        """Multiply-accumulates of U and V behind a unit; 0 for what is not there."""
        before, after = self.units[index].blocks[-1], self.units[index + 1].blocks[0]
        wide = self.parents[index].blocks[-1].out_channels
        mode: Mode = bridge_mode(before, after, wide)
        size = 0 if mode == "none" else before.out_channels * wide * before.out_size**2
        return size, 0 if mode == "side" else size


@dataclass(frozen=True)
class PhaseMacs:
    """One phase of a forecast."""

    phase: SpecialPhase
    macs: Macs


def forecast_macs(
    config: SpecializeConfig,
    space: SearchSpace,
    arch: Arch,
    steps_per_epoch: int,
    parent: tuple[SearchSpace, Arch] | None = None,
) -> list[PhaseMacs]:
    """What each phase costs in training, without evaluations.

    Args:
        parent: space and arch of what is learned from, if anything is.
    """
    plan = specialize_plan(config, units_of(space, arch), steps_per_epoch)
    costs = StepCost.of(config, space, arch, units_of(*parent) if parent else ())
    images = config.images_a_step
    found = []
    for phase in plan.phases:
        steps = [costs.of_step(phase, local) for local in range(phase.steps)]
        dense, sparse = sum(each.dense for each in steps), sum(each.sparse for each in steps)
        found.append(PhaseMacs(phase, Macs(dense, sparse).times(images)))
    return found
