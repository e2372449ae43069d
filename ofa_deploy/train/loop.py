"""The training loop: from a config and data to a finished run folder, resumable at any step."""

import math
import os
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ofa_deploy.data import DataSplits
from ofa_deploy.errors import DeviceError, InputError, StorageError, TrainingDivergedError
from ofa_deploy.files import exclusive, sha256_file, write_model
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import load_checkpoint, save_tensors
from ofa_deploy.terminal import SILENT, Interrupted, Progress, Stop, Task, heeding
from ofa_deploy.train.checkpoint import (
    WEIGHTS,
    RunFile,
    RunRecord,
    check_init,
    claim_run,
    load_state,
    restore,
    save_state,
)
from ofa_deploy.train.config import Common, TrainConfig
from ofa_deploy.train.events import EventLog
from ofa_deploy.train.ranks import ALONE, Ranks
from ofa_deploy.train.runner import Row, Runner
from ofa_deploy.train.threads import keep_freed_memory, repeatable_kernels
from ofa_deploy.train.trainer import Trainer, check_fit

__all__ = ["carry_out", "check_ranks", "train"]

R = TypeVar("R", bound=RunRecord)
T = TypeVar("T", bound=Runner)

_CHECKPOINT_SECONDS = 60
_EVENT_STEPS = 10


def train(
    config: TrainConfig,
    space: SearchSpace,
    data: DataSplits,
    run: Path,
    *,
    data_options: Mapping[str, int | None] | None = None,
    init: Path | None = None,
    ranks: Ranks = ALONE,
    workers: int | None = 0,
    progress: Progress = SILENT,
) -> RunFile:
    """Train a supernet into ``run``, or go on where an interrupted run stopped.

    A resumed run ends bit-identical to an undisturbed one on the same CPU; on a GPU as far as its
    kernels repeat themselves. At most the last minute is trained again. SIGINT and SIGTERM let the
    step at work be finished and kept, the second time they do not; with several ranks, which do not
    hear them at the same step, they end it at once.

    Args:
        data_options: what ``load_data`` was given, kept so that later commands load the same.
        init: a file whose weights to start from: a published checkpoint, or a supernet's of ours.
        ranks: the processes that take part; each calls this, and the first writes.
        workers: processes that decode and vary images ahead of the step, of each rank; with any
            number the outcome is the same; None is none for a CPU, else up to 8 a rank.

    Returns:
        What ``run/run.json`` then holds.

    Raises:
        MismatchError: if ``run`` holds a run of other settings, space or data, or a checkpoint of
            another run.
        InputError: if a run that began with ``init`` has no checkpoint yet, and comes without it.
        TrainingDivergedError: if the loss is not finite; the last good checkpoint stays.
        KeyboardInterrupt: when it was stopped; its text says what is kept.
    """
    if init is not None:
        config = config.model_copy(update={"init_sha256": sha256_file(init)})
    record = RunFile.begin(config, space, data, data_options)
    check_fit(config, space, data)
    check_ranks(config, ranks)
    if init is not None:
        check_init(run, space, init, new_classifier=config.new_classifier, seed=config.seed)
    return carry_out(
        run,
        record,
        lambda ahead: Trainer(space, config, data, ranks, workers=ahead),
        start=lambda trainer: _start(trainer, run, init),
        finish=lambda trainer: _finished(trainer, run, record),
        ranks=ranks,
        workers=workers,
        progress=progress,
    )


def check_ranks(config: Common, ranks: Ranks) -> None:
    """See that the settings are meant for as many processes as there are."""
    if config.processes != ranks.count:
        raise InputError(f"settings for {config.processes} processes, found {ranks.count}")


def carry_out(
    run: Path,
    record: R,
    make: Callable[[int], T],
    *,
    start: Callable[[T], None],
    finish: Callable[[T], R],
    ranks: Ranks = ALONE,
    workers: int | None = 0,
    progress: Progress = SILENT,
) -> R:
    """Run whatever is trained into ``run``, or go on where it stopped: the one training loop.

    Args:
        record: what ``run/run.json`` holds until it is finished.
        make: gives the runner, from the number of processes that prepare its batches.
        start: what is done to a new runner that has no checkpoint.
        finish: writes what comes out, on the first rank, and gives the finished record.
        workers: as in ``train``.

    Returns:
        The finished record.
    """
    ranks.wait()
    with exclusive(run) if ranks.first else nullcontext():
        if ranks.first:
            claim_run(run, record)
        ranks.wait()
        identity = claim_run(run, record)
        if (finished := type(record).load(run)).finished:
            if gone := finished.gone(run):
                anew = shlex.quote(str(run / "run.json"))
                raise InputError(
                    f"{gone}: gone from a run that was finished; remove {anew} to train it again"
                )
            (run / "state.pt").unlink(missing_ok=True)  # a kill may have left it behind
            progress.say(f"{run}: was finished before; nothing is trained again")
            return finished
        torch.set_num_threads(record.config.threads)
        keep_freed_memory()
        repeatable_kernels(ranks.device)
        with closing(make(_workers(workers, ranks))) as made:
            if state := load_state(run / "state.pt", identity, made.STATE):
                restore(made, state, run / "state.pt")
                progress.say(f"resuming training at step {made.step} of {made.plan.steps}")
            else:
                start(made)
            ranks.wait()
            folder = run / "events" if ranks.first else None
            with EventLog(folder, made.step, progress.say) as events:
                _run_to_end(made, run, identity, progress, events)
        if ranks.first:
            made.write_metrics(run / "metrics.csv")  # once more: somebody may have removed it
            done = finish(made)
            if gone := done.gone(run):
                raise StorageError(f"{gone}: gone as soon as it was written; run again")
            write_model(run / "run.json", done)
            (run / "state.pt").unlink(missing_ok=True)
        ranks.wait()
        return type(record).load(run)


