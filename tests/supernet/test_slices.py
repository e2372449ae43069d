"""What a smaller network takes from a larger one: blocks, channels, kernels through matrices."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.supernet import Supernet
from tests.supernet.nets import images


def used(net: Supernet, arch: Arch) -> dict[str, Tensor]:
    """Where the logits of ``arch`` depend on each parameter: not zero where they do."""
    net.zero_grad()
    net(images(arch, n=8), arch).square().sum().backward()
    found = {
        name.removeprefix("layers."): torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in net.named_parameters()
    }
    net.zero_grad()
    return found


def channels(gradient: Tensor, dim: int = 0) -> list[int]:
    """Indices along ``dim`` at which a gradient is not zero."""
    rows = gradient.transpose(0, dim).reshape(gradient.shape[dim], -1)
    return [i for i, row in enumerate(rows) if row.any()]


def test_depth_takes_the_first_blocks(net: Supernet) -> None:
    gradients = used(net, Arch(16, (1, 1), (7, 5), (3, 3)))
    blocks = {name.split(".")[0] for name, g in gradients.items() if g.any() and "stages" in name}
    assert blocks == {"stages-0-0", "stages-1-0", "stages-2-0"}


def test_width_takes_the_first_channels(net: Supernet) -> None:
    gradients = used(net, Arch(16, (1, 1), (7, 5), (2, 1.5)))
    for block, mid, hidden in (("stages-1-0", 16, 0), ("stages-2-0", 24, 8)):
        full = f"{block}.full"
        for name in ("expand.weight", "expand_bn.weight", "depthwise.weight", "depthwise_bn.bias"):
            assert channels(gradients[f"{full}.{name}"])[-1] < mid, name
        assert channels(gradients[f"{full}.project.weight"], 1)[-1] < mid
        assert len(channels(gradients[f"{full}.project.weight"], 1)) > mid // 2
        if hidden:
            squeeze = f"{full}.squeeze"
            assert channels(gradients[f"{squeeze}.reduce.weight"])[-1] < hidden
            assert channels(gradients[f"{squeeze}.reduce.weight"], 1)[-1] < mid
            assert channels(gradients[f"{squeeze}.expand.weight"])[-1] < mid
            assert channels(gradients[f"{squeeze}.expand.weight"], 1)[-1] < hidden


@pytest.mark.parametrize(("kernel", "through"), [(7, []), (5, ["7to5"]), (3, ["7to5", "5to3"])])
def test_smaller_kernels_go_through_the_matrices(
    net: Supernet, kernel: int, through: list[str]
) -> None:
    gradients = used(net, Arch(16, (1, 1), (kernel, 5), (3, 3)))
    matrices = [
        name for name, g in gradients.items() if "stages-1-0.transforms" in name and g.any()
    ]
    assert sorted(matrices) == sorted(f"stages-1-0.transforms.{name}" for name in through)
    # Only the centre of the 7x7 kernel feeds a smaller one.
    reach = gradients["stages-1-0.full.depthwise.weight"].abs().sum((0, 1)) > 0
    edge = 1 if kernel < 7 else 0
    expected = F.pad(torch.ones(7 - 2 * edge, 7 - 2 * edge, dtype=torch.bool), [edge] * 4)
    assert torch.equal(reach, expected)


def test_kernel_matrices_multiply_from_the_left(net: Supernet) -> None:
    layer: Any = net.layers["stages-1-0"]
    seven = layer.full.depthwise.weight.detach()
    m5, m3 = layer.transforms["7to5"].detach(), layer.transforms["5to3"].detach()
    assert not torch.allclose(m5, m5.T) and not torch.allclose(m5, torch.eye(25))
    five = F.linear(seven[:16, :, 1:6, 1:6].reshape(16, 1, 25), m5).view(16, 1, 5, 5)
    three = F.linear(five[:, :, 1:4, 1:4].reshape(16, 1, 9), m3).view(16, 1, 3, 3)
    for kernel, expected in ((7, seven[:16]), (5, five), (3, three)):
        arch = Arch(16, (1, 1), (kernel, 5), (2, 3))
        extracted: Any = net.extract(arch).blocks[2]
        torch.testing.assert_close(extracted.depthwise.weight, expected)
        torch.testing.assert_close(layer.kernel_weight(16, kernel), expected)


def test_matrices_start_as_identity(tiny_space: SearchSpace) -> None:
    fresh: Any = Supernet(tiny_space).layers["stages-1-0"]
    seven = fresh.full.depthwise.weight
    assert torch.equal(fresh.kernel_weight(24, 5), seven[:24, :, 1:6, 1:6])
    assert torch.equal(fresh.kernel_weight(24, 3), seven[:24, :, 2:5, 2:5])
