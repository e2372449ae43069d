"""The training loop: from a config and data to a finished run folder, resumable at any step."""

import csv
import io
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa_deploy._files import digest, exclusive, sha256_file, write_model, write_text
from ofa_deploy._progress import SILENT, Progress, Task
from ofa_deploy.data import DataSplits, augment
from ofa_deploy.errors import InputError, MismatchError, TrainingDivergedError
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import (
    Supernet,
    channels_last,
    cut,
    load_checkpoint,
    save_tensors,
    to_tensor,
    top1,
)
from ofa_deploy.train.checkpoint import RunFile, claim_run, load_state, save_state
from ofa_deploy.train.config import TrainConfig
from ofa_deploy.train.memory import keep_freed_memory
from ofa_deploy.train.passes import Pass, deps_passes
from ofa_deploy.train.schedule import DepsSchedule
from ofa_deploy.train.step import build_optimizer, train_step

__all__ = ["Trainer", "train"]

_CHECKPOINT_SECONDS = 60
_ROLES = ("largest", "smallest", "random")


@dataclass
class Trainer:
    """The state of a run between two steps.

    Attributes:
        step: steps taken so far.
        sums: per role, the sum and count of losses in the running epoch.
        rows: the finished epochs' rows of ``metrics.csv``.
    """

    space: SearchSpace
    config: TrainConfig
    data: DataSplits
    step: int = 0
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_fit(self.config, self.space, self.data)
        self.net = channels_last(Supernet(self.space, seed=self.config.seed)).train()
        self.schedule = DepsSchedule.from_config(
            self.config, len(self.data.train) // self.config.batch
        )
        self.optimizer = build_optimizer(
            self.net,
            lr=self.config.lr,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
        )

    @property
    def finished(self) -> bool:
        """Whether all steps have been taken."""
        return self.step >= self.schedule.steps

    def advance(self) -> list[float]:
        """Take one step; every draw in it depends on (seed, step) only."""
        if self.step == self.schedule.shrinking_step:
            self.net.sort_channels(self.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr_at(self.step)
        images, labels = self._batch()
        passes = self._passes()
        losses = train_step(
            self.net,
            self.optimizer,
            images,
            labels,
            passes,
            label_smoothing=self.config.label_smoothing,
            dropout=self.config.dropout,
            generator=torch.Generator().manual_seed(self._seed("dropout")),
        )
        for each, loss in zip(passes, losses, strict=True):
            total, count = self.sums.get(each.role, (0.0, 0))
            self.sums[each.role] = (total + loss, count + 1)
        self.step += 1
        return losses

    def _passes(self) -> tuple[Pass, ...]:
        return deps_passes(
            self.space,
            self.schedule,
            self.step,
            random_subnets=self.config.random_subnets,
            seed=self.config.seed,
        )

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, position = divmod(self.step, self.schedule.steps_per_epoch)
        order = np.random.default_rng([self.config.seed, epoch, 0x0DE7]).permutation(
            len(self.data.train)
        )
        chosen = order[position * self.config.batch : (position + 1) * self.config.batch]
        rng = np.random.default_rng([self.config.seed, self.step, 0xA06])
        images = augment(self.data.train.images[chosen], self.config.augment, rng)
        labels = torch.from_numpy(self.data.train.labels[chosen])
        return to_tensor(images, self.space.resolutions[-1]), labels

    def _seed(self, purpose: str) -> int:
        return int(digest([self.config.seed, self.step, purpose])[:12], 16)

    def close_epoch(self) -> dict[str, float]:
        """Evaluate the largest and smallest subnet and add the epoch's row."""
        calibration = self.data.calibration(self.config.calibration)
        row: dict[str, float] = {
            "epoch": self.step // self.schedule.steps_per_epoch,
            "lr": self.schedule.lr_at(self.step - 1),
            "beta": self.schedule.beta_at(self.step - 1),
        }
        for role in _ROLES:
            total, count = self.sums.get(role, (math.nan, 1))
            row[f"loss_{role}"] = total / count
        for role, arch in (("largest", self.space.largest), ("smallest", self.space.smallest)):
            subnet = cut(self.net, arch, calibration)
            row[f"top1_{role}"] = top1(subnet, self.data.validation, arch.resolution)
        self.sums = {}
        self.rows.append(row)
        return row

    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs."""
        return {
            "step": self.step,
            "sums": {role: list(pair) for role, pair in self.sums.items()},
            "rows": self.rows,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.sums = {role: (total, count) for role, (total, count) in state["sums"].items()}
        self.rows = state["rows"]

    def write_metrics(self, path: Path) -> None:
        """One row an epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(path, text.getvalue())


def train(
    config: TrainConfig,
    space: SearchSpace,
    data: DataSplits,
    run: Path,
    *,
    data_options: Mapping[str, int | None] | None = None,
    init: Path | None = None,
    progress: Progress = SILENT,
) -> RunFile:
    """Train a supernet into ``run``, or go on where an interrupted run stopped.

    A resumed run ends bit-identical to an undisturbed one on the same machine; at most the last
    minute is trained again.

    Args:
        data_options: what ``load_data`` was given, kept so that later commands load the same.
        init: a file whose weights to start from: a published checkpoint, or a supernet's of ours.

    Returns:
        What ``run/run.json`` then holds.

    Raises:
        MismatchError: if ``run`` holds a run of other settings, space or data.
        TrainingDivergedError: if the loss is not finite; the last good checkpoint stays.
    """
    if init is not None:
        config = config.model_copy(update={"init_sha256": sha256_file(init)})
    record = RunFile(
        space=space.to_dict(),
        config=config,
        data=data.name,
        data_digest=data.digest,
        data_options=dict(data_options or {}),
        classes=data.classes,
        versions=training_versions(),
    )
    _check_fit(config, space, data)
    if init is not None and not (run / "run.json").exists():  # before the folder appears
        load_checkpoint(Supernet(space), init, new_classifier=config.new_classifier)
    with exclusive(run):
        identity = claim_run(run, record)
        if (finished := RunFile.load(run)).weights_sha256 is not None:
            (run / "state.pt").unlink(missing_ok=True)  # a kill may have left it behind
            return finished
        torch.set_num_threads(config.threads)
        keep_freed_memory()
        trainer = Trainer(space, config, data)
        if state := load_state(run / "state.pt", identity):
            trainer.load_state_dict(state)
            progress.say(f"resuming training at step {trainer.step} of {trainer.schedule.steps}")
        elif init is not None:
            load_checkpoint(trainer.net, init, new_classifier=config.new_classifier)
        _run_to_end(trainer, run, identity, progress)
        return _finish(trainer, run, record)


def training_versions() -> dict[str, str]:
    """The packages whose versions decide about every bit."""
    return {name: version(name) for name in ("torch", "numpy")}


def _check_fit(config: TrainConfig, space: SearchSpace, data: DataSplits) -> None:
    """See that there is a batch, and as many classes in the data as in the space."""
    if len(data.train) < config.batch:
        raise InputError(
            f"expected at least one batch of {config.batch} training images, found "
            f"{len(data.train)}; lower the batch size"
        )
    check_classes(space, data)


def check_classes(space: SearchSpace, data: DataSplits) -> None:
    """See that the data has as many classes as the space."""
    if len(data.classes) != space.classes:
        raise MismatchError(
            f"the data has {len(data.classes)} classes, space {space.name} "
            f"{space.classes}; use space.with_classes({len(data.classes)})"
        )


def _run_to_end(trainer: Trainer, run: Path, identity: str, progress: Progress) -> None:
    steps = trainer.schedule.steps
    with progress.task("train", steps, done=trainer.step) as task:
        try:
            _steps(trainer, run, identity, task)
        except TrainingDivergedError as error:
            raise TrainingDivergedError(
                f"step {trainer.step} of {steps}: {error}; the last good checkpoint stays in "
                f"{run}; train again in another folder, with a lower learning rate than "
                f"{trainer.config.lr:g}"
            ) from None


def _steps(trainer: Trainer, run: Path, identity: str, task: Task) -> None:
    last_saved = time.monotonic()
    note = ""
    while not trainer.finished:
        losses = trainer.advance()
        whole_epoch = trainer.step % trainer.schedule.steps_per_epoch == 0
        if whole_epoch:
            row = trainer.close_epoch()
            trainer.write_metrics(run / "metrics.csv")
            note = f"top1 {row['top1_smallest']:.1f} to {row['top1_largest']:.1f} %"
        if whole_epoch or time.monotonic() - last_saved > _CHECKPOINT_SECONDS:
            if not _finite(trainer.net):
                raise TrainingDivergedError("a weight is NaN or infinite")
            save_state(run / "state.pt", identity, trainer.state_dict())
            last_saved = time.monotonic()
        epoch = trainer.step / trainer.schedule.steps_per_epoch
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