def _start(trainer: Trainer, run: Path, init: Path | None) -> None:
    """Give a new trainer the weights that it starts from, if any."""
    if init is not None:
        anew, seed = trainer.config.new_classifier, trainer.config.seed
        load_checkpoint(trainer.net, init, new_classifier=anew, seed=seed)
    elif trainer.config.init_sha256 is not None:
        raise InputError(f"{run}: starts from given weights, and none were; add --init FILE")


def _workers(asked: int | None, ranks: Ranks) -> int:
    if asked is not None or ranks.device.type == "cpu":
        return asked or 0
    return min(8, max(1, (os.cpu_count() or 1) // ranks.count - 1))


def _run_to_end(
    trainer: Runner, run: Path, identity: str, progress: Progress, events: EventLog
) -> None:
    steps, kept = trainer.plan.steps, _Kept(trainer, run, identity)

    def stopping() -> None:
        progress.say(f"stops after this step; Ctrl-C again: at once, back to step {kept.step}")

    work = partial(trainer.plan.work, trainer.phase_costs)
    alone = trainer.ranks.count == 1  # others would wait for the one that stopped
    with (
        progress.task("train", steps, done=trainer.step, work=work) as task,
        heeding(stopping) if alone else nullcontext(Stop()) as stop,
    ):
        try:
            _steps(trainer, kept, task, events, stop)
        except TrainingDivergedError as error:
            raise TrainingDivergedError(
                f"step {trainer.step} of {steps}: {error}; the last good checkpoint stays in "
                f"{run}; train again in another folder, with a lower learning rate than "
                f"{trainer.config.lr:g}"
            ) from None
        except KeyboardInterrupt:
            if not trainer.ranks.first:
                raise
            raise Interrupted(kept.told()) from None
        except DeviceError:  # processes that prepare batches may have heard the signal too
            if not stop.asked:
                raise
            raise Interrupted(kept.told()) from None


class _Kept:
    """What the last checkpoint holds.

    Attributes:
        run: the folder.
        step: where a run goes on from it.
    """

    def __init__(self, trainer: Runner, run: Path, identity: str) -> None:
        self.run = run
        self._trainer, self._identity = trainer, identity
        self.step = trainer.step
        self._last = time.monotonic()

    @property
    def late(self) -> bool:
        """Whether it is old."""
        return time.monotonic() - self._last > _CHECKPOINT_SECONDS

    def save(self) -> None:
        """Write another one, by the first rank, unless there are weights that nobody wants."""
        if self._trainer.ranks.first and _finite(self._trainer.net):
            save_state(self.run / "state.pt", self._identity, self._trainer.state_dict())
            self.step, self._last = self._trainer.step, time.monotonic()

    def told(self) -> str:
        """Where training stands for whoever goes on with it."""
        steps, lost = self._trainer.plan.steps, self._trainer.step - self.step
        if not self._trainer.step:
            return f"no step of {steps} was taken yet"
        if not lost:
            return f"training stands at step {self.step} of {steps}, kept in {self.run}"
        why = "" if self._trainer.ranks.count == 1 else " (several processes stop at once)"
        kept = f"step {self.step} of {steps} is kept in {self.run}" if self.step else "none is kept"
        count = "a step" if lost == 1 else f"{lost} steps"
        return f"{kept}; {count} taken since will be taken again{why}"


def _steps(trainer: Runner, kept: _Kept, task: Task, events: EventLog, stop: Stop) -> None:
    note = ""
    while not trainer.finished:
        losses = trainer.advance()
        if trainer.step % _EVENT_STEPS == 0:
            events.write(trainer.step, trainer.scalars(losses))
        whole_epoch = trainer.epoch_ends
        if whole_epoch:
            row = trainer.close_epoch()
            top1s = _top1s(row)
            events.write(trainer.step, top1s)
            if trainer.ranks.first:
                trainer.write_metrics(kept.run / "metrics.csv")
            shown = " to ".join(f"{value:.1f}" for value in sorted(top1s.values()))
            note = f"{row['phase']}, top1 {shown} %" if shown else str(row["phase"])
        if whole_epoch and not _finite(trainer.net):  # where every rank looks
            raise TrainingDivergedError("a weight is NaN or infinite")
        last = stop.asked
        if last or whole_epoch or kept.late:
            kept.save()
        epoch = trainer.step / trainer.steps_per_epoch
        task.advance(note=f"epoch {epoch:.1f}, loss {losses[0]:.2f} {note}")
        if last:
            raise KeyboardInterrupt


def _top1s(row: Row) -> dict[str, float]:
    """The accuracies of an epoch, by the name of their event."""
    values = {f"top1/{k[5:]}": float(v) for k, v in row.items() if k.startswith("top1_")}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _finite(net: nn.Module) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in net.parameters())


def _finished(trainer: Trainer, run: Path, record: RunFile) -> RunFile:
    """Write the weights; gives the record that binds them."""
    sha256 = save_tensors(run / WEIGHTS, trainer.net.state_dict(), {"space": trainer.space.name})
    last = trainer.rows[-1]
    return record.model_copy(
        update={
            "weights_sha256": sha256,
            "validation_top1": {k: last[f"top1_{k}"] for k in ("largest", "smallest")},
        }
    )
