"""The training loop: from a config and data to a finished run folder, resumable at any step."""

import copy
import csv
import io
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa_deploy._files import digest, exclusive, sha256_file, write_model, write_text
from ofa_deploy._progress import SILENT, Progress, Task
from ofa_deploy.cost import macs_model
from ofa_deploy.data import DataSplits
from ofa_deploy.errors import InputError, MismatchError, TrainingDivergedError
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import (
    Supernet,
    channels_last,
    check_size,
    cut,
    load_checkpoint,
    save_tensors,
    standardised,
    to_tensor,
    top1,
)
from ofa_deploy.supernet.modules import Bottleneck, MBConv
from ofa_deploy.train.augment import Augmentation
from ofa_deploy.train.checkpoint import RunFile, claim_run, load_state, save_state
from ofa_deploy.train.config import TrainConfig
from ofa_deploy.train.events import EventLog
from ofa_deploy.train.memory import keep_freed_memory
from ofa_deploy.train.methods import plan_for
from ofa_deploy.train.plan import FORWARD_AND_BACKWARD, Pass, Phase, Rule
from ofa_deploy.train.ranks import ALONE, Ranks
from ofa_deploy.train.step import build_optimizer, train_step

__all__ = ["Trainer", "check_classes", "train"]

_CHECKPOINT_SECONDS = 60
_EVENT_STEPS = 10
_ROLES = ("largest", "smallest", "random")


