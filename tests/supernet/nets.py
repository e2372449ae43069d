"""Supernets with nothing left at its initial value, images and networks for them."""

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.supernet import Supernet

ELASTIC = ("stages-1-0", "stages-1-1", "stages-2-0", "stages-2-1", "stages-2-2")
seeds = st.integers(0, 2**32 - 1)


def shaken(space: SearchSpace, seed: int = 0) -> Supernet:
    """A supernet in eval mode with nothing left at its initial value.

    BN statistics, scales and shifts, biases and kernel transforms are random, the transforms
    neither identity nor symmetric.
    """
    net = Supernet(space, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.uniform_(low, high, generator=generator)

    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                uniform(module.weight, 0.5, 1.5)
                uniform(module.bias, -0.5, 0.5)
                uniform(module.running_mean, -0.5, 0.5)
                uniform(module.running_var, 0.5, 2)
            elif isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, fan_in**-0.5, generator=generator)
                if module.bias is not None:
                    uniform(module.bias, -0.5, 0.5)
        for name, matrix in net.named_parameters():
            if "transforms" in name:
                matrix.add_(0.3 * torch.randn(matrix.shape, generator=generator))
    return net.eval()


def images(arch: Arch, n: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, arch.resolution, arch.resolution, generator=generator)


def sampled(space: SearchSpace, seed: int, n: int = 1) -> list[Arch]:
    return space.decode(space.sample(np.random.default_rng(seed), n))


def close(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> bool:
    """Equal up to ``tolerance`` of the spread over the values."""
    return bool((one - other).abs().max() <= tolerance * other.std())
