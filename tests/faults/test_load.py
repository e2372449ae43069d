"""Large tables, fronts and spaces take time and memory that grow about as they do."""

from pathlib import Path

import pytest

from ofa_deploy.space import SearchSpace
from tests.faults.crowd import profile_many, why_not
from tests.faults.loads import LOADS, Taken, exponent, load

_SMALL = {"walk-space": 4}


@pytest.mark.parametrize("name", ["compare-tables", "keep-front", "walk-space"])
def test_work_of_a_small_size(name: str) -> None:
    """The work itself is what it says: sizes are asserted within."""
    assert load(name, _SMALL.get(name, 500)).cpu > 0


def _cpu(taken: Taken) -> float:
    return taken.cpu


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", LOADS)
def test_growth_is_near_linear(name: str) -> None:
    kind = LOADS[name]
    few, *_, many = (load(name, size) for size in kind.sizes)
    assert many.peak_mib < kind.most_mib, many
    if exponent(few, many) >= kind.most_exponent:  # or was something else at work meanwhile?
        few, many = (min(each, load(name, each.size), key=_cpu) for each in (few, many))
    assert exponent(few, many) < kind.most_exponent, (few, many)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "possible")
def test_fifty_profiles_at_once(tiny_space: SearchSpace, tmp_path: Path) -> None:
    taken = profile_many(tmp_path, tiny_space, 50)
    assert taken.peak_mib < 8192, taken
