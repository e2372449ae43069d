"""One training step against gradients computed pass by pass, with the losses written out."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ofa_deploy.data import DataSplits
from ofa_deploy.errors import TrainingDivergedError
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import Supernet
from ofa_deploy.train import (
    DepsConfig,
    Pass,
    StepSettings,
    Trainer,
    build_optimizer,
    train_step,
)
from ofa_deploy.train import trainer as trainer_module

BETA = 0.3
SMOOTHING = 0.1
SMOOTH = StepSettings(label_smoothing=SMOOTHING)


@pytest.fixture
def net(small_space: SearchSpace) -> Supernet:
    """In double precision, so that equal means equal; kernel transforms are no identity."""
    net = Supernet(small_space, seed=5).double().train()
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "transforms" in name:
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                weight.add_(0.1 * noise)
    return net


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(12, 3, 16, 16, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 4, (12,), generator=generator)


@pytest.fixture
def passes(small_space: SearchSpace, rng: np.random.Generator) -> list[Pass]:
    random = small_space.decode(small_space.sample(rng, 2))
    return [
        Pass("largest", small_space.largest, 1.0, "labels", dropout=True),
        Pass("smallest", small_space.smallest, BETA, "teacher", dropout=False),
        *(Pass("random", arch, BETA, "teacher", dropout=False) for arch in random),
    ]


def losses_of(
    net: Supernet,
    images: Tensor,
    labels: Tensor,
    passes: Sequence[Pass],
    mask: Tensor | None = None,
) -> list[Tensor]:
    """-Σ target·log p of each pass, a graph of its own each; ``mask`` for the largest only."""
    archs = [each.arch for each in passes]
    log_p = net(images, archs[0], keep=mask).log_softmax(1)
    hard = torch.zeros_like(log_p)
    hard[torch.arange(len(labels)), labels] = 1
    smooth = hard * (1 - SMOOTHING) + SMOOTHING / log_p.shape[1]
    soft = log_p.exp().detach().clone()
    students = [-(soft * net(images, arch).log_softmax(1)).sum(1).mean() for arch in archs[1:]]
    return [-(smooth * log_p).sum(1).mean(), *students]


def gradients_of(net: Supernet, losses: Sequence[Tensor]) -> dict[str, Tensor]:
    """g_max + β·(the others'), each by a differentiation of its own."""
    names, parameters = zip(*net.named_parameters(), strict=True)
    total = {name: torch.zeros_like(p) for name, p in zip(names, parameters, strict=True)}
    for index, loss in enumerate(losses):
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient * (BETA if index else 1)
    return total


def found(net: Supernet) -> dict[str, Tensor]:
    """What a step left in ``.grad``."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in net.named_parameters()
    }


def plain_sgd(net: Supernet) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), lr=1e-3)


def weights(net: Supernet) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name in expected:
        close = torch.allclose(actual[name], expected[name], rtol=1e-9, atol=1e-12)
        assert close, name


def test_gradient_is_the_weighted_sum_of_four_passes(
    net: Supernet, batch: tuple[Tensor, Tensor], passes: list[Pass]
) -> None:
    expected_losses = losses_of(net, *batch, passes)
    expected = gradients_of(net, expected_losses)
    losses = train_step(net, plain_sgd(net), *batch, passes, settings=SMOOTH)
    assert losses == pytest.approx([loss.item() for loss in expected_losses], rel=1e-12)
    assert_same(found(net), expected)


def test_gradient_with_dropout_on_the_largest_only(
    net: Supernet, batch: tuple[Tensor, Tensor], passes: list[Pass]
) -> None:
    drawn = torch.rand(12, 32, generator=torch.Generator().manual_seed(9))
    mask = torch.where(drawn < 0.4, 0.0, 1 / 0.6).double()
    assert 0 < (mask == 0).sum() < mask.numel()
    expected_losses = losses_of(net, *batch, passes, mask)
    expected = gradients_of(net, expected_losses)
    losses = train_step(
        net,
        plain_sgd(net),
        *batch,
        passes,
        settings=replace(SMOOTH, dropout=0.4),
        generator=torch.Generator().manual_seed(9),
    )
    # The mask is drawn in single precision, and so is 1/0.6.
    assert losses == pytest.approx([loss.item() for loss in expected_losses], rel=1e-6)
    actual = found(net)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-5, atol=1e-8)


def test_dropout_keeps_the_features_mean(
    net: Supernet, batch: tuple[Tensor, Tensor], passes: list[Pass]
) -> None:
    masks: list[Tensor | None] = []
    classifier = net.layers["classifier"]
    classifier.register_forward_pre_hook(lambda _, inputs: masks.append(inputs[2]))
    images, labels = batch
    many = torch.cat([images] * 20), torch.cat([labels] * 20)
    generator = torch.Generator().manual_seed(1)
    train_step(
        net, plain_sgd(net), *many, passes, settings=StepSettings(dropout=0.25), generator=generator
    )
    first, *others = masks
    assert others == [None, None, None]
    assert first is not None and first.shape == (240, 32)
    # 7,680 draws: the share of zeros has a standard error of 0.005.
    assert float((first == 0).double().mean()) == pytest.approx(0.25, abs=0.02)
    assert sorted(set(first[first != 0].tolist())) == pytest.approx([4 / 3])


def test_dropout_leaves_the_global_generator_alone(
    net: Supernet, batch: tuple[Tensor, Tensor], passes: list[Pass]
) -> None:
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(1)
    train_step(
        net,
        plain_sgd(net),
        *batch,
        passes,
        settings=StepSettings(dropout=0.25),
        generator=generator,
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_students_send_no_gradient_to_the_teacher(
    net: Supernet, batch: tuple[Tensor, Tensor], passes: list[Pass]
) -> None:
    teacher, student = replace(passes[0], weight=0.0), replace(passes[1], weight=1.0)
    train_step(net, plain_sgd(net), *batch, [teacher, student])
    reached = found(net)
    # The second stage's second block is not in the smallest; of the first only 16 channels are.
    assert not any(g.any() for name, g in reached.items() if name.startswith("layers.stages-1-1"))
    narrow = reached["layers.stages-1-0.full.project.weight"]
    assert narrow.shape[1] == 24
    assert narrow[:, :16].any() and not narrow[:, 16:].any()


def frozen_losses(
    net: Supernet, teacher: Supernet, images: Tensor, labels: Tensor, passes: Sequence[Pass]
) -> list[Tensor]:
    """Cross-entropy plus 0.7 of that on the largest's soft labels in ``teacher``, each pass."""
    soft = teacher(images, passes[0].arch).detach().softmax(1)
    made = []
    for each in passes:
        log_p = net(images, each.arch).log_softmax(1)
        classes = log_p.shape[1]
        hard = F.one_hot(labels, classes).double() * (1 - SMOOTHING) + SMOOTHING / classes
        made.append(-((hard + 0.7 * soft) * log_p).sum(1).mean())
    return made


def test_labels_and_a_frozen_teacher(
    net: Supernet, small_space: SearchSpace, batch: tuple[Tensor, Tensor], passes: list[Pass]
) -> None:
    teacher = Supernet(small_space, seed=99).double().train()
    before = weights(teacher)
    subnets = [replace(p, target="labels+frozen", dropout=False, weight=BETA) for p in passes]
    subnets[0] = replace(subnets[0], weight=1.0)
    expected_losses = frozen_losses(net, teacher, *batch, subnets)
    expected = gradients_of(net, expected_losses)
    losses = train_step(
        net,
        plain_sgd(net),
        *batch,
        subnets,
        settings=replace(SMOOTH, kd_ratio=0.7),
        frozen=teacher,
    )
    assert losses == pytest.approx([loss.item() for loss in expected_losses], rel=1e-12)
    assert_same(found(net), expected)
    assert_same(weights(teacher), before)
    assert all(p.grad is None for p in teacher.parameters())


def test_largest_shown_larger_images_teaches_smaller_ones(tiny_space: SearchSpace) -> None:
    """A frozen teacher sees 16 pixels, its student the same images at 12."""
    net, teacher = (Supernet(tiny_space, seed=seed).double().train() for seed in (1, 2))
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(8, 3, 16, 16, generator=generator, dtype=torch.float64)
    labels = torch.arange(8) % 4
    student = Pass("random", tiny_space.smallest, 1.0, "labels+frozen", dropout=False)
    assert tiny_space.smallest.resolution == 12
    small = F.interpolate(images, (12, 12), mode="bilinear", antialias=True, align_corners=False)
    soft = teacher(images, tiny_space.largest).softmax(1)
    log_p = net(small, tiny_space.smallest).log_softmax(1)
    expected = -((F.one_hot(labels, 4) + soft) * log_p).sum(1).mean()
    (loss,) = train_step(net, plain_sgd(net), images, labels, [student], frozen=teacher)
    assert loss == pytest.approx(expected.item(), rel=1e-12)


def test_adaptive_divergence_in_place_of_cross_entropy(
    net: Supernet, batch: tuple[Tensor, Tensor], passes: list[Pass]
) -> None:
    images, _ = batch
    with torch.no_grad():  # unlike logits, so that both divergences occur and none is clipped
        net.get_parameter("layers.classifier.full.linear.weight").mul_(4)
    expected_losses = losses_of(net, *batch, passes)
    p = net(images, passes[0].arch).detach().softmax(1)
    which = []
    for index, each in enumerate(passes[1:], 1):
        q = net(images, each.arch).softmax(1)
        kl = (p * (p / q).log()).sum(1)
        chi = 0.5 * ((q.square() / p).sum(1) - 1)
        assert (q / p).max().item() < 5
        which.append(chi > kl)
        expected_losses[index] = torch.where(which[-1], chi, kl).mean()
    assert 0 < int(torch.cat(which).sum()) < 36
    expected = gradients_of(net, expected_losses)
    losses = train_step(
        net, plain_sgd(net), *batch, passes, settings=replace(SMOOTH, divergence="alpha")
    )
    assert losses == pytest.approx([loss.item() for loss in expected_losses], rel=1e-10)
    assert_same(found(net), expected)


def test_one_pass_learns_from_labels_alone(
    net: Supernet, batch: tuple[Tensor, Tensor], passes: list[Pass]
) -> None:
    expected = gradients_of(net, losses_of(net, *batch, passes[:1]))
    losses = train_step(net, plain_sgd(net), *batch, passes[:1], settings=SMOOTH)
    assert len(losses) == 1
    assert_same(found(net), expected)


def test_gradients_of_the_step_before_are_forgotten(
    net: Supernet, batch: tuple[Tensor, Tensor], passes: list[Pass]
) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    train_step(net, optimizer, *batch, passes)
    first = {name: gradient.clone() for name, gradient in found(net).items()}
    train_step(net, optimizer, *batch, passes)
    assert_same(found(net), first)


def test_nesterov_step_decays_no_vectors(
    net: Supernet, batch: tuple[Tensor, Tensor], passes: list[Pass]
) -> None:
    optimizer = build_optimizer(net, lr=0.05, momentum=0.9, weight_decay=0.1)
    velocity = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for _ in range(3):
        before = weights(net)
        train_step(net, optimizer, *batch, passes)
        expected = dict(before)
        for name, weight in net.named_parameters():
            if weight.grad is None:  # no pass uses it: a kernel transform that was not drawn
                continue
            old = before[name]
            gradient = weight.grad + (0.1 * old if old.ndim > 1 else 0)
            velocity[name] = 0.9 * velocity[name] + gradient
            expected[name] = old - 0.05 * (gradient + 0.9 * velocity[name])
        assert_same(weights(net), expected)


def test_rmsprop_step(net: Supernet, batch: tuple[Tensor, Tensor], passes: list[Pass]) -> None:
    optimizer = build_optimizer(net, lr=0.05, momentum=0.9, weight_decay=0.1, kind="rmsprop")
    squares = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    velocity = copy.deepcopy(squares)
    for _ in range(2):
        before = weights(net)
        train_step(net, optimizer, *batch, passes)
        expected = dict(before)
        for name, weight in net.named_parameters():
            if weight.grad is None:
                continue
            old = before[name]
            gradient = weight.grad + (0.1 * old if old.ndim > 1 else 0)
            squares[name] = 0.9 * squares[name] + 0.1 * gradient**2
            velocity[name] = 0.9 * velocity[name] + gradient / (squares[name].sqrt() + 1e-3)
            expected[name] = old - 0.05 * velocity[name]
        assert_same(weights(net), expected)


@pytest.mark.parametrize("kind", ["sgd", "rmsprop"])
def test_optimizer_holds_every_weight_once(net: Supernet, kind: str) -> None:
    optimizer = build_optimizer(net, lr=0.1, momentum=0.0, weight_decay=0.1, kind=kind)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in net.parameters())


