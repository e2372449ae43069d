"""The supernet against a second reading of what an elastic network is.

``reference`` computes a network from the supernet's tensors with torch functions alone; it shares
no code with ``Supernet.forward`` or ``extract``, so a mistake that both of those share shows too.
"""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor, nn

from ofa_deploy.errors import InputError
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.supernet import Supernet
from tests.supernet.nets import close, images, sampled, seeds

# -- the reference --------------------------------------------------------------------------


def act(x: Tensor, name: str) -> Tensor:
    return x * (x + 3).clamp(0, 6) / 6 if name == "hswish" else x.clamp(min=0)


def norm(x: Tensor, state: dict[str, Tensor], prefix: str, eps: float) -> Tensor:
    n = x.shape[1]
    names = ("running_mean", "running_var", "weight", "bias")
    mean, var, scale, shift = (state[f"{prefix}.{name}"][:n, None, None] for name in names)
    return (x - mean) / (var + eps).sqrt() * scale + shift


def depthwise(state: dict[str, Tensor], prefix: str, mid: int, kernels: Any, size: int) -> Tensor:
    """The kernel of one size, from the greatest down through each matrix."""
    weight = state[f"{prefix}.full.depthwise.weight"][:mid, 0]
    sizes = sorted(kernels, reverse=True)
    for big, small in pairwise(sizes):
        if big == size:
            break
        edge = (big - small) // 2
        centre = weight[:, edge : big - edge, edge : big - edge].reshape(mid, small * small)
        matrix = state[f"{prefix}.transforms.{big}to{small}"]
        weight = (matrix @ centre.T).T.reshape(mid, small, small)
    return weight[:, None]


