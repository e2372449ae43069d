"""``ofa-deploy show``: what a subnet is made of, on the terminal and as a drawing."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa_deploy.cli._candidates import refuse_folder
from ofa_deploy.cli._options import FormatOption, QuietOption
from ofa_deploy.cli._output import OutputFormat, emit, guarded, say, show_table, wrote
from ofa_deploy.cli._outputs import check_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ofa_deploy.report import BlockShare
    from ofa_deploy.supernet import SubnetFile

__all__ = ["show"]

_BAR = 16  # characters of the largest share
_EIGHTHS = " ▏▎▍▌▋▊▉"


@guarded
def show(
    subnet: Annotated[
        Path,
        typer.Argument(
            help="NAME.subnet.json, as search writes it, or NAME.ensemble.json, as specialize does."
        ),
    ],
    table: Annotated[
        Path | None,
        typer.Option(help="Latency table, for each block's time; without one, shares are of MACs."),
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Drawing of the network to write.")] = None,
    output: FormatOption = OutputFormat.table,
    quiet: QuietOption = False,
) -> None:
    """Show a subnet block by block, and where the time goes; of an ensemble one member."""
    from ofa_deploy.files import write_text
    from ofa_deploy.hardware import find_table
    from ofa_deploy.report import network_svg, shares
    from ofa_deploy.terminal import metric

    check_outputs({"SVG": svg})
    refuse_folder(subnet, "subnets", "subnets", ".subnet.json", ".ensemble.json")
    record, members = _read(subnet)
    space, network = record.search_space, record.network
    profiled = find_table(str(table)) if table is not None else None
    blocks = shares(space, network.arch, profiled)
    each = f"{members} members, each " if members > 1 else ""
    title = f"{subnet.name}: {each}{network.arch}"
    if output is OutputFormat.table:
        _draw(blocks, title)
    else:
        emit([_row(block) for block in blocks], output)
    for how, values in (("predicted", network.predicted), ("measured", network.measured)):
        if values:
            told = ", ".join(f"{name} {metric(name, value)}" for name, value in values.items())
            say(f"{how}: {told}", quiet=quiet)
    if svg is not None:
        wrote(write_text(svg, network_svg(space, blocks, title=title)), quiet=quiet)


def _row(each: "BlockShare") -> dict[str, Any]:
    block = each.block
    row: dict[str, Any] = {
        "place": each.place,
        "block": block.key,
        "macs": block.macs,
        "params": block.params,
    }
    return row if each.ms is None else row | {"ms": each.ms, "share": f"{each.share:.0%}"}


def _draw(blocks: "Sequence[BlockShare]", title: str) -> None:
    """A table by stage, with a bar for each block's share."""
    from ofa_deploy.report.network import expand_of, kernel_of, stage_of
    from ofa_deploy.terminal import KEPT, TextTable, count, milliseconds

    timed = blocks[0].ms is not None
    share = "Share of latency" if timed else "Share of MACs"
    numbers = ("Channels", "MACs", *(["ms"] if timed else []))
    headers = ("Stage", "Kind", "Kernel", "Expand", *numbers, share)
    rows = []
    greatest = max(each.share for each in blocks)
    for index, each in enumerate(blocks):
        block, stage = each.block, stage_of(each.place)
        again = index > 0 and stage == stage_of(blocks[index - 1].place)
        mid = f"-{block.mid_channels}" if block.mid_channels else ""
        cells = (
            "" if again else stage,
            f"{block.kind} SE" if block.se else block.kind,
            kernel_of(block),
            expand_of(block),
            f"{block.in_channels}{mid}-{block.out_channels}",
            count(block.macs),
            *([milliseconds(each.ms)] if timed else []),
            f"{100 * each.share:4.1f} % {_bar(each.share / greatest)}".replace(" ", KEPT),
        )
        rows.append(cells)
    show_table(
        TextTable(
            title,
            headers,
            numeric=tuple(name in numbers for name in headers),
            rows=tuple(rows),
            spare=("Expand",),
        )
    )


def _bar(share: float) -> str:
    """A bar of eighths of a character; at least one, so that no block seems to be missing."""
    eighths = max(1, round(share * _BAR * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _read(path: Path) -> "tuple[SubnetFile, int]":
    """What a subnet file says, or what the members of an ensemble have in common; their number."""
    from ofa_deploy.files import read_model
    from ofa_deploy.supernet import SubnetFile, load_ensemble

    if not path.name.endswith(".ensemble.json"):
        return read_model(path, SubnetFile, schema="subnet/1"), 1
    ensemble = load_ensemble(path)
    return ensemble.record, len(ensemble.subnets)
