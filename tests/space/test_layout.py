"""``Layout``: spaces that make no sense are refused in one clear line."""

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from ofa_deploy.errors import FileFormatError, InputError, MismatchError
from ofa_deploy.space import Head, SearchSpace, Stage, Stem, get_space
from ofa_deploy.space.layout import deep_middle

STAGE: dict[str, Any] = {
    "channels": 32,
    "stride": 1,
    "depths": (1, 2),
    "kernels": (3,),
    "expands": (1, 2),
}
BOTTLENECK: dict[str, Any] = {**STAGE, "kind": "bottleneck", "channels": 64}


def space(*stages: dict[str, Any], **fields: Any) -> SearchSpace:
    given: dict[str, Any] = {
        "name": "s",
        "resolutions": (16,),
        "classes": 3,
        "stem": {"channels": 32},
        "head": {"channels": 0, "features": 0},
        "stages": stages,
    }
    return SearchSpace.from_dict({**given, **fields})


DEEP = {"channels": 32, "kind": "deep", "depths": (0, 2)}

REFUSED: list[tuple[tuple[dict[str, Any], ...], dict[str, Any], str]] = [
    (
        ({**STAGE, "depths": (1,), "expands": (3, 3.1)},),
        {},
        "stage 0: expands (3.0, 3.1) give [96, 96] middle channels (multiples of 8), so different "
        "choices would be one network; choose them further apart",
    ),
    (
        (STAGE, {**STAGE, "coupled": True, "expands": (1, 2, 3)}),
        {},
        "coupled stage 1 needs as many expands as depths, found 3 and 2",
    ),
    (
        ({**STAGE, "coupled": True, "expands": (2,)},),
        {},
        "coupled stage 0 needs as many expands as depths, found 1 and 2",
    ),
    (({**BOTTLENECK, "se": True},), {}, "bottleneck stage 0: expected one kernel size and no se"),
    (
        (BOTTLENECK, {**BOTTLENECK, "kernels": (3, 5)}),
        {},
        "bottleneck stage 1: expected one kernel size and no se",
    ),
    (
        (BOTTLENECK, STAGE),
        {"width_multipliers": (0.5, 1.0)},
        "width_multipliers need bottleneck stages, stage 1 is of mbconv",
    ),
    (
        (BOTTLENECK,),
        {"stem": {**DEEP, "depths": (1, 2)}},
        "expected the stem's depths to be 0 and another, found (1, 2)",
    ),
    (
        (BOTTLENECK,),
        {"stem": {**DEEP, "depths": (0, 1, 2)}},
        "expected the stem's depths to be 0 and another, found (0, 1, 2)",
    ),
    (
        ({**STAGE, "expands": (0.5, 1)},),
        {},
        "stage 0: expands (0.5, 1.0) end with no expansion of 32 channels; expected greater "
        "ratios after smaller ones",
    ),
    (
        (STAGE,),
        {"resolutions": tuple(range(32, 133))},
        "expected at most 100 resolutions, found 101",
    ),
    (
        (STAGE,),
        {"stem": {"channels": 8, "depths": (0, 2)}},
        "only a stem of kind 'deep' has depths",
    ),
    (
        (STAGE, {**STAGE, "depths": (0, 1)}),
        {},
        "stage 1 needs at least one block, found depths (0, 1)",
    ),
    (
        ({**BOTTLENECK, "base_depth": 0, "depths": (0,)},),
        {},
        "stage 0 needs at least one block, found depths (0,)",
    ),
    (
        (BOTTLENECK,),
        {"width_multipliers": (1.0, 0.5)},
        "expected width_multipliers not empty and ascending, found (1.0, 0.5)",
    ),
    (
        (BOTTLENECK,),
        {"width_multipliers": (0.5, 0.5)},
        "expected width_multipliers not empty and ascending, found (0.5, 0.5)",
    ),
    (
        (STAGE,),
        {"stem": {**DEEP, "depths": ()}},
        "expected the stem's depths not empty and ascending, found ()",
    ),
    (
        (STAGE,),
        {"stem": {**DEEP, "depths": (2, 0)}},
        "expected the stem's depths not empty and ascending, found (2, 0)",
    ),
    (
        (STAGE, {**STAGE, "expands": (2, 1)}),
        {},
        "expected expands of stage 1 not empty and ascending, found (2.0, 1.0)",
    ),
    (
        (STAGE, {**STAGE, "depths": ()}),
        {},
        "expected depths of stage 1 not empty and ascending, found ()",
    ),
    ((STAGE, {**STAGE, "kernels": (3, 4)}), {}, "kernel sizes must be odd, found [3, 3, 3, 4]"),
    ((STAGE,), {"stem": {"channels": 8, "kernel": 4}}, "kernel sizes must be odd, found [4, 3]"),
    ((STAGE,), {"classes": 1}, "expected at least 2 classes, found 1"),
    ((STAGE,), {"resolutions": ()}, "expected resolutions not empty and ascending, found ()"),
]


