"""Which weights of a sparse network live: ERK densities, and masks that move while it trains.

Dynamic sparse training as in RigL (Evci et al. 2020) and SET (Mocanu et al. 2018): from time to
time each layer drops its smallest weights and grows as many elsewhere, where the dense gradient is
largest or anywhere. Grown weights start at 0, also those that were dropped a moment before.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from ofa_deploy.errors import InputError
from ofa_deploy.specialize.units import Unit
from ofa_deploy.supernet import Subnet
from ofa_deploy.supernet.modules import Bottleneck, Classifier, ConvBlock, MBConv

__all__ = ["Masks", "erk_densities", "live_counts", "maskable"]


def maskable(subnet: Subnet, units: tuple[Unit, ...], dense: Collection[str]) -> dict[str, Tensor]:
    """The weights that may be sparse, by their name in the subnet.

    Args:
        dense: which of ``depthwise``, ``se``, ``stem``, ``classifier`` may not.
    """
    stem = {i for unit in units if unit.name == "stem" for i in range(unit.start, unit.stop)}
    found: dict[str, Tensor] = {}
    for position, module in enumerate(subnet.blocks):
        for name, group in _layers(module):
            kept = "stem" in dense and position in stem
            if not kept and group not in dense:
                layer = module.get_submodule(name)
                assert isinstance(layer, nn.Conv2d | nn.Linear)
                found[f"blocks.{position}.{name}.weight"] = layer.weight
    return found


def _layers(module: nn.Module) -> list[tuple[str, str]]:
    """The layers of a block and the group that each belongs to."""
    match module:
        case ConvBlock():
            return [("conv", "convolution")]
        case MBConv():
            expand = [("expand", "convolution")] if module.block.expands else []
            squeeze = ("squeeze.reduce", "squeeze.expand") if module.block.se else ()
            return [
                *expand,
                ("depthwise", "depthwise"),
                *((name, "se") for name in squeeze),
                ("project", "convolution"),
            ]
        case Bottleneck():
            shortcut = ("shortcut",) if module.block.projects else ()
            return [(name, "convolution") for name in ("conv1", "conv2", "conv3", *shortcut)]
        case Classifier():
            features = [("features", "classifier")] if module.block.mid_channels else []
            return [*features, ("linear", "classifier")]
        case _:
            return []


def erk_densities(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """Densities d ∝ Σ(shape)/Π(shape) whose mean over weights is ``density`` (Erdős-Rényi kernels).

    Layers that would exceed 1 become dense, and the rest is solved again.

    Args:
        shapes: of the weights, by name.
        density: from 0, excluded, to 1.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    full: set[str] = set()
    while True:
        free = [name for name in shapes if name not in full]
        left = density * sum(sizes.values()) - sum(sizes[name] for name in full)
        scale = left / max(1, sum(sum(shapes[name]) for name in free))
        found = {name: scale * sum(shapes[name]) / sizes[name] for name in free}
        over = {name for name, value in found.items() if value > 1}
        if not over:
            return {name: found.get(name, 1.0) for name in shapes}
        full |= over


def live_counts(
    shapes: Mapping[str, tuple[int, ...]], density: float, spread: str = "erk"
) -> dict[str, int]:
    """How many weights of each layer live; together exactly ``density`` of all, but at least one.

    Args:
        spread: ``erk``, or ``uniform``.

    Raises:
        InputError: if there is nothing that may be sparse.
    """
    if not shapes:
        raise InputError("no layer may be sparse; leave some out of the setting dense")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    erk = erk_densities(shapes, density) if spread == "erk" else dict.fromkeys(shapes, density)
    exact = {name: erk[name] * sizes[name] for name in shapes}
    counts = {name: int(value) for name, value in exact.items()}
    missing = round(density * sum(sizes.values())) - sum(counts.values())
    by_remainder = sorted(shapes, key=lambda name: counts[name] - exact[name])
    for name in [name for name in by_remainder if counts[name] < sizes[name]][:missing]:
        counts[name] += 1
    return {name: max(1, count) for name, count in counts.items()}


@dataclass
class Masks:
    """The living weights of a network.

    Attributes:
        weights: the network's own tensors, by name; only layers that are not dense.
        masks: bool, of the same shapes.
    """

    weights: dict[str, Tensor]
    masks: dict[str, Tensor]

    @classmethod
    def begin(
        cls,
        weights: Mapping[str, Tensor],
        counts: Mapping[str, int],
        generator: torch.Generator | None,
    ) -> Self:
        """Masks with so many weights alive: the greatest, or, with a generator, random ones.

        A layer that keeps all its weights is dense: it has no mask.
        """
        sparse = {name: weight for name, weight in weights.items() if counts[name] < weight.numel()}
        masks = {}
        for name, weight in sparse.items():
            scores = _scores(weight, generator) if generator else weight.detach().abs().reshape(-1)
            alive = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
            alive[_first(scores, counts[name])] = True
            masks[name] = alive.view(weight.shape)
        return cls(sparse, masks)

    @property
    def counts(self) -> dict[str, int]:
        """How many weights of each layer live."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}

    @torch.no_grad()
    def apply(self, optimizer: torch.optim.Optimizer) -> None:
        """Set dead weights, and what the optimizer remembers of them, to zero."""
        for name, mask in self.masks.items():
            for tensor in _with_memory(self.weights[name], optimizer):
                tensor.mul_(mask)

    @torch.no_grad()
    def update(
        self,
        optimizer: torch.optim.Optimizer,
        rate: float,
        generator: torch.Generator | None,
    ) -> None:
        """Drop the smallest ⌈rate·n⌉ weights of each layer, and grow as many.

        At least one weight of a layer survives. Every weight that did not survive may grow, those
        just dropped too, as in RigL; it starts at 0 and without momentum.

        Args:
            rate: 0 changes nothing.
            generator: grows at random; None grows where the gradient of the step just taken, kept
                beside each weight, is largest.
        """
        for name, mask in self.masks.items():
            weight, alive = self.weights[name], mask.reshape(-1)
            count = int(alive.sum())
            dropped = min(math.ceil(rate * count), count - 1)
            if dropped < 1:
                continue
            size = weight.detach().abs().reshape(-1).masked_fill(~alive, -1.0)
            survivors = torch.zeros_like(alive)
            survivors[_first(size, count - dropped)] = True
            scores = _growth(weight, generator).masked_fill(survivors, -1.0)
            grown = _first(scores, dropped)
            fresh = survivors.clone()
            fresh[grown] = True
            mask.copy_(fresh.view(mask.shape))
            kept = survivors.view(mask.shape)
            for tensor in _with_memory(weight, optimizer):
                tensor.mul_(kept)


def _growth(weight: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is not None:
        return _scores(weight, generator)
    if weight.grad is None:
        raise ValueError("growing by gradient needs the gradient of a step")
    return weight.grad.abs().reshape(-1)


def _scores(weight: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(weight.numel(), generator=generator).to(weight.device)


def _first(scores: Tensor, count: int) -> Tensor:
    """The positions of the greatest scores; of equals the first."""
    return torch.argsort(scores, descending=True, stable=True)[:count]


def _with_memory(weight: Tensor, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """A weight, and what the optimizer keeps of the same shape."""
    kept = optimizer.state.get(weight, {}).values()
    return [weight, *(t for t in kept if isinstance(t, Tensor) and t.shape == weight.shape)]
