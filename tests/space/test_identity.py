"""Which spaces are the same: files, fingerprints, classes, the catalogue."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from ofa_deploy.errors import UnknownNameError
from ofa_deploy.space import SearchSpace, get_space, space_names
from tests.space.drawn import check_in_space, spaces

# -- identity -------------------------------------------------------------------------------


@given(space=spaces)
def test_json_round_trip(space: SearchSpace) -> None:
    again = SearchSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again == space
    assert again.fingerprint == space.fingerprint
    assert again.lower(again.largest) == space.lower(space.largest)


def test_fingerprint_is_of_the_networks_not_the_name(tiny_space: SearchSpace) -> None:
    assert replace(tiny_space, name="renamed").fingerprint == tiny_space.fingerprint
    changed = [
        tiny_space.with_classes(5),
        replace(tiny_space, resolutions=(16,)),
        replace(tiny_space, bn_eps=1e-3),
        replace(tiny_space, stages=tiny_space.stages[:2]),
        replace(tiny_space, head=replace(tiny_space.head, features=8)),
    ]
    assert len({tiny_space.fingerprint, *(space.fingerprint for space in changed)}) == 6


def test_equal_spaces_have_equal_fingerprints(tiny_space: SearchSpace) -> None:
    stages = tuple(
        replace(stage, expands=tuple(map(float, stage.expands))) for stage in tiny_space.stages
    )
    same = replace(tiny_space, stages=stages)
    assert same == tiny_space
    assert same.fingerprint == tiny_space.fingerprint


def test_with_classes_changes_the_last_layer_only(tiny_space: SearchSpace) -> None:
    more = tiny_space.with_classes(9)
    old, new = tiny_space.lower(tiny_space.largest), more.lower(more.largest)
    assert new[:-1] == old[:-1]
    assert new[-1] == replace(old[-1], out_channels=9)


# -- catalogue ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", space_names())
def test_catalogued_spaces(name: str, rng: np.random.Generator) -> None:
    space = get_space(name)
    assert space.name == name
    check_in_space(space, space.sample(rng, 50))
    small, large = space.cost(space.smallest), space.cost(space.largest)
    assert small.macs < large.macs and small.params < large.params
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_unknown_space_names_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown space 'mbv3-nano'; did you mean .*mbv3-nano-32"
    ):
        get_space("mbv3-nano")
    with pytest.raises(UnknownNameError, match=r"unknown space 'zzzz'; known: .*mbv3-nano-32"):
        get_space("zzzz")
