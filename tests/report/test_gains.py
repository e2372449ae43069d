"""Fronts compared: hypervolume, gains at equal latency, what is unknown."""

import json
from collections.abc import Sequence
from math import nan

import pytest

from ofa_deploy.errors import InputError
from ofa_deploy.report import Offer, Series, compare
from tests.report.fronts import fast, front, measured, pair


def gains(offers: Sequence[Offer], name: str) -> list[float | None]:
    return [each.value if each else None for each in (offer.gain[name] for offer in offers)]


def test_comparison_with_a_stated_reference() -> None:
    made = compare(pair(), {"latency": 5.0, "top1": 60.0})
    first, second = made.fronts
    # 1 ms of 10 points, 2 of 15 and 1 of 20; 1.5 ms of 10 points and 2 of 18.
    assert [first.hypervolume, second.hypervolume] == pytest.approx([60, 51])
    assert (first.points, second.points) == (3, 2)
    assert first.dominated_by == {"slow (measured)": 0.0}
    assert second.dominated_by == {"fast (measured)": 0.5}


def test_comparison_refers_to_the_worst_of_all_unless_told() -> None:
    made = compare(pair())
    assert made.reference == {"latency": 4.0, "top1": 70.0}
    assert [f.hypervolume for f in made.fronts] == pytest.approx([10, 8])


def test_gain_at_equal_latency_over_the_overlap() -> None:
    made = compare(pair())
    assert [offer.at for offer in made.at_latency] == [1.5, 1.875, 2.25, 2.625, 3.0]
    assert gains(made.at_latency, "slow (measured)") == [0.0, 0.0, -5.0, -5.0, 3.0]


def test_gain_at_budgets_is_unknown_where_a_front_has_nothing() -> None:
    tight, wide = compare(pair(), budgets=(5.0, 1.0)).at_latency
    assert tight.value == {"fast (measured)": 70.0, "slow (measured)": None}
    assert tight.gain == {"slow (measured)": None}
    assert gains([wide], "slow (measured)") == [-2.0]


def test_fronts_that_do_not_overlap_are_compared_where_both_have_begun() -> None:
    late = Series("late", front(measured(9, 8.0, 81.0)), "measured")
    (offer,) = compare([pair()[0], late]).at_latency
    assert (offer.at, gains([offer], "late (measured)")) == (8.0, [1.0])


def test_a_front_does_not_beat_its_equal() -> None:
    twin = Series("twin", fast(), "measured")
    made = compare([pair()[0], twin])
    assert [list(f.dominated_by.values()) for f in made.fronts] == [[0.0], [0.0]]


def test_one_front_has_figures_and_no_gains() -> None:
    made = compare(pair()[:1])
    (table,) = made.tables()
    assert table.rows == (("fast (measured)", "3", "10.0"),)
    assert table.note.startswith("Hypervolume up to latency 4.00 ms, top1 70.00 %.")


def test_comparison_as_tables_and_json() -> None:
    made = compare(pair(), budgets=(1.0, 3.0))
    figures, at_latency, at_accuracy = made.tables()
    assert figures.rows[1] == ("slow (measured)", "2", "8.00", "50 %", "50 %", "–", "–")
    assert at_latency.rows[0] == ("1.00", "70.00", "–")
    assert at_latency.rows[1][:2] == ("3.00", "75.00")
    assert at_latency.rows[1][2].startswith("78.00 (+3.00")
    assert "600 draws" in at_latency.note and "spread is not known" in at_latency.note
    for each in made.tables():
        assert len(each.headers) == len(each.numeric) == len(each.rows[0])
    assert len(at_accuracy.rows) == 5
    again = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert again["fronts"][0]["hypervolume"] == pytest.approx(10)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"latency": 5.0}, "expected a number for latency and for top1"),
        ({"latency": 5.0, "top1": nan}, "expected a number for latency and for top1"),
        ({"latency": 5.0, "top1": 1.0, "energy": 1.0}, "unknown metric of the reference point"),
    ],
)
def test_a_reference_of_other_metrics_is_refused(reference: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(pair(), reference)
