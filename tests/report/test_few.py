"""Which networks stand for a front on a terminal, and which of them are the best."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.report import MOST, Series, few_rows, front_rows, front_table
from ofa_deploy.report.few import best_places, few_places
from ofa_deploy.space import Arch
from tests.report.fronts import arch


def network(
    n: int, ms: float, top1: float, budget: str = "", measured: Mapping[str, float] | None = None
) -> Candidate:
    told = {"latency": ms, "top1": top1}
    return Candidate(arch(n), told, measured=measured or {}, budget=budget)


def front(*candidates: Candidate) -> ParetoFront:
    return ParetoFront(candidates)


@given(st.integers(0, 200), st.sets(st.integers(0, 199), max_size=30), st.integers(2, 20))
def test_few_places_hold_the_ends_and_what_must_be_kept(
    count: int, kept: set[int], most: int
) -> None:
    kept = {place for place in kept if place < count}
    found = few_places(count, kept, most)
    assert found == sorted(set(found)) and len(found) <= most
    if len(kept) <= most:
        assert kept <= set(found)
    if count and len(kept) <= most - 2:
        assert {0, count - 1} <= set(found)


def test_the_best_keeps_its_budget_as_measured() -> None:
    budget = "latency <= 2 ms, macs <= 2M, resolution in 160,192"
    missed = {"latency": 2.1, "top1": 90.0}
    held = {"latency": 1.9, "top1": 80.0}
    both = front(
        network(1, 1.0, 70.0, budget),
        network(2, 1.8, 95.0, budget, missed),
        network(3, 1.9, 75.0, budget, held),
    )
    assert best_places(Series("x", both, "measured")) == {2}
    assert best_places(Series("x", both, "predicted")) == {1}
    alone = front(network(2, 1.8, 95.0, budget, missed))
    assert best_places(Series("x", alone, "measured")) == set()


def test_every_budget_has_its_best_and_old_budgets_have_too() -> None:
    one = front(
        network(1, 1.0, 70.0, "latency <= 1 ms"),
        network(2, 2.0, 80.0, "latency <= 2"),  # as it was written before units were needed
        network(3, 3.0, 90.0),
        network(4, 4.0, 85.0),
    )
    assert best_places(Series("x", one, "predicted")) == {0, 1, 2}


def test_of_a_network_predicted_and_measured_the_measurement_decides() -> None:
    told = front(*(network(i, float(i), 60.0 + i) for i in range(1, 6)))
    seen = front(network(2, 2.0, 62.0, measured={"latency": 2.0, "top1": 0.0}))
    series = [Series("x", told, "predicted"), Series("x", seen, "measured")]
    rows = front_rows(series)
    assert [row["arch"] for row in rows if row["best"]] == [str(arch(2))]
    assert front_table(rows).headers[0] == "*"
    assert "keeps its budget" in front_table(rows).note
    assert front_table(rows[1:2]).note == "", "one that is all there is needs no mark"


@pytest.mark.parametrize("measured", [3, 40])
def test_few_rows_keep_the_best_and_what_was_measured(measured: int) -> None:
    def made(n: int) -> Candidate:
        seen = {"latency": 1.0 + n, "top1": 50.0 + n % 7} if n < measured else {}
        return network(n + 1, 1.0 + n, 50.0 + n, measured=seen)

    archs: Sequence[Arch] = [arch(n + 1) for n in range(60)]
    assert len(set(archs)) == 60
    rows = front_rows([Series("x", front(*map(made, range(60))), "measured")])
    few = few_rows(rows)
    assert MOST <= len(few) <= MOST + 1
    assert sum(row["best"] for row in few) == sum(row["best"] for row in rows) == 1
    shown = sum(row["top1"] is not None for row in few)
    assert shown == 3 if measured == 3 else shown >= MOST
