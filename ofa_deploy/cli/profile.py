"""``ofa-deploy profile``: from a space and a device to a latency table."""

from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.cli._options import (
    ClassesOption,
    QuietOption,
    ResolutionsOption,
    SpaceOption,
    SpaceRunOption,
)
from ofa_deploy.cli._output import next_steps, progress, quoted, resumable, say, wrote

__all__ = ["profile"]


@resumable
def profile(
    space: SpaceOption = None,
    run: SpaceRunOption = None,
    classes: ClassesOption = None,
    resolutions: ResolutionsOption = None,
    device: Annotated[
        str, typer.Option(help="As ofa-deploy devices lists them, or ssh://[user@]host[:port].")
    ] = "local",
    runtime: Annotated[str, typer.Option(help="onnxruntime or openvino.")] = "onnxruntime",
    precision: Annotated[str, typer.Option(help="fp32 or int8.")] = "fp32",
    batch: Annotated[int, typer.Option(min=1, help="Images an inference.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads an inference.")] = 1,
    minutes: Annotated[
        float,
        typer.Option(min=0.1, max=1e4, help="About how long to measure; steadier if longer."),
    ] = 5.0,
    calibration: Annotated[
        int, typer.Option(min=4, max=1000, help="Whole networks that correct the sum of blocks.")
    ] = 24,
    holdout: Annotated[
        int,
        typer.Option(
            min=2, max=1000, help="Random networks that judge it; from 9 on for a 90 % interval."
        ),
    ] = 24,
    out: Annotated[Path | None, typer.Option(help="File to write.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="For drawing whole networks.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Measure every block of a space into a latency table.

    For example: ofa-deploy profile --space ofa-mbv3-w1.0 --resolutions 160,192,224

    Blocks and a few whole networks are timed in turns with a reference network, in several
    processes. The whole networks correct the sum of blocks and tell how far it can be trusted;
    that error is printed, and again whenever the table is used. Interrupt it whenever you like:
    the same command goes on where it stopped, and so it does when a device is lost for a while.

    A device behind ssh:// needs Python 3.8 or later, numpy and ONNX Runtime or OpenVINO; nothing is
    installed there. Keys, jump hosts and host-key checks are your own OpenSSH's.
    """
    import shutil

    from ofa_deploy._files import exclusive
    from ofa_deploy.cli._workspace import chosen_space, load_warning, table_path
    from ofa_deploy.hardware import load_device
    from ofa_deploy.predict import latency_model
    from ofa_deploy.profiling import open_target, profile_space

    chosen = chosen_space(space, run, classes, resolutions)
    described = load_device(device)
    described.check_offers(runtime, precision)
    bars = progress(quiet)
    # One lock a device: two profiles at once would measure each other.
    folder = Path("latency_tables") / described.id
    work = folder / f".{chosen.fingerprint}"
    with exclusive(folder), open_target(described, progress=bars) as target:
        table = profile_space(
            chosen,
            described,
            target=target,
            runtime=runtime,
            precision=precision,
            batch=batch,
            threads=threads,
            minutes=minutes,
            calibration=calibration,
            holdout=holdout,
            seed=seed,
            journal=work,
            progress=bars,
        )
        path = table.save(table_path(table, out))
        shutil.rmtree(work)  # the journal of what the table now holds
    model = latency_model(chosen, table)
    least, greatest = model.bounds()
    say(f"latency reaches from {least:.3f} to {greatest:.3f} ms; {model.holdout}", quiet=quiet)
    if warning := load_warning(table):
        say(warning, quiet=quiet)
    wrote(path, quiet=quiet)
    asked = f"--constraint 'latency <= {(least + greatest) / 2:.2f} ms'"
    next_steps(
        f"ofa-deploy tables show {quoted(path)}",
        f"ofa-deploy search --run {quoted(run or 'RUN')} --table {quoted(path)} {asked}",
        quiet=quiet,
    )
