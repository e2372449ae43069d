"""``ofa-deploy spaces``: what networks there are to choose from."""

from ofa_deploy.cli._output import FormatOption, OutputFormat, emit, guarded

__all__ = ["spaces"]


@guarded
def spaces(output: FormatOption = OutputFormat.table) -> None:
    """List the search spaces and the sizes of their networks.

    MACs are multiply-accumulates for one image; params are trained parameters.
    """
    from ofa_deploy.space import get_space, space_names

    rows = []
    for name in space_names():
        space = get_space(name)
        small, large = space.cost(space.smallest), space.cost(space.largest)
        rows.append(
            {
                "space": name,
                "resolutions": ",".join(map(str, space.resolutions)),
                "classes": space.classes,
                "networks": space.num_archs,
                "macs_min": small.macs,
                "macs_max": large.macs,
                "params_min": small.params,
                "params_max": large.params,
            }
        )
    emit(rows, output, title="search spaces")
