"""``ofa-deploy export``: a subnet as files that run, checked before they leave."""

from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.cli._output import QuietOption, guarded, next_steps, progress, say, wrote

__all__ = ["export"]


@guarded
def export(
    subnet: Annotated[Path, typer.Argument(help="NAME.subnet.json, as search writes it.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    target: Annotated[str, typer.Option(help="What to export to: onnx.")] = "onnx",
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Export a subnet as a checked ONNX bundle.

    A folder with the model and a manifest: hashes, labels, preprocessing, provenance. The
    bundle is written only if the model gives the PyTorch subnet's logits (to 1e-4) and the same
    top-1 on the test set.
    """
    from ofa_deploy.cli._workspace import run_data
    from ofa_deploy.errors import MismatchError, UnknownNameError
    from ofa_deploy.export import check_out, export_subnet
    from ofa_deploy.supernet import load_subnet

    if target != "onnx":
        raise UnknownNameError("target", target, ["onnx"])
    check_out(out, overwrite=overwrite)
    _, record = load_subnet(subnet)
    data = run_data(record.data, record.data_options, record.search_space, progress(quiet))
    if data.digest != record.data_digest:
        raise MismatchError(
            f"{subnet}: made with {record.data} as it was ({record.data_digest}); its images have "
            f"changed since ({data.digest})"
        )
    manifest = export_subnet(subnet, out, data.test, overwrite=overwrite)
    gate = manifest.gate
    say(
        f"checked on {gate.images:,} test images: top-1 {gate.top1:.2f} % (PyTorch "
        f"{gate.subnet_top1:.2f} %), logits within {gate.max_difference:.1e}",
        quiet=quiet,
    )
    wrote(out, quiet=quiet)
    next_steps(f"ofa-deploy show {subnet}", quiet=quiet)
