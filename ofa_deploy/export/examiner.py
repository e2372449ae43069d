"""Proof for the closed loop: cut, recalibrate, evaluate, export and measure candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ofa_deploy.export.as_shipped import AsShipped
from ofa_deploy.hardware import Conditions, LatencyTable, Measurement, known_device
from ofa_deploy.profiling import (
    REFERENCE,
    Protocol,
    measure,
    network_subject,
    reference_arch,
)
from ofa_deploy.search.constraints import PERCENTILES
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.terminal import SILENT, Progress
from ofa_deploy.train import Evaluator

__all__ = ["DeviceExaminer", "measurable"]

_DRIFT = 0.1
_TIMES = ("latency", *(f"latency.{name}" for name in PERCENTILES))
_ENERGY = "energy"


@dataclass(frozen=True)
class DeviceExaminer:
    """Measures the very graphs that would ship, with trained weights.

    Attributes:
        conditions: those of the latency table that the candidates were searched with.
        reference_ms: latency of the reference network in that table.
        journal: a folder that keeps finished measurements.
        space: that of the table, whose reference network everything is timed in turns with; the
            run's if not given.
        metrics: all that it measures, as ``measurable`` says.
    """

    evaluator: Evaluator
    conditions: Conditions
    reference_ms: float
    protocol: Protocol
    journal: Path | None = None
    progress: Progress = SILENT
    space: SearchSpace | None = None
    metrics: tuple[str, ...] = ("top1", *_TIMES, _ENERGY)

    def __call__(self, archs: Sequence[Arch]) -> list[Mapping[str, float]]:
        """Per network the ``metrics``: percent on the validation split, ms, mJ.

        Energy is left out where the device did not count it.
        """
        if not archs:
            return []
        shipped = self.shipped
        accuracies = shipped.validate(archs, progress=self.progress)
        images = float(len(self.evaluator.data.validation))
        space = self.space or self.evaluator.record.search_space
        batch = self.conditions.batch
        taken = measure(
            {str(arch): shipped.subject(arch, batch=batch) for arch in archs},
            network_subject(space, reference_arch(space), batch=batch),
            runtime=self.conditions.runtime,
            precision=self.conditions.precision,
            threads=self.conditions.threads,
            protocol=self.protocol,
            journal=self.journal,
            device=known_device(self.conditions.device),
            progress=self.progress,
            label=f"measure {len(archs)} candidates",
        )
        self._compare_clocks(taken[REFERENCE].ms)
        return [
            {"top1": top1, "top1.images": images, **_figures(taken[str(arch)])}
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


def measurable(table: LatencyTable) -> tuple[str, ...]:
    """What can be measured of a candidate on a table's device; energy if that was counted there."""
    counted = table.reference is not None and table.reference.energy_mj is not None
    return ("top1", *_TIMES, *((_ENERGY,) if counted else ()))


def _figures(taken: Measurement) -> dict[str, float]:
    times = (taken.ms, *(getattr(taken, name) for name in PERCENTILES))
    energy = {} if taken.energy_mj is None else {_ENERGY: taken.energy_mj}
    spread = {"latency.spread": taken.spread}
    return {**dict(zip(_TIMES, times, strict=True)), **spread, **energy}
