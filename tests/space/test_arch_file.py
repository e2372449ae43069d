"""Networks that people write down."""

import json
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.errors import FileFormatError, InputError
from ofa_deploy.space import SearchSpace, arch_from_config, get_space, read_arch

MBV3 = {"ks": [7] * 20, "e": [6] * 20, "d": [4] * 5}


def written(folder: Path, value: Any) -> str:
    path = folder / "network.json"
    path.write_text(json.dumps(value))
    return str(path)


@pytest.mark.parametrize("resolution", [{"r": 224}, {"r": [224]}, {}, {"r": None, "wid": None}])
def test_published_config(resolution: dict[str, Any]) -> None:
    space = get_space("ofa-mbv3-w1.0")
    assert arch_from_config(space, {**MBV3, **resolution}) == space.largest


def test_published_resnet_config() -> None:
    space = get_space("ofa-resnet50")
    config = {"d": [2] * 5, "e": [0.35] * 18, "w": [2] * 6}
    assert arch_from_config(space, config) == space.largest


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"d": None}, "needs the depths 'd'"),
        ({"x": 1}, "unknown field 'x'"),
        ({"d": [4] * 4}, "expected 5 depths, found 4"),
        ({"d": "44444"}, "depth"),
        ({"d": [[4]] * 5}, "not a network's config|depth"),
        ({"ks": [7] * 19}, "expected 20 kernels .* found 19"),
        ({"e": [5] * 20}, r"expand\[1.0\] = 5, expected one of 3, 4, 6"),
        ({"w": [0]}, "expected 0 widths, found 1"),
        ({"r": 100}, "resolution = 100"),
        ({"r": [1, 2]}, "one resolution 'r', found"),
        ({"r": "224"}, "not a network's config|resolution"),
    ],
)
def test_config_that_is_no_network(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        arch_from_config(get_space("ofa-mbv3-w1.0"), {**MBV3, **changes})
    assert "\n" not in str(caught.value)


def test_names_and_both_forms_of_file(tiny_space: SearchSpace, tmp_path: Path) -> None:
    assert read_arch(tiny_space, "largest") == tiny_space.largest
    assert read_arch(tiny_space, "smallest") == tiny_space.smallest
    ours = written(tmp_path, tiny_space.smallest.to_dict())
    assert read_arch(tiny_space, ours) == tiny_space.smallest
    theirs = written(tmp_path, {"d": [1, 1], "ks": [3, 3], "e": [2, 1.5], "r": 12})
    assert read_arch(tiny_space, theirs) == tiny_space.smallest


def test_file_that_is_no_network_is_named(tiny_space: SearchSpace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^none\.json: expected 'largest', 'smallest' or a JSON"):
        read_arch(tiny_space, "none.json")
    for value, kind in (
        ({"d": [9, 9]}, InputError),
        ({"depths": [1, 1]}, FileFormatError),
        ({**tiny_space.smallest.to_dict(), "resolution": 7}, InputError),
    ):
        path = written(tmp_path, value)
        with pytest.raises(kind, match="network.json: "):
            read_arch(tiny_space, path)
