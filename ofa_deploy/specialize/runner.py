"""The state of a specialisation between two steps, and what moves it on."""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_deploy.data import DataSplits
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.specialize.bridges import Student, merge, training
from ofa_deploy.specialize.config import SparseSettings, SpecializeConfig, WideNarrowConfig
from ofa_deploy.specialize.cost import StepCost
from ofa_deploy.specialize.masks import Masks, live_counts, maskable
from ofa_deploy.specialize.plan import Imitate, Learn, SpecialPhase, SpecialPlan, specialize_plan
from ofa_deploy.specialize.units import Parent, check_parent, units_of
from ofa_deploy.supernet import Subnet, batches, channels_last, recalibrate, top1
from ofa_deploy.supernet.modules import initialise
from ofa_deploy.train import (
    ALONE,
    DIVERGENCES,
    Batches,
    Ranks,
    Row,
    Runner,
    build_optimizer,
    check_fit,
    descend,
    draw_seed,
    nth,
)

__all__ = ["Specialist", "Ticket"]


@dataclass(frozen=True)
class Ticket:
    """A network that the run gives.

    Attributes:
        top1: on the validation images, in percent.
        weights: with BN statistics of its own.
    """

    top1: float
    weights: dict[str, Tensor]


@dataclass
class Specialist(Runner):
    """The state of a specialisation between two steps.

    Attributes:
        source: the weights that members inherit.
        parent: what is learned from, in methods that need it.
        costs: multiply-accumulates of training so far, of all ranks: dense and sparse.
        best: what the phase at work would give if it ended now.
        tickets: what finished phases gave.
    """

    STATE = frozenset(
        {"step", "losses", "rows", "costs", "net", "optimizer", "masks", "best", "tickets"}
    )

    space: SearchSpace
    arch: Arch
    config: SpecializeConfig
    data: DataSplits
    source: Mapping[str, Tensor]
    parent: Parent | None = None
    ranks: Ranks = ALONE
    workers: int = 0
    step: int = 0
    rows: list[Row] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    costs: list[int] = field(default_factory=lambda: [0, 0])
    masks: Masks | None = None
    best: Ticket | None = None
    tickets: list[Ticket] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_fit(self.config, self.space, self.data)
        self.units = units_of(self.space, self.arch)
        if self.parent is not None:
            check_parent(self.units, self.parent, self.space.classes)
            self.parent.subnet.requires_grad_(False).eval().to(self.ranks.device)
        self.net: Student = self._student()
        self.batches = Batches(self.config, self.data.train, self.arch.resolution, self.ranks)
        self.plan: SpecialPlan = specialize_plan(self.config, self.units, self.steps_per_epoch)
        theirs = self.parent.units if self.parent is not None else ()
        self.step_cost = StepCost.of(self.config, self.space, self.arch, theirs)
        self.distance = DIVERGENCES[self.config.divergence]
        self.optimizer = self._optimizer(self.plan.phases[0])

    def _student(self) -> Student:
        subnet = Subnet.of(self.space.lower(self.arch), self.space.bn_eps)
        subnet.load_state_dict(dict(self.source))
        widths = None
        if self.parent is not None and isinstance(self.config, WideNarrowConfig):
            widths = [unit.blocks[-1].out_channels for unit in self.parent.units]
        return training(channels_last(Student(subnet, self.units, widths)).to(self.ranks.device))

    # -- the way through the plan -----------------------------------------------------------

    @property
    def epoch_ends(self) -> bool:
        phase, local = self.plan.at(self.step - 1)
        return (local + 1) % self.steps_per_epoch == 0 or local + 1 == phase.steps

    def _take(self, images: Tensor, labels: Tensor) -> list[float]:
        phase, local = self.plan.at(self.step)
        losses = self._descend(phase, images, labels)
        self._follow_topology(phase, local)
        macs = self.step_cost.of_step(phase, local).times(self.config.images_a_step)
        self.costs = [self.costs[0] + round(macs.dense), self.costs[1] + round(macs.sparse)]
        self.losses += losses
        return losses

    @property
    def phase_costs(self) -> tuple[float, ...]:
        return tuple(self.step_cost.of_step(phase, 0).dense for phase in self.plan.phases)

    def _begin(self, phase: SpecialPhase) -> None:
        for action in phase.start:
            match action:
                case "begin member":
                    self._begin_member()
                case "merge":
                    self._merge()
                case "restart optimizer":
                    self.optimizer = self._optimizer(phase)

    def _optimizer(self, phase: SpecialPhase) -> torch.optim.Optimizer:
        return build_optimizer(
            self._trained(phase),
            lr=self.config.lr,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
            kind=phase.optimizer,
        )

    def _trained(self, phase: SpecialPhase) -> nn.Module:
        """What a phase moves."""
        if isinstance(phase.task, Learn):
            return self.net
        last = phase.task.unit
        first = 0 if phase.task.below else last
        return nn.ModuleList([self.net.parts(unit) for unit in range(first, last + 1)])

    def _descend(self, phase: SpecialPhase, images: Tensor, labels: Tensor) -> list[float]:
        trained = self._trained(phase)
        parameters = list(trained.parameters())
        loss = self._loss(phase.task, images, labels)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        found = [(loss.detach(), gradients)]
        name = f"phase {phase.name}"
        return descend(trained, self.optimizer, parameters, found, [lambda: name], self.ranks)

    def _loss(self, task: Imitate | Learn, images: Tensor, labels: Tensor) -> Tensor:
        parent, bf16 = self.parent, self.config.precision == "bf16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            if isinstance(task, Imitate):
                assert parent is not None, "there is no parent to imitate"
                wanted = parent.through(images, task.unit).float()
                found = self.net.imitation(images, task.unit, below=task.below).float()
                return self._distance(found, wanted)
            logits = self.net(images).float()
            soft = parent.soft_labels(images) if parent is not None and task.soft else None
        loss = torch.zeros((), device=images.device)
        if task.labels:
            smoothing = self.config.label_smoothing
            hard = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            loss = loss + task.labels * hard
        if soft is not None:
            loss = loss + task.soft * self.distance(logits, soft)
        return loss

    def _distance(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Mean squared distance, over the parent's mean square if the recipe says so."""
        distance = (found - wanted).square().mean()
        if isinstance(self.config, WideNarrowConfig) and self.config.relative:
            distance = distance / wanted.square().mean().clamp_min(1e-12)
        return distance

    def _follow_topology(self, phase: SpecialPhase, local: int) -> None:
        if self.masks is None or not isinstance(self.config, SparseSettings):
            return
        self.masks.apply(self.optimizer)
        if rate := phase.drop(local):
            random = self.config.growth == "set"
            self.masks.update(self.optimizer, rate, self._generator("grow") if random else None)

    def _generator(self, purpose: str) -> torch.Generator:
        """Draws that are the same on every rank."""
        return torch.Generator().manual_seed(draw_seed(self.config, self.step, purpose))

    # -- members ----------------------------------------------------------------------------

    def _begin_member(self) -> None:
        """Its weights and masks."""
        self.net.subnet.load_state_dict(dict(self.source))
        generator = self._generator("start")
        starts = self.config.start
        for index, unit in enumerate(self.units):
            start = starts if isinstance(starts, str) else nth(starts, index)
            if start == "random":
                for position in range(unit.start, unit.stop):
                    initialise(self.net.subnet.blocks[position], generator)
        self.masks = self._first_masks()
        if self.masks is not None:
            self.masks.apply(self.optimizer)

    def _first_masks(self) -> Masks | None:
        config = self.config
        if not isinstance(config, SparseSettings) or not config.sparsity:
            return None
        weights = maskable(self.net.subnet, self.units, config.dense)
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        counts = live_counts(shapes, 1 - config.sparsity, config.densities)
        random = config.first_mask == "random"
        return Masks.begin(weights, counts, self._generator("mask") if random else None)

    def _merge(self) -> None:
        merge(self.net, self._calibration, self.ranks)
        training(self.net)

    def _calibration(self) -> Iterator[Tensor]:
        images = self.data.calibration(self.config.calibration)
        return batches(images, self.arch.resolution, sharing=self.ranks)

    def evaluated(self) -> Ticket:
        """The network as it is, with BN statistics of its own."""
        subnet = copy.deepcopy(self.net.subnet)
        recalibrate(subnet, self._calibration(), sharing=self.ranks)
        found = top1(subnet, self.data.validation, self.arch.resolution, sharing=self.ranks)
        return Ticket(found, {k: v.detach().clone() for k, v in subnet.state_dict().items()})

    # -- what there is to see ---------------------------------------------------------------

    def scalars(self, losses: list[float]) -> dict[str, float]:
        phase, local = self.plan.at(self.step - 1)
        return {"loss": losses[0], "lr": phase.lr(local)}

    def close_epoch(self) -> Row:
        """Evaluate the network where its outputs are trained, and add the epoch's row."""
        phase, local = self.plan.at(self.step - 1)
        accuracy = math.nan
        if isinstance(phase.task, Learn):
            ticket = self.evaluated()
            accuracy = ticket.top1
            if phase.member:
                self._consider(ticket, ends=local + 1 == phase.steps)
        row: Row = {
            "epoch": round(self.step / self.steps_per_epoch, 3),
            "phase": phase.name,
            "lr": phase.lr(local),
            "loss": sum(self.losses) / len(self.losses),
            "top1_subnet": accuracy,
            "cost_macs": self.costs[0],
            "cost_sparse_macs": self.costs[1],
        }
        self.losses = []
        self.rows.append(row)
        return row

    def _consider(self, ticket: Ticket, *, ends: bool) -> None:
        better = self.best is None or ticket.top1 >= self.best.top1
        if better or self.config.keep == "last":
            self.best = ticket
        if ends:
            assert self.best is not None
            self.tickets.append(self.best)
            self.best = None

    # -- checkpoints ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "losses": self.losses,
            "rows": self.rows,
            "costs": self.costs,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "masks": None if self.masks is None else self.masks.masks,
            "best": None if self.best is None else vars(self.best),
            "tickets": [vars(ticket) for ticket in self.tickets],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not any(name.startswith("bridges.") for name in state["net"]):
            self.net.bridges = nn.ModuleDict()  # they were merged
        self.net.load_state_dict(state["net"])
        self.seek(state["step"])
        if self.step:
            self.optimizer = self._optimizer(self.plan.at(self.step - 1)[0])
        self.optimizer.load_state_dict(state["optimizer"])
        self.losses, self.rows, self.costs = state["losses"], state["rows"], state["costs"]
        self.masks = self._first_masks() if state["masks"] is not None else None
        if self.masks is not None:
            for name, mask in self.masks.masks.items():
                mask.copy_(state["masks"][name])
        self.best = None if state["best"] is None else Ticket(**state["best"])
        self.tickets = [Ticket(**ticket) for ticket in state["tickets"]]
