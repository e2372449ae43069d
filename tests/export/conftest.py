"""A subnet of a random supernet, recalibrated and saved as search saves it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa_deploy.data import ImageSet
from ofa_deploy.pareto import Candidate
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.supernet import Subnet, SubnetFile, Supernet, cut, save_subnet

CLASSES = ("ant", "bee", "cat", "dog")


def image_set(seed: int, n: int) -> ImageSet:
    """Noise of four brightnesses, one a class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    images = rng.integers(0, 96, (n, 3, 16, 16)) + 50 * labels[:, None, None, None]
    return ImageSet(images.astype(np.uint8), labels.astype(np.int64), CLASSES)


@dataclass(frozen=True)
class Saved:
    """A subnet in memory and on disk."""

    subnet: Subnet
    record: SubnetFile
    path: Path
    test: ImageSet

    def write(self, stem: Path, *, subnet: Subnet | None = None, **fields: object) -> Path:
        """Save it again, with other weights or another record."""
        record = self.record.model_copy(update=fields)
        return save_subnet(stem, self.subnet if subnet is None else subnet, record)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The same sums in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def net(tiny_space: SearchSpace) -> Supernet:
    return Supernet(tiny_space, seed=1)


@pytest.fixture(scope="session")
def arch(tiny_space: SearchSpace) -> Arch:
    """In the middle, at the smaller resolution: images are resized on their way."""
    return tiny_space.arch(
        resolution=12, depths=[2, 3], kernels=[3, 7, 3, 5, 3], expands=[2, 3, 1.5, 3, 3]
    )


@pytest.fixture
def saved(tiny_space: SearchSpace, net: Supernet, arch: Arch, tmp_path: Path) -> Saved:
    subnet = cut(net, arch, image_set(0, 60))
    candidate = Candidate(
        arch,
        {"top1": 61.0, "latency": 0.3},
        {"latency": (0.2, 0.4)},
        {"top1": 60.0, "latency": 0.31},
        "latency <= 0.4 ms",
    )
    record = SubnetFile(
        space=tiny_space.to_dict(),
        supernet_sha256="ab" * 32,
        data="somewhere",
        data_options={"seed": 0, "train": None},
        data_digest="0" * 16,
        classes=CLASSES,
        calibration=60,
        candidate=candidate.to_dict(),
    )
    path = save_subnet(tmp_path / "subnets" / "best", subnet, record)
    return Saved(subnet, record, path, image_set(1, 270))
