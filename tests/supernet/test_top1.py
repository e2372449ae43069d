"""Top-1 of subnets: images as tensors, batches, and what is counted."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_deploy.data import ImageSet, normalise
from ofa_deploy.supernet import Supernet, batches, cut, recalibrate, to_tensor, top1
from tests.supernet.nets import close


def image_set(n: int, rng: np.random.Generator) -> ImageSet:
    pixels = rng.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    return ImageSet(pixels, rng.integers(0, 4, n), ("a", "b", "c", "d"))


def test_to_tensor(rng: np.random.Generator) -> None:
    data = image_set(3, rng)
    same, smaller = to_tensor(data.images, 16), to_tensor(data.images, 12)
    np.testing.assert_array_equal(same.numpy(), normalise(data.images))
    assert smaller.shape == (3, 3, 12, 12) and smaller.dtype == torch.float32
    assert same.is_contiguous(memory_format=torch.channels_last)
    flat = np.full((1, 3, 16, 16), 100, np.uint8)
    assert torch.allclose(to_tensor(flat, 12), to_tensor(flat, 16)[:, :, :12, :12], atol=1e-5)


def test_batches_are_all_images_in_order(rng: np.random.Generator) -> None:
    data = image_set(10, rng)
    made = list(batches(data, 12, size=4))
    assert [len(batch) for batch in made] == [4, 3, 3]
    assert torch.allclose(torch.cat(made), to_tensor(data.images, 12), atol=1e-6)


def test_top1_counts_in_percent(rng: np.random.Generator) -> None:
    data = image_set(300, rng)  # more than one batch
    right = torch.from_numpy(data.labels)
    wrong = torch.arange(300) % 5 == 0

    class Oracle(nn.Module):
        seen = 0

        def forward(self, x: Tensor) -> Tensor:
            part = slice(self.seen, self.seen + len(x))
            self.seen += len(x)
            return F.one_hot((right[part] + wrong[part].long()) % 4, 4).float()

    assert top1(Oracle(), data, 16) == pytest.approx(80)


def test_cut_is_extract_and_recalibrate(net: Supernet, rng: np.random.Generator) -> None:
    data = image_set(20, rng)
    arch = net.space.smallest
    expected = net.extract(arch)
    recalibrate(expected, [to_tensor(data.images, arch.resolution)])
    found = cut(net, arch, data)
    x = to_tensor(data.images, arch.resolution)
    with torch.no_grad():
        assert close(found(x), expected(x))
    assert 0 <= top1(found, data, arch.resolution) <= 100
