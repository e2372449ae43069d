"""What tests of accuracy models share: networks and made-up accuracies of theirs."""

import numpy as np
import numpy.typing as npt
import pytest

from ofa_deploy.space import Arch, Head, SearchSpace, Stage, Stem

Floats = npt.NDArray[np.float64]


def true_top1(space: SearchSpace, arch: Arch) -> float:
    """Grows with cost, with kernels a little, and with depth and width together."""
    cost = space.cost(arch)
    width = sum(arch.expands) / max(1, len(arch.expands))
    return float(
        20
        + 3 * np.log(cost.macs / 1e4)
        + 0.3 * sum(kernel == 5 for kernel in arch.kernels)
        + 0.8 * sum(arch.depths) * width / 3
        + (1.5 if arch.resolution == 16 else 0)
    )


def narrow_space(
    *,
    resolutions: tuple[int, ...] = (16,),
    depths: tuple[int, ...] = (1,),
    kernels: tuple[int, ...] = (3,),
    expands: tuple[float, ...] = (2,),
) -> SearchSpace:
    """A space of one stage in which only that is elastic which is given."""
    return SearchSpace(
        name="narrow",
        resolutions=resolutions,
        classes=4,
        stem=Stem(channels=8),
        stages=(
            Stage(channels=8, stride=1, depths=(1,), kernels=(3,), expands=(1,)),
            Stage(channels=16, stride=2, depths=depths, kernels=kernels, expands=expands),
        ),
        head=Head(channels=24, features=32),
    )


@pytest.fixture(scope="session")
def archs(tiny_space: SearchSpace) -> list[Arch]:
    """200 networks, all different."""
    rng = np.random.default_rng(11)
    return list(dict.fromkeys(tiny_space.decode(tiny_space.sample(rng, 400))))[:200]


@pytest.fixture(scope="session")
def top1(tiny_space: SearchSpace, archs: list[Arch]) -> Floats:
    """Their accuracies, with the noise of a validation set."""
    noise = np.random.default_rng(12).normal(0, 0.1, len(archs))
    return np.array([true_top1(tiny_space, arch) for arch in archs]) + noise
