"""Reports: the same numbers in every form, honest pictures, a page that asks nothing of the net."""

import csv
import errno
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from rich.console import Console
from scipy.stats import binomtest

from ofa_deploy.errors import InputError, StorageError, UnknownNameError
from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.report import (
    Offer,
    Report,
    Row,
    Series,
    compare,
    csv_text,
    front_rows,
    front_table,
    rich_table,
    write_html,
    write_png,
    write_svg,
)
from ofa_deploy.report.curves import draw_curves
from ofa_deploy.report.picture import draw
from ofa_deploy.report.series import staircase
from ofa_deploy.report.style import COLOURS, MacsScale, styles
from ofa_deploy.space import Arch
from ofa_deploy.terminal import count, interval, metric, milliseconds, percent_within, size

HOSTILE = "_</script><img src=x onerror=alert(1)> $\\frac & \"[red]'"

Write = Callable[..., Path]


def arch(number: int) -> Arch:
    return Arch(32, (2,), (3, 5), (2, number))


def predicted(number: int, ms: float, top1: float, **more: Any) -> Candidate:
    return Candidate(arch(number), predicted={"latency": ms, "top1": top1}, **more)


def measured(number: int, ms: float, top1: float) -> Candidate:
    return Candidate(
        arch(number),
        predicted={"latency": ms * 1.1, "top1": top1 - 1, "macs": number * 1e6, "params": 5e4},
        intervals={"latency": (ms, ms * 1.25), "top1": (top1 - 2, top1 + 0.5)},
        measured={"latency": ms, "top1": top1},
        budget=f"latency <= {ms:g} ms",
    )


def front(*candidates: Candidate) -> ParetoFront:
    return ParetoFront(candidates)


def fast() -> ParetoFront:
    return front(measured(1, 1.0, 70.0), measured(2, 2.0, 75.0), measured(3, 4.0, 80.0))


def slow() -> ParetoFront:
    return front(measured(4, 1.5, 70.0), measured(5, 3.0, 78.0))


def pair() -> list[Series]:
    return [Series("fast", fast(), "measured"), Series("slow", slow(), "measured")]


def page(
    path: Path,
    series_list: list[Series],
    title: str = "A title",
    budgets: tuple[float, ...] = (),
    **more: Any,
) -> Path:
    return write_html(path, Report(asked(series_list, budgets), title, **more))


def picture(
    path: Path,
    series_list: list[Series],
    title: str = "A title",
    budgets: tuple[float, ...] = (),
    **more: Any,
) -> Path:
    return write_png(path, Report(asked(series_list, budgets), title), **more)


def asked(series_list: list[Series], budgets: tuple[float, ...]) -> list[Series]:
    """The series as they were searched under these latency budgets."""
    return [replace(s, context=replace(s.context, budgets=budgets)) for s in series_list]


# points


def test_points_are_of_the_kind_asked_for_and_sorted() -> None:
    both = ParetoFront((measured(2, 2.0, 75.0), measured(1, 1.0, 70.0)))
    told = Series("x", both, "predicted").points()
    seen = Series("x", both, "measured").points()
    assert [p.x for p in told] == pytest.approx([1.1, 2.2])
    assert [p.y for p in told] == [69.0, 74.0]
    assert told[0].x_range == (1.0, 1.25)
    assert told[0].y_range == (68.0, 70.5)
    assert not told[0].measured
    assert [(p.x, p.y) for p in seen] == [(1.0, 70.0), (2.0, 75.0)]
    assert seen[0].x_range == (1.0, 1.0)
    assert all(p.measured for p in seen)


def test_a_prediction_in_a_measured_series_is_not_passed_off_as_measured() -> None:
    half = Candidate(arch(1), predicted={"latency": 2.0, "top1": 70.0}, measured={"latency": 3.0})
    (point,) = Series("x", front(half), "measured").points()
    assert (point.x, point.y, point.measured) == (3.0, 70.0, False)


def test_an_interval_that_misses_its_value_still_gives_a_bar() -> None:
    odd = predicted(1, 2.0, 70.0, intervals={"latency": (2.5, 3.0)})
    assert Series("x", front(odd), "predicted").points()[0].x_range == (2.0, 3.0)


def test_latency_of_a_named_device() -> None:
    one = Candidate(arch(1), predicted={"latency[pi]": 9.0, "latency": 1.0, "top1": 70.0})
    series = Series("x", front(one), "predicted", "latency[pi]")
    assert series.points()[0].x == 9.0
    assert front_rows([series])[0]["predicted_ms"] == 9.0
    with pytest.raises(UnknownNameError, match=r"latency\[nano\].*did you mean latency\[pi\]"):
        replace(series, latency="latency[nano]").points()


