"""From a subnet to a better one: what is read, what is written, and what a run folder keeps.

``RUN/run.json`` says what was asked for and, when it is done, what came out: ``RUN/subnets/`` with
ordinary subnet files, and one that names them where they answer together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field
from torch import Tensor

from ofa_deploy.data import DataSplits
from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.files import read_model
from ofa_deploy.pareto import Candidate
from ofa_deploy.space import Arch, ArchField, SearchSpace
from ofa_deploy.specialize.config import AnySpecialize, SpecializeConfig
from ofa_deploy.specialize.cost import PhaseMacs
from ofa_deploy.specialize.judge import member_probabilities
from ofa_deploy.specialize.plan import Learn
from ofa_deploy.specialize.quality import quality
from ofa_deploy.specialize.runner import Specialist, Ticket
from ofa_deploy.specialize.units import Parent, check_parent, units_of
from ofa_deploy.supernet import (
    Ensemble,
    Subnet,
    SubnetFile,
    batches,
    channels_last,
    cut,
    load_subnet,
    recalibrate,
    save_ensemble,
    save_subnet,
)
from ofa_deploy.terminal import SILENT, Progress
from ofa_deploy.train import (
    ALONE,
    Pace,
    Ranks,
    RunFile,
    RunRecord,
    carry_out,
    check_fit,
    check_ranks,
    deciding_versions,
    load_supernet,
    pace_of,
)

__all__ = [
    "SpecializeFile",
    "find_parent",
    "load_parent",
    "parent_shape",
    "specialize",
    "time_specialize",
]

_SUBNET = ".subnet.json"


class SpecializeFile(RunRecord):
    """``run.json`` of a specialisation.

    Attributes:
        arch: of the subnet, and of what comes out.
        subnet_sha256: of the weights that it started from, and ``parent_sha256`` of those that it
            learned from.
        result: the file within the run's folder that names what came out.
        validation_top1: of each network, in percent.
        cost_macs, cost_sparse_macs: multiply-accumulates of training: see ``cost``.
    """

    IDENTITY: ClassVar[tuple[str, ...]] = (
        *RunRecord.IDENTITY,
        "arch",
        "subnet_sha256",
        "parent_sha256",
    )

    schema_: Literal["specialize-run/1"] = Field("specialize-run/1", alias="schema")
    config: AnySpecialize
    arch: ArchField
    subnet_sha256: str
    parent_sha256: str | None
    result: str | None = None
    validation_top1: tuple[float, ...] = ()
    cost_macs: int = 0
    cost_sparse_macs: int = 0

    @property
    def finished(self) -> bool:
        return self.result is not None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The result, and the members of an ensemble with their weights."""
        if self.result is None:
            return ()
        stem = self.result.removesuffix(".subnet.json").removesuffix(".ensemble.json")
        several = len(self.validation_top1) > 1
        members = [f"{stem}-{n}" for n, _ in enumerate(self.validation_top1, 1)]
        files = [
            f"{each}{suffix}"
            for each in (members if several else [stem])
            for suffix in (".subnet.json", ".safetensors")
        ]
        return (self.result, *files)

    @classmethod
    def load(cls, run: Path) -> Self:
        """Read ``run/run.json``."""
        if not (run / "run.json").exists():
            raise InputError(
                f"{run}: no specialisation there (no run.json); "
                "begin one with: ofa-deploy specialize SUBNET --method NAME --run FOLDER"
            )
        return read_model(run / "run.json", cls, schema="specialize-run/1")


def find_parent(subnet: Path, record: SubnetFile) -> Path:
    """The run that a subnet file in ``RUN/subnets`` was cut from.

    Raises:
        InputError: if it lies elsewhere.
    """
    run = subnet.resolve().parent.parent
    path = run / "run.json"
    if path.exists():
        try:
            if RunFile.load(run).weights_sha256 == record.supernet_sha256:
                return run
        except InputError:
            pass  # a run of another kind
    raise InputError(
        f"{subnet}: the supernet that it was cut from is not beside it; name what to learn from "
        "with --parent: that run, or another NAME.subnet.json"
    )


