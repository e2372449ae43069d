"""A bundle but for its timings: the files of its targets, checked against the PyTorch subnet.

This much can be done for many subnets at once; what is timed must have the machine to itself.
"""

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from ofa_deploy import __version__
from ofa_deploy.data import MEAN, STD, Images, in_proportion
from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.export.classify import run_in_batches
from ofa_deploy.export.gate import (
    Checked,
    compare,
    prepared,
    refuse_wrong,
    tolerance,
)
from ofa_deploy.export.manifest import Accuracy, Manifest, Preprocessing, TargetRecord
from ofa_deploy.export.options import ExportOptions
from ofa_deploy.export.probe import PROBE, Probe, probe_images
from ofa_deploy.export.source import Source
from ofa_deploy.export.target import Built, Target
from ofa_deploy.export.targets import get_target
from ofa_deploy.export.timing import REFERENCE, TimedFile
from ofa_deploy.files import sha256_file, write_bytes
from ofa_deploy.hardware import has_vnni, processor_name
from ofa_deploy.supernet import SubnetFile, load_members
from ofa_deploy.terminal import SILENT, Progress, Task

__all__ = ["Draft", "draft"]

_LIKE = 256  # training images that tell how bright the probe's are


@dataclass(frozen=True)
class Draft:
    """A manifest without timings, and what is to be timed.

    Attributes:
        artefacts: target to what its engine loads, of those whose speed here counts; float twins
            too, asked for or not.
    """

    manifest: Manifest
    artefacts: Mapping[str, Path]
    batch: int | None
    preprocessing: str
    resolution: int

    def timed(self, side: int) -> dict[str, TimedFile]:
        """The files to time.

        Args:
            side: height and width of the images that files of free size are fed.
        """
        files = {}
        for name, path in self.artefacts.items():
            takes = get_target(name).input(
                self.resolution, batch=self.batch, preprocessing=self.preprocessing
            )
            files[name] = TimedFile.of(name, path, takes, side=side)
        return files


def draft(
    path: Path,
    stage: Path,
    test: Images,
    calibration: Images | None,
    options: ExportOptions,
    progress: Progress = SILENT,
) -> Draft:
    """Build and check all targets of one subnet.

    Args:
        path: ``NAME.subnet.json`` or ``NAME.ensemble.json``.
        stage: a folder with ``bundle`` and ``work``, to write to.

    Raises:
        InputError, MissingDependencyError, GateError: as ``export_subnet``.
    """
    ensemble = load_members(path)
    _check(path, ensemble.record, test, options)
    if options.test_images is not None:
        test = in_proportion(test, options.test_images)
    source = Source(ensemble, options, calibration, progress)
    records, sessions, artefacts = _build(source, stage)
    top1 = None
    if sessions:
        found = compare(sessions, source.subnet, source.resolution, test, progress)
        for name, accuracy in found.items():
            refuse_wrong(name, records[name].precision, accuracy)
            records[name] = records[name].model_copy(update={"accuracy": accuracy})
        top1 = _subnet_top1(found)
    folder = stage / "bundle"
    write_bytes(folder / PROBE, _probe(source, sessions).to_bytes())
    return Draft(
        _manifest(source, records, folder, top1),
        artefacts if options.measure else {},
        options.batch,
        options.preprocessing,
        source.resolution,
    )


def _check(path: Path, record: SubnetFile, test: Images, options: ExportOptions) -> None:
    if not record.calibration and not options.force:
        raise InputError(
            f"{path}: its BN was never recalibrated; cut it with ofa-deploy search, or pass --force"
        )
    if test.classes != record.classes:
        raise MismatchError(
            f"{path}: a subnet of {len(record.classes)} classes, test images of "
            f"{len(test.classes)} others; take those that it was trained on"
        )


def _build(
    source: Source, stage: Path
) -> tuple[dict[str, TargetRecord], dict[str, Checked], dict[str, Path]]:
    """Records without accuracies, sessions of what runs here, and what is to be timed."""
    options = source.options
    records: dict[str, TargetRecord] = {}
    sessions: dict[str, Checked] = {}
    artefacts: dict[str, Path] = {}
    with source.progress.task("build", len(options.targets)) as task:
        for name in options.targets:
            task.advance(0, note=name)
            target = get_target(name)
            records[name], built = _target(source, target, stage / "bundle")
            task.advance(note=name)
            if built.artefact is None:
                continue
            preprocessing = records[name].input.preprocessing
            sessions[name] = Checked(
                target.load(built.artefact, threads=torch.get_num_threads()),
                preprocessing,
                options.batch,
                tolerance(target.precision, preprocessing),
            )
            if target.timed and not target.built_for(options):
                artefacts[name] = _keep(stage, name, built.artefact)
        if options.measure and artefacts:
            _add_twins(source, stage, artefacts, task)
    return records, sessions, artefacts