def test_staircase_keeps_what_improves() -> None:
    made = [predicted(i, x, y) for i, (x, y) in enumerate([(1, 70), (2, 69), (3, 75), (3, 74)])]
    points = Series("x", front(*made), "predicted").points()
    assert [(p.x, p.y) for p in staircase(points)] == [(1, 70), (3, 75)]


# what cannot be reported


def test_an_empty_front_is_refused() -> None:
    with pytest.raises(InputError, match="front 'mine' is empty: expected at least one candidate"):
        Series("mine", ParetoFront(()), "measured")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="kind of series 'guessed'"):
        Series("x", fast(), "guessed")  # type: ignore[arg-type]


@pytest.mark.parametrize("write", [page, picture])
@pytest.mark.parametrize(
    ("series_list", "budgets", "message"),
    [
        ([], (), "expected at least one front"),
        ([Series("x", fast(), "measured")] * 2, (), r"two fronts are named 'x \(measured\)'"),
        ([Series("x", fast(), "measured")], (0.0,), "latency budget 0.0: expected a positive"),
        ([Series("x", fast(), "measured")], (nan,), "latency budget nan"),
        ([Series("x", front(predicted(1, nan, 70.0)), "predicted")], (), "latency of .* finite"),
    ],
)
def test_what_cannot_be_drawn_leaves_no_file(
    tmp_path: Path, write: Write, series_list: list[Series], budgets: tuple[float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write(tmp_path / "out", series_list, budgets=budgets)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [page, picture])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    old = tmp_path / "report"
    old.write_bytes(b"old")
    monkeypatch.setattr("ofa_deploy.files.writing.os.fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write(old, pair())
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert old.read_bytes() == b"old"


# rows and tables


def test_rows_hold_each_network_once_with_all_that_is_known() -> None:
    told = front(predicted(1, 1.2, 69.0, intervals={"latency": (1.0, 1.3)}, budget="macs <= 2M"))
    seen = front(Candidate(arch(1), measured={"latency": 1.1, "top1": 68.0}))
    rows = front_rows([Series("x", told, "predicted"), Series("x", seen, "measured")])
    assert rows == [
        Row(
            series="x",
            device="",
            budget="macs <= 2M",
            predicted_ms=1.2,
            low_ms=1.0,
            high_ms=1.3,
            measured_ms=1.1,
            measured_spread=None,
            top1_predicted=69.0,
            top1_predicted_low=None,
            top1_predicted_high=None,
            top1=68.0,
            top1_low=None,
            top1_high=None,
            macs=None,
            params=None,
            arch=str(arch(1)),
            best=True,
        )
    ]


def test_a_measurement_of_nothing_is_not_a_gap() -> None:
    first = front(Candidate(arch(1), measured={"latency": 1.0, "top1": 5.0}))
    second = front(Candidate(arch(1), measured={"latency": 1.0, "top1": 0.0}))
    rows = front_rows([Series("x", first, "predicted"), Series("x", second, "measured")])
    assert [row["top1"] for row in rows] == [0.0]


def test_rows_keep_labels_together_and_the_same_network_of_two_labels_apart() -> None:
    shared = front(measured(1, 1.0, 70.0))
    rows = front_rows(
        [
            Series("a", fast(), "predicted"),
            Series("b", shared, "predicted"),
            Series("a", fast(), "measured"),
        ]
    )
    assert [row["series"] for row in rows] == ["a", "a", "a", "b"]


def test_csv_reads_back_at_full_precision() -> None:
    third = Candidate(arch(1), predicted={"latency": 1 / 3, "top1": 70.0})
    text = csv_text(front_rows([Series('a, "b"', front(third), "predicted")]))
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["series"] == 'a, "b"'
    assert float(row["predicted_ms"]) == 1 / 3
    assert row["measured_ms"] == ""


def test_text_table_leaves_out_what_nothing_is_known_of() -> None:
    table = front_table(front_rows([Series("x", front(predicted(1, 2.0, 70.0)), "predicted")]))
    assert table.headers == ("Predicted ms", "Predicted top-1 %", "Architecture")
    assert table.rows == (("2.00", "70.00", str(arch(1))),)
    assert front_table(front_rows(pair())).headers[:3] == ("Front", "Budget", "Predicted ms")


def shown(renderable: object, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_terminal_table_fits_80_columns_and_shows_brackets() -> None:
    one = Candidate(
        arch(1),
        predicted={"latency[cpu]": 1.0, "top1": 70.0, "macs": 2.5e6, "params": 312_400},
        intervals={"latency[cpu]": (0.9, 1.125)},
        measured={"latency[cpu]": 1.06, "top1": 70.5},
        budget="latency[cpu] <= 1 ms",
    )
    rows = front_rows([Series("x", front(one), "measured", "latency[cpu]")])
    text = shown(rich_table(rows, title="[bold]Title"), 80)
    for cell in (
        "[bold]Title",
        "latency[cpu]",
        "1.00 (0.900–1.12)",
        "1.06",
        "70.50",
        "2.50 M",
        "312 k",
    ):
        assert cell in text
    assert str(arch(1)) not in text
    assert str(arch(1)) in shown(rich_table(rows, arch=True), 140)


@pytest.mark.parametrize(("top1", "images"), [(80.5, 2000), (0.0, 40), (100.0, 9), (50.0, 2)])
def test_measured_top1_has_the_interval_of_its_images(top1: float, images: int) -> None:
    judged = {"latency": 1.0, "top1": top1, "top1.images": float(images)}
    told = {"latency": 1.0, "top1": 81.25}
    ends = {"top1": (79.75, 82.75)}
    one = Candidate(arch(1), predicted=told, intervals=ends, measured=judged)
    (row,) = front_rows([Series("x", front(one), "measured")])
    expected = binomtest(round(top1 / 100 * images), images).proportion_ci(0.9, method="wilson")
    assert row["top1_low"] is not None and row["top1_high"] is not None
    assert row["top1_low"] / 100 == pytest.approx(expected.low, abs=1e-4)
    assert row["top1_high"] / 100 == pytest.approx(expected.high, abs=1e-4)
    assert (row["top1_predicted_low"], row["top1_predicted_high"]) == ends["top1"]
    text = shown(rich_table([row]), 100)
    assert f"{top1:.2f} ±{(row['top1_high'] - row['top1_low']) / 2:.1f}" in text
    assert "81.25 ±1.5" in text


def test_full_table_of_intervals_fits_100_columns() -> None:
    one = Candidate(
        arch(1),
        predicted={"latency": 0.0975, "top1": 81.36, "macs": 1.31e6, "params": 101_000},
        intervals={"latency": (0.0949, 0.1), "top1": (79.9, 82.8)},
        measured={"latency": 0.0881, "latency.spread": 0.026, "top1": 80.5, "top1.images": 2000},
        budget="latency <= 0.102 ms",
    )
    lines = shown(rich_table(front_rows([Series("x", front(one), "measured")])), 400).splitlines()
    assert any("0.0881 ±1.3 %" in line and "80.50 ±1.5" in line for line in lines)
    assert max(len(line.rstrip()) for line in lines) <= 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent_within(80.5, (79.0, 81.94)), "80.50 ±1.5"),
        (percent_within(76.123, (76.1, 76.14)), "76.12 ±0.02"),
        (percent_within(80.5, (None, None)), "80.50"),
        (milliseconds(0.012345), "0.0123"),
        (milliseconds(1234.5), "1234"),
        (milliseconds(9.996), "10.0"),
        (milliseconds(0.0), "0"),
        (milliseconds(None), "–"),
        (interval(1, 2, 3), "2.00 (1.00–3.00)"),
        (interval(None, 2, None), "2.00"),
        (count(950), "950"),
        (count(999_700), "1.00 M"),
        (count(3.2e9), "3.20 G"),
        (size(1.5 * 2**20), "1.50 MiB"),
        (metric("latency[pi].p99", 2.0), "2.00 ms"),
        (metric("latency.p99", 2.0), "2.00 ms"),
        (metric("top1", 70.123), "70.12 %"),
        (metric("peak_memory", 2048.0), "2.00 KiB"),
        (metric("other", 0.25), "0.25"),
    ],
)
def test_units(text: str, expected: str) -> None:
    assert text == expected


