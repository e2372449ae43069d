"""Elastic bottlenecks and deep stems: slices, sorting, extraction, gradients, dropout."""

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_deploy.space import Arch, Head, SearchSpace, Stage, Stem
from ofa_deploy.supernet import Supernet, modules, recalibrate
from tests.supernet.golden import CASES, draw, images, supernet

SPACE = SearchSpace(
    name="small-resnet",
    resolutions=(34, 40),
    classes=5,
    stem=Stem(channels=32, kind="deep", activation="relu", depths=(0, 2)),
    stages=tuple(
        Stage(
            kind="bottleneck",
            channels=channels,
            stride=stride,
            base_depth=1,
            depths=(0, 1, 2),
            kernels=(3,),
            expands=(0.25, 0.5),
            activation="relu",
        )
        for channels, stride in ((64, 1), (96, 2))
    ),
    head=Head(channels=0, features=0),
    width_multipliers=(0.5, 1.0),
)
BLOCKS = [f"stages-{stage}-{block}" for stage in range(2) for block in range(3)]


def drawn() -> Supernet:
    """A net with nothing at its initial value, in eval mode."""
    net = Supernet(SPACE)
    for name, tensor in net.state_dict().items():
        tensor.copy_(draw(name, tuple(tensor.shape)))
    return net.eval()


@pytest.fixture(scope="module")
def net() -> Supernet:
    """Shared: not to be changed."""
    return drawn()


def archs(n: int) -> list[Arch]:
    sampled = SPACE.decode(SPACE.sample(np.random.default_rng(7), n))
    return [SPACE.smallest, SPACE.largest, *sampled]


def x_for(arch: Arch, n: int = 2) -> Tensor:
    return images("resnet", n, arch.resolution)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# -- sorting --------------------------------------------------------------------------------


def l1(weight: Tensor) -> Tensor:
    """L1 norm of what reads each input channel, in the order of sorting."""
    return weight.detach().abs().sum((0, 2, 3), dtype=torch.float64)


@torch.no_grad()
def test_sorting_keeps_the_largest_resnets_function() -> None:
    net = drawn().double()
    arch, other = SPACE.largest, SPACE.smallest
    x = x_for(arch).double()
    before, small = net(x, arch), net(x_for(other).double(), other)
    net.sort_channels()
    torch.testing.assert_close(net(x, arch), before, rtol=1e-10, atol=1e-10)
    # The smaller one takes other channels now: something was sorted.
    assert not torch.allclose(net(x_for(other).double(), other), small, rtol=1e-3)


@torch.no_grad()
def test_sorting_keeps_the_published_resnets_function() -> None:
    net = supernet(CASES["ofa-resnet50"])
    arch = net.space.largest
    x = images("sorting", 1, arch.resolution)
    before = net(x, arch)
    net.sort_channels()
    assert (net(x, arch) - before).abs().max() < 1e-4 * before.std()


def test_both_middle_spaces_are_ordered() -> None:
    net = drawn()
    was = copy.deepcopy(net)
    net.sort_channels()
    for name in BLOCKS:
        full: Any = net.layers[name].full
        old: Any = was.layers[name].full
        first = torch.argsort(l1(old.conv2.weight), descending=True)
        second = torch.argsort(l1(old.conv3.weight), descending=True)
        for order in (first, second):
            assert not torch.equal(order, torch.arange(len(order)))
        assert not torch.equal(first, second)
        assert l1(full.conv2.weight).diff().max() <= 0
        assert l1(full.conv3.weight).diff().max() <= 0
        assert torch.equal(full.conv1.weight, old.conv1.weight[first])
        assert torch.equal(full.conv2.weight, old.conv2.weight[second][:, first])
        assert torch.equal(full.conv3.weight, old.conv3.weight[:, second])
        for kind in ("weight", "bias", "running_mean", "running_var"):
            assert torch.equal(getattr(full.bn1, kind), getattr(old.bn1, kind)[first])
            assert torch.equal(getattr(full.bn2, kind), getattr(old.bn2, kind)[second])
            assert torch.equal(getattr(full.bn3, kind), getattr(old.bn3, kind))


