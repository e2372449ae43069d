"""Proof for the closed loop: cut, recalibrate, evaluate, export and measure candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ofa_deploy._progress import SILENT, Progress
from ofa_deploy.export.as_shipped import AsShipped
from ofa_deploy.hardware import Conditions
from ofa_deploy.profiling import (
    REFERENCE,
    Protocol,
    measure,
    network_subject,
    reference_arch,
)
from ofa_deploy.space import Arch
from ofa_deploy.train import Evaluator

__all__ = ["DeviceExaminer"]

_DRIFT = 0.1


@dataclass(frozen=True)
class DeviceExaminer:
    """Measures the very graphs that would ship, with trained weights.

    Attributes:
        conditions: those of the latency table that the candidates were searched with.
        reference_ms: latency of the reference network in that table.
        journal: a folder that keeps finished measurements.
    """

    evaluator: Evaluator
    conditions: Conditions
    reference_ms: float
    protocol: Protocol
    journal: Path | None = None
    progress: Progress = SILENT

    def __call__(self, archs: Sequence[Arch]) -> list[Mapping[str, float]]:
        """Per network: ``top1`` on the validation split, ``latency`` and its percentiles in ms."""
        if not archs:
            return []
        shipped = self.shipped
        accuracies = shipped.validate(archs, progress=self.progress)
        space = self.evaluator.record.search_space
        batch = self.conditions.batch
        taken = measure(
            {str(arch): shipped.subject(arch, batch=batch) for arch in archs},
            network_subject(space, reference_arch(space), batch=batch),
            runtime=self.conditions.runtime,
            precision=self.conditions.precision,
            threads=self.conditions.threads,
            protocol=self.protocol,
            journal=self.journal,
            progress=self.progress,
            label=f"measure {len(archs)} candidates",
        )
        self._compare_clocks(taken[REFERENCE].ms)
        return [
            {
                "top1": top1,
                "latency": taken[str(arch)].ms,
                "latency.p50": taken[str(arch)].p50,
                "latency.p99": taken[str(arch)].p99,
            }
            for arch, top1 in zip(archs, accuracies, strict=True)
        ]

    @property
    def shipped(self) -> AsShipped:
        """The subnets in the engine and precision of the table."""
        return AsShipped(self.evaluator, self.conditions.runtime, self.conditions.precision)

    def _compare_clocks(self, now: float) -> None:
        """Say so if this machine runs at another speed than when the table was made."""
        change = now / self.reference_ms - 1
        if abs(change) > _DRIFT:
            self.progress.say(
                f"warning: the reference network takes {change:+.0%} of its time in the table; the "
                "machine has changed speed, and predictions are off by as much"
            )
