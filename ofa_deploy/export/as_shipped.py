"""Accuracy of a run's subnets as an engine computes them, in the precision that would ship."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import InputError
from ofa_deploy.export.classify import run_in_batches, top1_of
from ofa_deploy.export.gate import prepared
from ofa_deploy.export.options import ExportOptions
from ofa_deploy.export.source import Source
from ofa_deploy.export.targets import kept_as
from ofa_deploy.files import Journal
from ofa_deploy.pareto import Candidate
from ofa_deploy.profiling import Subject
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.space import Arch
from ofa_deploy.supernet import Ensemble
from ofa_deploy.terminal import SILENT, Progress
from ofa_deploy.train import Evaluator, Ranks, RunFile

__all__ = ["AsShipped"]


@dataclass(frozen=True)
class AsShipped:
    """A run's subnets in one engine and precision.

    INT8 learns its ranges from training images; no blocks are left in float32, as ``export`` does
    with ``--no-sensitivity``.

    Raises:
        InputError: for INT8 with several processes.
    """

    evaluator: Evaluator
    runtime: str
    precision: str

    def __post_init__(self) -> None:
        if self.precision != "fp32" and self.evaluator.ranks.count > 1:
            raise InputError(
                f"{self.precision} subnets are evaluated by one process, found "
                f"{self.evaluator.ranks.count}; run it without torchrun"
            )

    @property
    def record(self) -> RunFile:
        """Of the run."""
        return self.evaluator.record

    @property
    def ranks(self) -> Ranks:
        """The processes that take part."""
        return self.evaluator.ranks

    def validate(self, archs: Sequence[Arch], *, progress: Progress = SILENT) -> list[float]:
        """Top-1 of each subnet on the validation split, in percent; finished ones are kept."""
        if self.precision == "fp32":
            return self.evaluator.validate(archs, progress=progress)
        journal = Journal(self._journal, self._identity())
        known = {Arch.from_dict(r["arch"]): float(r["top1"]) for r in journal.records}
        wanted = list(dict.fromkeys(archs))
        done = sum(arch in known for arch in wanted)
        label = f"evaluate {self.precision} subnets"
        with progress.task(label, len(wanted), done=done) as task:
            for arch in wanted:
                if arch not in known:
                    known[arch] = self._top1(arch)
                    journal.append({"arch": arch.to_dict(), "top1": known[arch]})
                    task.advance(note=f"{known[arch]:.1f} %")
        return [known[arch] for arch in archs]

    def subject(self, arch: Arch, *, batch: int = 1) -> Subject:
        """The graph of a network as it would ship, to be timed."""
        source = self._source(arch)
        shape = (batch, 3, arch.resolution, arch.resolution)
        calibration = source.batches if self.precision == "int8" else ()
        return Subject(lambda: source.graph, shape, calibration)

    @property
    def _journal(self) -> Path:
        name = f"evaluations{kept_as(self.runtime, self.precision)}.jsonl"
        return self.evaluator.run / name

    def _identity(self) -> dict[str, object]:
        return {
            **self.evaluator.identity,
            "runtime": [self.runtime, get_runtime(self.runtime).version, self.precision],
            "calibration_images": self._options.calibration_images,
        }

    @property
    def _options(self) -> ExportOptions:
        return ExportOptions(sensitivity=False)

    def _source(self, arch: Arch) -> Source:
        options = self._options
        images = self.evaluator.data.calibration(2 * options.calibration_images)
        record = self.evaluator.subnet_record(Candidate(arch).to_dict())
        return Source(Ensemble((self.evaluator.cut(arch),), record), options, images)

    def _top1(self, arch: Arch) -> float:
        source, engine = self._source(arch), get_runtime(self.runtime)
        session = engine.load(engine.build(source.graph, self.precision, source.batches))

        def logits(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            return run_in_batches(session, prepared(images, "none", arch.resolution), None)

        return top1_of(logits, self.evaluator.data.validation)
