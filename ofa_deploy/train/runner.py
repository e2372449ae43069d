"""What the loop moves on: a place in a plan, the batches from there on, the rows so far."""

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Generator
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from ofa_deploy.files import write_text
from ofa_deploy.train.batches import Batches
from ofa_deploy.train.config import Common
from ofa_deploy.train.plan import Phases
from ofa_deploy.train.ranks import Ranks

__all__ = ["Row", "Runner"]

Row = dict[str, float | str]


class Runner(ABC):
    """The state of a run between two steps.

    Attributes:
        STATE: what ``state_dict`` gives, by name.
        net: all weights that are trained; a checkpoint is only written while they are finite.
        step: steps taken so far.
        rows: the rows of ``metrics.csv`` so far.
        workers: processes that prepare batches ahead.
    """

    STATE: ClassVar[frozenset[str]]

    config: Common
    plan: Phases[Any]
    net: nn.Module
    optimizer: Optimizer
    batches: Batches
    ranks: Ranks
    step: int
    rows: list[Row]
    workers: int
    _stream: Generator[tuple[Tensor, Tensor], None, None] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Whole steps in one pass over the images."""
        return self.batches.steps_per_epoch

    @property
    def phase_costs(self) -> tuple[float, ...]:
        """What a step of each phase costs beside those of others; only for telling time."""
        return (1.0,) * len(self.plan.phases)

    @property
    def finished(self) -> bool:
        """Whether all steps have been taken."""
        return self.step >= self.plan.steps

    @property
    def epoch_ends(self) -> bool:
        """Whether the step just taken asks for ``close_epoch``."""
        return self.step % self.steps_per_epoch == 0

    def advance(self) -> list[float]:
        """Take one step; its draws depend on (seed, step, rank, number of ranks) only.

        Returns:
            Its losses, the one to show first.
        """
        phase, local = self.plan.at(self.step)
        if local == 0:
            self._begin(phase)
        for group in self.optimizer.param_groups:
            group["lr"] = phase.lr(local)
        losses = self._take(*self.next_batch())
        self.step += 1
        return losses

    @abstractmethod
    def _begin(self, phase: Any) -> None:
        """Do what a phase asks for before its first step."""

    @abstractmethod
    def _take(self, images: Tensor, labels: Tensor) -> list[float]:
        """Move the weights; ``step`` still is the number of the step at work."""

    @abstractmethod
    def scalars(self, losses: list[float]) -> dict[str, float]:
        """What there is to see of the last step, by name."""

    @abstractmethod
    def close_epoch(self) -> Row:
        """Evaluate, and add the epoch's row; accuracies are named ``top1_...``, in percent."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Images and labels of the step to take, on this rank's device."""
        if self._stream is None:
            self._stream = self.batches.stream(self.step, self.plan.steps, self.workers)
        images, labels = next(self._stream)
        return images.to(self.ranks.device), labels.to(self.ranks.device)

    def seek(self, step: int) -> None:
        """Go on from another step, its batch included; weights stay as they are."""
        self._end_stream()
        self.step = step

    def close(self) -> None:
        """End the processes that worked for it; no step can be taken any more."""
        self._end_stream()

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def write_metrics(self, path: Path) -> None:
        """One row an epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(path, text.getvalue())