def test_nan_images_raise_and_leave_the_weights(
    net: Supernet, batch: tuple[Tensor, Tensor], passes: list[Pass]
) -> None:
    optimizer = build_optimizer(net, lr=0.05, momentum=0.9, weight_decay=0.1)
    train_step(net, optimizer, *batch, passes)
    before, momentum = weights(net), copy.deepcopy(optimizer.state_dict()["state"])
    images = batch[0].clone()
    images[0, 0, 0, 0] = math.nan
    with pytest.raises(TrainingDivergedError, match="loss of largest r16 .* is nan"):
        train_step(net, optimizer, images, batch[1], passes)
    assert_same(weights(net), before)
    for index, state in optimizer.state_dict()["state"].items():
        assert torch.equal(state["momentum_buffer"], momentum[index]["momentum_buffer"])


def test_nan_in_a_student_raises_and_leaves_the_weights(
    net: Supernet, batch: tuple[Tensor, Tensor], passes: list[Pass]
) -> None:
    # Only kernels smaller than the largest go through the transforms.
    with torch.no_grad():
        net.get_parameter("layers.stages-1-0.transforms.7to5").fill_(math.nan)
    before = weights(net)
    with pytest.raises(TrainingDivergedError, match="loss of smallest"):
        train_step(net, plain_sgd(net), *batch, passes)
    for name, weight in weights(net).items():
        assert torch.equal(weight.nan_to_num(9), before[name].nan_to_num(9)), name


