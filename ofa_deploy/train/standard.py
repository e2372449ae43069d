"""The subnets by which supernets are compared: the same depth and expansion everywhere."""

import numpy as np

from ofa_deploy.space import Arch, SearchSpace

__all__ = ["standard_archs"]

# Choice indices of (depth, expansion), -1 the greatest: (2,3) (3,3) (4,3) (4,4) (3,6) (4,6) of
# the published spaces, as DεpS reports them.
_UNIFORM = ((0, 0), (1, 0), (-1, 0), (-1, 1), (1, -1), (-1, -1))


def standard_archs(space: SearchSpace) -> dict[str, Arch]:
    """The smallest, uniform ones with the greatest kernels, the largest; by name, each once."""
    named = {"smallest": space.smallest}
    by_choices = sorted(enumerate(space.genes), key=lambda pair: len(pair[1].choices))
    for depth, expand in _UNIFORM:
        row = space.num_choices - 1
        shown = {}
        for column, gene in by_choices:  # the stage with the most gives the name
            for kind, wanted in (("depth", depth), ("expand", expand)):
                if gene.kind == kind:
                    last = len(gene.choices) - 1
                    row[column] = last if wanted < 0 else min(wanted, last)
                    shown[kind] = f"{kind[0]}{gene.choices[row[column]]:g}"
        arch = space.decode(space.mask_inactive(row[None].astype(np.int8)))[0]
        if arch not in named.values():
            named[" ".join(shown.values()) or "uniform"] = arch
    if space.largest not in named.values():
        named["largest"] = space.largest
    return named
