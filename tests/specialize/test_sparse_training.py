"""Rules of sparse training, held over whole runs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ofa_deploy.data import DataSplits
from ofa_deploy.errors import InputError
from ofa_deploy.specialize import Masks, Specialist
from ofa_deploy.supernet import batches
from tests.specialize.conftest import Make, settings

SHORT = {"epochs": 3, "members": 2, "update_steps": 2, "sparsity": 0.6}


def finish(specialist: Specialist) -> Specialist:
    while not specialist.finished:
        step(specialist)
    return specialist


def step(specialist: Specialist) -> None:
    specialist.advance()
    if specialist.epoch_ends:
        specialist.close_epoch()


def weights(specialist: Specialist) -> list[dict[str, Tensor]]:
    return [ticket.weights for ticket in specialist.tickets]


def assert_same(found: list[dict[str, Tensor]], expected: list[dict[str, Tensor]]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def masks_of(specialist: Specialist) -> Masks:
    assert specialist.masks is not None
    return specialist.masks


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
@pytest.mark.parametrize("growth", ["rigl", "set"])
def test_the_dead_stay_zero_and_counts_stay(make: Make, growth: str, optimizer: str) -> None:
    specialist = make("dst", growth=growth, optimizer=optimizer, **SHORT)
    step(specialist)
    counts = masks_of(specialist).counts
    total = sum(weight.numel() for weight in masks_of(specialist).weights.values())
    assert 0.2 * total < sum(counts.values()) < 0.7 * total  # ERK keeps small layers dense
    while not specialist.finished:
        step(specialist)
        masks = masks_of(specialist)
        assert masks.counts == counts
        for name, mask in masks.masks.items():
            weight = masks.weights[name]
            state = specialist.optimizer.state[weight].values()
            kept = [tensor for tensor in state if tensor.shape == weight.shape]
            assert kept
            assert not any(tensor[~mask].any() for tensor in (weight, *kept))


def test_topology_moves_only_when_the_plan_says_so(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    specialist = make("dst", **{**SHORT, "epochs": 5, "update_steps": 3, "update_until": 0.5})
    moved = []
    rates = []
    original = Masks.update

    def watched(self: Masks, optimizer: Any, rate: float, generator: Any) -> None:
        rates.append(rate)
        original(self, optimizer, rate, generator)

    monkeypatch.setattr(Masks, "update", watched)
    for taken in range(1, 21):
        before = {n: m.clone() for n, m in masks_of(specialist).masks.items()} if taken > 1 else {}
        step(specialist)
        now = masks_of(specialist).masks
        if any(not torch.equal(before[name], now[name]) for name in before):
            moved.append(taken)
    assert moved == [3, 6, 9]  # steps of the first member, which has 20, and stops at 10
    assert len(rates) == 3 and rates == sorted(rates, reverse=True)


def test_members_begin_anew_and_differ(make: Make, data: DataSplits) -> None:
    specialist = finish(make("dst", **SHORT))
    first, second = weights(specialist)
    name = next(iter(masks_of(specialist).weights))
    assert not torch.equal(first[name] != 0, second[name] != 0)
    norm = "blocks.1.project_bn.running_mean"
    assert not torch.equal(first[norm], second[norm])


def test_each_ticket_has_bn_statistics_of_its_own(make: Make, data: DataSplits) -> None:
    specialist = finish(make("dst", keep="last", **SHORT))
    subnet = specialist.net.subnet.eval()
    for ticket in specialist.tickets:
        subnet.load_state_dict(ticket.weights)
        images = data.calibration(32)
        (batch,) = batches(images, 16)
        found = subnet.get_submodule("blocks.0.conv")(batch).mean((0, 2, 3))
        torch.testing.assert_close(found, ticket.weights["blocks.0.bn.running_mean"])


def test_edst_of_one_member_without_exploration_is_sparse_training(make: Make) -> None:
    same = {"members": 1, "update_steps": 2, "sparsity": 0.6, "rates": ()}
    edst = finish(make("edst", explore_epochs=0, refine_epochs=4, **same))
    dst = finish(make("dst", epochs=4, **same))
    assert_same(weights(edst), weights(dst))
    assert edst.costs == dst.costs
    own, other = masks_of(edst).masks, masks_of(dst).masks
    assert all(torch.equal(own[name], other[name]) for name in own)


def test_dense_members_are_fine_tuned_members(make: Make) -> None:
    dense = finish(make("dst", sparsity=0.0, epochs=2, members=2))
    tuned = finish(make("finetune", epochs=2, members=2))
    assert dense.masks is None
    assert_same(weights(dense), weights(tuned))
    assert dense.costs == tuned.costs


@pytest.mark.parametrize("growth", ["rigl", "set"])
def test_edst_exchanges_most_of_every_layer_between_members(make: Make, growth: str) -> None:
    specialist = make(
        *("edst",),
        growth=growth,
        explore_epochs=1,
        refine_epochs=2,
        members=2,
        sparsity=0.7,
        update_until=0.0,  # nothing else moves the topology
    )
    borders = (4, 12)  # after exploration, after the first refinement
    topology: list[dict[str, Tensor]] = []
    for taken in range(1, 21):
        step(specialist)
        topology.append({n: m.clone() for n, m in masks_of(specialist).masks.items()})
        moved = taken > 1 and any(
            not torch.equal(topology[-1][name], topology[-2][name]) for name in topology[-1]
        )
        assert moved == (taken == borders[1] + 1)
    masks = masks_of(specialist)
    for name, count in masks.counts.items():
        kept = int((topology[11][name] & topology[12][name]).sum())
        # A fifth survives; of the dropped some may grow again.
        assert kept >= 0.2 * count - 1
    changed = [int((topology[11][n] & ~topology[12][n]).sum()) for n in masks.masks]
    assert sum(changed) > 0.2 * sum(masks.counts.values())
    assert len(specialist.tickets) == 2


def test_random_start_draws_each_member(make: Make) -> None:
    specialist = make("finetune", epochs=1, members=2, start="random")
    begun = []
    while not specialist.finished:
        first = specialist.plan.at(specialist.step)[1] == 0
        if first:
            specialist._begin_member()
            stem = specialist.net.subnet.get_parameter("blocks.0.conv.weight")
            begun.append(stem.detach().clone())
        step(specialist)
    assert not torch.equal(begun[0], begun[1])
    assert not any(torch.equal(each, specialist.source["blocks.0.conv.weight"]) for each in begun)


def test_inherited_start_is_the_subnets(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    specialist = make("finetune", epochs=1, members=2)
    begin, begun = specialist._begin_member, []

    def watched() -> None:
        begin()
        state = specialist.net.subnet.state_dict()
        begun.append(all(torch.equal(state[name], t) for name, t in specialist.source.items()))

    monkeypatch.setattr(specialist, "_begin_member", watched)
    finish(specialist)
    assert begun == [True, True]
    first, second = weights(specialist)  # they saw the images in another order
    assert not torch.equal(first["blocks.0.conv.weight"], second["blocks.0.conv.weight"])


@pytest.mark.parametrize(("keep", "kept"), [("best", 70.0), ("last", 60.0)])
def test_keep_best_and_keep_last(
    make: Make, monkeypatch: pytest.MonkeyPatch, keep: str, kept: float
) -> None:
    found = iter([50.0, 70.0, 70.0, 60.0])
    monkeypatch.setattr("ofa_deploy.specialize.runner.top1", lambda *_, **__: next(found))
    specialist = finish(make("finetune", epochs=4, keep=keep))
    assert [ticket.top1 for ticket in specialist.tickets] == [kept]
    assert [row["top1_subnet"] for row in specialist.rows] == [50.0, 70.0, 70.0, 60.0]


def test_of_equal_epochs_the_last_is_kept(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofa_deploy.specialize.runner.top1", lambda *_, **__: 50.0)
    best, last = (finish(make("finetune", epochs=3, keep=keep)) for keep in ("best", "last"))
    assert_same(weights(best), weights(last))


def test_all_but_nothing_sparse_is_one_line() -> None:
    with pytest.raises(InputError, match="sparsity: expected less than 1"):
        settings("dst", sparsity=1.0)
