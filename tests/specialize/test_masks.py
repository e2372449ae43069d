"""ERK densities, and masks that move: counts stay, grown weights start at zero."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ofa_deploy.errors import InputError
from ofa_deploy.space import get_space
from ofa_deploy.specialize import Masks, erk_densities, live_counts, maskable, units_of
from ofa_deploy.supernet import Subnet

DENSE = ("depthwise", "se", "stem", "classifier")
NETS = ("mbv3-nano-32", "ofa-mbv3-w1.0", "ofa-proxyless-w1.3", "ofa-resnet50")
Shapes = dict[str, tuple[int, ...]]


def shapes_of(name: str, dense: tuple[str, ...] = DENSE) -> Shapes:
    space = get_space(name)
    with torch.device("meta"):
        subnet = Subnet.of(space.lower(space.smallest), space.bn_eps)
    found = maskable(subnet, units_of(space, space.smallest), dense)
    return {key: tuple(weight.shape) for key, weight in found.items()}


# -- what may be sparse ---------------------------------------------------------------------


def test_depthwise_se_stem_and_classifier_stay_dense() -> None:
    names = shapes_of("ofa-mbv3-w1.0")
    assert {name.split(".", 2)[2] for name in names} == {
        "expand.weight",
        "project.weight",
        "conv.weight",  # the head
    }
    assert not any(name.startswith("blocks.0.") for name in names)


@pytest.mark.parametrize(
    ("opened", "name"),
    [
        ("depthwise", "blocks.2.depthwise.weight"),
        ("se", "blocks.4.squeeze.reduce.weight"),
        ("stem", "blocks.0.conv.weight"),
        ("classifier", "blocks.13.linear.weight"),
    ],
)
def test_each_may_be_opened(opened: str, name: str) -> None:
    kept = tuple(group for group in DENSE if group != opened)
    assert name in shapes_of("ofa-mbv3-w1.0", kept).keys() - shapes_of("ofa-mbv3-w1.0").keys()


def test_every_convolution_of_a_bottleneck_may_be_sparse() -> None:
    layers = {name.split(".", 2)[2] for name in shapes_of("ofa-resnet50")}
    assert layers == {f"{layer}.weight" for layer in ("conv1", "conv2", "conv3", "shortcut")}


def test_nothing_that_may_be_sparse_is_refused() -> None:
    with pytest.raises(InputError, match="no layer may be sparse"):
        live_counts({}, 0.5)


# -- densities ------------------------------------------------------------------------------


def test_erk_by_hand() -> None:
    """A 4x4 layer would be denser than 1: it is dense, and the other takes what is left."""
    shapes = {"small": (4, 4, 1, 1), "large": (40, 40, 1, 1)}
    # raw: 10/16 and 82/1600; with density 0.1 their scale would be 161.6 / 92 = 1.76: 1.1 > 1
    found = erk_densities(shapes, 0.1)
    assert found["small"] == 1
    assert found["large"] == pytest.approx((0.1 * 1616 - 16) / 1600)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("density", [0.1, 0.2, 0.5, 0.9])
def test_erk_solves_to_the_total_on_known_nets(name: str, density: float) -> None:
    shapes = shapes_of(name)
    sizes = {key: math.prod(shape) for key, shape in shapes.items()}
    total = sum(sizes.values())
    found = erk_densities(shapes, density)
    assert sum(found[key] * sizes[key] for key in shapes) == pytest.approx(density * total)
    assert all(0 < value <= 1 for value in found.values())
    scales = [value / (sum(shapes[key]) / sizes[key]) for key, value in found.items() if value < 1]
    assert scales == pytest.approx([scales[0]] * len(scales))
    full = [sum(shapes[key]) / sizes[key] for key, value in found.items() if value == 1]
    assert all(scales[0] * raw >= 1 - 1e-9 for raw in full)  # no layer is dense without need
    assert sum(live_counts(shapes, density).values()) == round(density * total)


LAYERS = st.lists(
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 5])),
    min_size=1,
    max_size=8,
)


@given(LAYERS, st.floats(0.02, 1.0), st.sampled_from(["erk", "uniform"]))
def test_counts_fit_their_layers_and_the_total(
    layers: list[tuple[int, int, int]], density: float, spread: str
) -> None:
    shapes = {str(i): (a, b, k, k) for i, (a, b, k) in enumerate(layers)}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    counts = live_counts(shapes, density, spread)
    assert all(1 <= counts[name] <= sizes[name] for name in shapes)
    empty = sum(count == 1 for count in counts.values())  # each may have been raised from 0
    wanted = round(density * sum(sizes.values()))
    assert wanted <= sum(counts.values()) <= wanted + empty


def test_uniform_density_is_each_layers() -> None:
    shapes = shapes_of("ofa-mbv3-w1.0")
    for name, count in live_counts(shapes, 0.3, "uniform").items():
        assert abs(count - 0.3 * math.prod(shapes[name])) <= 1


# -- masks ----------------------------------------------------------------------------------


class Two(nn.Module):
    """Two sparse layers and a dense one, with every weight different."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.a = nn.Parameter(torch.randn(6, 5, 1, 1, generator=generator))
        self.b = nn.Parameter(torch.randn(4, 4, 3, 3, generator=generator))
        self.full = nn.Parameter(torch.randn(3, 3, generator=generator))

    @property
    def weights(self) -> dict[str, Tensor]:
        return dict(self.named_parameters())


