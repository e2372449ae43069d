"""Imitation of a unit changes what the recipe says, and nothing else."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ofa_deploy.data import DataSplits
from ofa_deploy.errors import MismatchError, TrainingDivergedError
from ofa_deploy.space import SearchSpace
from ofa_deploy.specialize import Imitate, Parent, Specialist, check_parent, units_of
from ofa_deploy.supernet import Subnet, top1
from tests.specialize.conftest import Cut, Make
from tests.specialize.test_sparse_training import finish, step

SHORT = {"imitate_epochs": (0.5,), "output_epochs": 1, "label_epochs": 1}


def state(specialist: Specialist) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in specialist.net.subnet.named_parameters()}


def changed(specialist: Specialist, before: dict[str, Tensor]) -> set[str]:
    """The units whose weights moved since."""
    moved = [name for name, weight in state(specialist).items() if not weight.equal(before[name])]
    positions = {int(name.split(".")[1]) for name in moved}
    return {unit.name for unit in specialist.units if positions & set(range(unit.start, unit.stop))}


def every_weight_of(specialist: Specialist, unit: str, before: dict[str, Tensor]) -> bool:
    (found,) = [each for each in specialist.units if each.name == unit]
    now = state(specialist)
    inside = [n for n in now if found.start <= int(n.split(".")[1]) < found.stop]
    return all(not now[name].equal(before[name]) for name in inside)


@pytest.mark.parametrize("trains", ["unit", "below"])
def test_each_phase_moves_its_unit(make: Make, trains: str) -> None:
    specialist = make("wide-narrow", trains=trains, **SHORT)
    names = [unit.name for unit in specialist.units]
    parent = specialist.parent
    assert parent is not None
    kept = {name: tensor.clone() for name, tensor in parent.subnet.state_dict().items()}
    specialist._begin_member()
    for phase in specialist.plan.phases:
        before = state(specialist)
        for _ in range(phase.steps):
            step(specialist)
        if isinstance(phase.task, Imitate):
            last = phase.task.unit
            first = 0 if phase.task.below else last
            assert changed(specialist, before) == set(names[first : last + 1]), phase.name
            assert every_weight_of(specialist, names[last], before)
        else:
            assert changed(specialist, before) == set(names)
    assert not any(p.requires_grad for p in parent.subnet.parameters())
    assert not parent.subnet.training
    assert all(torch.equal(kept[n], t) for n, t in parent.subnet.state_dict().items())
    assert len(specialist.tickets) == 1


def test_a_unit_of_length_zero_stays_as_it_starts(make: Make) -> None:
    specialist = make("wide-narrow", imitate_epochs=(0, 1, 0), output_epochs=0, label_epochs=1)
    names = [phase.name for phase in specialist.plan.phases]
    assert names == ["imitate stages.0", "labels"]
    before = dict(specialist.source)
    for _ in range(4):
        step(specialist)
    assert changed(specialist, before) == {"stages.0"}


def test_starts_are_those_of_the_recipe(make: Make) -> None:
    specialist = make("wide-narrow", start=("inherited", "random", "random", "inherited"), **SHORT)
    specialist._begin_member()
    now = state(specialist)
    drawn = {
        int(name.split(".")[1])
        for name, weight in now.items()
        if weight.ndim > 1 and not weight.equal(specialist.source[name])
    }
    by_name = {unit.name: set(range(unit.start, unit.stop)) for unit in specialist.units}
    assert drawn == by_name["stages.0"] | by_name["stages.1"]


def test_each_unit_has_a_fresh_optimizer_of_its_kind(make: Make) -> None:
    specialist = make("wide-narrow", imitate_optimizer=("sgd", "rmsprop"), momentum=0.5, **SHORT)
    seen = []
    for phase in specialist.plan.phases[:3]:
        step(specialist)
        seen.append(specialist.optimizer)
        wanted = torch.optim.RMSprop if phase.optimizer == "rmsprop" else torch.optim.SGD
        assert isinstance(specialist.optimizer, wanted)
        held = {id(p) for group in specialist.optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in specialist._trained(phase).parameters()}
        assert isinstance(phase.task, Imitate)
        for _ in range(phase.steps - 1):
            step(specialist)
    assert len({id(each) for each in seen}) == 3


@pytest.mark.parametrize("relative", [True, False])
def test_loss_is_the_squared_distance_from_the_parents_unit(make: Make, relative: bool) -> None:
    specialist = make("wide-narrow", relative=relative, **SHORT)
    parent = specialist.parent
    assert parent is not None
    images, labels = specialist.batches.at(0)
    for index in (0, 2):
        found = specialist._loss(Imitate(index, below=False), images, labels)
        x, y = images, images
        for unit, other in list(zip(specialist.units, parent.units, strict=True))[: index + 1]:
            for position in range(unit.start, unit.stop):
                x = specialist.net.subnet.blocks[position](x)
            for position in range(other.start, other.stop):
                y = parent.subnet.blocks[position](y)
        distance = F.mse_loss(x, y)
        expected = distance / y.square().mean() if relative else distance
        torch.testing.assert_close(found, expected)


def test_imitation_brings_the_student_near(make: Make) -> None:
    specialist = make(
        "wide-narrow",
        imitate_epochs=(0, 0, 12, 0),
        start=("inherited", "inherited", "random"),
        output_epochs=0,
        lr=0.05,
    )
    losses = []
    while specialist.plan.at(specialist.step)[0].name.startswith("imitate"):
        losses.append(specialist.advance()[0])
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


def test_soft_labels_are_the_parents(make: Make) -> None:
    specialist = make("distill", kd_ratio=0.5, epochs=1, label_smoothing=0.2)
    assert specialist.parent is not None
    images, labels = specialist.batches.at(0)
    found = specialist._loss(specialist.plan.phases[0].task, images, labels)
    logits = specialist.net(images)
    soft = specialist.parent.subnet(images).softmax(1)
    expected = F.cross_entropy(logits, labels, label_smoothing=0.2)
    expected = expected - 0.5 * (soft * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(found, expected)


def test_running_statistics_are_left_alone(make: Make) -> None:
    specialist = make("distill", epochs=1)
    while not specialist.finished:
        specialist.advance()
    for name, buffer in specialist.net.subnet.named_buffers():
        assert torch.equal(buffer, specialist.source[name]), name


def test_specialising_learns(make: Make, cut: Cut, data: DataSplits) -> None:
    specialist = finish(make("distill", epochs=8, lr=0.1))
    subnet = Subnet.of(specialist.space.lower(cut.arch), specialist.space.bn_eps).eval()
    subnet.load_state_dict(dict(specialist.source))
    before = top1(subnet, data.validation, 16)
    assert specialist.tickets[0].top1 >= before
    rows = [float(row["loss"]) for row in specialist.rows]
    assert rows[-1] < rows[0]


def test_a_loss_that_is_not_finite_ends_the_run(make: Make) -> None:
    specialist = make("finetune", epochs=1)
    specialist.advance()
    before = state(specialist)
    with torch.no_grad():
        last = [p for n, p in specialist.net.named_parameters() if n.endswith("linear.bias")]
        last[0].fill_(float("nan"))
    with pytest.raises(TrainingDivergedError, match="the loss of phase train is nan"):
        specialist.advance()
    now = state(specialist)
    assert all(now[n].equal(before[n]) for n in now if not n.endswith("linear.bias"))


def test_bfloat16_is_close_to_float32(make: Make) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        specialist = make("distill", epochs=1, precision=precision)
        losses[precision] = specialist.advance()[0]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"] != losses["fp32"]


# -- parents that do not fit ----------------------------------------------------------------


def test_a_parent_of_other_stages_is_refused(space: SearchSpace, parent: Parent) -> None:
    units = units_of(space, space.smallest)
    with pytest.raises(MismatchError, match="has the stages stem, .*name a parent with the same"):
        check_parent((*units[:2], *units[3:]), parent, 4)


def test_a_parent_of_other_strides_is_refused(space: SearchSpace, parent: Parent) -> None:
    stem = replace(space.stem, stride=1)
    other = replace(space, stem=stem)
    with pytest.raises(MismatchError, match="after stem the parent's maps are 8 .* subnet's 16"):
        check_parent(units_of(other, other.smallest), parent, 4)


def test_a_parent_of_other_classes_is_refused(space: SearchSpace, parent: Parent) -> None:
    with pytest.raises(MismatchError, match="tells 4 classes apart, the subnet 5"):
        check_parent(units_of(space, space.smallest), parent, 5)