# comparison


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


# looks


def test_labels_differ_in_colour_and_marker_and_kinds_of_one_label_in_marker() -> None:
    several = [Series(f"{i}", fast(), "measured") for i in range(20)]
    made = styles([*several, Series("0", fast(), "predicted")])
    assert len({(s.colour, s.marker) for s in made}) == 21
    assert len({s.marker for s in made[:6]}) == len({s.colour for s in made[:6]}) == 6
    assert made[0].colour == made[-1].colour and made[0].marker != made[-1].marker


def test_marker_area_follows_macs() -> None:
    scale = MacsScale.of(pair())
    assert [scale.share(c) for c in (*fast(), *slow())] == [0, 0.25, 0.5, 0.75, 1]
    assert scale.note == "larger marker: more MACs (1.00 M to 5.00 M)"
    unknown = MacsScale.of([Series("x", front(predicted(1, 1.0, 70.0)), "predicted")])
    assert unknown.note == ""


# picture


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def coloured(image: npt.NDArray[np.uint8], colour: str) -> int:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((image == np.array(rgb)).all(axis=-1).sum())


def test_picture_shows_every_series(tmp_path: Path) -> None:
    image = pixels(picture(tmp_path / "new" / "front.png", pair(), budgets=(1.5, 3.0)))
    assert image.shape == (736, 1152, 3)
    assert coloured(image, COLOURS[0]) > 500
    assert coloured(image, COLOURS[1]) > 500
    assert coloured(image, COLOURS[2]) == 0


