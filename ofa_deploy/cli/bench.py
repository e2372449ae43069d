"""``ofa-deploy bench``: how fast a bundle is on this machine, alone and as deployed."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._legend import BENCHED
from ofa_deploy.cli._options import FormatOption, QuietOption
from ofa_deploy.cli._output import (
    OutputFormat,
    emit,
    guarded,
    next_steps,
    progress,
    quoted,
    say,
)
from ofa_deploy.terminal import duration

if TYPE_CHECKING:
    from ofa_deploy.export import Timed

__all__ = ["bench"]


@guarded
def bench(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder, as export writes it.")],
    target: Annotated[
        str | None, typer.Option(help="Targets, by commas; default: all that run here.")
    ] = None,
    batches: Annotated[str, typer.Option(help="Images an inference, by commas.")] = "1,4,16",
    threads: Annotated[str, typer.Option(help="Threads of each inference, by commas.")] = "1",
    load: Annotated[
        int,
        typer.Option(
            help="Busy processes beside; each adds to 8 MiB of numbers over and over.",
        ),
    ] = 0,
    image_size: Annotated[
        str, typer.Option(help="Width and height of the decoded images of the deployed rows.")
    ] = "500x375",
    minutes: Annotated[
        float,
        typer.Option(
            help="About how long to measure, but six rounds at least; steadier if longer."
        ),
    ] = 1.0,
    processes: Annotated[
        int, typer.Option(help="Independent processes, one after another, a number of threads.")
    ] = 4,
    output: FormatOption = OutputFormat.table,
    quiet: QuietOption = False,
) -> None:
    """Time a bundle's files on this machine.

    Each is timed alone and as deployed: from decoded images to their most likely classes, Pillow
    and numpy around the file. All are timed in turns with one of them, alone (onnx, if it is
    there), in several processes. ratio: to that. ms: the ratio times its 10th percentile; without
    --load the latency of an idle machine. p50, p90 and p99 are of the plain timings, in ms, and
    images/s is at p50. With one thread the process is pinned to the last of the fastest cores; the
    processes of --load are not.
    """
    from ofa_deploy.export import BenchOptions, Bundle, bench_bundle
    from ofa_deploy.hardware import processor_name

    opened = Bundle.read(bundle)
    width, height = _numbers("--image-size", image_size, "x", count=2)
    options = BenchOptions(
        targets=tuple(name.strip() for name in target.split(",")) if target else (),
        batches=_numbers("--batches", batches, ","),
        threads=_numbers("--threads", threads, ","),
        load=load,
        image=(height, width),
        minutes=minutes,
        processes=processes,
    )
    say(f"timing takes about {duration(60 * minutes)} (--minutes)", quiet=quiet)
    found = bench_bundle(opened, options, progress=progress(quiet))
    rows = [_row(row, load) for row in found.rows]
    if output is OutputFormat.table:  # which has no room for what is said below
        rows = [{k: v for k, v in row.items() if k not in ("load", "spread")} for row in rows]
    emit(rows, output, meanings=BENCHED)
    for name, reason in found.left_out.items():
        say(f"{name}: not timed here: {reason}", quiet=quiet)
    beside = f", beside {load} busy processes" if load else ""
    say(
        f"{processor_name()}{beside}; other programs used {found.other_load:.0%} of it; in turns "
        f"with {found.reference}; deployed: from images of {width}x{height} pixels",
        quiet=quiet,
    )
    if (best := found.fastest(opened)) is not None:
        say(
            f"fastest here at the smallest batch, of those that passed the gate: {best}",
            quiet=quiet,
        )
        next_steps(f"ofa-deploy run {quoted(bundle)} --target {best} IMAGE", quiet=quiet)


def _row(row: "Timed", load: int) -> dict[str, object]:
    latency = row.latency
    times = {name: float(f"{getattr(latency, name):.5g}") for name in ("ms", "p50", "p90", "p99")}
    return {
        "target": row.target,
        "timed": row.kind,
        "batch": latency.batch,
        "threads": latency.threads,
        "load": load,
        **times,
        "images/s": float(f"{row.images_per_s:.5g}"),
        "ratio": round(latency.ratio, 4),
        "spread": round(latency.spread, 4),
    }


def _numbers(option: str, text: str, between: str, *, count: int | None = None) -> tuple[int, ...]:
    from ofa_deploy.errors import InputError

    parts = [part.strip() for part in text.split(between)]
    if not all(re.fullmatch(r"\d{1,6}", part, re.ASCII) for part in parts) or (
        count is not None and len(parts) != count
    ):
        example = "500x375" if count else "1,4,16"
        raise InputError(f"{option}: expected numbers such as {example}, found {text!r}")
    return tuple(map(int, parts))
