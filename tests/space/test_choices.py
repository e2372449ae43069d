"""Where there is nothing to choose there is no gene, and ``arch()`` need not be told."""

from dataclasses import replace
from typing import Any

import pytest

from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.space import Arch, Gene, Head, SearchSpace, Stage, Stem, get_space


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """A fixed stage, then one choice each: depth, kernel, expansion ratio."""
    common: dict[str, Any] = {"channels": 16, "stride": 1}
    return SearchSpace(
        name="single",
        resolutions=(8,),
        classes=2,
        stem=Stem(channels=8),
        stages=(
            Stage(channels=16, stride=2, depths=(2,), kernels=(5,), expands=(2,)),
            Stage(**common, depths=(1, 2), kernels=(3,), expands=(2,)),
            Stage(**common, depths=(2,), kernels=(3, 5), expands=(3,)),
            Stage(**common, depths=(1,), kernels=(7,), expands=(2, 4)),
        ),
        head=Head(channels=0, features=0),
    )


def test_genes_are_choices_only(space: SearchSpace) -> None:
    assert space.genes == (
        Gene("resolution", (8,)),  # always there, so that a row is never empty
        Gene("depth[1]", (1, 2), 1),
        Gene("kernel[2.0]", (3, 5), 2, 0),
        Gene("kernel[2.1]", (3, 5), 2, 1),
        Gene("expand[3.0]", (2, 4), 3, 0),
    )
    assert space.columns == {gene.name: i for i, gene in enumerate(space.genes)}
    assert space.num_choices.tolist() == [1, 2, 2, 2, 2]
    assert space.elastic_stages == (1, 2, 3)
    assert space.num_archs == 2**4


def test_slots_name_the_genes_that_decide(space: SearchSpace) -> None:
    assert [(slot.name, slot.genes, slot.sizes) for slot in space.slots] == [
        ("stem", (0,), (1,)),
        ("stages.0.0", (0,), (1,)),
        ("stages.0.1", (0,), (1,)),
        ("stages.1.0", (0, 1), (1, 2)),
        ("stages.1.1", (0, 1), (1, 2)),
        ("stages.2.0", (0, 2), (1, 2)),
        ("stages.2.1", (0, 3), (1, 2)),
        ("stages.3.0", (0, 4), (1, 2)),
        ("classifier", (0,), (1,)),
    ]
    slots = {slot.name: slot for slot in space.slots}
    assert slots["stages.1.1"].block(0, 0) is None  # depth 1 leaves it out
    assert [indices for indices, _ in slots["stages.1.1"].blocks()] == [(0, 1)]
    assert [indices for indices, _ in slots["stages.1.0"].blocks()] == [(0, 0), (0, 1)]


@pytest.mark.parametrize("stages", [(), (0,)], ids=["no stages", "a fixed stage"])
def test_space_of_one_network(space: SearchSpace, stages: tuple[int, ...]) -> None:
    single = replace(space, stages=tuple(space.stages[i] for i in stages))
    assert [gene.name for gene in single.genes] == ["resolution"]
    assert single.num_archs == 1 and single.elastic_stages == ()
    assert single.arch(depths=[]) == single.arch(depths=4) == Arch(8, (), (), ())
    assert single.smallest == single.largest == single.decode(single.encode([single.largest]))[0]
    assert len(single.lower(single.largest)) == 2 + 2 * len(stages)


def test_single_choices_are_filled_in(space: SearchSpace) -> None:
    arch = space.arch(depths=2, kernels=[3, 3, 5, 3, 7], expands=[2, 2, 3, 3, 4])
    assert arch == Arch(8, (2, 2, 1), (3, 3, 5, 3, 7), (2, 2, 3, 3, 4))
    assert space.arch(depths=[1, 2, 1], kernels=[3, 5, 3, 7], expands=[2, 3, 3, 4]).depths[0] == 1
    (kernels_fixed,) = [replace(space, stages=(space.stages[0], space.stages[1]))]
    assert kernels_fixed.arch(depths=2) == Arch(8, (2,), (3, 3), (2, 2))
    expands_fixed = replace(space, stages=(space.stages[2],))
    assert expands_fixed.arch(depths=2, kernels=5) == Arch(8, (2,), (5, 5), (3, 3))
    ratios = replace(space, stages=(space.stages[3],))
    assert ratios.arch(depths=1, expands=4) == Arch(8, (1,), (7,), (4,))


def test_one_number_only_for_depths_with_a_choice(space: SearchSpace) -> None:
    lists: dict[str, Any] = {"kernels": [3, 5, 5, 7], "expands": [2, 3, 3, 2]}
    assert space.arch(depths=1, **lists).depths == (1, 2, 1)
    assert space.arch(depths=1, **lists) == space.arch(depths=[1, 2, 1], **lists)
    with pytest.raises(MismatchError, match=r"^space single: depth\[1\] = 3, expected one of 1, 2"):
        space.arch(depths=3, **lists)
    with pytest.raises(MismatchError, match=r"^space single: depth\[2\] = 1, expected one of 2$"):
        space.arch(depths=[1, 1, 1], **lists)