def test_predicted_points_are_hollow(tmp_path: Path) -> None:
    seen = pixels(picture(tmp_path / "a.png", [Series("x", fast(), "measured")]))
    told = pixels(picture(tmp_path / "b.png", [Series("x", fast(), "predicted")]))
    assert coloured(told, COLOURS[0]) < coloured(seen, COLOURS[0]) / 2


def test_budgets_are_drawn_even_beyond_the_points(tmp_path: Path) -> None:
    plain = pixels(picture(tmp_path / "a.png", pair()))
    with_budget = pixels(picture(tmp_path / "b.png", pair(), budgets=(6.0,)))
    # A dashed line fills most of one column of pixels with its grey.
    grey = (np.abs(with_budget.astype(int) - 0x55) < 60).all(axis=-1).sum(axis=0)
    assert grey[1000:].max() > 250
    assert (np.abs(plain.astype(int) - 0x55) < 60).all(axis=-1).sum(axis=0)[200:].max() < 250


def test_legend_lies_below_its_axes_and_scales_of_agreement_are_equal() -> None:
    series = [Series("x", fast(), "predicted"), *pair()]
    title = f"{'x' * 20} {'y' * 32}, 2 cores"  # a line would hold all but the last word
    figure = draw(Report(series, title), everything=True)
    figure.canvas.draw()
    first, latency, top1 = figure.axes
    assert "y,\n2 cores" in first.get_title(loc="left")
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend is None or legend.get_window_extent().y1 < axes.get_window_extent().y0
    for axes in (latency, top1):
        (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
        assert x1 - x0 == pytest.approx(y1 - y0)
        (low, high), points = axes.get_ylim(), axes.collections[-1].get_offsets()[:, 1]
        assert min(points.min() - low, high - points.max()) > 0.04 * (high - low)
    named = [text.get_text() for text in first.get_legend().get_texts()]
    assert len(named) == len(series)
    layers = {each.get_zorder() for each in first.collections if "PathCollection" in repr(each)}
    assert layers == {3, 4}, "what was measured above what is predicted"


def test_curves_are_covered_by_no_legend_and_no_name_of_a_phase() -> None:
    rows = [
        {"epoch": f"{i}", "phase": "ramp" if i < 3 else "shrink", "lr": "0.1", "beta": "1"}
        | {
            f"{metric}_{role}": f"{i}"
            for metric in ("top1", "loss")
            for role in ("largest", "smallest")
        }
        for i in range(1, 6)
    ]
    figure = draw_curves(rows, title="run")
    figure.canvas.draw()
    top, _, bottom, _ = figure.axes
    for axes in figure.axes[:3]:
        legend = axes.get_legend()
        assert legend is not None
        assert legend.get_window_extent().x0 > axes.get_window_extent().x1
        assert legend.get_window_extent().x1 <= figure.bbox.x1
    assert [text.get_text() for text in top.texts] == ["ramp", "shrink"]
    assert all(t.get_window_extent().y0 > top.get_window_extent().y1 for t in top.texts)
    assert [t.get_text() for t in bottom.get_legend().get_texts()] == ["learning rate", "β"]


def test_picture_takes_any_text_and_leaves_pyplot_alone(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    picture(tmp_path / "front.png", [Series(HOSTILE, fast(), "measured")], title=HOSTILE)
    assert pixels(tmp_path / "front.png").min() < 50
    assert plt.get_fignums() == before


def test_svg_keeps_text_as_text_and_is_the_same_each_time(tmp_path: Path) -> None:
    report = Report([Series(HOSTILE, fast(), "measured")], HOSTILE)
    first = write_svg(tmp_path / "a.svg", report).read_bytes()
    assert write_svg(tmp_path / "b.svg", report).read_bytes() == first
    root = ElementTree.fromstring(first)
    names = {each.tag.rpartition("}")[2] for each in root.iter()}
    assert not names & {"script", "image", "a", "foreignObject"}
    texts = ["".join(each.itertext()) for each in root.iter() if each.tag.endswith("}text")]
    assert any("<img src=x" in text for text in texts)
    assert {"Latency (ms)", "Top-1 accuracy (%)"} <= set(texts)
