"""The page as a file: well formed, hostile text stays text, nothing is loaded."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.report import Context, ExternalPoint, Report, Series, write_html
from ofa_deploy.report.html import SHOWN, page_data
from ofa_deploy.report.store import said
from ofa_deploy.space import SearchSpace
from tests.report.fronts import arch, fast, measured, slow

HOSTILE = "_</script><img src=x onerror=alert(1)> $\\frac & \"[red]' ${title}"


class Page(HTMLParser):
    """Checks that elements nest, and keeps attributes, text and scripts."""

    VOID = ("meta", "br", "img", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.data.append((self.open[-1] if self.open else "", data))

    def text(self, tag: str) -> list[str]:
        return [data for inside, data in self.data if inside == tag]


@pytest.fixture(scope="module")
def hostile_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    context = Context(device=HOSTILE, run=HOSTILE, budgets=(1.5, 3.0))
    series = [
        Series(HOSTILE, fast(), "predicted", context=context),
        Series(HOSTILE, fast(), "measured", context=context),
        Series("slow", slow(), "measured", context=context),
    ]
    report = Report(
        series,
        HOSTILE,
        {HOSTILE: HOSTILE},
        [f"run {HOSTILE}"],
        external=[ExternalPoint(HOSTILE, 2.0, 60.0, HOSTILE, "points.csv")],
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    return write_html(path, report).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile_page(hostile_text: str) -> Page:
    return Page(hostile_text)


def test_page_is_well_formed_and_hostile_text_stays_text(hostile_page: Page) -> None:
    assert hostile_page.open == []
    names = [tag for tag, _ in hostile_page.tags]
    assert "img" not in names
    assert names.count("script") == 2
    for tag in ("title", "h1", "dt", "dd"):
        assert hostile_page.text(tag) == [HOSTILE]
    assert hostile_page.text("code") == [f"run {HOSTILE}"]
    assert HOSTILE in hostile_page.text("td")  # the external point's name


def test_page_loads_nothing_and_runs_only_its_own_script(
    hostile_page: Page, hostile_text: str
) -> None:
    for tag, attributes in hostile_page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not {"src", "href", "srcset", "data", "action", "style"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    looks = "".join(hostile_page.text("style"))
    assert "url(" not in looks and "@import" not in looks
    policy = next(a["content"] for _, a in hostile_page.tags if "http-equiv" in a)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'"
    assert rules.pop("require-trusted-types-for") == "'script'"
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", hostile_text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules.pop(kind) == f"'sha256-{digest}'"
    assert rules == {"base-uri": "'none'", "form-action": "'none'"}


def test_script_writes_no_markup_and_asks_for_nothing(hostile_page: Page) -> None:
    script = hostile_page.text("script")[-1]
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "fetch("):
        assert word not in script
    assert "XMLHttpRequest" not in script
    assert re.findall(r"https?:[^\"]*", script) == ["http://www.w3.org/2000/svg"]


def test_page_shows_every_network_in_chart_and_table(hostile_page: Page, hostile_text: str) -> None:
    data = page_data(hostile_text)
    networks = data["networks"]
    cells = hostile_page.text("td")
    assert len(networks["arch"]) == 8
    for candidate in (*fast(), *slow()):
        assert str(candidate.arch) in cells
        assert candidate.budget in cells
        assert str(candidate.arch) in networks["arch"]
    assert {"Predicted ms", "Measured ms", "MACs", "Params", "Architecture"} <= set(
        hostile_page.text("th")
    )
    titles = hostile_page.text("h2")
    assert titles[:2] == ["What this holds for", "Networks"]
    for start in ("Top-1 at equal latency", "Latency at equal top-1", "External points"):
        assert any(title.startswith(start) for title in titles)


def test_charts_hold_values_intervals_and_steps(hostile_text: str) -> None:
    data = page_data(hostile_text)
    front, *agreements = data["charts"]
    assert [chart["kind"] for chart in data["charts"]] == ["front", "agreement", "agreement"]
    told, seen, other, external = front["series"]
    assert (told["hollow"], seen["hollow"], seen["joined"]) == (True, False, True)
    assert seen["x"] == [1.0, 2.0, 4.0] and seen["y"] == [70.0, 75.0, 80.0]
    assert told["xl"] == [1.0, 2.0, 4.0] and told["xh"] == [1.25, 2.5, 5.0]
    assert told["yl"] == [68.0, 73.0, 78.0] and told["yh"] == [70.5, 75.5, 80.5]
    assert "xl" not in seen, "no spread was recorded, so no bar is drawn"
    assert told["colour"] == seen["colour"] and told["marker"] != seen["marker"]
    assert (other["colour"], other["marker"]) != (seen["colour"], seen["marker"])
    assert external["external"] == [f"{HOSTILE} (external, from points.csv)"]
    assert front["budgets"] == [1.5, 3.0]
    assert agreements[0]["series"][0]["x"] == pytest.approx([1.1, 2.2, 4.4])
    assert agreements[0]["series"][0]["y"] == [1.0, 2.0, 4.0]


def test_export_command_quotes_what_a_shell_would_read(hostile_text: str) -> None:
    (group, *_) = page_data(hostile_text)["networks"]["groups"]
    quoted = HOSTILE.replace("'", "'\"'\"'")
    assert group["run"] == f"'{quoted}'"


def test_hover_tells_every_metric_with_unit_and_source() -> None:
    assert said(measured(1, 1.0, 70.0)) == [
        "latency: 1.00 ms measured, 1.10 ms predicted (1.00 ms to 1.25 ms)",
        "top1: 70.00 % measured, 69.00 % predicted (68.00 % to 70.50 %)",
        "macs: 1.00 M",
        "params: 50.0 k",
        "budget: latency <= 1 ms",
    ]


def test_page_of_one_front_needs_no_facts_and_compares_nothing(tmp_path: Path) -> None:
    alone = ParetoFront((Candidate(arch(1), predicted={"latency": 1.0, "top1": 70.0}),))
    path = write_html(tmp_path / "report.html", Report([Series("x", alone, "predicted")], "One"))
    made = Page(path.read_text(encoding="utf-8"))
    assert made.text("h2") == ["Networks"]
    assert made.open == []


def test_devices_have_a_chart_each_and_one_together(tmp_path: Path) -> None:
    series = [
        Series(name, fast(), "measured", context=Context(device=name)) for name in ("pi", "nano")
    ]
    text = write_html(tmp_path / "a.html", Report(series, "Two")).read_text(encoding="utf-8")
    first, second, together, *_ = page_data(text)["charts"]
    assert [first["title"], second["title"], together["kind"]] == ["pi", "nano", "relative"]
    assert [s["x"] for s in together["series"]] == [[1.0, 2.0, 4.0]] * 2
    looks = {(s["colour"], s["marker"]) for s in together["series"]}
    assert len(looks) == 2
    assert together["budgets"] == []


def test_long_tables_are_cut_and_say_so(tmp_path: Path, tiny_space: SearchSpace) -> None:
    many = tuple(
        Candidate(arch(i), predicted={"latency": 1.0 + i, "top1": 50 + i / 10})
        for i in range(SHOWN + 5)
    )
    path = write_html(
        tmp_path / "a.html", Report([Series("x", ParetoFront(many), "predicted")], "Many")
    )
    made = Page(path.read_text(encoding="utf-8"))
    assert [tag for tag, _ in made.tags].count("tr") == 1 + SHOWN
    assert any(f"first {SHOWN} of {SHOWN + 5}" in text for text in made.text("p"))
    assert len(page_data(path.read_text(encoding="utf-8"))["networks"]["arch"]) == SHOWN + 5


def test_same_report_is_the_same_file(tmp_path: Path) -> None:
    report = Report([Series("x", fast(), "measured")], "Same")
    first = write_html(tmp_path / "a.html", report).read_bytes()
    assert write_html(tmp_path / "b.html", report).read_bytes() == first