@dataclass
class Trainer:
    """The state of a run between two steps.

    Attributes:
        step: steps taken so far.
        sums: per role, the sum and count of losses in the running epoch.
        rows: the finished epochs' rows of ``metrics.csv``.
        cost: multiply-accumulates so far, of all ranks: forward, and twice that backward.
        frozen: the teacher, in methods that keep one.
    """

    space: SearchSpace
    config: TrainConfig
    data: DataSplits
    ranks: Ranks = ALONE
    step: int = 0
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    rows: list[dict[str, float | str]] = field(default_factory=list)
    cost: int = 0
    frozen: Supernet | None = None

    def __post_init__(self) -> None:
        _check_fit(self.config, self.space, self.data)
        self.net = channels_last(Supernet(self.space, seed=self.config.seed)).train()
        if self.config.zero_gamma:
            _zero_gamma(self.net)
        self.net.to(self.ranks.device)
        self.steps_per_epoch = len(self.data.train) // (self.config.batch * self.config.processes)
        self.plan = plan_for(self.config, self.space, self.steps_per_epoch)
        self.macs = macs_model(self.space)
        self.augmentation = Augmentation.parse(self.config.augment)
        self._new_optimizer()

    def _new_optimizer(self) -> None:
        self.optimizer = build_optimizer(
            self.net,
            lr=self.config.lr,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
            kind=self.config.optimizer,
        )

    @property
    def finished(self) -> bool:
        """Whether all steps have been taken."""
        return self.step >= self.plan.steps

    def advance(self) -> list[float]:
        """Take one step; every draw in it depends on (seed, step) only."""
        phase, local = self.plan.at(self.step)
        if local == 0:
            self._begin(phase)
        for group in self.optimizer.param_groups:
            group["lr"] = phase.lr(local)
        images, labels = self._batch()
        passes = self.plan.passes(self.space, self.step, self.config.seed)
        losses = train_step(
            self.net,
            self.optimizer,
            images,
            labels,
            passes,
            label_smoothing=self.config.label_smoothing,
            dropout=self.config.dropout,
            divergence=self.config.divergence,
            frozen=self.frozen,
            kd_ratio=self.config.kd_ratio,
            bf16=self.config.precision == "bf16",
            generator=torch.Generator().manual_seed(self._seed("dropout")),
            ranks=self.ranks,
        )
        for each, loss in zip(passes, losses, strict=True):
            total, count = self.sums.get(each.role, (0.0, 0))
            self.sums[each.role] = (total + loss, count + 1)
        self.cost += self._cost(passes)
        self.step += 1
        return losses

    def scalars(self, losses: list[float]) -> dict[str, float]:
        """What there is to see of the last step: the losses, the rate, the subnets' weight."""
        phase, local = self.plan.at(self.step - 1)
        rules = phase.rules(local)
        named = {f"loss/{rule.role}": loss for rule, loss in zip(rules, losses, strict=True)}
        return {**named, "lr": phase.lr(local), "beta": _subnet_weight(rules)}

    def _begin(self, phase: Phase) -> None:
        """Do what a phase asks for before its first step."""
        for action in phase.start:
            match action:
                case "freeze teacher":
                    self.frozen = copy.deepcopy(self.net).requires_grad_(False)
                case "sort channels":
                    self.net.sort_channels(self.optimizer)
                case "restart optimizer":
                    self._new_optimizer()

    def _cost(self, passes: tuple[Pass, ...]) -> int:
        images = self.config.batch * self.config.processes
        trained = self.macs.predict([each.arch for each in passes]).sum()
        taught = self.macs.predict([self.space.largest]).sum() if self.frozen is not None else 0
        return int(images * (FORWARD_AND_BACKWARD * trained + taught))

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """This rank's part of the step's images: the ranks share one permutation an epoch."""
        epoch, position = divmod(self.step, self.steps_per_epoch)
        order = np.random.default_rng([self.config.seed, epoch, 0x0DE7]).permutation(
            len(self.data.train)
        )
        start = (position * self.config.processes + self.ranks.rank) * self.config.batch
        chosen = order[start : start + self.config.batch]
        images = self.data.train.batch(chosen)
        resolution = self.space.resolutions[-1]
        if self.augmentation.names:
            varied = self.augmentation.apply(images, self._seed("augment"))
            inputs = standardised(varied, resolution)
        else:
            inputs = to_tensor(images, resolution)
        labels = torch.from_numpy(self.data.train.labels[chosen])
        return inputs.to(self.ranks.device), labels.to(self.ranks.device)

    def _seed(self, purpose: str) -> int:
        rank = [self.ranks.rank] if self.ranks.rank else []
        return int(digest([self.config.seed, self.step, purpose, *rank])[:12], 16)

    def close_epoch(self) -> dict[str, float | str]:
        """Evaluate the largest and smallest subnet and add the epoch's row."""
        calibration = self.data.calibration(self.config.calibration)
        phase, local = self.plan.at(self.step - 1)
        rules = phase.rules(local)
        row: dict[str, float | str] = {
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
        """All that a resume needs."""
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
        """Continue from what ``state_dict`` gave."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.cost = state["step"], state["cost"]
        self.sums = {role: (total, count) for role, (total, count) in state["sums"].items()}
        self.rows = state["rows"]
        if state["frozen"] is not None:
            self.frozen = copy.deepcopy(self.net).requires_grad_(False)
            self.frozen.load_state_dict(state["frozen"])

    def write_metrics(self, path: Path) -> None:
        """One row an epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(path, text.getvalue())


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


def train(
    config: TrainConfig,
    space: SearchSpace,
    data: DataSplits,
    run: Path,
    *,
    data_options: Mapping[str, int | None] | None = None,
    init: Path | None = None,
    ranks: Ranks = ALONE,
    progress: Progress = SILENT,
) -> RunFile:
    """Train a supernet into ``run``, or go on where an interrupted run stopped.

    A resumed run ends bit-identical to an undisturbed one on the same machine; at most the last
    minute is trained again.

    Args:
        data_options: what ``load_data`` was given, kept so that later commands load the same.
        init: a file whose weights to start from: a published checkpoint, or a supernet's of ours.
        ranks: the processes that take part; each calls this, and the first writes.

    Returns:
        What ``run/run.json`` then holds.

    Raises:
        MismatchError: if ``run`` holds a run of other settings, space or data.
        TrainingDivergedError: if the loss is not finite; the last good checkpoint stays.
    """
    if init is not None:
        config = config.model_copy(update={"init_sha256": sha256_file(init)})
    record = RunFile.begin(config, space, data, data_options)
    _check_fit(config, space, data)
    if config.processes != ranks.count:
        raise InputError(f"settings for {config.processes} processes, found {ranks.count}")
    if init is not None and not (run / "run.json").exists():  # before the folder appears
        _load_init(Supernet(space), init, config)
    ranks.wait()
    with exclusive(run) if ranks.first else nullcontext():
        if ranks.first:
            claim_run(run, record)
        ranks.wait()
        identity = claim_run(run, record)
        if (finished := RunFile.load(run)).weights_sha256 is not None:
            (run / "state.pt").unlink(missing_ok=True)  # a kill may have left it behind
            return finished
        torch.set_num_threads(config.threads)
        keep_freed_memory()
        trainer = Trainer(space, config, data, ranks)
        if state := load_state(run / "state.pt", identity):
            trainer.load_state_dict(state)
            progress.say(f"resuming training at step {trainer.step} of {trainer.plan.steps}")
        elif init is not None:
            _load_init(trainer.net, init, config)
        ranks.wait()
        with EventLog(run / "events" if ranks.first else None, trainer.step) as events:
            _run_to_end(trainer, run, identity, progress, events)
        if ranks.first:
            _finish(trainer, run, record)
        ranks.wait()
        return RunFile.load(run)


def _load_init(net: Supernet, init: Path, config: TrainConfig) -> None:
    load_checkpoint(net, init, new_classifier=config.new_classifier, seed=config.seed)


def _check_fit(config: TrainConfig, space: SearchSpace, data: DataSplits) -> None:
    """See that there is a batch, and as many classes in the data as in the space."""
    images = config.batch * config.processes
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


def _run_to_end(
    trainer: Trainer, run: Path, identity: str, progress: Progress, events: EventLog
) -> None:
    steps = trainer.plan.steps
    with progress.task("train", steps, done=trainer.step) as task:
        try:
            _steps(trainer, run, identity, task, events)
        except TrainingDivergedError as error:
            raise TrainingDivergedError(
                f"step {trainer.step} of {steps}: {error}; the last good checkpoint stays in "
                f"{run}; train again in another folder, with a lower learning rate than "
                f"{trainer.config.lr:g}"
            ) from None


def _steps(trainer: Trainer, run: Path, identity: str, task: Task, events: EventLog) -> None:
    last_saved = time.monotonic()
    note = ""
    while not trainer.finished:
        losses = trainer.advance()
        if trainer.step % _EVENT_STEPS == 0:
            events.write(trainer.step, trainer.scalars(losses))
        whole_epoch = trainer.step % trainer.steps_per_epoch == 0
        if whole_epoch:
            row = trainer.close_epoch()
            top1s = {f"top1/{k[5:]}": float(v) for k, v in row.items() if k.startswith("top1_")}
            events.write(trainer.step, top1s)
            if trainer.ranks.first:
                trainer.write_metrics(run / "metrics.csv")
            note = f"{row['phase']}, top1 {row['top1_smallest']:.1f} to {row['top1_largest']:.1f} %"
        if whole_epoch and not _finite(trainer.net):  # where every rank looks
            raise TrainingDivergedError("a weight is NaN or infinite")
        late = time.monotonic() - last_saved > _CHECKPOINT_SECONDS
        if (whole_epoch or late) and trainer.ranks.first and _finite(trainer.net):
            save_state(run / "state.pt", identity, trainer.state_dict())
            last_saved = time.monotonic()
        epoch = trainer.step / trainer.steps_per_epoch
        task.advance(note=f"epoch {epoch:.1f}, loss {losses[0]:.2f} {note}")


def _finite(net: Supernet) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in net.parameters())


def _finish(trainer: Trainer, run: Path, record: RunFile) -> RunFile:
    """Write the weights, then the record that binds them, then drop what only a resume needs."""
    sha256 = save_tensors(
        run / "supernet.safetensors", trainer.net.state_dict(), {"space": trainer.space.name}
    )
    last = trainer.rows[-1]
    done = record.model_copy(
        update={
            "weights_sha256": sha256,
            "validation_top1": {k: last[f"top1_{k}"] for k in ("largest", "smallest")},
        }
    )
    write_model(run / "run.json", done)
    (run / "state.pt").unlink(missing_ok=True)
    return RunFile.load(run)
