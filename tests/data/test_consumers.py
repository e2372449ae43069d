"""What evaluates and calibrates networks gives the same for images in memory and on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ofa_deploy.data import ImageFiles, ImageSet, image_folder
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import Supernet
from ofa_deploy.supernet.evaluate import batches, cut, top1


@pytest.fixture
def stored(tmp_path: Path, rng: np.random.Generator) -> ImageFiles:
    for i in range(40):
        path = tmp_path / "nsew"[i % 4] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return image_folder(tmp_path, size=16)


def test_batches_of_either_are_alike(stored: ImageFiles) -> None:
    memory: ImageSet = stored.in_memory()
    made = [list(batches(images, 12, size=15)) for images in (stored, memory)]
    assert [len(batch) for batch in made[0]] == [14, 13, 13]
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))


def test_subnet_of_either_is_alike(stored: ImageFiles, tiny_space: SearchSpace) -> None:
    net, arch = Supernet(tiny_space, seed=0), tiny_space.smallest
    memory = stored.in_memory()
    subnets = [cut(net, arch, images) for images in (stored, memory)]
    states = [subnet.state_dict() for subnet in subnets]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert top1(subnets[0], stored, 12) == top1(subnets[1], memory, 12)
