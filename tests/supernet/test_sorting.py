"""Sorted channels: the same function, the most important first, optimizers that follow."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import Supernet
from tests.supernet.nets import ELASTIC, close, images, sampled, shaken


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