def test_trainer_takes_subnets_from_the_ramp_on(
    config: DepsConfig, small_space: SearchSpace, data: DataSplits
) -> None:
    trainer = Trainer(small_space, config, data)
    trained = [len(trainer.advance()) for _ in range(6)]
    assert trained == [1] * 4 + [3] * 2
    counts = {role: count for role, (_, count) in trainer.sums.items()}
    assert counts == {"largest": 6, "smallest": 2, "random": 2}


def test_trainer_sets_the_scheduled_rate(
    config: DepsConfig, small_space: SearchSpace, data: DataSplits
) -> None:
    trainer = Trainer(small_space, config, data)
    for step in range(3):
        trainer.advance()
        rate = 0.05 * (1 + math.cos(math.pi * step / 12))
        assert [g["lr"] for g in trainer.optimizer.param_groups] == pytest.approx([rate, rate])


def test_space_of_several_resolutions_trains_past_the_ramp(
    config: DepsConfig, tiny_space: SearchSpace, data: DataSplits
) -> None:
    # The smallest network takes 12x12 pixels, the largest 16x16.
    trainer = Trainer(tiny_space, config, data)
    trainer.step = trainer.plan.first_step("ramp")
    losses = trainer.advance()
    assert len(losses) == 3 and all(map(math.isfinite, losses))


