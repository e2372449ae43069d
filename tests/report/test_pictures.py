"""Honest pictures: colours and markers, what is drawn and what it must not cover."""

import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ofa_deploy.report import Report, Series, write_html, write_png, write_svg
from ofa_deploy.report.curves import draw_curves, write_curves
from ofa_deploy.report.picture import draw
from ofa_deploy.report.style import COLOURS, MacsScale, styles
from tests.report.fronts import HOSTILE, fast, front, pair, picture, predicted, slow

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


def test_names_that_are_no_utf8_are_drawn_and_told(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 $\\frac$")
    report = Report([Series(name, fast(), "measured"), Series("b", slow(), "measured")], name)
    for write, end in ((write_png, "png"), (write_svg, "svg"), (write_html, "html")):
        write(tmp_path / f"front.{end}", report)
    for written in ("front.svg", "front.html"):
        assert "caf\\udce9" in (tmp_path / written).read_text()
    row = {"epoch": "1", "phase": "ramp", "lr": "0.1", "beta": "0"}
    path = write_curves(tmp_path / "curves.png", [row], title=f"{name}: deps")
    assert pixels(path).min() < 50


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
