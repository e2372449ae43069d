"""Training's and inference's multiply-accumulates, dense and sparse."""

import pytest

from ofa_deploy.space import SearchSpace, get_space
from ofa_deploy.specialize import (
    StepCost,
    forecast_macs,
    layer_macs,
    live_counts,
    maskable,
    units_of,
)
from ofa_deploy.supernet import Subnet
from tests.specialize.conftest import Make, settings
from tests.specialize.test_bridges import RESNET
from tests.specialize.test_sparse_training import finish


@pytest.mark.parametrize("name", ["mbv3-nano-32", "ofa-proxyless-w1.0", "ofa-resnet50"])
def test_layers_add_up_to_blocks(name: str) -> None:
    space = get_space(name)
    arch = space.smallest
    subnet = Subnet.of(space.lower(arch), space.bn_eps)
    assert sum(layer_macs(subnet, arch.resolution).values()) == space.cost(arch).macs


NANO = get_space("mbv3-nano-32")
FORWARD = NANO.cost(NANO.smallest).macs
LARGEST = NANO.cost(NANO.largest).macs
PARENT = (NANO, NANO.largest)


def costs(method: str, **changes: object) -> list[tuple[float, float]]:
    """Dense and sparse, a step of each phase, for one image."""
    config = settings(method, **changes)
    parent = PARENT if config.needs_parent else None
    return [
        (each.macs.dense / each.phase.steps / 25, each.macs.sparse / each.phase.steps / 25)
        for each in forecast_macs(config, NANO, NANO.smallest, 4, parent)
    ]


def test_a_step_is_three_forward_passes() -> None:
    assert costs("finetune") == [(3 * FORWARD, 3 * FORWARD)]


def test_a_parent_looks_forward_only() -> None:
    assert costs("distill") == [(3 * FORWARD + LARGEST, 3 * FORWARD + LARGEST)]


@pytest.mark.parametrize("trains", ["unit", "below"])
def test_imitation_goes_no_further_than_its_unit(trains: str) -> None:
    own = [unit.macs for unit in units_of(NANO, NANO.smallest)]
    theirs = [unit.macs for unit in units_of(NANO, NANO.largest)]
    found = costs("wide-narrow", trains=trains)
    for index in range(6):
        moved = own[index] if trains == "unit" else sum(own[: index + 1])
        expected = sum(own[: index + 1]) + 2 * moved + sum(theirs[: index + 1])
        assert found[index] == (expected, expected)
    assert found[6] == (3 * FORWARD + LARGEST,) * 2
    assert found[7] == (3 * FORWARD,) * 2  # labels alone


def test_maps_are_counted() -> None:
    """Behind the second of three units U is 16 to 32 channels at 4x4, as are both before it."""
    space, thin = RESNET, RESNET.arch(depths=[2, 1, 0], expands=0.25, widths=0)
    config = settings("wide-narrow", imitate_epochs=(0, 1, 0))
    (imitation, *_) = forecast_macs(config, space, thin, 4, (space, space.largest))
    own = [unit.macs for unit in units_of(space, thin)]
    theirs = [unit.macs for unit in units_of(space, space.largest)]
    before, behind = 8 * 16 * 16, 16 * 32 * 16
    expected = sum(own[:2]) + 2 * own[1] + sum(theirs[:2])
    expected += 2 * before + behind  # U and V before, and U behind, forward
    expected += 2 * (before + behind)  # V before and U behind learn
    assert imitation.macs.dense == 100 * expected


def test_maps_before_learn_too_where_all_below_trains() -> None:
    space, thin = RESNET, RESNET.arch(depths=[2, 1, 0], expands=0.25, widths=0)
    macs = {}
    for trains in ("unit", "below"):
        config = settings("wide-narrow", imitate_epochs=(0, 1, 0), trains=trains)
        (phase, *_) = forecast_macs(config, space, thin, 4, (space, space.largest))
        macs[trains] = phase.macs.dense / 100
    first = units_of(space, thin)[0].macs
    before = 8 * 16 * 16  # U behind the first unit, which the second's own training leaves alone
    assert macs["below"] - macs["unit"] == 2 * (first + before)


@pytest.mark.parametrize("growth", ["rigl", "set"])
def test_sparse_training_counts_the_living(growth: str) -> None:
    config = settings("dst", epochs=10, members=1, sparsity=0.7, growth=growth, update_steps=5)
    subnet = Subnet.of(NANO.lower(NANO.smallest), NANO.bn_eps)
    weights = maskable(
        subnet, units_of(NANO, NANO.smallest), ("depthwise", "se", "stem", "classifier")
    )
    counts = live_counts({name: tuple(w.shape) for name, w in weights.items()}, 0.3)
    macs = layer_macs(subnet, 32)
    dead = sum(macs[name] * (1 - counts[name] / w.numel()) for name, w in weights.items())
    assert 0.2 * FORWARD < dead < 0.5 * FORWARD  # the rest is dense: depthwise, stem, classifier
    (found,) = forecast_macs(config, NANO, NANO.smallest, 4)
    updates = 5  # at steps 5, 10, 15, 20, 25 of 40, before 30
    extra = updates * dead if growth == "rigl" else 0.0
    assert found.macs.dense == 25 * 40 * 3 * FORWARD
    assert found.macs.sparse == pytest.approx(25 * (40 * 3 * (FORWARD - dead) + extra))


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("wide-narrow", {"imitate_epochs": (0.5,), "output_epochs": 1, "label_epochs": 1}),
        ("edst", {"explore_epochs": 1, "refine_epochs": 1, "members": 2, "update_steps": 2}),
    ],
)
def test_a_run_costs_what_was_forecast(
    make: Make, space: SearchSpace, method: str, changes: dict[str, object]
) -> None:
    specialist = finish(make(method, **changes))
    parent = (space, space.largest) if specialist.parent else None
    phases = forecast_macs(specialist.config, space, specialist.arch, 4, parent)
    assert specialist.costs[0] == pytest.approx(sum(each.macs.dense for each in phases), rel=1e-9)
    assert specialist.costs[1] == pytest.approx(sum(each.macs.sparse for each in phases), rel=1e-6)
    assert [specialist.rows[-1][name] for name in ("cost_macs", "cost_sparse_macs")] == (
        specialist.costs
    )


def test_dense_members_have_no_dead_weights() -> None:
    assert StepCost.of(settings("dst", sparsity=0.0), NANO, NANO.smallest).dead == 0
