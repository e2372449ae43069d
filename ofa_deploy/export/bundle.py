"""From subnets to bundles that have proved themselves.

A bundle is a folder with the files of its targets, ``manifest.json`` (hashes, labels,
preprocessing, provenance, what was checked), ``probe.safetensors``, a model card and nothing else.
It is filled beside its place and moved there when every target has passed the gate: it appears
whole or not at all.
"""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ofa_deploy.data import Images
from ofa_deploy.errors import (
    InputError,
    OfaDeployError,
)
from ofa_deploy.export.card import CARD, model_card
from ofa_deploy.export.draft import Draft
from ofa_deploy.export.gate import choose_best, judge
from ofa_deploy.export.manifest import MANIFEST, Manifest, TargetRecord
from ofa_deploy.export.options import ExportOptions
from ofa_deploy.export.side_by_side import Shared, made_side_by_side
from ofa_deploy.export.targets import check_targets, get_target
from ofa_deploy.export.timing import time_files
from ofa_deploy.files import (
    abandoned,
    held_folder,
    make_folder,
    move_folder,
    read_json,
    sha256_file,
    write_model,
    write_text,
)
from ofa_deploy.terminal import SILENT, Progress

__all__ = ["ExportJob", "check_out", "export_many", "export_subnet"]

_SHOWN = 10  # names in a message
_STAGE, _PREVIOUS = ".stage", "previous"


@dataclass(frozen=True)
class ExportJob:
    """One subnet to export.

    Attributes:
        subnet: ``NAME.subnet.json``, or ``NAME.ensemble.json``.
        out: the bundle's folder.
    """

    subnet: Path
    out: Path


def check_out(out: Path, *, overwrite: bool) -> None:
    """See that a bundle may be written to ``out``.

    Raises:
        InputError: if something is there that may not be overwritten: all but a bundle, and a
            bundle with anything in it that its manifest does not name, such as an engine.
    """
    if not out.exists():
        if out.is_symlink():
            raise InputError(f"{out}: a link that leads nowhere; remove it, or name another folder")
        return
    if not overwrite:
        raise InputError(f"{out} exists; name another folder or pass --overwrite")
    others = _unnamed(out)
    if others is None:
        raise InputError(f"{out} is not a bundle and is not overwritten; name another folder")
    if others:
        raise InputError(
            f"{out} is not overwritten: its manifest does not name {_listed(others)}; move that "
            "away, or name another folder"
        )