def test_the_stem_shortcuts_and_classifier_are_not_sorted() -> None:
    net = drawn()
    before = snapshot(net)
    net.sort_channels()
    middle = tuple(f".{name}." for name in ("conv1", "conv2", "conv3", "bn1", "bn2"))
    changed = {
        key for key, value in net.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed and all(any(part in key for part in middle) for key in changed)


def test_sorting_twice_changes_nothing() -> None:
    net = drawn()
    net.sort_channels()
    before = snapshot(net)
    net.sort_channels()
    assert same(before, snapshot(net))


def test_momentum_moves_with_the_weights() -> None:
    net = drawn()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9)
    arch = SPACE.largest
    net.train()(x_for(arch, 4), arch).square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        for weight in net.parameters():
            optimizer.state[weight]["momentum_buffer"].copy_(weight * 3)
    before = snapshot(net)
    net.sort_channels(optimizer)
    for name, weight in net.named_parameters():
        assert torch.equal(optimizer.state[weight]["momentum_buffer"], weight * 3), name
    for block in BLOCKS:
        for part in ("conv1.weight", "conv2.weight", "conv3.weight", "bn1.weight", "bn2.bias"):
            key = f"layers.{block}.full.{part}"
            assert not torch.equal(net.state_dict()[key], before[key]), key


# -- what is used ---------------------------------------------------------------------------


def reach(gradient: Tensor) -> tuple[int, ...]:
    """One past the last index with a gradient, along the first two dimensions."""
    found = []
    for dim in range(min(gradient.ndim, 2)):
        rows = gradient.abs().transpose(0, dim).reshape(gradient.shape[dim], -1).sum(1)
        found.append(int(rows.nonzero().max()) + 1)
    return tuple(found)


