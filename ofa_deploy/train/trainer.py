"""The state of a training run between two steps, and what moves it on."""

import copy
import math
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ofa_deploy.cost import macs_model
from ofa_deploy.data import DataSplits
from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import Supernet, channels_last, check_size, cut, top1
from ofa_deploy.supernet.modules import Bottleneck, MBConv
from ofa_deploy.train.batches import Batches, draw_seed
from ofa_deploy.train.config import Common, TrainConfig
from ofa_deploy.train.forecast import forecast
from ofa_deploy.train.methods import plan_for
from ofa_deploy.train.plan import Phase, Plan, Rule, step_macs
from ofa_deploy.train.ranks import ALONE, Ranks
from ofa_deploy.train.runner import Row, Runner
from ofa_deploy.train.step import StepSettings, build_optimizer, train_step
from ofa_deploy.train.threads import threads_for

__all__ = ["Trainer", "check_classes", "check_fit"]

_ROLES = ("largest", "smallest", "random")


@dataclass
class Trainer(Runner):
    """The state of a supernet's training between two steps.

    Attributes:
        sums: per role, the sum and count of losses in the running epoch.
        cost: multiply-accumulates so far, of all ranks: forward, and twice that backward.
        frozen: the teacher, in methods that keep one.
    """

    STATE = frozenset({"step", "sums", "rows", "cost", "net", "frozen", "optimizer"})

    space: SearchSpace
    config: TrainConfig
    data: DataSplits
    ranks: Ranks = ALONE
    step: int = 0
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    cost: int = 0
    frozen: Supernet | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        check_fit(self.config, self.space, self.data)
        self.net: Supernet = channels_last(Supernet(self.space, seed=self.config.seed)).train()
        if self.config.zero_gamma:
            _zero_gamma(self.net)
        self.net.to(self.ranks.device)
        self.batches = Batches(self.config, self.data.train, self.space.resolutions[-1], self.ranks)
        self.plan: Plan = plan_for(self.config, self.space, self.steps_per_epoch)
        self.macs = macs_model(self.space)
        self.executor = self._threads()
        self.settings = StepSettings(
            label_smoothing=self.config.label_smoothing,
            dropout=self.config.dropout,
            divergence=self.config.divergence,
            kd_ratio=self.config.kd_ratio,
            bf16=self.config.precision == "bf16",
        )
        self._new_optimizer()

    def _threads(self) -> Executor | None:
        """Threads for the passes of a step; on a CPU only."""
        most = max(len(phase.rules(0)) for phase in self.plan.phases)
        on_cpu = self.ranks.device.type == "cpu"
        return threads_for(most, self.config.threads) if on_cpu else None

    def _new_optimizer(self) -> None:
        self.optimizer = build_optimizer(
            self.net,
            lr=self.config.lr,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
            kind=self.config.optimizer,
        )

    @property
    def phase_costs(self) -> tuple[float, ...]:
        phases = forecast(self.config, self.space, self.plan).phases
        return tuple(phase.macs / phase.steps for phase in phases)

    def _take(self, images: Tensor, labels: Tensor) -> list[float]:
        passes = self.plan.passes(self.space, self.step, self.config.seed)
        losses = train_step(
            self.net,
            self.optimizer,
            images,
            labels,
            passes,
            settings=self.settings,
            frozen=self.frozen,
            generator=torch.Generator().manual_seed(
                draw_seed(self.config, self.step, "dropout", self.ranks)
            ),
            ranks=self.ranks,
            executor=self.executor,
        )
        for each, loss in zip(passes, losses, strict=True):
            total, count = self.sums.get(each.role, (0.0, 0))
            self.sums[each.role] = (total + loss, count + 1)
        teacher = self.space.largest if self.frozen is not None else None
        self.cost += int(step_macs(self.macs, passes, self.config.images_a_step, teacher))
        return losses

    def close(self) -> None:
        super().close()
        if self.executor is not None:
            self.executor.shutdown()

    def scalars(self, losses: list[float]) -> dict[str, float]:
        """Mean losses, the rate, the subnets' weight."""
        phase, local = self.plan.at(self.step - 1)
        rules = phase.rules(local)
        by_role: dict[str, list[float]] = {}
        for rule, loss in zip(rules, losses, strict=True):
            by_role.setdefault(f"loss/{rule.role}", []).append(loss)
        named = {name: sum(values) / len(values) for name, values in by_role.items()}
        return {**named, "lr": phase.lr(local), "beta": _subnet_weight(rules)}

    def _begin(self, phase: Phase) -> None:
        for action in phase.start:
            match action:
                case "freeze teacher":
                    self.frozen = copy.deepcopy(self.net).requires_grad_(False)
                case "sort channels":
                    self.net.sort_channels(self.optimizer)
                case "restart optimizer":
                    self._new_optimizer()

    def close_epoch(self) -> Row:
        """Evaluate the largest and smallest subnet and add the epoch's row."""
        calibration = self.data.calibration(self.config.calibration)
        phase, local = self.plan.at(self.step - 1)
        rules = phase.rules(local)
        row: Row = {
            "epoch": self.step // self.steps_per_epoch,
            "phase": phase.name,
            "lr": phase.lr(local),
            "beta": _subnet_weight(rules),
        }
        for role in _ROLES:
            total, count = self.sums.get(role, (math.nan, 1))
            row[f"loss_{role}"] = total / count
        for role, arch in (("largest", self.space.largest), ("smallest", self.space.smallest)):
            subnet = cut(self.net, arch, calibration, sharing=self.ranks)
            row[f"top1_{role}"] = top1(
                subnet, self.data.validation, arch.resolution, sharing=self.ranks
            )
        row["cost_macs"] = self.cost
        self.sums = {}
        self.rows.append(row)
        return row

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "sums": {role: list(pair) for role, pair in self.sums.items()},
            "rows": self.rows,
            "cost": self.cost,
            "net": self.net.state_dict(),
            "frozen": self.frozen.state_dict() if self.frozen is not None else None,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seek(state["step"])
        self.cost = state["cost"]
        self.sums = {role: (total, count) for role, (total, count) in state["sums"].items()}
        self.rows = state["rows"]
        if state["frozen"] is not None:
            self.frozen = copy.deepcopy(self.net).requires_grad_(False)
            self.frozen.load_state_dict(state["frozen"])


def _subnet_weight(rules: tuple[Rule, ...]) -> float:
    """The weight of the losses of other subnets than the largest: β in DεpS."""
    return rules[-1].weight if rules[-1].role != "largest" else 0.0


@torch.no_grad()
def _zero_gamma(net: Supernet) -> None:
    """Start residual blocks as identities (Goyal et al. 2017)."""
    for module in net.modules():
        if isinstance(module, MBConv) and module.block.residual:
            module.project_bn.weight.zero_()
        elif isinstance(module, Bottleneck):
            module.bn3.weight.zero_()


def check_fit(config: Common, space: SearchSpace, data: DataSplits) -> None:
    """See that there is a batch, and as many classes in the data as in the space."""
    images = config.images_a_step
    if len(data.train) < images:
        raise InputError(
            f"expected at least one batch of {images} training images, found "
            f"{len(data.train)}; lower the batch size"
        )
    check_classes(space, data)
    check_size(space)


def check_classes(space: SearchSpace, data: DataSplits) -> None:
    """See that the data has as many classes as the space."""
    if len(data.classes) != space.classes:
        raise MismatchError(
            f"the data has {len(data.classes)} classes, space {space.name} "
            f"{space.classes}; use space.with_classes({len(data.classes)})"
        )