def test_losses_are_read_after_the_last_backward(
    net: Supernet,
    batch: tuple[Tensor, Tensor],
    passes: list[Pass],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each reading would make a GPU wait."""
    seen: list[str] = []
    grad, item = torch.autograd.grad, Tensor.item

    def noted_grad(*args: Any, **kwargs: Any) -> Any:
        seen.append("backward")
        return grad(*args, **kwargs)

    def noted_item(self: Tensor) -> Any:
        seen.append("read")
        return item(self)

    monkeypatch.setattr(torch.autograd, "grad", noted_grad)
    monkeypatch.setattr(Tensor, "item", noted_item)
    train_step(net, torch.optim.SGD(net.parameters(), lr=0.0), *batch, passes)
    assert seen[:4] == ["backward"] * 4
    assert seen[4:8] == ["read"] * 4


def test_scalars_are_means_by_role(
    config: DepsConfig, small_space: SearchSpace, data: DataSplits
) -> None:
    changed = config.model_copy(update={"random_subnets": 3})
    trainer = Trainer(small_space, changed, data)
    trainer.seek(trainer.plan.first_step("ramp") + 1)
    largest, smallest, *random = losses = trainer.advance()
    shown = trainer.scalars(losses)
    assert len(set(random)) == 3
    assert shown["loss/random"] == pytest.approx(sum(random) / 3)
    assert (shown["loss/largest"], shown["loss/smallest"]) == (largest, smallest)


def test_seek_takes_the_batch_of_its_step(
    config: DepsConfig, small_space: SearchSpace, data: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def noted(_net: object, _optimizer: object, images: Tensor, *_: object, **__: object) -> Any:
        seen.append(images)
        return [0.0]

    monkeypatch.setattr(trainer_module, "train_step", noted)
    trainer = Trainer(small_space, config, data)
    trainer.advance()
    trainer.seek(3)
    trainer.advance()
    assert trainer.step == 4
    assert torch.equal(seen[0], trainer.batches.at(0)[0])
    assert torch.equal(seen[1], trainer.batches.at(3)[0])