COUNTS = {"a": 10, "b": 50, "full": 9}


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)


def step(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


@pytest.fixture
def net() -> Two:
    return Two()


def test_first_masks_keep_the_greatest(net: Two) -> None:
    masks = Masks.begin(net.weights, COUNTS, None)
    assert masks.counts == {"a": 10, "b": 50}  # a dense layer has no mask
    for name, mask in masks.masks.items():
        sizes = net.weights[name].abs()
        assert sizes[mask].min() > sizes[~mask].max()


def test_random_first_masks_are_those_of_their_generator(net: Two) -> None:
    def masks(seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return Masks.begin(net.weights, COUNTS, generator).masks

    assert all(torch.equal(masks(1)[name], masks(1)[name]) for name in ("a", "b"))
    assert not torch.equal(masks(1)["b"], masks(2)["b"])
    assert {name: int(mask.sum()) for name, mask in masks(1).items()} == {"a": 10, "b": 50}


@pytest.mark.parametrize("kind", ["sgd", "rmsprop"])
def test_momentum_is_masked(net: Two, kind: str) -> None:
    made = torch.optim.RMSprop(net.parameters(), lr=0.01, momentum=0.9)
    optimizer = sgd(net) if kind == "sgd" else made
    masks = Masks.begin(net.weights, COUNTS, None)
    for seed in range(3):
        step(net, optimizer, seed)
        masks.apply(optimizer)
        for name, mask in masks.masks.items():
            weight = net.weights[name]
            kept = [v for v in optimizer.state[weight].values() if v.shape == weight.shape]
            assert len(kept) == (1 if kind == "sgd" else 2)
            for tensor in (weight, *kept):
                assert not tensor[~mask].any()
                assert tensor[mask].all()
    assert optimizer.state[net.full]["momentum_buffer"].all()


@pytest.mark.parametrize("growth", ["rigl", "set"])
@pytest.mark.parametrize("rate", [0.01, 0.3, 0.8, 0.99])
def test_an_update_drops_the_smallest_and_grows_zeros(net: Two, growth: str, rate: float) -> None:
    optimizer = sgd(net)
    masks = Masks.begin(net.weights, COUNTS, None)
    step(net, optimizer, 7)
    masks.apply(optimizer)
    before = {name: (net.weights[name].clone(), mask.clone()) for name, mask in masks.masks.items()}
    masks.update(optimizer, rate, torch.Generator().manual_seed(5) if growth == "set" else None)
    assert masks.counts == {"a": 10, "b": 50}
    for name, (weight, alive) in before.items():
        now, mask = net.weights[name], masks.masks[name]
        dropped = min(math.ceil(rate * COUNTS[name]), COUNTS[name] - 1)
        order = weight.abs().masked_fill(~alive, math.inf).flatten().argsort()
        smallest = torch.zeros_like(alive).flatten().scatter(0, order[:dropped], True)
        survivors = alive & ~smallest.view(alive.shape)
        assert torch.equal(now[survivors], weight[survivors])
        grown = mask & ~survivors
        assert int(grown.sum()) == dropped
        momentum = optimizer.state[now]["momentum_buffer"]
        for tensor in (now, momentum):
            assert not tensor[~survivors].any()
            assert tensor[survivors].all()
        if growth == "rigl":
            assert now.grad is not None
            gradient = now.grad.abs()
            assert gradient[grown].min() >= gradient[~mask].max()


def test_random_growth_is_that_of_its_generator() -> None:
    def grown(seed: int) -> Tensor:
        net = Two()
        masks = Masks.begin(net.weights, COUNTS, None)
        masks.update(sgd(net), 0.5, torch.Generator().manual_seed(seed))
        return masks.masks["b"]

    assert torch.equal(grown(1), grown(1))
    assert not torch.equal(grown(1), grown(2))


def test_growth_by_gradient_needs_one(net: Two) -> None:
    with pytest.raises(ValueError, match="needs the gradient"):
        Masks.begin(net.weights, COUNTS, None).update(sgd(net), 0.5, None)


def test_rate_zero_and_single_weights_change_nothing(net: Two) -> None:
    masks = Masks.begin(net.weights, {"a": 1, "b": 50, "full": 9}, None)
    before = {name: mask.clone() for name, mask in masks.masks.items()}
    step(net, sgd(net), 2)
    masks.update(sgd(net), 0.0, None)
    assert all(torch.equal(masks.masks[name], before[name]) for name in before)
    masks.update(sgd(net), 0.9, None)
    assert torch.equal(masks.masks["a"], before["a"])
    assert not torch.equal(masks.masks["b"], before["b"])


def test_masks_lie_over_channels_last_weights(net: Two) -> None:
    """Weights may be laid out channels last; positions mean the same."""
    other = Two()
    other.b.data = other.b.data.to(memory_format=torch.channels_last)
    found = []
    for each in (net, other):
        optimizer = sgd(each)
        masks = Masks.begin(each.weights, COUNTS, None)
        step(each, optimizer, 3)
        masks.apply(optimizer)
        masks.update(optimizer, 0.5, None)
        found.append((each.b.detach().clone(), masks.masks["b"]))
    (first, mask), (second, same) = found
    assert torch.equal(mask, same)
    np.testing.assert_array_equal(first.numpy(), second.numpy())