def parent_shape(path: Path, resolution: int) -> tuple[SearchSpace, Arch]:
    """Space and arch of what ``load_parent`` gives, without loading it.

    Raises:
        InputError: if there is no finished run, and no subnet file.
        MismatchError: if it does not know the resolution.
    """
    if path.name.endswith(_SUBNET):
        record = read_model(path, SubnetFile, schema="subnet/1")
        space, arch = record.search_space, record.network.arch
    else:
        space = RunFile.load(path).search_space
        arch = space.largest
    if resolution not in space.resolutions:
        raise MismatchError(
            f"{path}: made for resolutions {', '.join(map(str, space.resolutions))}; the subnet "
            f"works at {resolution}"
        )
    return space, replace(arch, resolution=resolution)


def load_parent(
    path: Path, resolution: int, data: DataSplits, calibration: int, ranks: Ranks = ALONE
) -> Parent:
    """What to learn from: a run's largest subnet, or a subnet of its own.

    Its BN takes the statistics of this resolution, unless the file has them.

    Args:
        path: the folder of a finished run, or ``NAME.subnet.json``.
        calibration: training images for that.

    Raises:
        MismatchError: if it does not know the resolution, or other classes.
    """
    space, arch = parent_shape(path, resolution)
    images = data.calibration(calibration)
    if path.name.endswith(_SUBNET):
        subnet, record = load_subnet(path)
        _check_classes(path, record.classes, data)
        subnet.to(ranks.device)
        if record.network.arch != arch:
            seen = batches(images, resolution, sharing=ranks)
            recalibrate(subnet, seen, sharing=ranks)
        return Parent(space, arch, subnet, record.weights_sha256)
    net, run = load_supernet(path)
    _check_classes(path, run.classes, data)
    subnet = cut(net.to(ranks.device), arch, images, sharing=ranks)
    assert run.weights_sha256 is not None
    return Parent(space, arch, subnet, run.weights_sha256)


def _check_classes(path: Path, classes: tuple[str, ...], data: DataSplits) -> None:
    if classes != data.classes:
        raise MismatchError(
            f"{path}: trained for the classes {', '.join(classes[:3])}, ... ({len(classes)}), the "
            f"data has {', '.join(data.classes[:3])}, ... ({len(data.classes)})"
        )


def specialize(
    subnet: Path,
    config: SpecializeConfig,
    data: DataSplits,
    run: Path,
    *,
    parent: Path | None = None,
    data_options: Mapping[str, int | None] | None = None,
    ranks: Ranks = ALONE,
    workers: int | None = 0,
    progress: Progress = SILENT,
) -> SpecializeFile:
    """Train a subnet further into ``run``, or go on where an interrupted run stopped.

    It is run by the loop that trains supernets, and resumes as exactly.

    Args:
        subnet: ``NAME.subnet.json``.
        data: what its supernet was trained on.
        parent: what to learn from, as for ``load_parent``; the run that it was cut from when not
            given.
        data_options, ranks, workers: as for ``train``.

    Returns:
        What ``run/run.json`` then holds; ``result`` names the file to go on with.

    Raises:
        MismatchError: if ``run`` holds another run, or something does not belong to the subnet.
        InputError: if the method learns from a parent, and none is found.
        TrainingDivergedError: if the loss is not finite.
    """
    check_ranks(config, ranks)
    begun = _begin(subnet, config, data, parent, ranks)
    described, learned = begun.described, begun.parent
    record = SpecializeFile(
        space=described.space,
        config=config,
        data=data.name,
        data_digest=data.digest,
        data_options=dict(described.data_options if data_options is None else data_options),
        classes=data.classes,
        versions=deciding_versions(),
        arch=described.network.arch.to_dict(),
        subnet_sha256=described.weights_sha256,
        parent_sha256=learned.sha256 if learned else None,
    )
    name = subnet.name.removesuffix(_SUBNET)
    return carry_out(
        run,
        record,
        lambda ahead: begun.specialist(config, data, ranks, ahead),
        start=lambda _: None,
        finish=lambda made: _finished(made, run, record, described, name),
        ranks=ranks,
        workers=workers,
        progress=progress,
    )