@pytest.mark.parametrize(("stages", "fields", "why"), REFUSED, ids=[row[2] for row in REFUSED])
def test_refusals(stages: tuple[dict[str, Any], ...], fields: dict[str, Any], why: str) -> None:
    with pytest.raises(FileFormatError) as caught:
        space(*stages, **fields)
    assert str(caught.value) == f"not a search space: space s: {why}"
    stem = Stem(**fields.get("stem", {"channels": 32}))
    made = {**fields, "stem": stem, "stages": tuple(Stage(**stage) for stage in stages)}
    with pytest.raises(InputError) as constructed:
        replace(get_space("mbv3-nano-32"), name="s", **made)
    assert str(constructed.value) == f"space s: {why}"


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param(({**STAGE, "base_depth": 1, "depths": (0, 1)},), id="base of one"),
        pytest.param(({**STAGE, "coupled": True},), id="coupled"),
        pytest.param((BOTTLENECK, STAGE), id="both kinds"),
        pytest.param(({**STAGE, "kernels": (1, 3)},), id="kernel 1"),
        pytest.param(({**STAGE, "expands": (0.25, 2)},), id="narrower than the input"),
    ],
)
def test_near_misses_are_spaces(stages: tuple[dict[str, Any], ...]) -> None:
    assert space(*stages).num_archs > 1


def test_equal_middles_are_found_in_every_block() -> None:
    # By 3 and 3.2: of 32 channels 96 and 104, of 8 channels 24 and 24.
    wide, narrow = {**STAGE, "expands": (1,)}, {**STAGE, "expands": (1,), "channels": 8}
    close = {**STAGE, "expands": (3, 3.2)}
    assert space({**close, "depths": (1,), "channels": 8}).num_archs == 2  # reads 32 channels
    assert space(narrow, wide, close).num_archs == 2 * 2 * (2 + 4)
    for stages in (
        ({**close, "channels": 8},),  # the second block reads 8
        ({**close, "channels": 8, "depths": (1, 2)},),
        (narrow, {**close, "depths": (1,)}),  # the stage before gives 8
    ):
        with pytest.raises(InputError, match=r"expands \(3\.0, 3\.2\) give \[24, 24\] middle"):
            space(*stages)
    with pytest.raises(InputError, match=r"stage 0: .* give \[24, 24\]"):
        space({**close, "depths": (1,)}, stem={"channels": 8})


def test_equal_middles_are_found_at_every_width() -> None:
    # Of 256 outputs 48 and 64; of 24, which is 256 by 0.1, 8 and 8.
    stage = {**BOTTLENECK, "channels": 256, "expands": (0.2, 0.25), "depths": (1,)}
    assert space(stage).num_archs == 2
    assert space(stage, width_multipliers=(0.5, 1.0)).num_archs == 2 * 2 * 2
    with pytest.raises(InputError, match=r"give \[8, 8\] middle channels"):
        space(stage, width_multipliers=(0.1, 1.0))


def test_middle_channels() -> None:
    mobile, bottleneck = Stage(**STAGE), Stage(**BOTTLENECK)
    assert mobile.mid_channels(3, 20, 99) == 64  # 60, half-way between 56 and 64
    assert mobile.mid_channels(1, 20, 99) == 20  # as the input, not a multiple of 8
    assert bottleneck.mid_channels(0.35, 99, 168) == 56  # 58.8, of the output
    assert bottleneck.mid_channels(1, 20, 99) == 96  # 1 is a ratio like others here
    assert deep_middle(40) == 24  # 20, half-way
    assert (replace(mobile, base_depth=3).most, mobile.most) == (5, 2)


