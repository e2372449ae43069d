"""``ofa-deploy show``: what a subnet is made of."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._options import FormatOption
from ofa_deploy.cli._output import OutputFormat, emit, guarded, say

if TYPE_CHECKING:
    from ofa_deploy.supernet import SubnetFile

__all__ = ["show"]


@guarded
def show(
    subnet: Annotated[
        Path,
        typer.Argument(
            help="NAME.subnet.json, as search writes it, or NAME.ensemble.json, as specialize does."
        ),
    ],
    table: Annotated[
        Path | None, typer.Option(help="Latency table, to add each block's share.")
    ] = None,
    output: FormatOption = OutputFormat.table,
) -> None:
    """Show a subnet block by block, and where the time goes; of an ensemble one member."""
    from ofa_deploy.hardware import find_table

    record, members = _read(subnet)
    space, network = record.search_space, record.network
    named = space.lower_named(network.arch)
    rows: list[dict[str, object]] = [
        {"place": place, "block": block.key, "macs": block.macs, "params": block.params}
        for place, block in named
    ]
    if table is not None:
        profiled = find_table(str(table))
        profiled.check_for(space)
        times = [profiled.value(block) for _, block in named]
        for row, ms in zip(rows, times, strict=True):
            row |= {"ms": ms, "share": f"{ms / sum(times):.0%}"}
    each = f"{members} members, each " if members > 1 else ""
    emit(rows, output, title=f"{subnet.name}: {each}{network.arch}")
    known = {**{f"{k} (predicted)": v for k, v in network.predicted.items()}, **network.measured}
    say(", ".join(f"{name} {value:.5g}" for name, value in known.items()))


def _read(path: Path) -> "tuple[SubnetFile, int]":
    """What a subnet file says, or what the members of an ensemble have in common; their number."""
    from ofa_deploy._files import read_model
    from ofa_deploy.supernet import SubnetFile, load_ensemble

    if not path.name.endswith(".ensemble.json"):
        return read_model(path, SubnetFile, schema="subnet/1"), 1
    ensemble = load_ensemble(path)
    return ensemble.record, len(ensemble.subnets)
