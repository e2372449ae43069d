"""``ofa-deploy show``: what a subnet is made of."""

from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.cli._options import FormatOption
from ofa_deploy.cli._output import OutputFormat, emit, guarded, say

__all__ = ["show"]


@guarded
def show(
    subnet: Annotated[Path, typer.Argument(help="NAME.subnet.json, as search writes it.")],
    table: Annotated[
        Path | None, typer.Option(help="Latency table, to add each block's share.")
    ] = None,
    output: FormatOption = OutputFormat.table,
) -> None:
    """Show a subnet block by block, and where the time goes."""
    from ofa_deploy._files import read_model
    from ofa_deploy.hardware import find_table
    from ofa_deploy.supernet.storage import SubnetFile

    record = read_model(subnet, SubnetFile, schema="subnet/1")
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
    emit(rows, output, title=f"{subnet.name}: {network.arch}")
    known = {**{f"{k} (predicted)": v for k, v in network.predicted.items()}, **network.measured}
    say(", ".join(f"{name} {value:.5g}" for name, value in known.items()))