def test_last_stage_of_proxyless() -> None:
    space = get_space("ofa-proxyless-w1.0")
    arch = space.arch(depths=3, kernels=5, expands=4)
    assert arch == Arch(224, (3, 3, 3, 3, 3, 1), (5,) * 16, (4,) * 16)
    full = space.arch(depths=[3] * 5 + [1], kernels=[5] * 21, expands=[4] * 21)
    assert full == arch
    # The last of 21 entries is the last stage's, whatever the others leave out.
    ends = space.arch(depths=[2] * 5 + [1], kernels=[3] * 20 + [7], expands=[3] * 20 + [6])
    assert ends.kernels == (*[3] * 10, 7) and ends.expands == (*[3] * 10, 6)
    with pytest.raises(MismatchError, match=r"depth\[6\] = 2, expected one of 1$"):
        space.arch(depths=[3] * 5 + [2], kernels=5, expands=4)
    with pytest.raises(MismatchError, match="expected 6 depths, found 5$"):
        space.arch(depths=[3] * 5, kernels=5, expands=4)
    with pytest.raises(MismatchError, match=r"11 kernels .* or 21 \(full length\), found 20$"):
        space.arch(depths=2, kernels=[3] * 20, expands=3)


def test_stem_with_one_depth_has_no_gene() -> None:
    resnet = get_space("ofa-resnet50")
    kept, left_out = (
        replace(resnet, stem=replace(resnet.stem, depths=depths)) for depths in ((2,), (0,))
    )
    for space, slots in ((kept, 4), (left_out, 3)):
        assert "depth[stem]" not in space.columns
        assert space.num_archs * 2 == resnet.num_archs
        arch = space.arch(depths=[0, 1, 0, 2], expands=0.25)
        assert arch.depths == (0, 1, 0, 2)
        named = space.lower_named(arch)
        assert len([name for name, _ in named if name.startswith("stem")]) == slots


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"kernels": None}, r"kernel[1.0] is not given, expected one of 3, 5, 7"),
        ({"expands": None}, r"expand[1.0] is not given, expected one of 2, 3"),
        ({"kernels": [3]}, "expected 2 kernels (active blocks) or 5 (full length), found 1"),
        ({"expands": []}, "expected 2 expands (active blocks) or 5 (full length), found 0"),
        ({"expands": [3] * 6}, "expected 2 expands (active blocks) or 5 (full length), found 6"),
        ({"depths": []}, "expected 2 depths, found 0"),
        ({"widths": [0]}, "expected 0 widths, found 1"),
        ({"kernels": [3, None]}, r"kernel[2.0] is not given, expected one of 3, 5"),
    ],
)
def test_what_is_missing_or_too_long_is_named(
    tiny_space: SearchSpace, wrong: dict[str, Any], match: str
) -> None:
    good: dict[str, Any] = {"depths": 1, "kernels": 3, "expands": 3}
    assert tiny_space.arch(**good, widths=None) == tiny_space.arch(**good, widths=[])
    with pytest.raises(MismatchError) as caught:
        tiny_space.arch(**{**good, **wrong})
    assert str(caught.value) == f"space tiny: {match}"


def test_missing_where_one_stage_has_a_choice(space: SearchSpace) -> None:
    with pytest.raises(MismatchError, match=r"kernel\[2\.0\] is not given, expected one of 3, 5$"):
        space.arch(depths=1, expands=[2, 3, 3, 4])
    with pytest.raises(MismatchError, match=r"expand\[3\.0\] is not given, expected one of 2, 4$"):
        space.arch(depths=1, kernels=[3, 3, 3, 7])
    with pytest.raises(MismatchError, match=r"kernel\[1\.0\] = 5, expected one of 3$"):
        space.arch(depths=1, kernels=5, expands=[2, 3, 3, 4])


def test_errors_are_the_users(space: SearchSpace) -> None:
    assert issubclass(MismatchError, InputError)
    stranger = replace(space.largest, kernels=(3, 3, 5, 5, 5))
    with pytest.raises(
        MismatchError, match=r"not in space single: kernel\[3\.0\] = 5, expected one of 7$"
    ):
        space.lower(stranger)


def test_gene_index_knows_other_names_of_a_choice() -> None:
    gene = Gene("width[stem]", (0, 2), aliases=((1, 0),))
    assert [gene.index(value) for value in (0, 1, 2)] == [0, 0, 1]
    with pytest.raises(ValueError, match="not in"):
        gene.index(3)
