"""Dominance against its definition, volumes against counting, files against their readers."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.errors import FileFormatError, InputError, UnknownNameError
from ofa_deploy.pareto import OBJECTIVES, Candidate, ParetoFront
from ofa_deploy.space import Arch

Point = tuple[int, int]  # top1, latency


def arch(number: int) -> Arch:
    return Arch(resolution=number + 1, depths=(1,), kernels=(3,), expands=(2,))


def candidate(number: int, top1: float, latency: float) -> Candidate:
    return Candidate(arch(number), {"top1": top1, "latency": latency})


def candidates(points: Sequence[Point]) -> list[Candidate]:
    return [candidate(i, *point) for i, point in enumerate(points)]


def dominates(one: Point, other: Point) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1]


def undominated(points: Sequence[Point]) -> set[Point]:
    return {p for p in points if not any(dominates(q, p) for q in points)}


def found(front: ParetoFront) -> list[Point]:
    return [(int(c.value("top1")), int(c.value("latency"))) for c in front]


points = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=25)


@given(points=points)
def test_front_is_what_nothing_dominates(points: list[Point]) -> None:
    front = ParetoFront.of(candidates(points))
    assert len(front) == len(set(found(front)))
    assert set(found(front)) == undominated(points)
    latencies = [latency for _, latency in found(front)]
    assert latencies == sorted(latencies)


@given(points=points)
def test_goals_decide_what_dominates(points: list[Point]) -> None:
    front = ParetoFront.of(candidates(points), {"latency": "max", "top1": "min"})
    mirrored = undominated([(latency, top1) for top1, latency in points])
    assert {(latency, top1) for top1, latency in found(front)} == mirrored
    assert [c.value("top1") for c in front] == sorted(c.value("top1") for c in front)


@given(cube=st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=15))
def test_three_objectives(cube: list[tuple[int, int, int]]) -> None:
    everyone = [
        Candidate(arch(i), {"top1": a, "latency": b, "params": c})
        for i, (a, b, c) in enumerate(cube)
    ]
    front = ParetoFront.of(everyone, {"top1": "max", "latency": "min", "params": "min"})
    assert [c.value("params") for c in front] == sorted(c.value("params") for c in front)
    gains = {(a, -b, -c) for a, b, c in cube}
    best = {
        one
        for one in gains
        if not any(o != one and all(x >= y for x, y in zip(o, one, strict=True)) for o in gains)
    }
    assert {(a, -b, -c) for a, b, c in front.values().tolist()} == best


def test_measured_values_count_before_predicted_ones() -> None:
    slow = candidate(0, 70, 5).with_measured(latency=9)
    fast = candidate(1, 60, 8)
    assert slow.value("latency") == 9 and slow.value("top1") == 70
    assert [c.arch for c in ParetoFront.of([slow, fast])] == [fast.arch, slow.arch]


def test_same_network_twice_counts_once_and_the_first_stays() -> None:
    front = ParetoFront.of([candidate(0, 50, 5), candidate(1, 60, 6), candidate(0, 50, 5.5)])
    assert [c.value("latency") for c in front] == [5, 6]


def test_of_equal_candidates_the_first_stays() -> None:
    (only,) = ParetoFront.of([candidate(n, 50, 5) for n in range(3)])
    assert only.arch == arch(0)


def test_missing_metric_is_named() -> None:
    lacking = Candidate(arch(0), {"top1": 50.0, "latency[pi-5]": 3.0})
    with pytest.raises(UnknownNameError, match=r"unknown metric 'latency'.*latency\[pi-5\]"):
        ParetoFront.of([lacking])


@given(one=points, other=points, third=points)
def test_merge_is_the_front_of_all(
    one: list[Point], other: list[Point], third: list[Point]
) -> None:
    everyone = candidates([*one, *other, *third])
    a, b = len(one), len(one) + len(other)
    fronts = [ParetoFront.of(part) for part in (everyone[:a], everyone[a:b], everyone[b:])]
    merged = fronts[0].merge(*fronts[1:])
    assert set(found(merged)) == undominated([*one, *other, *third])
    assert found(fronts[2].merge(fronts[1]).merge(fronts[0])) == found(merged)
    assert merged.merge() == merged.merge(merged) == merged


def test_fronts_over_other_objectives_do_not_merge() -> None:
    one = ParetoFront.of([candidate(0, 50, 5)])
    for goals in ({"top1": "max"}, {"top1": "max", "latency": "max"}):
        with pytest.raises(InputError, match="cannot be merged"):
            one.merge(ParetoFront.of([candidate(0, 50, 5)], goals))


def test_hypervolume_by_hand() -> None:
    front = ParetoFront.of([candidate(0, 50, 2), candidate(1, 60, 4)])
    # (50-40) x (10-2), and (60-50) x (10-4) on top of it
    assert front.hypervolume({"latency": 10, "top1": 40}) == pytest.approx(80 + 60)
    assert front.hypervolume({"top1": 40, "latency": 3}) == pytest.approx(10)
    assert front.hypervolume({"top1": 60, "latency": 4}) == 0
    assert ParetoFront(()).hypervolume({"top1": 0, "latency": 1}) == 0


@given(points=points)
def test_hypervolume_counts_the_dominated_unit_squares(points: list[Point]) -> None:
    squares = {
        (x, y) for top1, latency in points for x in range(2, top1) for y in range(latency, 9)
    }
    front = ParetoFront.of(candidates(points))
    assert front.hypervolume({"top1": 2, "latency": 9}) == pytest.approx(len(squares))


def test_reference_point_must_name_every_objective() -> None:
    with pytest.raises(InputError, match="latency"):
        ParetoFront.of([candidate(0, 50, 2)]).hypervolume({"top1": 40})


def test_best() -> None:
    front = ParetoFront.of([candidate(0, 50, 2), candidate(1, 60, 4), candidate(2, 55, 3)])
    assert front.best().arch == front.best("top1").arch == arch(1)
    assert front.best("latency").arch == arch(0)
    with pytest.raises(UnknownNameError, match="unknown objective 'macs'"):
        front.best("macs")
    with pytest.raises(InputError, match="empty"):
        ParetoFront(()).best()


def test_front_is_a_sequence() -> None:
    front = ParetoFront.of([candidate(0, 50, 2), candidate(1, 60, 4)])
    assert len(front) == 2 and front[0] in front and list(front)[-1] is front[-1]
    assert front.values().shape == (2, 2)
    np.testing.assert_array_equal(front.values(), [[50, 2], [60, 4]])


def full_candidate() -> Candidate:
    return Candidate(
        Arch(resolution=96, depths=(2,), kernels=(3, 5), expands=(2, 3.5), widths=(0, 1)),
        predicted={"top1": 71.25, "latency": 4.0},
        intervals={"latency": (3.5, 4.75)},
        measured={"latency": 4.125},
        budget="latency <= 5 ms",
    )


def test_frame_has_a_column_a_metric_and_kind() -> None:
    frame = ParetoFront.of([full_candidate(), candidate(1, 60, 1)]).to_frame()
    (row,) = frame[frame["latency_measured"].notna()].to_dict("records")
    expected = {
        "top1_predicted": 71.25,
        "latency_predicted": 4.0,
        "latency_low": 3.5,
        "latency_high": 4.75,
        "latency_measured": 4.125,
        "budget": "latency <= 5 ms",
    }
    assert {name: row[name] for name in expected} == expected
    assert row["arch"] == str(full_candidate().arch)
    assert len(frame) == 2
    assert len(ParetoFront(()).to_frame()) == 0


def test_json_round_trip() -> None:
    front = ParetoFront.of([full_candidate(), candidate(1, 60, 1)])
    assert ParetoFront.from_dict(json.loads(json.dumps(front.to_dict()))) == front
    empty = ParetoFront.of([], {"top1": "max", "macs": "min"})
    assert ParetoFront.from_dict(json.loads(json.dumps(empty.to_dict()))) == empty


def hostile(**changes: Any) -> dict[str, Any]:
    return {**full_candidate().to_dict(), **changes}


ARCH = full_candidate().arch.to_dict()
BAD_CANDIDATES: dict[str, Any] = {
    "no arch": {k: v for k, v in hostile().items() if k != "arch"},
    "no budget": {k: v for k, v in hostile().items() if k != "budget"},
    "arch a list": hostile(arch=[1, 2]),
    "arch without a resolution": hostile(arch={"depths": []}),
    "arch with text": hostile(arch={**ARCH, "kernels": "35"}),
    "arch with a bool": hostile(arch={**ARCH, "depths": [True]}),
    "metric text": hostile(predicted={"top1": "71"}),
    "metric bool": hostile(measured={"top1": True}),
    "metric none": hostile(measured={"top1": None}),
    "metric NaN": hostile(predicted={"top1": float("nan")}),
    "metric infinite": hostile(measured={"top1": float("inf")}),
    "metrics a list": hostile(predicted=[1]),
    "interval of three": hostile(intervals={"top1": [1, 2, 3]}),
    "interval a number": hostile(intervals={"top1": 1}),
    "interval infinite": hostile(intervals={"top1": [1, float("inf")]}),
    "a list": [],
    "none": None,
}
OVERFLOWS = {
    "arch with an infinite resolution": hostile(arch={**ARCH, "resolution": float("inf")}),
    "metric too great for a float": hostile(predicted={"top1": 10**400}),
}


@pytest.mark.parametrize("case", BAD_CANDIDATES)
def test_hostile_candidate_is_refused(case: str) -> None:
    with pytest.raises(FileFormatError, match="not a"):
        Candidate.from_dict(BAD_CANDIDATES[case])


@pytest.mark.parametrize("case", OVERFLOWS)
def test_numbers_beyond_floats_are_refused(case: str) -> None:
    with pytest.raises(FileFormatError, match="not a"):
        Candidate.from_dict(OVERFLOWS[case])


@pytest.mark.parametrize(
    "value",
    [
        [],
        None,
        {},
        {"objectives": {"top1": "max"}},
        {"candidates": []},
        {"objectives": ["top1"], "candidates": []},
        {"objectives": {}, "candidates": []},
        {"objectives": {"top1": "maximum"}, "candidates": []},
        {"objectives": {"top1": "max"}, "candidates": None},
        {"objectives": {"top1": "max"}, "candidates": [{}]},
        {"objectives": {"top1": "max"}, "candidates": [[]]},
    ],
)
def test_hostile_front_is_refused(value: Any) -> None:
    with pytest.raises(FileFormatError, match="not a"):
        ParetoFront.from_dict(value)


def test_front_whose_candidates_lack_an_objective_is_refused() -> None:
    value = {"objectives": dict(OBJECTIVES), "candidates": [hostile(predicted={}, measured={})]}
    with pytest.raises(FileFormatError):
        ParetoFront.from_dict(value)
