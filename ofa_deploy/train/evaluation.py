"""Measure the accuracy of many subnets of a trained supernet, resumably."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ofa_deploy.data import DataSplits
from ofa_deploy.errors import MismatchError
from ofa_deploy.files import Journal
from ofa_deploy.space import Arch
from ofa_deploy.supernet import Subnet, SubnetFile, Supernet, cut, top1
from ofa_deploy.terminal import SILENT, Progress
from ofa_deploy.train.checkpoint import RunFile, load_supernet
from ofa_deploy.train.ranks import ALONE, Ranks
from ofa_deploy.train.threads import keep_freed_memory

__all__ = ["Evaluator"]


@dataclass(frozen=True)
class Evaluator:
    """A trained supernet and the data it is judged on.

    Attributes:
        run: the run folder; finished evaluations are kept in its journal.
    """

    run: Path
    net: Supernet
    record: RunFile
    data: DataSplits
    ranks: Ranks = ALONE

    @classmethod
    def load(
        cls, run: Path, data: DataSplits, ranks: Ranks = ALONE, *, threads: int | None = None
    ) -> "Evaluator":
        """Load a finished run.

        Args:
            threads: of this process; those of the run when not given.
            ranks: the processes that take part; each calls every method, and the first writes.

        Raises:
            MismatchError: if ``data`` is not what the supernet was trained on.
        """
        net, record = load_supernet(run)
        if data.digest != record.data_digest:
            raise MismatchError(
                f"{run}: trained on {record.data} ({record.data_digest}), but the data there is "
                f"now {data.digest}; its images or their number have changed"
            )
        torch.set_num_threads(threads or record.config.threads)
        keep_freed_memory()
        net.to(ranks.device)
        return cls(run, net, record, data, ranks)

    def cut(self, arch: Arch) -> Subnet:
        """A recalibrated copy of one subnet."""
        calibration = self.data.calibration(self.record.config.calibration)
        return cut(self.net, arch, calibration, sharing=self.ranks)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides about an accuracy: finished evaluations hold as long as it is the same."""
        return {
            "weights": self.record.weights_sha256,
            "data": self.record.data_digest,
            "calibration": self.record.config.calibration,
        }

    def validate(self, archs: Sequence[Arch], *, progress: Progress = SILENT) -> list[float]:
        """Top-1 of each subnet on the validation split, in percent.

        Each subnet is evaluated once, however often it is asked for.
        """
        journal = self._journal(self.identity)
        known = {Arch.from_dict(r["arch"]): float(r["top1"]) for r in journal.records}
        wanted = list(dict.fromkeys(archs))
        done = sum(arch in known for arch in wanted)
        with progress.task("evaluate subnets", len(wanted), done=done) as task:
            for arch in wanted:
                if arch in known:
                    continue
                found = self.cut(arch)
                known[arch] = top1(found, self.data.validation, arch.resolution, sharing=self.ranks)
                if self.ranks.first:
                    journal.append({"arch": arch.to_dict(), "top1": known[arch]})
                task.advance(note=f"{known[arch]:.1f} %")
        return [known[arch] for arch in archs]

    def _journal(self, identity: dict[str, Any]) -> Journal:
        """Finished evaluations: the same for every rank, before the first adds to them."""
        path = self.run / "evaluations.jsonl"
        if self.ranks.first:
            journal = Journal(path, identity)
        self.ranks.wait()
        if not self.ranks.first:
            journal = Journal(path, identity)
        self.ranks.wait()
        return journal

    def subnet_record(self, candidate: dict[str, object]) -> SubnetFile:
        """The file that describes a subnet cut from this run."""
        assert self.record.weights_sha256 is not None
        return SubnetFile(
            space=self.record.space,
            supernet_sha256=self.record.weights_sha256,
            data=self.data.name,  # where it is now
            data_options=self.record.data_options,
            data_digest=self.record.data_digest,
            classes=self.record.classes,
            calibration=min(self.record.config.calibration, len(self.data.train)),
            candidate=candidate,
        )
