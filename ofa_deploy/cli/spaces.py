"""``ofa-deploy spaces``: what networks there are to choose from."""

from typing import Annotated

import typer

from ofa_deploy.cli._options import FormatOption
from ofa_deploy.cli._output import OutputFormat, emit, guarded

__all__ = ["spaces"]


@guarded
def spaces(
    names: Annotated[
        list[str] | None, typer.Argument(help="Spaces or files NAME.toml; all when not given.")
    ] = None,
    output: FormatOption = OutputFormat.table,
) -> None:
    """List the search spaces and the sizes of their networks.

    Networks are counted per resolution, and only those that differ: two genotypes of ResNet-50 can
    be one network. MACs are multiply-accumulates for one image at the largest resolution; params
    are trained parameters; both of the smallest and the largest network.

    A space of your own is a TOML file: docs/my_space.toml shows how.
    """
    from ofa_deploy.space import get_space, space_names

    rows = []
    for name in names or space_names():
        space = get_space(name)
        sizes = space.resolutions
        shown = f"{sizes[0]}-{sizes[-1]}" if len(sizes) > 1 else str(sizes[0])
        at_largest = space.with_resolutions(sizes[-1])
        small, large = (at_largest.cost(arch) for arch in (at_largest.smallest, at_largest.largest))
        rows.append(
            {
                "space": space.name,
                "pixels": shown,
                "classes": space.classes,
                "networks": at_largest.num_archs,
                "macs_min": small.macs,
                "macs_max": large.macs,
                "params_min": small.params,
                "params_max": large.params,
            }
        )
    emit(rows, output, title="search spaces (networks: distinct ones, per resolution)")
