"""The supernet against a second reading of what an elastic network is.

``reference`` computes a network from the supernet's tensors with torch functions alone; it shares
no code with ``Supernet.forward`` or ``extract``, so a mistake that both of those share shows too.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ofa_deploy.data import ImageSet, normalise
from ofa_deploy.errors import InputError
from ofa_deploy.graph import INPUT, OUTPUT, build_onnx
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.supernet import (
    Supernet,
    batches,
    cut,
    folded_weights,
    recalibrate,
    to_tensor,
    top1,
)

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


@pytest.fixture(scope="module")
def net(tiny_space: SearchSpace) -> Supernet:
    """Shared: not to be changed."""
    return shaken(tiny_space)


def images(arch: Arch, n: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, arch.resolution, arch.resolution, generator=generator)


def sampled(space: SearchSpace, seed: int, n: int = 1) -> list[Arch]:
    return space.decode(space.sample(np.random.default_rng(seed), n))


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


def close(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> bool:
    """Equal up to ``tolerance`` of the spread over the values."""
    return bool((one - other).abs().max() <= tolerance * other.std())


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


# -- what a smaller network takes from a larger one -----------------------------------------


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


# -- training mode --------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["stem", "stages-0-0", *ELASTIC, "head"])
def test_training_leaves_running_statistics_alone(tiny_space: SearchSpace, layer: str) -> None:
    net = shaken(tiny_space).train()
    before = {name: buffer.clone() for name, buffer in net.layers[layer].named_buffers()}
    net(images(tiny_space.largest), tiny_space.largest).sum().backward()
    assert before
    for name, buffer in net.layers[layer].named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_training_normalises_with_the_batch(tiny_space: SearchSpace) -> None:
    arch = tiny_space.largest
    x = images(arch, n=8)
    nets = [shaken(tiny_space), shaken(tiny_space)]
    for module in nets[1].modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean += 3.0
    with torch.no_grad():
        in_eval = [net.eval()(x, arch) for net in nets]
        in_training = [net.train()(x, arch) for net in nets]
    assert not close(in_eval[0], in_eval[1], 1e-2)
    assert torch.equal(in_training[0], in_training[1])
    subnet = nets[0].extract(arch).train()
    assert close(subnet(x), in_training[0], 1e-4)


def test_every_parameter_learns(tiny_space: SearchSpace) -> None:
    net = shaken(tiny_space).train()
    # The greatest widths and depths; the least kernels reach the matrices.
    for arch in (tiny_space.largest, tiny_space.arch(depths=[2, 3], kernels=3, expands=3)):
        net(images(arch, n=8), arch).square().sum().backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


# -- construction ---------------------------------------------------------------------------


def test_constructor_leaves_the_global_generator_alone(tiny_space: SearchSpace) -> None:
    state = torch.get_rng_state()
    Supernet(tiny_space, seed=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_extracting_leaves_the_global_generator_alone(net: Supernet) -> None:
    state = torch.get_rng_state()
    net.extract(net.space.smallest)
    assert torch.equal(torch.get_rng_state(), state)


def test_seed_decides_the_weights(tiny_space: SearchSpace) -> None:
    torch.rand(3)
    one, same, other = (Supernet(tiny_space, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    drawn = [name for name in one if name.endswith("weight") and "bn" not in name]
    assert drawn and not any(torch.equal(one[name], other[name]) for name in drawn)


def test_weights_survive_a_state_dict(net: Supernet, tiny_space: SearchSpace) -> None:
    other = Supernet(tiny_space, seed=9).eval()
    other.load_state_dict(net.state_dict())
    arch = tiny_space.largest
    with torch.no_grad():
        assert torch.equal(other(images(arch), arch), net(images(arch), arch))
        assert torch.equal(copy.deepcopy(net)(images(arch), arch), net(images(arch), arch))


# -- sorting channels -----------------------------------------------------------------------


def l1(weight: Tensor) -> Tensor:
    """L1 norm of what reads each input channel."""
    return weight.detach().abs().sum((0, 2, 3))


def test_sorting_keeps_the_largest_function(tiny_space: SearchSpace) -> None:
    net = shaken(tiny_space)
    archs = [tiny_space.largest, *(a for a in sampled(tiny_space, 1, 40) if set(a.expands) == {3})]
    with torch.no_grad():
        before = [net(images(arch), arch) for arch in archs]
        net.sort_channels()
        for arch, logits in zip(archs, before, strict=True):
            assert close(net(images(arch), arch), logits)


def test_sorting_puts_the_most_important_first(tiny_space: SearchSpace) -> None:
    net = shaken(tiny_space)
    unsorted = copy.deepcopy(net)
    net.sort_channels()
    for name in ELASTIC:
        layer: Any = net.layers[name].full
        was: Any = unsorted.layers[name].full
        order = torch.argsort(l1(was.project.weight), descending=True)
        assert not torch.equal(order, torch.arange(len(order)))
        assert torch.equal(layer.project.weight, was.project.weight[:, order])
        assert torch.equal(layer.depthwise.weight, was.depthwise.weight[order])
        if name.startswith("stages-2"):
            gate, old = layer.squeeze, was.squeeze
            hidden = torch.argsort(l1(old.expand.weight), descending=True)
            assert not torch.equal(hidden, torch.arange(len(hidden)))
            assert torch.equal(gate.expand.weight, old.expand.weight[order][:, hidden])
            assert torch.equal(gate.reduce.weight, old.reduce.weight[hidden][:, order])
            assert torch.equal(gate.expand.bias, old.expand.bias[order])
            assert torch.equal(gate.reduce.bias, old.reduce.bias[hidden])


def test_sorting_twice_changes_nothing(tiny_space: SearchSpace) -> None:
    net = shaken(tiny_space)
    net.sort_channels()
    before = copy.deepcopy(net.state_dict())
    net.sort_channels()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_unexpanded_blocks_stay_as_they_are(tiny_space: SearchSpace) -> None:
    net = shaken(tiny_space)
    before = copy.deepcopy(net.layers["stages-0-0"].state_dict())
    net.sort_channels()
    after = net.layers["stages-0-0"].state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def sgd(net: Supernet) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True)


def adam(net: Supernet) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=1e-3)


def step(net: Supernet, optimizer: torch.optim.Optimizer, seed: int) -> None:
    arch = net.space.largest
    optimizer.zero_grad()
    target = torch.arange(8) % 4
    loss: Any = F.cross_entropy(net.train()(images(arch, n=8, seed=seed), arch), target)
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("make", "kept"), [(sgd, ["momentum_buffer"]), (adam, ["exp_avg", "exp_avg_sq"])]
)
def test_what_the_optimizer_remembers_moves_with_the_weights(
    tiny_space: SearchSpace, make: Callable[[Supernet], torch.optim.Optimizer], kept: list[str]
) -> None:
    net = shaken(tiny_space)
    optimizer = make(net)
    step(net, optimizer, seed=0)
    with torch.no_grad():
        for weight in net.parameters():
            for name in kept if weight in optimizer.state else ():
                optimizer.state[weight][name].copy_(weight * 2)
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    net.sort_channels(optimizer)
    moved = {
        name for name, weight in net.named_parameters() if not torch.equal(weight, before[name])
    }
    for kind in ("expand.weight", "expand_bn.bias", "depthwise.weight", "depthwise_bn.weight",
                 "project.weight", "squeeze.reduce.weight", "squeeze.reduce.bias",
                 "squeeze.expand.weight", "squeeze.expand.bias"):  # fmt: skip
        assert f"layers.stages-2-0.full.{kind}" in moved
    for name, weight in net.named_parameters():
        for state in kept if weight in optimizer.state else ():
            assert torch.equal(optimizer.state[weight][state], weight * 2), name


def test_training_goes_on_as_if_nothing_was_sorted(tiny_space: SearchSpace) -> None:
    arch = tiny_space.largest
    logits = []
    for sort in (False, True):
        net = shaken(tiny_space)
        optimizer = sgd(net)
        step(net, optimizer, seed=0)
        if sort:
            net.sort_channels(optimizer)
        step(net, optimizer, seed=1)
        with torch.no_grad():
            logits.append(net.train()(images(arch, n=8, seed=2), arch))
    assert close(logits[1], logits[0], 1e-3)


def test_forgotten_momentum_would_show(tiny_space: SearchSpace) -> None:
    # The test above can fail: sorted without its optimizer, training takes another course.
    arch = tiny_space.largest
    logits = []
    for remembered in (True, False):
        net = shaken(tiny_space)
        optimizer = sgd(net)
        step(net, optimizer, seed=0)
        net.sort_channels(optimizer if remembered else None)
        step(net, optimizer, seed=1)
        with torch.no_grad():
            logits.append(net.train()(images(arch, n=8, seed=2), arch))
    assert not close(logits[1], logits[0], 1e-2)


# -- recalibration --------------------------------------------------------------------------


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


# -- export ---------------------------------------------------------------------------------


def onnx_logits(model: bytes, x: Tensor) -> Tensor:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (result,) = session.run([OUTPUT], {INPUT: x.numpy()})
    return torch.from_numpy(np.asarray(result))


@settings(max_examples=15)
@given(seed=seeds)
def test_folded_model_computes_the_same(net: Supernet, seed: int) -> None:
    (arch,) = sampled(net.space, seed)
    subnet, x = net.extract(arch), images(arch)
    model = build_onnx(net.space.lower(arch), folded_weights(subnet))
    onnx.checker.check_model(model, full_check=True)
    with torch.no_grad():
        assert close(onnx_logits(model.SerializeToString(), x), subnet(x))


@pytest.mark.parametrize("which", ["smallest", "largest"])
def test_torchs_own_exporter_agrees(net: Supernet, which: str, tmp_path: Path) -> None:
    arch = getattr(net.space, which)
    subnet, x = net.extract(arch), images(arch)
    theirs = tmp_path / "theirs.onnx"
    with warnings.catch_warnings():
        # The exporter through TorchScript is deprecated, and thirty times as fast as the other.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            subnet, (x,), theirs, dynamo=False, input_names=[INPUT], output_names=[OUTPUT]
        )
    ours = build_onnx(net.space.lower(arch), folded_weights(subnet)).SerializeToString()
    assert close(onnx_logits(ours, x), onnx_logits(theirs.read_bytes(), x))


def test_folding_takes_plain_subnets_only(net: Supernet) -> None:
    subnet = net.extract(net.space.smallest)
    subnet.blocks.append(nn.ReLU())
    with pytest.raises(TypeError, match="ReLU"):
        folded_weights(subnet)


def test_folding_copies(net: Supernet) -> None:
    subnet = net.extract(net.space.smallest)
    before = copy.deepcopy(subnet.state_dict())
    for arrays in folded_weights(subnet):
        assert all(array.dtype == np.float32 for array in arrays.values())
        for name in arrays:
            if name.startswith(("conv", "expand", "depthwise", "project")):
                arrays[name][...] = 0
    assert all(torch.equal(v, before[name]) for name, v in subnet.state_dict().items())


# -- accuracy -------------------------------------------------------------------------------


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
