"""Batch-norm statistics that are computed anew."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_deploy.errors import InputError
from ofa_deploy.supernet import Supernet, recalibrate
from tests.supernet.nets import close, images


def plain_network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        made = nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False),
            nn.BatchNorm2d(6, eps=1e-3),
            nn.ReLU(),
            nn.Conv2d(6, 4, 3),
            nn.BatchNorm2d(4),
        )
        for tensor in [*made.parameters(), *made.buffers()]:
            if tensor.is_floating_point():
                nn.init.uniform_(tensor.data, 0.1, 1)
    return made


def unequal_batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(6)
    sizes = [(5, 0.0, 1.0), (2, 4.0, 0.3), (1, -3.0, 2.0)]
    return [torch.randn(n, 3, 8, 8, generator=generator) * s + m for n, m, s in sizes]


def expected_statistics(network: nn.Sequential, data: list[Tensor]) -> list[Any]:
    """Mean and biased variance of each BN's input, averaged over batches by their size."""
    layers: Any = network
    conv1, bn1, _, conv2, _ = layers
    sums: list[Any] = [0.0] * 4
    for batch in data:
        x = F.conv2d(batch, conv1.weight).detach().double().numpy()
        mean1, var1 = x.mean((0, 2, 3)), x.var((0, 2, 3), ddof=0)
        y = (x - mean1[:, None, None]) / np.sqrt(var1[:, None, None] + 1e-3)
        y = y * bn1.weight.detach().numpy()[:, None, None]
        y = np.maximum(y + bn1.bias.detach().numpy()[:, None, None], 0)
        z = F.conv2d(torch.from_numpy(y).float(), conv2.weight, conv2.bias).detach().double()
        statistics = (mean1, var1, z.mean((0, 2, 3)).numpy(), z.numpy().var((0, 2, 3), ddof=0))
        sums = [total + len(batch) * one for total, one in zip(sums, statistics, strict=True)]
    return [total / sum(map(len, data)) for total in sums]


def test_recalibration_by_hand_with_unequal_batches() -> None:
    data = unequal_batches()
    network: Any = plain_network()
    expected = expected_statistics(network, data)
    recalibrate(network.train(), iter(data))
    found = [network[1].running_mean, network[1].running_var]
    found += [network[4].running_mean, network[4].running_var]
    for value, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert not any(module.training for module in network.modules())
    assert network[1].track_running_stats


def test_recalibrated_subnet_uses_its_statistics(net: Supernet) -> None:
    arch = net.space.smallest
    subnet = net.extract(arch)
    weights = {name: p.detach().clone() for name, p in subnet.named_parameters()}
    x = images(arch, n=16)
    recalibrate(subnet, [x])
    with torch.no_grad():
        # One batch: its own statistics, so training mode and eval mode agree.
        in_eval = subnet(x)
        again = copy.deepcopy(subnet)
        recalibrate(again, [x])
        for module in again.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0
        assert close(again.train()(x), in_eval)
    for name, p in subnet.named_parameters():
        assert torch.equal(p, weights[name])
    fresh = net.extract(arch)
    assert not close(fresh(x), in_eval, 1e-2)


def test_recalibration_does_not_depend_on_what_was_there(net: Supernet) -> None:
    arch = net.space.largest
    data = [images(arch, n=6, seed=1), images(arch, n=3, seed=2)]
    one, other = net.extract(arch), net.extract(arch)
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.full_like(module.weight.detach(), 7.0)
    recalibrate(one, data)
    recalibrate(other, data)
    recalibrate(other, data)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_recalibration_without_images_is_refused() -> None:
    network = plain_network()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError, match="at least one image"):
        recalibrate(network, [])
    assert all(torch.equal(v, before[name]) for name, v in network.state_dict().items())


def test_recalibration_with_one_value_a_channel_is_refused() -> None:
    network = plain_network()
    before = copy.deepcopy(network.state_dict())
    small = unequal_batches()[0][:2, :, :5, :5]  # 1x1 after both convolutions
    with pytest.raises(InputError, match="at least two images, found one"):
        recalibrate(network, [small, small[:1]])
    assert all(torch.equal(v, before[name]) for name, v in network.state_dict().items())
    recalibrate(network, [small])
    assert all(torch.isfinite(v).all() for v in network.state_dict().values())


def test_failing_batches_leave_the_network_usable() -> None:
    network = plain_network().eval()
    before = copy.deepcopy(network.state_dict())

    def failing() -> Iterator[Tensor]:
        yield unequal_batches()[0]
        raise KeyError("no more images")

    with pytest.raises(KeyError):
        recalibrate(network, failing())
    assert all(torch.equal(v, before[name]) for name, v in network.state_dict().items())
    assert not network.training and network[1].track_running_stats
    assert not network[1]._forward_pre_hooks