def test_widths_by_multiplier() -> None:
    resnet, mobile = get_space("ofa-resnet50"), get_space("ofa-mbv3-w1.0")
    assert resnet.widths(64) == (40, 48, 64)
    assert resnet.widths(2048) == (1328, 1640, 2048)
    assert mobile.widths(20) == (20,)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"depths": (65,)}, id="too deep"),
        pytest.param({"base_depth": 65}, id="base too deep"),
        pytest.param({"base_depth": -1}, id="negative base"),
        pytest.param({"coupled": "yes"}, id="coupled text"),
        pytest.param({"kind": "resblock"}, id="kind"),
        pytest.param({"channels": 2**20 + 1}, id="too wide"),
        pytest.param({"expands": (65.0,)}, id="ratio too great"),
    ],
)
def test_fields_of_a_stage_are_checked(fields: dict[str, Any]) -> None:
    (field,) = fields
    with pytest.raises(ValidationError, match=field):
        Stage(**{**STAGE, **fields})


@pytest.mark.parametrize("name", ["ofa-resnet50", "compofa-mbv3", "ofa-proxyless-w1.3"])
def test_new_fields_survive_json(name: str) -> None:
    once = get_space(name)
    again = SearchSpace.from_dict(json.loads(json.dumps(once.to_dict())))
    assert again == once and again.fingerprint == once.fingerprint
    assert again.genes == once.genes
    assert again.lower(again.largest) == once.lower(once.largest)


def test_fingerprint_sees_the_new_fields() -> None:
    resnet, coupled = get_space("ofa-resnet50"), get_space("compofa-mbv3")
    stage = resnet.stages[0]
    free = tuple(replace(each, coupled=False) for each in coupled.stages)
    spaces = [
        resnet,
        coupled,
        replace(coupled, stages=free),
        replace(resnet, width_multipliers=()),
        replace(resnet, stem=replace(resnet.stem, depths=(2,))),
        replace(resnet, stem=Stem(channels=64)),
        replace(resnet, stages=(replace(stage, base_depth=3), *resnet.stages[1:])),
        space({**BOTTLENECK, "kind": "mbconv"}),
        space(BOTTLENECK),
    ]
    assert len({each.fingerprint for each in spaces}) == len(spaces)


# -- with_resolutions, with_classes ---------------------------------------------------------


def test_with_resolutions() -> None:
    space = get_space("ofa-mbv3-w1.0")
    fewer = space.with_resolutions(224, 160, 192, 160)
    assert fewer.resolutions == (160, 192, 224)
    assert fewer == replace(space, resolutions=(160, 192, 224))
    assert fewer.name == space.name and fewer.fingerprint != space.fingerprint
    assert fewer.num_archs * 25 == space.num_archs * 3
    one = space.with_resolutions(96)  # also one that the space did not have
    assert one.smallest.resolution == one.largest.resolution == 96
    assert one.arch(depths=2, kernels=3, expands=3) == one.smallest
    assert one.genes[0].choices == (96,) and one.genes[1:] == space.genes[1:]
    assert space.resolutions == tuple(range(128, 225, 4))
    with pytest.raises(MismatchError, match="resolution = 160, expected one of 96"):
        one.arch(depths=2, kernels=3, expands=3, resolution=160)


def test_with_resolutions_of_no_sense() -> None:
    space = get_space("mbv3-nano-32")
    with pytest.raises(InputError, match="expected resolutions not empty and ascending"):
        space.with_resolutions()
    with pytest.raises(ValidationError, match="resolutions"):
        space.with_resolutions(0)


@pytest.mark.parametrize("name", ["ofa-resnet50", "compofa-mbv3"])
def test_with_classes(name: str) -> None:
    space = get_space(name)
    fewer = space.with_classes(7)
    assert fewer.classes == 7 and fewer.num_archs == space.num_archs
    assert fewer.fingerprint != space.fingerprint and fewer.genes == space.genes
    before, after = space.lower(space.largest), fewer.lower(fewer.largest)
    assert after == (*before[:-1], replace(before[-1], out_channels=7))
    with pytest.raises(InputError, match="at least 2 classes"):
        space.with_classes(1)


def test_head_may_have_any_part() -> None:
    for channels, features in ((0, 0), (24, 0), (0, 40), (24, 40)):
        made = replace(get_space("mbv3-nano-32"), head=Head(channels=channels, features=features))
        *_, before, last = made.lower(made.smallest)
        assert before.kind == ("conv" if channels else "mbconv")
        assert (last.in_channels, last.mid_channels) == (channels or 48, features)
        assert last.activation == ("hswish" if features else "none")
