"""A supernet in training: batch statistics, and every parameter learns."""

import pytest
import torch
from torch import nn

from ofa_deploy.space import SearchSpace
from tests.supernet.nets import ELASTIC, close, images, shaken


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
