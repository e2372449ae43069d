"""``Arch``: equal networks are equal values, and files are not believed."""

import json
from typing import Any

import pytest

from ofa_deploy.errors import FileFormatError
from ofa_deploy.space import Arch, Cost

ARCH = Arch(resolution=64, depths=(1, 2), kernels=(3, 5, 7), expands=(2, 3.5, 4))


def changed(**fields: Any) -> dict[str, Any]:
    return {**ARCH.to_dict(), **fields}


@pytest.mark.parametrize("widths", [(), (0, 2)])
def test_json_round_trip(widths: tuple[int, ...]) -> None:
    arch = Arch(64, (1, 2), (3, 5, 7), (2, 3.5, 4), widths)
    again = Arch.from_dict(json.loads(json.dumps(arch.to_dict())))
    assert again == arch and hash(again) == hash(arch)
    assert ("widths" in arch.to_dict()) == bool(widths)


def test_equal_networks_are_one_key() -> None:
    as_floats = Arch(resolution=64, depths=(1, 2), kernels=(3, 5, 7), expands=(2.0, 3.5, 4.0))
    assert {ARCH: "found"}[as_floats] == "found"
    assert len({ARCH, Arch(48, (1, 2), (3, 5, 7), (2, 3.5, 4))}) == 2


def test_arch_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ARCH.resolution = 32  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Cost(macs=1, params=1, peak_memory=1).macs = 2  # type: ignore[misc]


def test_text_shows_stage_by_stage() -> None:
    assert str(ARCH) == "r64 | k3e2 | k5e3.5 k7e4"
    assert str(Arch(64, (1,), (3,), (2,), (1, 0))) == "r64 w1,0 | k3e2"


@pytest.mark.parametrize(
    "value",
    [
        {k: v for k, v in changed().items() if k != "resolution"},
        changed(resolution="64"),
        changed(resolution=None),
        changed(resolution=True),
        changed(depths=2),
        changed(depths=None),
        changed(depths=["1", "2"]),
        changed(kernels="357"),
        changed(kernels=[3, 5, None]),
        changed(expands=[2, [3], 4]),
        changed(widths=[False]),
    ],
)
def test_hostile_dict_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(FileFormatError, match="not an arch: ") as caught:
        Arch.from_dict(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([1, 2], id="a list"),
        pytest.param({k: v for k, v in changed().items() if k != "depths"}, id="no depths"),
        pytest.param({k: v for k, v in changed().items() if k != "kernels"}, id="no kernels"),
        pytest.param(changed(resolution=float("nan")), id="resolution NaN"),
        pytest.param(changed(resolution=float("inf")), id="resolution infinite"),
        pytest.param(changed(resolution=64.5), id="resolution broken"),
        pytest.param(changed(depths=[1.5, 2]), id="depth broken"),
        pytest.param(changed(kernels=[3, 5, 7.5]), id="kernel broken"),
        pytest.param(changed(expands=[2, 3, float("inf")]), id="expand infinite"),
        pytest.param(changed(expands=[2, 3, 10**308]), id="expand beyond all"),
        pytest.param(changed(expands=[2, 3, 1e300]), id="expand beyond all, broken"),
        pytest.param(changed(resolution=10**400), id="resolution beyond all"),
    ],
)
def test_more_hostile_dicts_are_refused(value: Any) -> None:
    with pytest.raises(FileFormatError, match="not an arch"):
        Arch.from_dict(value)
