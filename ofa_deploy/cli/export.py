"""``ofa-deploy export``: a subnet as files that run, checked before they leave."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._output import QuietOption, guarded, next_steps, progress, say, wrote
from ofa_deploy.cli._weights import (
    DataOption,
    ResolutionsOption,
    SpaceOption,
    WeightsOption,
    adopt_weights,
)

if TYPE_CHECKING:
    from ofa_deploy._progress import Progress

__all__ = ["export"]


@guarded
def export(
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    subnet: Annotated[
        Path | None, typer.Argument(help="NAME.subnet.json, as search writes it.")
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
    target: Annotated[str, typer.Option(help="What to export to: onnx.")] = "onnx",
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Export a subnet as a checked ONNX bundle.

    A folder with the model and a manifest: hashes, labels, preprocessing, provenance. The
    bundle is written only if the model gives the PyTorch subnet's logits (to 1e-4) and the same
    top-1 on the test set.

    Without a search, name a network: --run RUN --arch FILE, where FILE holds an arch or a config
    as once-for-all writes it ({"ks": [...], "e": [...], "d": [...], "r": 224}). Published weights
    come with --weights FILE --space NAME --data DIR. The subnet is recalibrated and kept in
    RUN/subnets.
    """
    from ofa_deploy.cli._workspace import run_data
    from ofa_deploy.data import full_name
    from ofa_deploy.errors import InputError, MismatchError, UnknownNameError
    from ofa_deploy.export import check_out, export_subnet
    from ofa_deploy.supernet import load_subnet

    if target != "onnx":
        raise UnknownNameError("target", target, ["onnx"])
    if (subnet is None) == (arch is None) or (arch is None) != (run is None):
        raise InputError("expected either a SUBNET file, or --run RUN with --arch FILE")
    check_out(out, overwrite=overwrite)
    bars = progress(quiet)
    if run is not None and arch is not None:
        adopt_weights(weights, space, data, resolutions, run, bars)
        subnet = _cut(run, arch, bars, data)
        wrote(subnet, quiet=quiet)
    assert subnet is not None
    _, record = load_subnet(subnet)
    name = record.data if data is None else full_name(data)
    images = run_data(name, record.data_options, record.search_space, bars)
    if images.digest != record.data_digest:
        raise MismatchError(
            f"{subnet}: made with {record.data} as it was ({record.data_digest}); the images of "
            f"{name} are others ({images.digest})"
        )
    manifest = export_subnet(subnet, out, images.test, overwrite=overwrite)
    gate = manifest.gate
    say(
        f"checked on {gate.images:,} test images: top-1 {gate.top1:.2f} % (PyTorch "
        f"{gate.subnet_top1:.2f} %), logits within {gate.max_difference:.1e}",
        quiet=quiet,
    )
    wrote(out, quiet=quiet)
    next_steps(f"ofa-deploy show {subnet}", quiet=quiet)


def _cut(run: Path, arch: str, bars: "Progress", data: str | None) -> Path:
    """Recalibrate and evaluate a network of a run, and keep it as a subnet file."""
    from ofa_deploy._files import exclusive
    from ofa_deploy.cli._workspace import load_evaluator
    from ofa_deploy.pareto import Candidate
    from ofa_deploy.space import read_arch
    from ofa_deploy.supernet import save_subnet
    from ofa_deploy.train import RunFile

    RunFile.load(run)  # before the lock, which would make the folder
    with exclusive(run):
        evaluator = load_evaluator(run, bars, data=data)
        chosen = read_arch(evaluator.record.search_space, arch)
        (top1,) = evaluator.validate([chosen], progress=bars)
        record = evaluator.subnet_record(Candidate(chosen, measured={"top1": top1}).to_dict())
        return save_subnet(run / "subnets" / Path(arch).stem, evaluator.cut(chosen), record)
