"""``ofa-deploy export``: subnets as files that run, checked before they leave."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._legend import EXPORTED
from ofa_deploy.cli._options import FormatOption, QuietOption
from ofa_deploy.cli._output import (
    OutputFormat,
    all_or_nothing,
    emit,
    next_steps,
    progress,
    quoted,
    say,
    wrote,
)
from ofa_deploy.cli._weights import (
    DataOption,
    ResolutionsOption,
    SpaceOption,
    WeightsOption,
    adopt_weights,
)

if TYPE_CHECKING:
    from ofa_deploy.export import ExportJob, Manifest
    from ofa_deploy.runtimes.trt.settings import EngineSettings
    from ofa_deploy.space import Arch
    from ofa_deploy.terminal import Progress

__all__ = ["export"]


@all_or_nothing
def export(
    out: Annotated[
        Path, typer.Option(help="Folder of the bundle; of several subnets, one in it for each.")
    ],
    subnets: Annotated[
        list[Path] | None,
        typer.Argument(
            help="NAME.subnet.json, as search writes it, or NAME.ensemble.json, as specialize "
            "does; one or more.",
            metavar="SUBNET",
        ),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(help="Instead of a subnet file: largest, smallest, or a network's JSON file."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="With --arch: a training run, or a folder to make of --weights."),
    ] = None,
    weights: WeightsOption = None,
    space: SpaceOption = None,
    data: DataOption = None,
    resolutions: ResolutionsOption = None,
    target: Annotated[
        str,
        typer.Option(
            help="What to export to, by commas: onnx, onnx-fp16, ort-int8, openvino, "
            "openvino-fp16, openvino-int8, torch-export, tensorrt, tensorrt-fp16, tensorrt-int8, "
            "tensorrt-rtx, tensorrt-rtx-fp16, tensorrt-rtx-int8."
        ),
    ] = "onnx",
    preprocessing: Annotated[
        str,
        typer.Option(
            help="What the files do themselves: none; normalise (they take uint8 pixels of their "
            "size); resize (of any size). TensorRT's and torch-export's never do."
        ),
    ] = "none",
    batch: Annotated[
        int | None, typer.Option(help="A fixed batch size; any when not given.")
    ] = None,
    int8_for: Annotated[
        str,
        typer.Option(
            help="Processor whose 8-bit arithmetic INT8 suits: here, x86, x86-vnni, arm. For "
            "another kind than this machine's, speed is not judged here."
        ),
    ] = "here",
    calibration_images: Annotated[
        int, typer.Option(help="Training images that INT8 learns its ranges from.")
    ] = 256,
    sensitivity: Annotated[
        bool, typer.Option(help="Find blocks that INT8 should leave in float32.")
    ] = True,
    allowed_loss: Annotated[
        float, typer.Option(help="Points of top-1 that a file may lose before it is marked.")
    ] = 1.0,
    test_images: Annotated[
        int | None, typer.Option(help="Compare on so many test images at most.")
    ] = None,
    measure: Annotated[bool, typer.Option(help="Time the files that run here, in turns.")] = True,
    threads: Annotated[int, typer.Option(help="Threads of each timed inference.")] = 1,
    compute_capabilities: Annotated[
        str | None, typer.Option(help="Of GPUs, for tensorrt-rtx, such as 8.6,8.9,12.0.")
    ] = None,
    engine_batches: Annotated[
        str | None,
        typer.Option(
            help="Least, best and greatest batch of TensorRT engines, such as 1,1,32; the least "
            "is 1 unless --batch is fixed."
        ),
    ] = None,
    hardware: Annotated[
        str,
        typer.Option(help="GPUs that run a TensorRT engine: none, ampere+, sameComputeCapability."),
    ] = "none",
    version_compatible: Annotated[
        bool, typer.Option(help="Let later TensorRT run the engine.")
    ] = False,
    timing_cache: Annotated[
        Path | None, typer.Option(help="File that keeps what TensorRT timed.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that build several subnets.")] = 1,
    force: Annotated[
        bool, typer.Option(help="Export a subnet whose BN was never recalibrated.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
    output: FormatOption = OutputFormat.table,
    quiet: QuietOption = False,
) -> None:
    """Export subnets as checked bundles.

    A folder with the files, a manifest (hashes, labels, preprocessing, provenance, what was
    checked) and a model card. Each file that can run here is compared with the PyTorch subnet on
    the test set, logits and top-1, and timed in turns with ONNX Runtime in float32. A bundle
    appears whole or not at all; INT8 that is too slow or loses too much is marked.

    Without a search, name a network: --run RUN --arch FILE, where FILE holds an arch or a config
    as once-for-all writes it ({"ks": [...], "e": [...], "d": [...], "r": 224}). Published weights
    come with --weights FILE --space NAME --data DIR. The subnet is recalibrated and kept in
    RUN/subnets under FILE's name, where another network is never overwritten.
    """
    from ofa_deploy.cli._workspace import subnets_data
    from ofa_deploy.errors import InputError
    from ofa_deploy.export import ExportOptions, check_out, check_targets, export_many, get_target

    names = tuple(name.strip() for name in target.split(","))
    for name in names:
        get_target(name)
    if (not subnets) == (arch is None) or (arch is None) != (run is None):
        raise InputError("expected either a SUBNET file, or --run RUN with --arch FILE")
    if subnets and any((weights, space, resolutions)):
        raise InputError(
            "a SUBNET file has its weights and space: --weights, --space and --resolutions go with "
            "--run and --arch; leave them out"
        )
    options = ExportOptions(
        targets=names,
        batch=batch,
        preprocessing=preprocessing,
        processor=int8_for,
        calibration_images=calibration_images,
        sensitivity=sensitivity,
        allowed_loss=allowed_loss,
        test_images=test_images,
        measure=measure,
        threads=threads,
        force=force,
        engine=_engine(engine_batches, hardware, version_compatible),
        capabilities=_split(compute_capabilities),
        timing_cache=timing_cache,
    )
    for path in subnets or []:
        if not path.exists():  # before engines are looked for, which takes seconds
            raise InputError(f"{path}: no such file or folder")
    if subnets:
        _jobs(subnets, out, overwrite=overwrite)  # whether its folders are free
    else:
        check_out(out, overwrite=overwrite)
    check_targets(options)
    bars = progress(quiet)
    if run is not None and arch is not None:
        adopt_weights(weights, space, data, resolutions, run, bars)
        subnets = [_cut(run, arch, bars, data, quiet=quiet)]
    assert subnets
    planned = _jobs(subnets, out, overwrite=overwrite)
    images = subnets_data(subnets, data, bars)
    manifests = export_many(
        planned,
        images.test,
        calibration=images.calibration(2 * calibration_images),
        options=options,
        overwrite=overwrite,
        workers=jobs,
        progress=bars,
    )
    _report(planned, manifests, output, quiet=quiet)
    first = planned[0].out
    next_steps(
        f"ofa-deploy show {quoted(subnets[0])}",
        f"ofa-deploy bench {quoted(first)}",
        f"ofa-deploy run {quoted(first)} IMAGE",
        quiet=quiet,
    )


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


def _engine(batches: str | None, hardware: str, version_compatible: bool) -> "EngineSettings":
    from ofa_deploy.errors import InputError
    from ofa_deploy.runtimes.trt.settings import EngineSettings

    settings = EngineSettings(hardware=hardware, version_compatible=version_compatible)
    if batches is None:
        return settings
    try:
        least, best, greatest = map(int, batches.split(","))
    except ValueError:
        raise InputError(
            f"--engine-batches: expected three numbers such as 1,1,32, found {batches!r}"
        ) from None
    return EngineSettings(
        batches=(least, best, greatest), hardware=hardware, version_compatible=version_compatible
    )


def _jobs(subnets: Sequence[Path], out: Path, *, overwrite: bool) -> "list[ExportJob]":
    """A folder a subnet: ``out`` itself if there is one, else one in it by the subnet's name."""
    from ofa_deploy.errors import InputError
    from ofa_deploy.export import ExportJob, check_out

    if len(subnets) == 1:
        planned = [ExportJob(subnets[0], out)]
    else:
        names = [re.sub(r"\.(subnet|ensemble)\.json$", "", path.name) for path in subnets]
        if len(set(names)) < len(names):
            raise InputError(f"expected subnets of different names, found {', '.join(names)}")
        planned = [ExportJob(path, out / name) for path, name in zip(subnets, names, strict=True)]
    for job in planned:
        check_out(job.out, overwrite=overwrite)
    return planned