def gradients(net: Supernet, arch: Arch) -> dict[str, Tensor]:
    net = copy.deepcopy(net).train()
    net(x_for(arch, 6), arch).square().sum().backward()
    return {
        name.removeprefix("layers."): parameter.grad
        for name, parameter in net.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("arch", archs(4), ids=str)
def test_gradients_reach_the_used_slices_only(net: Supernet, arch: Arch) -> None:
    found = gradients(net, arch)
    assert all(gradient.any() for gradient in found.values())
    expected: dict[str, tuple[int, ...]] = {}
    for slot, block in SPACE.lower_named(arch):
        name, inputs, outputs = slot.replace(".", "-"), block.in_channels, block.out_channels
        mid = block.mid_channels
        shapes: dict[str, tuple[int, ...]] = {
            "conv": {"conv.weight": (outputs, inputs), "bn.weight": (outputs,)},
            "maxpool": {},
            "classifier": {"linear.weight": (outputs, inputs), "linear.bias": (outputs,)},
            "bottleneck": {
                "conv1.weight": (mid, inputs),
                "bn1.weight": (mid,),
                "conv2.weight": (mid, mid),
                "bn2.weight": (mid,),
                "conv3.weight": (outputs, mid),
                "bn3.weight": (outputs,),
            },
        }[block.kind]
        if block.projects:
            shapes |= {"shortcut.weight": (outputs, inputs), "shortcut_bn.weight": (outputs,)}
        expected |= {f"{name}.full.{part}": shape for part, shape in shapes.items()}
    weights = {
        name: g for name, g in found.items() if not name.endswith(".bias") or "linear" in name
    }
    assert weights.keys() == expected.keys()
    for name, shape in expected.items():
        # ReLU may silence the last channel or two for all six images, but no channel beyond counts.
        assert all(got <= most for got, most in zip(reach(weights[name]), shape, strict=True)), name
        assert all(got > most - 6 for got, most in zip(reach(weights[name]), shape, strict=True))


def test_every_choice_makes_another_network(net: Supernet) -> None:
    kwargs: dict[str, Any] = {"depths": (2, 1, 1), "expands": (0.5, 0.5, 0.5, 0.5)}
    variants = [
        SPACE.arch(**kwargs),
        SPACE.arch(**{**kwargs, "depths": (0, 1, 1)}),
        SPACE.arch(depths=(2, 0, 1), expands=(0.5,) * 3),
        SPACE.arch(depths=(2, 1, 2), expands=(0.5,) * 5),
        *(
            SPACE.arch(depths=(2, 1, 1), expands=[0.25 if i == j else 0.5 for j in range(4)])
            for i in range(4)
        ),
        *(SPACE.arch(**kwargs, widths=[int(i != j) for j in range(4)]) for i in range(4)),
    ]
    with torch.no_grad():
        logits = [net(x_for(arch), arch) for arch in variants]
    for i, one in enumerate(logits):
        for other in logits[:i]:
            assert (one - other).abs().max() > 1e-3 * one.std()


# -- extraction -----------------------------------------------------------------------------


@pytest.mark.parametrize("arch", archs(6), ids=str)
@torch.no_grad()
def test_extracted_subnets_are_the_same_bit_for_bit(net: Supernet, arch: Arch) -> None:
    subnet, x = net.extract(arch), x_for(arch)
    assert torch.equal(subnet(x), net(x, arch))


def test_extracted_subnets_have_no_elastic_code(net: Supernet) -> None:
    plain = {name: getattr(modules, name) for name in ("ConvBlock", "Bottleneck", "MaxPool")}
    plain["Classifier"] = modules.Classifier
    for arch in archs(6):
        subnet = net.extract(arch)
        assert {type(block) for block in subnet.blocks} == set(plain.values())
        for module in subnet.modules():
            assert not isinstance(module, nn.ParameterDict | nn.ParameterList | nn.ModuleDict)
            assert type(module).__module__ != "ofa_deploy.supernet.elastic"
        cost = SPACE.cost(arch)
        assert sum(p.numel() for p in subnet.parameters()) == cost.params
        assert not any(module.training for module in subnet.modules())
        assert all(tensor.is_leaf for tensor in subnet.parameters())


def test_what_is_extracted_is_a_copy(net: Supernet) -> None:
    before = snapshot(net)
    subnet = net.extract(SPACE.largest)
    shared = {tensor.untyped_storage().data_ptr() for tensor in net.state_dict().values()}
    for tensor in subnet.state_dict().values():
        assert tensor.untyped_storage().data_ptr() not in shared
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
    with torch.no_grad():
        for parameter in subnet.parameters():
            parameter.fill_(7)
    recalibrate(subnet, [x_for(SPACE.largest, 3)])
    assert same(snapshot(net), before)


def test_deep_copies_are_apart(net: Supernet) -> None:
    before = snapshot(net)
    other = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
        other.sort_channels()
        assert not other(x_for(SPACE.smallest), SPACE.smallest).any()
    assert same(snapshot(net), before)


def test_global_random_states_are_left_alone(net: Supernet) -> None:
    def states() -> list[Any]:
        return [
            torch.random.get_rng_state().tolist(),
            random.getstate(),
            repr(np.random.get_state()),
        ]

    before = states()
    net.extract(SPACE.largest)
    Supernet(SPACE, seed=3)
    assert states() == before


@pytest.mark.parametrize("arch", archs(1), ids=str)
def test_training_leaves_running_statistics_alone(net: Supernet, arch: Arch) -> None:
    training = copy.deepcopy(net).train()
    before = snapshot(training)
    x = x_for(arch, 4)
    with torch.no_grad():
        logits = training(x, arch)
    assert same(snapshot(training), before)
    # Batch statistics were used: what the running ones hold does not matter.
    for name, tensor in training.state_dict().items():
        if "running" in name:
            tensor.fill_(9)
    with torch.no_grad():
        assert torch.equal(training(x, arch), logits)
        assert not torch.allclose(net(x, arch), logits, rtol=1e-2)


# -- dropout --------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0, 1])
@torch.no_grad()
def test_a_mask_is_cut_to_the_features_there_are(net: Supernet, width: int) -> None:
    arch = SPACE.arch(depths=0, expands=0.5, widths=[1, 1, 1, width])
    features = (48, 96)[width]
    assert net.feature_count == 96
    x, bias = x_for(arch, 3), net.classifier.full.linear.bias
    plain = net(x, arch)
    assert torch.equal(net(x, arch, keep=torch.ones(3, 96)), plain)
    keep = torch.rand((3, 96), generator=torch.Generator().manual_seed(0)).round() * 2
    masked = net(x, arch, keep=keep)
    assert not torch.allclose(masked, plain)
    beyond = keep.clone()
    beyond[:, features:] = 5
    assert torch.equal(net(x, arch, keep=beyond), masked)
    body = net.extract(arch).blocks[:-1]
    weight = net.classifier.full.linear.weight[:, :features]
    by_hand = F.linear(body(x).mean((2, 3)) * keep[:, :features], weight, bias)
    torch.testing.assert_close(masked, by_hand, rtol=1e-5, atol=1e-4)