def time_specialize(
    subnet: Path,
    config: SpecializeConfig,
    data: DataSplits,
    phases: Sequence[PhaseMacs],
    *,
    parent: Path | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Pace, tuple[float, float]]:
    """Take a few steps of each phase, and forget them.

    Args:
        phases: what they cost, as ``forecast_macs`` has it.
        subnet, config, data, parent: as for ``specialize``.

    Returns:
        What was timed, and the range of seconds that a run takes, with its evaluations.
    """
    begun = _begin(subnet, config, data, parent, ranks)
    pace = pace_of(
        config,
        max(each.macs.dense / each.phase.steps for each in phases),
        lambda small: begun.specialist(small, data, ranks),
        lambda made: made.costs[0],
        ranks,
    )
    described = begun.described
    images = len(data.validation) + min(config.calibration, len(data.train))
    steps = sum(each.phase.steps for each in phases if isinstance(each.phase.task, Learn))
    epochs = steps * config.images_a_step / len(data.train)
    once = images * described.search_space.cost(described.network.arch).macs
    return pace, pace.seconds([each.macs.dense for each in phases], epochs * once)


@dataclass(frozen=True)
class _Begun:
    """What a run goes out from."""

    described: SubnetFile
    weights: Mapping[str, Tensor]
    parent: Parent | None

    def specialist(
        self, config: SpecializeConfig, data: DataSplits, ranks: Ranks, workers: int = 0
    ) -> Specialist:
        space, arch = self.described.search_space, self.described.network.arch
        return Specialist(space, arch, config, data, self.weights, self.parent, ranks, workers)


def _begin(
    subnet: Path, config: SpecializeConfig, data: DataSplits, parent: Path | None, ranks: Ranks
) -> _Begun:
    source, described = load_subnet(subnet)
    space, arch = described.search_space, described.network.arch
    _check_classes(subnet, described.classes, data)
    check_fit(config, space, data)
    learned: Parent | None = None
    if config.needs_parent:
        where = parent or find_parent(subnet, described)
        learned = load_parent(where, arch.resolution, data, config.calibration, ranks)
        check_parent(units_of(space, arch), learned, space.classes)
    return _Begun(described, source.state_dict(), learned)


def _finished(
    made: Specialist, run: Path, record: SpecializeFile, described: SubnetFile, name: str
) -> SpecializeFile:
    """Write the networks, then what names them; gives the record."""
    folder = run / "subnets"
    several = len(made.tickets) > 1
    written = []
    for position, ticket in enumerate(made.tickets, 1):
        stem = folder / (f"{name}-{position}" if several else name)
        about = _about(described, made, ticket)
        written.append(save_subnet(stem, _subnet(made, ticket), about))
    result = written[0]
    if several:
        result = save_ensemble(folder / name, written, {"top1": _together(made, described)})
    return record.model_copy(
        update={
            "result": result.relative_to(run).as_posix(),
            "validation_top1": tuple(ticket.top1 for ticket in made.tickets),
            "cost_macs": made.costs[0],
            "cost_sparse_macs": made.costs[1],
        }
    )


def _subnet(made: Specialist, ticket: Ticket) -> Subnet:
    subnet = Subnet.of(made.space.lower(made.arch), made.space.bn_eps)
    subnet.load_state_dict(ticket.weights)
    return channels_last(subnet.eval())


def _about(described: SubnetFile, made: Specialist, ticket: Ticket) -> SubnetFile:
    """What was known of the subnet and holds for the new one, with its accuracy."""
    known = described.network
    accuracies = {"top1", "test_top1"}
    candidate = Candidate(
        known.arch,
        predicted={k: v for k, v in known.predicted.items() if k not in accuracies},
        intervals={k: v for k, v in known.intervals.items() if k not in accuracies},
        measured={k: v for k, v in known.measured.items() if k not in accuracies}
        | {"top1": ticket.top1},
        budget=known.budget,
    )
    return described.model_copy(
        update={
            "data": made.data.name,
            "data_digest": made.data.digest,
            "calibration": min(made.config.calibration, len(made.data.train)),
            "candidate": candidate.to_dict(),
        }
    )


def _together(made: Specialist, described: SubnetFile) -> float:
    """Top-1 of all members' mean on the validation images, in percent."""
    subnets = tuple(_subnet(made, ticket) for ticket in made.tickets)
    images = made.data.validation
    found = member_probabilities(Ensemble(subnets, described), images)
    return quality(found.mean(0), images.labels).top1