def _unnamed(out: Path) -> list[str] | None:
    """What lies in a bundle, of any version, that its manifest does not name; None if it is none.

    Folders are never named: a bundle is flat.
    """
    try:
        manifest = read_json(out / MANIFEST)
    except InputError:
        return None
    schema, files = manifest.get("schema"), manifest.get("files")
    if not (isinstance(schema, str) and schema.startswith("bundle/") and isinstance(files, dict)):
        return None
    known = {MANIFEST, *files}
    return sorted(each.name for each in out.iterdir() if each.name not in known or each.is_dir())


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def export_subnet(
    path: Path,
    out: Path,
    test: Images,
    *,
    calibration: Images | None = None,
    options: ExportOptions | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Export ``NAME.subnet.json``, or ``NAME.ensemble.json``, as a bundle.

    Args:
        out: the bundle's folder; it appears whole or not at all.
        test: the images that the gate compares on.
        calibration: images of the training split, in an order of no meaning, for INT8. The
            sensitivity of blocks is measured on those beyond ``options.calibration_images``.

    Raises:
        InputError: if ``out`` exists, the subnet was never recalibrated, or INT8 lacks images.
        MissingDependencyError: if an engine that is needed to build is not installed.
        DeviceError: if an engine refuses a graph, or timing fails.
        GateError: if a file does not do what the subnet does.
    """
    job = ExportJob(path, out)
    (manifest,) = export_many(
        [job], test, calibration=calibration, options=options, overwrite=overwrite
    )
    return manifest


def export_many(
    jobs: Sequence[ExportJob],
    test: Images,
    *,
    calibration: Images | None = None,
    options: ExportOptions | None = None,
    overwrite: bool = False,
    workers: int = 1,
    progress: Progress = SILENT,
) -> list[Manifest]:
    """Export several subnets, building in parallel; then timing takes one after another.

    Args:
        test, calibration, options: as for ``export_subnet``; the same for all.
        workers: processes that build and check; this one alone if 1.
        progress: also told of each of several subnets that fails.

    Returns:
        A manifest a job, in their order.

    Raises:
        InputError: if two jobs have one folder.
        OfaDeployError: as ``export_subnet``, naming the subnet, once all others are done: their
            bundles stay, and are named.
    """
    options = options or ExportOptions()
    outs = [job.out.absolute() for job in jobs]
    if len(set(outs)) < len(outs):
        raise InputError("expected a folder a subnet, found one folder for several")
    for job in jobs:
        _tidy(job.out)
        check_out(job.out, overwrite=overwrite)
    check_targets(options)
    shared = Shared(test, calibration, options)
    manifests: dict[int, Manifest] = {}
    failed: dict[int, OfaDeployError] = {}
    with ExitStack() as stack:
        stages = [stack.enter_context(_stage(job.out)) for job in jobs]
        pairs = [(job.subnet, stage) for job, stage in zip(jobs, stages, strict=True)]
        drafts = made_side_by_side(pairs, shared, workers, progress)
        what = f"{len(jobs)} subnets" if len(jobs) > 1 else jobs[0].out.name
        task = stack.enter_context(progress.task(f"export {what}", len(jobs)))
        for index, made in drafts:
            try:
                if isinstance(made, OfaDeployError):
                    raise made
                manifests[index] = _finish(
                    made, stages[index], options, side=test.size, progress=progress
                )
                _move(stages[index], jobs[index].out, overwrite=overwrite)
            except OfaDeployError as error:
                failed[index] = error
                if len(jobs) > 1:
                    progress.say(f"{jobs[index].out.name}: not exported: {error}")
            task.advance(note=jobs[index].out.name)
    if failed:
        _raise(jobs, failed)
    return [manifests[index] for index in range(len(jobs))]


def _raise(jobs: Sequence[ExportJob], failed: Mapping[int, OfaDeployError]) -> NoReturn:
    """The first failure, of several subnets with which failed and which were exported."""
    first = min(failed)
    error = failed[first]
    if len(jobs) > 1:
        path = str(jobs[first].subnet)
        whose = "" if path in str(error) else f"{path}: "
        bad = _listed([jobs[index].out.name for index in sorted(failed)])
        good = _listed([job.out.name for index, job in enumerate(jobs) if index not in failed])
        error.args = (
            f"{whose}{error} ({len(failed)} of {len(jobs)} were not exported: {bad}; exported: "
            f"{good or 'none'})",
        )
    raise error


@contextmanager
def _stage(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` with ``bundle``, to be filled, and ``work``; gone afterwards."""
    make_folder(out.parent)
    with held_folder(out.parent, f".{out.name}.", _STAGE) as stage:
        for part in ("bundle", "work"):
            (stage / part).mkdir()
        try:
            yield stage
        finally:
            _restore(stage, out)


def _move(stage: Path, out: Path, *, overwrite: bool) -> None:
    if out.exists():
        check_out(out, overwrite=overwrite)  # building took a while
        out.replace(stage / _PREVIOUS)  # goes with the stage
    move_folder(stage / "bundle", out)


def _tidy(out: Path) -> None:
    """Remove stages of exports that were killed; a bundle that one had moved aside comes back."""
    if not out.parent.is_dir():
        return
    prefix = rf"\.{re.escape(out.name)}\."
    for stage in abandoned(out.parent, prefix, _STAGE, folders=True):
        _restore(stage, out)
        shutil.rmtree(stage, ignore_errors=True)


def _restore(stage: Path, out: Path) -> None:
    """What was moved aside comes back, if nothing took its place."""
    if (stage / _PREVIOUS).exists() and not out.exists():
        move_folder(stage / _PREVIOUS, out)


def _finish(
    made: Draft, stage: Path, options: ExportOptions, *, side: int, progress: Progress
) -> Manifest:
    """Time the files, judge them, and write the card and the manifest."""
    folder = stage / "bundle"
    files = made.timed(side)
    latencies = {}
    if files:
        twins = {name: twin for name in files if (twin := get_target(name).twin)}
        latencies = time_files(files, twins, threads=options.threads, progress=progress)
    records: dict[str, TargetRecord] = {}
    for name, record in made.manifest.targets.items():
        if record.accuracy is None:
            records[name] = record
            continue
        latency = latencies.get(name)
        status, reasons = judge(record.precision, record.accuracy, latency, options.allowed_loss)
        reasons = (*record.reasons, *reasons)
        changes = {"latency": latency, "status": status, "reasons": reasons}
        records[name] = record.model_copy(update=changes)
    manifest = made.manifest.model_copy(
        update={"targets": records, "best": choose_best(records)},
    )
    card = write_text(folder / CARD, model_card(manifest))
    manifest = manifest.model_copy(update={"files": manifest.files | {CARD: sha256_file(card)}})
    write_model(folder / MANIFEST, manifest)
    return manifest