def _report(
    planned: "Sequence[ExportJob]",
    manifests: "Sequence[Manifest]",
    output: OutputFormat,
    *,
    quiet: bool,
) -> None:
    rows: list[dict[str, object]] = []
    for job, manifest in zip(planned, manifests, strict=True):
        for name, each in manifest.targets.items():
            accuracy, latency = each.accuracy, each.latency
            rows.append(
                {
                    "bundle": job.out.name,
                    "target": name,
                    "bytes": each.bytes,
                    "top1": accuracy.top1 if accuracy else None,
                    "loss": accuracy.loss if accuracy else None,
                    "sqnr_db": accuracy.sqnr_db if accuracy else None,
                    "ms": latency.ms if latency else None,
                    "vs_onnx": latency.ratio if latency else None,
                    "status": "best" if name == manifest.best else each.status,
                }
            )
    emit(rows, output, meanings=EXPORTED)
    for job, manifest in zip(planned, manifests, strict=True):
        for name, each in manifest.targets.items():
            for reason in each.reasons:
                say(f"{job.out.name}, {name}: {each.status}: {reason}", quiet=quiet)
        wrote(job.out, quiet=quiet)


def _cut(run: Path, arch: str, bars: "Progress", data: str | None, *, quiet: bool) -> Path:
    """Recalibrate and evaluate a network of a run, and keep it as a subnet file.

    One that is kept under that name already is taken as it is, with what a search found out.

    Raises:
        InputError: if another network has that name in the run.
    """
    from ofa_deploy.cli._workspace import load_evaluator
    from ofa_deploy.files import exclusive
    from ofa_deploy.pareto import Candidate
    from ofa_deploy.space import read_arch
    from ofa_deploy.supernet import save_subnet
    from ofa_deploy.train import RunFile

    RunFile.load(run)  # before the lock, which would make the folder
    with exclusive(run):
        evaluator = load_evaluator(run, bars, data=data)
        chosen = read_arch(evaluator.record.search_space, arch)
        stem = run / "subnets" / Path(arch).stem
        path = stem.with_name(f"{stem.name}.subnet.json")
        if _is_kept(path, chosen, evaluator.record.weights_sha256):
            say(f"{path}: that network, taken as it is", quiet=quiet)
            return path
        (top1,) = evaluator.validate([chosen], progress=bars)
        record = evaluator.subnet_record(Candidate(chosen, measured={"top1": top1}).to_dict())
        wrote(save_subnet(stem, evaluator.cut(chosen), record), quiet=quiet)
        return path


def _is_kept(path: Path, arch: "Arch", supernet_sha256: str | None) -> bool:
    """Whether that file is this network of this supernet already.

    Raises:
        InputError: if it is another.
    """
    from ofa_deploy.errors import InputError
    from ofa_deploy.files import read_model
    from ofa_deploy.supernet import SubnetFile

    if not path.exists():
        return False
    record = read_model(path, SubnetFile, schema="subnet/1")
    if (record.network.arch, record.supernet_sha256) != (arch, supernet_sha256):
        raise InputError(
            f"{path}: is another network ({record.network.arch}), which would be lost; rename the "
            f"file that --arch names, or move {path.name} away with its weights"
        )
    return True
