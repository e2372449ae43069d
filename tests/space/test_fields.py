"""Spaces that make no sense, and files that are not spaces, are refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from ofa_deploy.errors import FileFormatError, InputError
from ofa_deploy.space import Head, SearchSpace, Stage, Stem

STAGE: dict[str, Any] = {
    "channels": 8,
    "stride": 1,
    "depths": (1, 2),
    "kernels": (3,),
    "expands": (1,),
}
PARTS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "stem": (Stem, {"channels": 8}),
    "stage": (Stage, STAGE),
    "head": (Head, {"channels": 8, "features": 8}),
}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"classes": 1}, "at least 2 classes"),
        ({"resolutions": ()}, "ascending"),
        ({"resolutions": (32, 16)}, r"ascending, found \(32, 16\)"),
        ({"resolutions": (16, 16)}, "ascending"),
        ({"stages": ({**STAGE, "depths": (1, 1)},)}, "ascending"),
        ({"stages": ({**STAGE, "kernels": (5, 3)},)}, "ascending"),
        ({"stages": ({**STAGE, "kernels": (2, 4)},)}, "odd"),
        ({"stages": ({**STAGE, "expands": ()},)}, "ascending"),
        ({"stem": {"channels": 8, "kernel": 2}}, "odd"),
    ],
)
def test_space_that_makes_no_sense_is_refused(
    tiny_space: SearchSpace, changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(InputError, match=f"^space tiny: .*{match}"):
        replace(tiny_space, **changes)
    with pytest.raises(FileFormatError, match=f"^not a search space: space tiny: .*{match}"):
        SearchSpace.from_dict({**tiny_space.to_dict(), **changes})


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("stem", "channels", 0),
        ("stem", "channels", "8"),
        ("stem", "kernel", 3.5),
        ("stem", "stride", -1),
        ("stem", "activation", "swish"),
        ("stage", "channels", True),
        ("stage", "stride", 0),
        ("stage", "depths", (-1, 1)),
        ("stage", "depths", 2),
        ("stage", "kernels", (3.0,)),
        ("stage", "expands", (0,)),
        ("stage", "expands", ("2",)),
        ("stage", "expands", (float("nan"),)),
        ("stage", "activation", "swish"),
        ("stage", "se", 1),
        ("head", "channels", -8),
        ("head", "features", None),
        ("head", "activation", "Relu"),
        ("head", "colour", 1),
    ],
)
def test_field_of_another_type_or_range_is_named(part: str, field: str, value: Any) -> None:
    make, good = PARTS[part]
    assert make(**good)
    with pytest.raises(ValidationError) as caught:
        make(**{**good, field: value})
    assert [error["loc"][0] for error in caught.value.errors()] == [field]


@pytest.mark.parametrize(
    ("field", "value"),
    [("resolutions", (0, 16)), ("classes", 4.0), ("bn_eps", "1e-5"), ("bn_eps", 0), ("name", 3)],
)
def test_field_of_a_space_is_checked_too(tiny_space: SearchSpace, field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        replace(tiny_space, **{field: value})
    with pytest.raises(FileFormatError, match=f"^not a search space: {field}"):
        SearchSpace.from_dict({**tiny_space.to_dict(), field: value})


def without(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key != name}


@pytest.mark.parametrize("name", ["name", "resolutions", "classes", "stem", "stages", "head"])
def test_file_without_a_field_is_refused(tiny_space: SearchSpace, name: str) -> None:
    with pytest.raises(FileFormatError, match=f"not a search space: .*{name}"):
        SearchSpace.from_dict(without(tiny_space.to_dict(), name))


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": 1},
        {"classes": "5"},
        {"resolutions": 16},
        {"resolutions": ["16"]},
        {"stages": 3},
        {"stages": ["stage"]},
        {"stages": [{"channels": 8}]},
        {"stem": {"channels": 8, "colour": 1}},
        {"stem": None},
        {"head": []},
        {"a\nb": 1},
    ],
)
def test_file_of_the_wrong_types_is_refused(
    tiny_space: SearchSpace, changes: dict[str, Any]
) -> None:
    with pytest.raises(FileFormatError, match=r"not a search space: [\w. ]+: ") as caught:
        SearchSpace.from_dict({**tiny_space.to_dict(), **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, [], "mbv3-nano-32"])
def test_file_that_is_no_dictionary_is_refused(value: Any) -> None:
    with pytest.raises(FileFormatError, match="not a search space: expected names with values"):
        SearchSpace.from_dict(value)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"stem": {"channels": "8"}}, id="channels text"),
        pytest.param({"stem": {"channels": -8}}, id="channels negative"),
        pytest.param({"stem": {"channels": 8, "stride": 0}}, id="stride 0"),
        pytest.param({"stem": {"channels": 8, "kernel": 2}}, id="stem kernel even"),
        pytest.param({"head": {"channels": 8, "features": 8, "activation": "x"}}, id="head act"),
        pytest.param({"head": {"channels": 8.5, "features": 8}}, id="channels broken"),
        pytest.param({"classes": 5.5}, id="classes broken"),
        pytest.param({"resolutions": [16.5]}, id="resolution broken"),
        pytest.param({"bn_eps": "small"}, id="eps text"),
    ],
)
def test_more_files_of_the_wrong_types_are_refused(
    tiny_space: SearchSpace, changes: dict[str, Any]
) -> None:
    with pytest.raises(FileFormatError, match="not a search space: "):
        SearchSpace.from_dict({**tiny_space.to_dict(), **changes})