def reference(net: Supernet, x: Tensor, arch: Arch) -> Tensor:
    """Logits of ``arch`` in eval mode, for ``tiny_space``-like spaces with BN and a head."""
    space, eps = net.space, net.space.bn_eps
    state = {name.removeprefix("layers."): value for name, value in net.state_dict().items()}
    x = F.conv2d(x, state["stem.full.conv.weight"], stride=space.stem.stride, padding=1)
    x = act(norm(x, state, "stem.full.bn", eps), space.stem.activation)
    depths, kernels, expands = list(arch.depths), list(arch.kernels), list(arch.expands)
    for s, stage in enumerate(space.stages):
        depth = depths.pop(0) if stage.elastic else stage.depths[0]
        for b in range(depth):
            kernel = kernels.pop(0) if stage.elastic else stage.kernels[0]
            expand = expands.pop(0) if stage.elastic else stage.expands[0]
            stride = stage.stride if b == 0 else 1
            prefix = f"stages-{s}-{b}"
            mid = int(x.shape[1] * expand)
            y = x
            if expand != 1:
                y = F.conv2d(y, state[f"{prefix}.full.expand.weight"][:mid])
                y = act(norm(y, state, f"{prefix}.full.expand_bn", eps), stage.activation)
            weight = depthwise(state, prefix, mid, stage.kernels, kernel)
            y = F.conv2d(y, weight, stride=stride, padding=kernel // 2, groups=mid)
            y = act(norm(y, state, f"{prefix}.full.depthwise_bn", eps), stage.activation)
            if stage.se:
                hidden = {24: 8, 48: 16}[mid]
                w = {
                    name: state[f"{prefix}.full.squeeze.{name}"]
                    for name in ("reduce.weight", "reduce.bias", "expand.weight", "expand.bias")
                }
                scale = y.mean((2, 3)) @ w["reduce.weight"][:hidden, :mid, 0, 0].T
                scale = (scale + w["reduce.bias"][:hidden]).clamp(min=0)
                scale = scale @ w["expand.weight"][:mid, :hidden, 0, 0].T + w["expand.bias"][:mid]
                y = y * ((scale + 3).clamp(0, 6) / 6)[:, :, None, None]
            y = F.conv2d(y, state[f"{prefix}.full.project.weight"][:, :mid])
            y = norm(y, state, f"{prefix}.full.project_bn", eps)
            x = x + y if stride == 1 and x.shape[1] == stage.channels else y
    x = F.conv2d(x, state["head.full.conv.weight"])
    x = act(norm(x, state, "head.full.bn", eps), space.head.activation).mean((2, 3))
    x = act(x @ state["classifier.full.features.weight"][:, :, 0, 0].T, space.head.activation)
    return F.linear(x, state["classifier.full.linear.weight"], state["classifier.full.linear.bias"])


# -- forward and extract --------------------------------------------------------------------


@given(seed=seeds)
def test_supernet_computes_what_the_arch_says(net: Supernet, seed: int) -> None:
    (arch,) = sampled(net.space, seed)
    x = images(arch, seed=seed % 1000)
    with torch.no_grad():
        assert close(net(x, arch), reference(net, x, arch))


@given(seed=seeds)
def test_extracted_subnet_computes_the_same(net: Supernet, seed: int) -> None:
    (arch,) = sampled(net.space, seed)
    x = images(arch, seed=seed % 1000)
    subnet = net.extract(arch)
    assert not any(module.training for module in subnet.modules())
    with torch.no_grad():
        assert close(subnet(x), net(x, arch), 1e-5)


def test_different_networks_compute_different_things(net: Supernet) -> None:
    # Were any gene ignored, two of these would agree.
    largest = net.space.largest
    variants = [
        largest,
        Arch(16, (2, 3), (5, 7, 5, 5, 5), (3,) * 5),
        Arch(16, (2, 3), (3, 7, 5, 5, 5), (3,) * 5),
        Arch(16, (2, 3), (7, 7, 5, 5, 3), (3,) * 5),
        Arch(16, (2, 3), (7, 7, 5, 5, 5), (2, 3, 3, 3, 3)),
        Arch(16, (2, 3), (7, 7, 5, 5, 5), (3, 3, 1.5, 3, 3)),
        Arch(16, (1, 3), (7, 5, 5, 5), (3,) * 4),
        Arch(16, (2, 1), (7, 7, 5), (3,) * 3),
    ]
    x = images(largest)
    with torch.no_grad():
        logits = [net(x, arch) for arch in variants]
    for i, one in enumerate(logits):
        assert not any(close(one, other, 1e-3) for other in logits[:i])


def test_supernet_remembers_nothing(net: Supernet, tiny_space: SearchSpace) -> None:
    archs = sampled(tiny_space, 3, n=6)
    with torch.no_grad():
        first = [net(images(arch), arch) for arch in archs]
        again = [net(images(arch), arch) for arch in reversed(archs)]
    for one, other in zip(first, reversed(again), strict=True):
        assert torch.equal(one, other)


def test_extracted_weights_are_copies(net: Supernet) -> None:
    arch = net.space.largest
    before = copy.deepcopy(net.state_dict())
    subnet = net.extract(arch)
    with torch.no_grad():
        for tensor in [*subnet.parameters(), *subnet.buffers()]:
            tensor.zero_()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_images_of_another_size_are_refused(net: Supernet) -> None:
    for shape in ((1, 3, 12, 12), (1, 3, 16, 12)):
        with pytest.raises(InputError, match=f"expected images of 16x16.*found {shape[2]}x12"):
            net(torch.zeros(shape), net.space.largest)


def test_dropout_mask_scales_the_last_features(net: Supernet) -> None:
    arch = net.space.smallest
    x = images(arch, n=3)
    assert net.feature_count == 32
    with torch.no_grad():
        plain = net(x, arch)
        assert torch.equal(net(x, arch, keep=torch.ones(3, 32)), plain)
        none = net(x, arch, keep=torch.zeros(3, 32))
        bias = net.state_dict()["layers.classifier.full.linear.bias"]
        assert torch.equal(none, bias.expand(3, 4))
        twice = net(x, arch, keep=torch.full((3, 32), 2.0))
        assert close(twice - bias, 2 * (plain - bias), 1e-5)


@settings(max_examples=15)
@given(seed=seeds)
def test_cost_counts_the_parameters_and_the_work(net: Supernet, seed: int) -> None:
    (arch,) = sampled(net.space, seed)
    subnet, macs = net.extract(arch), 0

    def count(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal macs
        assert isinstance(module, nn.Conv2d | nn.Linear)
        macs += output.numel() * module.weight[0].numel()

    for module in subnet.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        subnet(images(arch, n=1))
    cost = net.space.cost(arch)
    assert macs == cost.macs
    assert sum(p.numel() for p in subnet.parameters()) == cost.params
