"""What genes may choose, and moves that keep to it."""

import numpy as np
import pytest

from ofa_deploy.errors import ConstraintError
from ofa_deploy.search import parse_constraint
from ofa_deploy.search.constraints import GeneConstraint
from ofa_deploy.search.domain import Domain, unique
from ofa_deploy.space import SearchSpace, get_space


def domain_of(space: SearchSpace, *texts: str) -> Domain:
    parsed = [parse_constraint(text) for text in texts]
    return Domain(space, [each for each in parsed if isinstance(each, GeneConstraint)])


NANO = get_space("mbv3-nano-32").with_resolutions(24, 32, 40)
RESNET = get_space("ofa-resnet50")


@pytest.mark.parametrize(
    ("texts", "gene", "choices"),
    [
        (("resolution in 24,40",), "resolution", {24, 40}),
        (("resolution = 32",), "resolution", {32}),
        (("resolution <= 32",), "resolution", {24, 32}),
        (("resolution >= 32", "resolution <= 32"), "resolution", {32}),
        (("expand = 2",), "expand[2.0]", {2}),
        (("expand[1.0] in 2,3",), "expand[1.0]", {2, 3}),
        (("depth >= 2",), "depth[1]", {2, 3}),
    ],
)
def test_constraint_leaves_choices(texts: tuple[str, ...], gene: str, choices: set[float]) -> None:
    domain = domain_of(NANO, *texts)
    column = NANO.columns[gene]
    left = {
        c
        for c, kept in zip(NANO.genes[column].choices, domain.allowed[column], strict=True)
        if kept
    }
    assert left == choices & set(NANO.genes[column].choices) == choices


def test_one_gene_leaves_the_others_free() -> None:
    domain = domain_of(NANO, "expand[1.0] = 2")
    restricted = [
        g.name for g, mask in zip(NANO.genes, domain.allowed, strict=True) if not mask.all()
    ]
    assert restricted == ["expand[1.0]"]


@pytest.mark.parametrize(
    ("text", "gene", "left"),
    [
        ("width = 1", "width[1]", [False, False, True]),
        ("width = 0.65", "width[3]", [True, False, False]),
        ("width <= 0.8", "width[1]", [True, True, False]),
        ("width[1] >= 0.7", "width[1]", [False, True, True]),
        ("width[1] >= 0.7", "width[2]", [True, True, True]),
        ("width in 0.65,1", "width[stem]", [True, False, True]),
        # 0.65 and 0.8 of 64 channels, halved and rounded, are both 24.
        ("width = 0.65", "width[stem.middle]", [True, False]),
        ("width = 0.8", "width[stem.middle]", [True, False]),
        ("width >= 0.8", "width[stem.middle]", [True, True]),
    ],
)
def test_widths_are_written_as_multipliers(text: str, gene: str, left: list[bool]) -> None:
    domain = domain_of(RESNET, text)
    assert domain.allowed[RESNET.columns[gene]].tolist() == left


def test_widths_that_are_no_multipliers_are_told_which_are() -> None:
    with pytest.raises(ConstraintError, match="no choice; its choices: 0.65, 0.8, 1$"):
        domain_of(RESNET, "width = 2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width = 1", "has no choice of width; it chooses: resolution, depth, kernel, expand"),
        ("kernel[9.9] = 3", "has no choice of kernel[9.9]"),
        (
            "resolution = 33",
            "leaves resolution of space mbv3-nano-32 no choice; its choices: 24, 32, 40",
        ),
        ("resolution >= 41", "no choice"),
    ],
)
def test_impossible_constraints(text: str, message: str) -> None:
    with pytest.raises(ConstraintError) as caught:
        domain_of(NANO, text)
    assert message in str(caught.value) and repr(text) in str(caught.value)


def test_two_constraints_that_exclude_each_other() -> None:
    with pytest.raises(ConstraintError, match="no choice"):
        domain_of(NANO, "resolution <= 24", "resolution >= 32")


@pytest.mark.parametrize("space", [NANO, get_space("ofa-resnet50"), get_space("compofa-mbv3")])
def test_moves_keep_to_what_is_allowed(space: SearchSpace) -> None:
    sizes = space.resolutions[:2]
    domain = domain_of(space, f"resolution in {sizes[0]},{sizes[1]}", "depth <= 2")
    rng = np.random.default_rng(0)
    drawn = domain.sample(rng, 500)
    for rows in (
        drawn,
        domain.mutate(drawn, rng, 0.3),
        domain.extremes(),
        domain.neighbours(drawn[0]),
    ):
        assert domain.holds(rows).all()
        np.testing.assert_array_equal(space.encode(space.decode(rows)), rows)
    free = space.sample(rng, 2000)
    assert 0 < domain.holds(free).mean() < 1


@pytest.mark.parametrize("end", ["smallest", "largest"])
def test_neighbours_are_all_single_and_pair_changes(tiny_space: SearchSpace, end: str) -> None:
    """The smallest has inactive blocks, whose genes change nothing."""
    domain = Domain(tiny_space)
    row = tiny_space.encode([getattr(tiny_space, end)])[0]
    assert (row < 0).any() == (end == "smallest")
    near = domain.neighbours(row)
    assert len(unique(near)) == len(near)
    found = {bytes(each) for each in near}
    assert bytes(row) not in found
    middle = [(len(gene.choices) - 1) // 2 for gene in tiny_space.genes]
    awake = np.where(row < 0, middle, row).astype(np.int8)
    expected = set()
    changes = [
        (column, choice)
        for column, gene in enumerate(tiny_space.genes)
        for choice in range(len(gene.choices))
    ]
    for first in changes:
        for second in changes:
            other = awake.copy()
            other[first[0]] = first[1]
            other[second[0]] = second[1]
            (masked,) = tiny_space.mask_inactive(other[None])
            expected.add(bytes(masked))
    assert found == expected - {bytes(row)}


def test_a_fixed_network_has_no_neighbours() -> None:
    space = NANO
    fixed = [f"resolution = {space.resolutions[0]}", "depth = 1", "kernel = 3", "expand = 2"]
    domain = domain_of(space, *fixed)
    (row,) = unique(domain.sample(np.random.default_rng(0), 20))
    assert domain.neighbours(row).shape == (0, len(row))
