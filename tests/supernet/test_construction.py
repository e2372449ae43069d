"""How a supernet is made: its seed, torch's own generator, state dicts."""

import copy

import torch

from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import Supernet
from tests.supernet.nets import images


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
