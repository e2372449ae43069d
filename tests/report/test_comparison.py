"""Intervals of gains, devices kept apart, two runs of one thing, points from elsewhere."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa_deploy.errors import FileFormatError, InputError, MismatchError
from ofa_deploy.hardware import Conditions
from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.report import Context, ExternalPoint, Report, Series, changes, compare
from ofa_deploy.report.agreement import agreement, agreement_table
from ofa_deploy.report.changes import repeated
from ofa_deploy.report.external import MAX_POINTS, read_external
from ofa_deploy.report.panels import panels_of
from ofa_deploy.space import Arch, SearchSpace

HERE = Conditions(device="pi", processor="A72", runtime="onnxruntime", runtime_version="1.20")


def arch(number: int) -> Arch:
    return Arch(32, (1,), (3,), (number,))


def told(number: int, ms: float, top1: float, half: float = 0.0) -> Candidate:
    ends = {"latency": (ms - half, ms + half)} if half else {}
    return Candidate(arch(number), {"latency": ms, "top1": top1}, ends)


def seen(number: int, ms: float, top1: float, spread: float | None = None) -> Candidate:
    more = {} if spread is None else {"latency.spread": spread}
    return Candidate(arch(number), measured={"latency": ms, "top1": top1, **more})


def series(label: str, *candidates: Candidate, kind: Any = "measured", **context: Any) -> Series:
    return Series(label, ParetoFront(candidates), kind, context=Context(**context))


def ladder(factor: float = 1.0, gain: float = 0.0, spread: float | None = None) -> list[Candidate]:
    return [seen(i, factor * (1 + i), 60 + 5 * i**0.5 + gain, spread) for i in range(12)]


# how sure a gain is


def test_gain_by_spread_covers_what_the_spread_allows() -> None:
    base = series("base", *ladder(spread=0.02))
    better = series("better", *ladder(gain=2.0, spread=0.02))
    made = compare([base, better], budgets=(6.5,))
    gain = made.at_latency[0].gain["better (measured)"]
    assert gain is not None and gain.low is not None and gain.high is not None
    assert made.drawn == {"better (measured)": "spread"}
    # The budget lies far from every network's spread, and accuracies have none.
    assert [gain.low, gain.value, gain.high] == pytest.approx([2.0, 2.0, 2.0])
    near = compare([base, better], budgets=(7.0,)).at_latency[0].gain["better (measured)"]
    assert near is not None and near.low is not None and near.high is not None
    assert near.low < 2.0 < near.high, "at 7 ms the spread decides which network fits"
    assert "within their own intervals" in made.tables()[1].note


def test_spread_moves_networks_by_what_their_interval_says() -> None:
    base = series("base", told(1, 10.0, 70.0, half=1.0), kind="predicted")
    other = series("other", told(2, 20.0, 70.0, half=1.0), kind="predicted")
    (offer,) = compare([base, other]).at_accuracy
    gain = offer.gain["other (predicted)"]
    assert gain is not None and gain.low is not None and gain.high is not None
    assert gain.value == pytest.approx(100.0)
    # Half-widths of 90 % intervals: 0.61 ms each way in standard deviation.
    drawn = np.random.default_rng(3).standard_normal((2, 100_000)) / 1.6449
    expected = np.quantile(100 * ((20 + drawn[0]) / (10 + drawn[1]) - 1), [0.025, 0.975])
    assert [gain.low, gain.high] == pytest.approx(expected, abs=3.0)


def test_networks_are_drawn_where_no_spread_is_known() -> None:
    made = compare([series("a", *ladder()), series("b", *ladder(gain=1.0))], budgets=(6.5, 12.5))
    assert made.drawn == {"b (measured)": "networks"}
    gain = made.at_latency[1].gain["b (measured)"]
    assert gain is not None and gain.low is not None and gain.high is not None
    assert gain.low <= gain.value <= gain.high
    assert gain.low < gain.high
    again = compare([series("a", *ladder()), series("b", *ladder(gain=1.0))], budgets=(6.5, 12.5))
    assert again == made, "the draws are seeded"


def test_gain_without_a_network_in_most_draws_has_no_interval() -> None:
    lone = series("lone", seen(1, 1.0, 60.0), *(seen(i, 9.0 + i, 60.0 + i) for i in range(2, 9)))
    made = compare([lone, series("b", *ladder())], budgets=(1.5,))
    gain = made.at_latency[0].gain["b (measured)"]
    assert gain is not None
    assert (gain.low, gain.high) == (None, None)


def test_equal_accuracy_tells_percent_of_latency() -> None:
    made = compare([series("slow", *ladder()), series("fast", *ladder(factor=0.8))])
    for offer in made.at_accuracy:
        gain = offer.gain["fast (measured)"]
        assert gain is not None
        assert gain.value == pytest.approx(-20.0)
    assert made.fronts[0].dominated_by == {"fast (measured)": 1.0}
    assert made.fronts[1].covered_by == {"slow (measured)": 0.0}


def test_equal_fronts_cover_and_do_not_beat_each_other() -> None:
    made = compare([series("a", *ladder()), series("b", *ladder())])
    assert made.fronts[0].dominated_by == {"b (measured)": 0.0}
    assert made.fronts[0].covered_by == {"b (measured)": 1.0}


# devices


def test_devices_are_never_compared() -> None:
    pi, nano = series("a", *ladder(), device="pi"), series("b", *ladder(), device="nano")
    with pytest.raises(MismatchError, match="expected fronts of one device, found 'pi', 'nano'"):
        compare([pi, nano])
    report = Report([pi, nano], "Two")
    assert [len(each.fronts) for each in report.comparisons] == [1, 1]
    assert report.changes == []
    names = [table.title for table in report.tables().values()]
    assert names == ["Fronts on pi", "Fronts on nano"]


@pytest.mark.parametrize(
    ("field", "value", "panels"),
    [
        ("precision", "int8", 1),
        ("threads", 4, 1),
        ("runtime_version", "1.21", 1),
        ("processor", "A76", 2),
        ("power_mode", "10W", 2),
        ("batch", 8, 2),
    ],
)
def test_conditions_that_make_another_device(field: str, value: Any, panels: int) -> None:
    other = HERE.model_copy(update={field: value})
    made = panels_of([series("a", *ladder(), conditions=HERE),
                      series("b", *ladder(), conditions=other)])  # fmt: skip
    assert len(made) == panels
    if panels == 1:
        assert made[0].differences == {field: (str(getattr(HERE, field)), str(value))}


def test_one_name_on_two_devices_is_no_clash() -> None:
    assert len(panels_of([series("a", *ladder(), device=d) for d in ("pi", "nano")])) == 2
    with pytest.raises(InputError, match="two fronts are named"):
        panels_of([series("a", *ladder(), device="pi")] * 2)


# two runs of the same thing


def test_changes_name_conditions_and_find_what_moved_beyond_its_spread() -> None:
    newer = HERE.model_copy(update={"runtime_version": "1.21"})
    before = series("old", *ladder(spread=0.02), conditions=HERE)
    later = [*ladder(factor=1.005, spread=0.02)[:-1], seen(11, 15.0, 50.0, 0.02)]
    made = changes(before, series("new", *later, conditions=newer))
    assert made.conditions == ("runtime_version (1.20, 1.21)",)
    assert made.basis == "spread"
    verdicts = {each.arch: each.latency.verdict for each in made.archs}
    assert [arch for arch, verdict in verdicts.items() if verdict == "beyond"] == [str(arch(11))]
    assert made.latency[0] == pytest.approx(0.5)
    assert made.archs[-1].latency.change == pytest.approx(25.0)
    assert made.archs[-1].top1.verdict == "unknown", "no spread of accuracies is recorded"
    assert "runtime_version (1.20, 1.21)" in made.table().note


def test_changes_without_spread_tell_the_whole_from_the_one() -> None:
    rng = np.random.default_rng(0)
    factors = 1.05 + rng.normal(0, 0.002, 12)
    factors[4] = 1.065  # seven standard deviations
    later = [seen(i, f * (1 + i), 60 + 5 * i**0.5) for i, f in enumerate(factors)]
    made = changes(series("old", *ladder()), series("new", *later))
    assert made.basis == "others"
    apart = [each.arch for each in made.archs if each.latency.verdict == "beyond"]
    assert apart == [str(arch(4))]
    value, low, high = made.latency
    assert low is not None and high is not None
    assert 4.5 < low <= value <= high < 5.5
    assert "which may be none" in made.lines()[2], "accuracies did not move"
    assert made.table().rows[4][3] == "apart from the others"


def test_few_networks_tell_no_noise() -> None:
    made = changes(series("old", seen(1, 1.0, 70.0)), series("new", seen(1, 2.0, 70.0)))
    assert made.basis == "unknown"
    assert made.archs[0].latency.verdict == "unknown"
    assert made.latency == (pytest.approx(100.0), None, None)


def test_changes_are_found_where_fronts_share_networks() -> None:
    old, new = series("old", *ladder()), series("new", *ladder(1.1)[:5])
    (made,) = repeated([old, new])
    assert (len(made.archs), made.only_before, made.only_after) == (5, 7, 0)
    assert repeated([old, series("other", seen(99, 1.0, 70.0))]) == []
    assert repeated([old, series("old", *ladder(), kind="measured", device="x")]) == []


def test_other_devices_and_spaces_are_no_second_run(tiny_space: SearchSpace) -> None:
    elsewhere = HERE.model_copy(update={"device": "nano"})
    old = series("old", *ladder(), conditions=HERE)
    with pytest.raises(MismatchError, match=r"other conditions: device \(pi, nano\)"):
        changes(old, series("new", *ladder(), conditions=elsewhere))
    with pytest.raises(MismatchError, match="are of two spaces"):
        changes(old, series("new", *ladder(), conditions=HERE, space=tiny_space))
    with pytest.raises(MismatchError, match="share no network"):
        changes(old, series("new", seen(99, 1.0, 70.0), conditions=HERE))


# measured against predicted


def test_agreement_tells_bias_error_and_what_the_interval_held() -> None:
    one = Candidate(
        arch(1), {"latency": 10.0, "top1": 70.0}, {"latency": (9.0, 12.0)},
        {"latency": 11.0, "top1": 69.0},
    )  # fmt: skip
    other = replace(one, arch=arch(2), measured={"latency": 8.0, "top1": 72.0})
    latency, top1 = agreement([series("x", one, other)])
    assert (latency.networks, latency.held) == (2, 0.5)
    assert [latency.bias, latency.error, latency.worst] == pytest.approx([-5.0, 15.0, -20.0])
    assert [top1.bias, top1.error, top1.worst] == pytest.approx([0.5, 1.5, 2.0])
    assert top1.held is None
    assert agreement_table([latency, top1]).rows[1][-1] == "–"


def test_agreement_joins_the_two_series_of_a_label() -> None:
    guess, fact = told(1, 10.0, 70.0), seen(1, 12.0, 70.0)
    both = [series("x", guess, kind="predicted"), series("x", fact)]
    assert agreement(both)[0].bias == pytest.approx(20.0)
    assert agreement([both[0], replace(both[1], label="y")]) == []


# points from elsewhere


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_external_points_are_read_and_stand_apart(tmp_path: Path) -> None:
    path = written(
        tmp_path / "timm.csv",
        "name,latency_ms,accuracy,device,more\nresnet,3.5,62.5,pi,x\n=1+1,5,99,pi,\n",
    )
    points = read_external(path)
    assert points[0] == ExternalPoint("resnet", 3.5, 62.5, "pi", "timm.csv")
    fronts = [series("a", *ladder(), conditions=HERE), series("b", *ladder(1.1), conditions=HERE)]
    report = Report(fronts, "With", external=points)
    without = Report(fronts, "Without")
    assert report.comparisons == without.comparisons, "they count in no figure"
    table = report.tables()["external"]
    assert table.rows[0][:4] == ("resnet", "pi · A72", "3.50", "62.50")
    assert table.rows[0][5] == f"{60 + 5 * 2**0.5 - 62.5:+.2f}"
    assert report.to_dict()["external"][1]["name"] == "=1+1"


def test_external_points_need_a_device_where_there_are_several() -> None:
    fronts = [series("a", *ladder(), device=name) for name in ("pi", "nano")]
    for name, found in (("", "found no device"), ("x", "found device 'x'")):
        point = ExternalPoint("net", 1.0, 60.0, name, "x.csv")
        with pytest.raises(InputError, match=found):
            Report(fronts, "Two", external=[point])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found no name"),
        ("name,latency_ms\nx,1\n", "found no accuracy"),
        ("name,latency_ms,accuracy\n", "expected a line for each network"),
        ("name,latency_ms,accuracy\nx,nan,50\n", "line 2: latency_ms: expected a positive"),
        ("name,latency_ms,accuracy\nx,0,50\n", "line 2: latency_ms: expected a positive"),
        ("name,latency_ms,accuracy\nx,1e308,50\n", "a positive number of ms, 1e-09 to 1e.09"),
        ("name,latency_ms,accuracy\nx,1e-320,50\n", "a positive number of ms, 1e-09 to 1e.09"),
        ("name,latency_ms,accuracy\nx,1_000,50\n", "expected a positive .*, found '1_000'"),
        ("name,latency_ms,accuracy\nx,\u0663,50\n", "expected a positive number"),
        ("name,latency_ms,accuracy,device\nx,1,50," + "d" * 201, "device: expected at most 200"),
        ("name,latency_ms,accuracy\nx,1,101\n", "line 2: accuracy: expected 0 to 100 percent"),
        ("name,latency_ms,accuracy\nx,1\n", "line 2: expected a cell for each of the 3 columns"),
        ("name,latency_ms,accuracy\nx,1,50,9\n", "of the 3 columns, found 4"),
        ("name,latency_ms,accuracy,accuracy\nx,1,50,60\n", "found accuracy twice"),
        ("name,latency_ms,accuracy\nx,1,\n", "line 2: accuracy: expected a percentage"),
        ("name,latency_ms,accuracy\n,1,50\n", "line 2: name: expected 1 to 200 printable"),
        ("name,latency_ms,accuracy\na\x07b,1,50\n", "line 2: name: expected 1 to 200 printable"),
        ('name,latency_ms,accuracy\n"x,1,50\n', "not readable as CSV"),
        (f"name,latency_ms,accuracy\n{'x' * 201},1,50\n", "line 2: name"),
    ],
)
def test_external_file_that_makes_no_sense_is_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(FileFormatError, match=message) as caught:
        read_external(written(tmp_path / "x.csv", text))
    assert "\n" not in str(caught.value)


def test_external_file_is_bounded_and_text(tmp_path: Path) -> None:
    line = "x,1,50\n"
    with pytest.raises(FileFormatError, match="more than the 20,000 points"):
        read_external(
            written(tmp_path / "a.csv", "name,latency_ms,accuracy\n" + line * (MAX_POINTS + 1))
        )
    (tmp_path / "b.csv").write_bytes(b"name,latency_ms,accuracy\n\xff,1,2\n")
    with pytest.raises(FileFormatError, match="not readable as CSV in UTF-8"):
        read_external(tmp_path / "b.csv")


# files


def test_every_table_has_a_csv_and_every_number_is_in_the_json(tmp_path: Path) -> None:
    fronts = [series("a", *ladder(spread=0.02)), series("b", *ladder(1.1, spread=0.02))]
    report = Report(fronts, "Files")
    paths = report.write_csv(tmp_path / "tables")
    assert sorted(path.name for path in paths) == [
        "changes.csv",
        "equal-accuracy.csv",
        "equal-latency.csv",
        "fronts.csv",
        "networks.csv",
    ]
    rows = list(csv.reader(io.StringIO((tmp_path / "tables" / "fronts.csv").read_text())))
    assert [row[0] for row in rows] == ["Front", "a (measured)", "b (measured)"]
    assert report.write_csv(tmp_path / "one.csv") == [tmp_path / "one.csv"]
    value = json.loads(report.write_json(tmp_path / "all.json").read_text())
    assert value["networks"][0]["measured_spread"] == 0.02
    assert value["comparisons"][0]["at_latency"][2]["gain"]["b (measured)"]["low"] is not None
    assert value["changes"][0]["basis"] == "spread"
    assert len(value["networks"]) == 24


def test_stated_reference_is_used_and_told() -> None:
    report = Report([series("a", *ladder()), series("b", *ladder(1.1))], "R",
                    reference={"latency": 20.0, "top1": 50.0})  # fmt: skip
    assert report.tables()["fronts"].note.startswith("Hypervolume up to latency 20.0 ms, top1 50")