def _target(source: Source, target: Target, folder: Path) -> tuple[TargetRecord, Built]:
    """Build one into ``folder``."""
    options = source.options
    started = time.perf_counter()
    built = target.build(source, folder)
    record = TargetRecord(
        runtime=target.runtime,
        runtime_version=target.versions().get(target.runtime),
        precision=target.precision,
        files=built.files,
        bytes=sum((folder / file).stat().st_size for file in built.files),
        build_s=time.perf_counter() - started,
        input=target.input(
            source.resolution, batch=options.batch, preprocessing=options.preprocessing
        ),
        settings=dict(built.settings),
        reasons=_unseen(target, built, options),
    )
    return record, built


def _unseen(target: Target, built: Built, options: ExportOptions) -> tuple[str, ...]:
    """What the gate will not see of a file on this machine, and why."""
    if built.why_not:
        return (built.why_not,)
    elsewhere = target.built_for(options)
    if elsewhere and options.measure:
        return (f"speed not verified here: built for {elsewhere}",)
    return ()


def _keep(stage: Path, name: str, artefact: bytes) -> Path:
    return write_bytes(stage / "work" / f"{name}.artefact", artefact)


def _add_twins(source: Source, stage: Path, artefacts: dict[str, Path], task: Task) -> None:
    """Build what files are timed against, where it was not asked for itself."""
    twins = {get_target(name).twin for name in artefacts} - {""}
    folder = stage / "work" / "twins"
    for name in sorted({REFERENCE, *twins} - artefacts.keys()):
        folder.mkdir(exist_ok=True)
        task.advance(0, note=f"{name}, to compare with")
        built = get_target(name).build(source, folder)
        assert built.artefact is not None, "what runs here has a twin that runs here"
        artefacts[name] = _keep(stage, name, built.artefact)


def _subnet_top1(found: Mapping[str, Accuracy]) -> float:
    """The subnet's own; of files that take pixels as they come or rounded, that of the first."""
    return next(iter(found.values())).subnet_top1


def _probe(source: Source, sessions: Mapping[str, Checked]) -> Probe:
    seen = source.calibration
    like = None if seen is None else seen.batch(np.arange(min(_LIKE, len(seen))))
    pixels = probe_images(source.resolution, like=like)
    with torch.no_grad():
        images = torch.from_numpy(prepared(pixels, "none", source.resolution))
        expected = np.asarray(source.subnet(images).numpy(), np.float32)
    found = {
        name: run_in_batches(
            file.session, prepared(pixels, file.preprocessing, source.resolution), file.batch
        )
        for name, file in sessions.items()
    }
    return Probe(pixels, expected, found)


def _manifest(
    source: Source, records: dict[str, TargetRecord], folder: Path, top1: float | None
) -> Manifest:
    record, options = source.record, source.options
    names = sorted(file.name for file in folder.iterdir())
    versions = {name: version(name) for name in ("numpy", "onnx", "onnxruntime", "torch")}
    for name in records:
        versions |= get_target(name).versions()
    candidate = dict(record.candidate)
    if top1 is not None:  # only ever reported, never chosen by
        candidate["measured"] = {**candidate["measured"], "test_top1": top1}
    return Manifest(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"ofa_deploy": __version__, "python": platform.python_version(), **versions},
        machine={
            "processor": processor_name(),
            "architecture": platform.machine(),
            "system": platform.system(),
            "vnni": has_vnni(),
        },
        files={name: sha256_file(folder / name) for name in names},
        space=record.space,
        subnet=candidate,
        supernet_sha256=record.supernet_sha256,
        weights_sha256=source.ensemble.weights_sha256,
        members=len(source.ensemble.subnets),
        output=source.graph.graph.output[0].name,
        bn_images=record.calibration,
        data=Path(record.data).name,  # where it lay is nobody's business
        data_options=record.data_options,
        data_digest=record.data_digest,
        labels=record.classes,
        preprocessing=Preprocessing(
            size=source.resolution, mean=MEAN, std=STD, inside=options.preprocessing
        ),
        opset=source.graph.opset_import[0].version,
        allowed_loss=options.allowed_loss,
        targets=records,
    )
