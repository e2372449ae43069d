"""The page in headless Chromium: it loads in silence, and does what a reader asks of it."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.report import (
    Context,
    ExternalPoint,
    Report,
    Series,
    network_svg,
    shares,
    write_html,
)
from ofa_deploy.space import SearchSpace
from tests.tables import SOMEWHERE, table_of

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"> <b>'{{1}}"
SECONDS = 60

pytestmark = pytest.mark.skipif(
    not (CHROMIUM.exists() and DRIVER.exists()),
    reason="needs Debian's chromium and chromium-driver",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    driver.set_page_load_timeout(SECONDS)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def table(tiny_space: SearchSpace) -> Any:
    return table_of(tiny_space, lambda block: 0.01 + block.macs / 1e6)


@pytest.fixture(scope="module")
def series(tiny_space: SearchSpace, table: Any) -> list[Series]:
    """A predicted and a measured front of one device, and a predicted one of another."""
    archs = tiny_space.decode(tiny_space.sample(np.random.default_rng(1), 400))
    archs = list(dict.fromkeys(archs))[:60]
    times = sorted(sum(table.value(b) for b in tiny_space.lower(a)) for a in archs)
    told = [
        Candidate(
            arch,
            {"latency": ms, "top1": 60 + 0.3 * i},
            {"latency": (0.9 * ms, 1.1 * ms), "top1": (59 + 0.3 * i, 62 + 0.3 * i)},
            budget=HOSTILE,
        )
        for i, (arch, ms) in enumerate(zip(archs, times, strict=True))
    ]
    seen = [
        Candidate(c.arch, c.predicted, c.intervals, {k: 1.02 * v for k, v in c.predicted.items()})
        for c in told[::10]
    ]
    here = Context(
        SOMEWHERE,
        space=tiny_space,
        table=table,
        run="runs/my run",
        subnets={seen[2].arch: "runs/my run/subnets/best.subnet.json"},
        budgets=(round(times[30], 4),),
    )
    return [
        Series(HOSTILE, ParetoFront(tuple(told)), "predicted", context=here),
        Series(HOSTILE, ParetoFront(tuple(seen)), "measured", context=here),
        Series("other", ParetoFront(tuple(told[:20])), "predicted", context=Context(device="pi")),
    ]


@pytest.fixture(scope="module")
def path(series: list[Series], tmp_path_factory: pytest.TempPathFactory) -> Path:
    report = Report(
        series,
        HOSTILE,
        {HOSTILE: HOSTILE},
        [HOSTILE],
        external=[ExternalPoint(HOSTILE, 0.3, 61.0, "bench", HOSTILE)],
    )
    return write_html(tmp_path_factory.mktemp("page") / "report.html", report)


@pytest.fixture
def page(browser: Any, path: Path) -> Any:
    """The page, freshly loaded; whatever a test does with it must leave the console silent."""
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(path.as_uri())
    until(browser, "return document.documentElement.dataset.ready")
    yield browser
    assert browser.get_log("browser") == []


def until(browser: Any, script: str, *args: Any) -> Any:
    """What the script returns as soon as that is something."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, SECONDS, poll_frequency=0.02).until(
        lambda driver: driver.execute_script(script, *args)
    )


def point(browser: Any, s: int, i: int) -> dict[str, float]:
    """Where a point of the first chart is in the window, in pixels."""
    return dict(
        browser.execute_script(
            "const [s, i] = arguments; const chart = window.report.charts[0];"
            "chart.plot.scrollIntoView({block: 'center'});"
            "const box = chart.plot.getBoundingClientRect(); const f = chart.spec.series[s];"
            "return {x: box.left + chart.px(f.x[i]), y: box.top + chart.py(f.y[i])};",
            s,
            i,
        )
    )


def mouse(browser: Any, kind: str, at: dict[str, float]) -> None:
    button = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, **at, **button})


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def tip(browser: Any) -> list[str]:
    lines = until(
        browser,
        "const tip = window.report.charts[0].tip;"
        "return tip.hidden ? null : [...tip.children].map((each) => each.textContent);",
    )
    return list(lines)


def shown_arch(browser: Any) -> str:
    title = until(
        browser,
        "const d = document.getElementById('detail');"
        "return d.hidden ? null : document.getElementById('detail-title').textContent;",
    )
    return str(title)


def test_page_loads_in_silence_and_asks_for_nothing(page: Any, path: Path) -> None:
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    own = [each["request"]["url"] for each in sent if each["documentURL"] == path.as_uri()]
    assert own == [path.as_uri()], "the page itself, and nothing that it asked for"
    assert page.title == " ".join(HOSTILE.split())
    assert page.execute_script("return document.images.length") == 0
    assert page.execute_script("return window.report.charts.length") == 5


def test_policy_refuses_what_hostile_markup_would_do(browser: Any, path: Path) -> None:
    browser.get(path.as_uri())
    until(browser, "return document.documentElement.dataset.ready")
    said = browser.execute_script(
        "const out = [];"
        "try { document.body.innerHTML = '<b>x</b>'; out.push('markup'); } catch (e) {}"
        "const s = document.createElement('script'); s.append('window.ran = 1');"
        "try { document.body.append(s); } catch (e) {}"
        "out.push(window.ran === undefined ? 'refused' : 'ran'); return out;"
    )
    assert said == ["refused"]
    browser.get_log("browser")  # the refusals are told there


def test_hover_shows_arch_and_metrics(page: Any, series: list[Series]) -> None:
    mouse(page, "mouseMoved", point(page, 1, 3))
    lines = tip(page)
    candidate = series[1].points()[3].candidate
    assert lines[0] == f"{HOSTILE} (measured)"
    assert lines[-1] == str(candidate.arch)
    assert f"budget: {HOSTILE}" not in lines
    assert any(line.startswith("latency: ") and " measured, " in line for line in lines)
    mouse(page, "mouseMoved", {"x": 2, "y": 2})
    until(page, "return window.report.charts[0].tip.hidden")


def test_click_shows_the_network_as_show_draws_it(
    page: Any, series: list[Series], tiny_space: SearchSpace, table: Any
) -> None:
    at = point(page, 1, 4)
    mouse(page, "mouseMoved", at)
    tip(page)
    mouse(page, "mousePressed", at)
    mouse(page, "mouseReleased", at)
    arch = series[1].points()[4].candidate.arch
    assert shown_arch(page).endswith(str(arch))
    blocks = shares(tiny_space, arch, table)
    drawn = page.execute_script(
        "return [...document.querySelectorAll('.drawing svg > *')].map((e) => [e.localName,"
        "['points', 'fill', 'transform'].map((n) => e.getAttribute(n) ?? ''), e.textContent]);"
    )
    file = ElementTree.fromstring(network_svg(tiny_space, blocks, title=""))
    group = next(each for each in file if each.tag.endswith("}g"))
    expected = [
        [
            each.tag.rpartition("}")[2],
            [each.attrib.get(name, "") for name in ("points", "fill", "transform")],
            "".join(each.itertext()),
        ]
        for each in group
    ]
    assert drawn == expected
    rows = page.execute_script(
        "return [...document.querySelectorAll('#detail tbody tr')].map("
        "(row) => [...row.cells].map((cell) => cell.textContent));"
    )
    assert [row[0] for row in rows] == [each.place for each in blocks]
    assert [row[1] for row in rows] == [each.block.key for each in blocks]
    assert [float(row[4]) for row in rows] == pytest.approx([b.ms for b in blocks], rel=5e-3)
    assert [row[5] for row in rows] == [f"{100 * each.share:.1f} %" for each in blocks]


def test_slider_moves_the_chosen_network(page: Any, series: list[Series]) -> None:
    def chosen(which: int, value: float) -> tuple[int, float, float] | None:
        found = page.execute_script(
            "const [which, value] = arguments; const chart = window.report.charts[0];"
            "const input = chart.figure.querySelectorAll('.budget input')[which];"
            "input.value = value; input.dispatchEvent(new Event('input'));"
            "if (!chart.chosen) return null; const [s, i] = chart.chosen;"
            "return [s, chart.spec.series[s].x[i], chart.spec.series[s].y[i], Number(input.value)]",
            which,
            value,
        )
        return found and tuple(found)

    said = "return document.querySelector('.chosen span').textContent"
    told, seen = ([(p.x, p.y) for p in each.points()] for each in series[:2])
    for budget in (0.2, 0.3, 0.45):
        found = chosen(0, budget)
        assert found is not None
        fits = [y for x, y in seen if x <= found[3]]
        assert found[2] == pytest.approx(max(fits or [y for x, y in told if x <= found[3]]))
        assert found[0] == bool(fits)
        assert found[1] <= found[3]
        assert page.execute_script(said).endswith("; not measured") == (not fits)
    found = chosen(0, page.execute_script("return document.querySelector('.budget input').max"))
    assert found is not None and found[2] == pytest.approx(max(y for _, y in seen))
    found = chosen(1, 70.0)
    assert found is not None
    assert found[1] == pytest.approx(min(x for x, y in seen if y >= found[3]), rel=1e-6)
    assert page.execute_script(said).startswith(f"Chosen: {found[2]:.2f} % in ")
    found = chosen(0, told[0][0])
    assert found is not None and found[0] == 0, "nothing measured is that fast"
    assert page.execute_script(said).endswith(" (predicted); not measured")


def test_page_opens_with_a_measured_network_and_sliders_reach_the_budgets(
    browser: Any, tiny_space: SearchSpace, tmp_path: Path
) -> None:
    archs = tiny_space.decode(tiny_space.sample(np.random.default_rng(5), 3))
    told = [Candidate(a, {"latency": 1.0 + i, "top1": 80.0 + i}) for i, a in enumerate(archs)]
    seen = [replace(c, measured={"latency": 1.1, "top1": 70.0}) for c in told[:2]]
    here = Context(SOMEWHERE, run="r", subnets={archs[1]: "r/b.subnet.json"}, budgets=(9.0,))
    report = Report(
        [
            Series("x", ParetoFront(tuple(told)), "predicted", context=here),
            Series("x", ParetoFront(tuple(seen)), "measured", context=here),
        ],
        "Page",
    )
    browser.get(write_html(tmp_path / "p.html", report).as_uri())
    until(browser, "return document.documentElement.dataset.ready")
    assert browser.execute_script(
        "const c = window.report.charts[0]; const [s, i] = c.chosen;"
        "const [x] = c.figure.querySelectorAll('.budget input');"
        "return [c.spec.series[s].name, window.report.exportCommand(c.spec.series[s].net[i]),"
        " Number(x.value), Number(x.max), c.limit.value];"
    ) == ["x (measured)", "ofa-deploy export r/b.subnet.json --out bundles/b", 9.0, 9.0, 9.0]


def test_name_of_the_axis_keeps_off_its_numbers(browser: Any, path: Path) -> None:
    browser.get(path.as_uri())
    until(browser, "return document.documentElement.dataset.ready")
    room = browser.execute_script(
        "return window.report.charts.map((chart) => {"
        "chart.zoom({ ...chart.view, y0: 0.0437, y1: 0.0502 });"
        "const context = chart.canvas.getContext('2d');"
        "const widths = yTicks(chart).map(({ text }) => context.measureText(text).width);"
        "return chart.left - 8 - Math.max(...widths) - NAME; });"
    )
    assert min(room) > 4


def copied(page: Any, selector: str) -> str:
    page.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    button = page.find_element("css selector", selector)
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    until(page, "return arguments[0].textContent === 'Copied'", button)
    return str(
        page.execute_async_script(
            "navigator.clipboard.readText().then(arguments[0], (e) => arguments[0](`${e}`))"
        )
    )


def test_button_copies_the_command_that_exports(page: Any, series: list[Series]) -> None:
    points = page.execute_script(
        "const chart = window.report.charts[0]; chart.plot.focus();"
        "return chart.spec.series.slice(0, 2).map((s) => s.net);"
    )
    commands = [page.execute_script("return window.report.exportCommand(arguments[0])", n)
                for n in (points[0][3], points[1][2])]  # fmt: skip
    arch = series[0].points()[3].candidate.arch
    told, _, rest = commands[0].partition(" > ")
    assert json.loads(told.removeprefix("printf '%s\\n' ").strip("'")) == arch.to_dict()
    name = rest.split(" ")[0].removesuffix(".json")
    assert rest == (
        f"{name}.json && ofa-deploy export --run 'runs/my run' --arch {name}.json "
        f"--out bundles/{name}"
    )
    assert commands[1] == (
        "ofa-deploy export 'runs/my run/subnets/best.subnet.json' --out bundles/best"
    )
    said = copied(page, ".budget button.copy")
    chosen = page.execute_script(
        "const c = window.report.charts[0]; const [s, i] = c.chosen;"
        "return window.report.exportCommand(c.spec.series[s].net[i]);"
    )
    assert said == chosen


def test_keys_walk_a_front_open_a_network_and_come_back(page: Any, series: list[Series]) -> None:
    from selenium.webdriver.common.keys import Keys

    page.execute_script("document.activeElement.blur()")
    press(page, Keys.TAB)
    assert page.execute_script("return document.activeElement === window.report.charts[0].plot"), (
        "the first chart comes first"
    )
    ordered = series[0].points()
    press(page, Keys.ARROW_RIGHT)
    assert tip(page)[-1] == str(ordered[0].candidate.arch)
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    here = "return window.report.charts[0].at"
    assert page.execute_script(here) == [0, 1]
    press(page, Keys.END)
    assert page.execute_script(here) == [0, len(ordered) - 1]
    press(page, Keys.ARROW_DOWN)
    assert page.execute_script(here) == [1, len(series[1].front) - 1]
    status = page.execute_script("return document.getElementById('status').textContent")
    assert status.endswith(str(series[1].points()[-1].candidate.arch))
    press(page, Keys.ENTER)
    assert shown_arch(page).endswith(str(series[1].points()[-1].candidate.arch))
    assert page.execute_script("return document.activeElement.id") == "detail"
    press(page, Keys.ESCAPE)
    assert page.execute_script(
        "return document.getElementById('detail').hidden && "
        "document.activeElement === window.report.charts[0].plot"
    )
    press(page, Keys.ESCAPE)
    until(page, "return window.report.charts[0].tip.hidden")


def test_keys_and_dragging_zoom(page: Any) -> None:
    view = "return Object.values(window.report.charts[0].view)"
    whole = page.execute_script(view)
    page.execute_script("window.report.charts[0].plot.focus()")
    press(page, "+")
    x0, x1, y0, y1 = page.execute_script(view)
    assert x1 - x0 == pytest.approx(0.6 * (whole[1] - whole[0]))
    assert y1 - y0 == pytest.approx(0.6 * (whole[3] - whole[2]))
    press(page, "0")
    assert page.execute_script(view) == whole
    start, end = point(page, 0, 10), point(page, 0, 40)
    mouse(page, "mousePressed", start)
    mouse(page, "mouseMoved", end)
    mouse(page, "mouseReleased", end)
    points = page.execute_script(
        "const s = window.report.charts[0].spec.series[0];"
        "return [s.x[10], s.x[40], s.y[10], s.y[40]];"
    )
    assert page.execute_script(view) == pytest.approx(points, rel=1e-3)
    assert page.execute_script("return document.getElementById('detail').hidden")


def test_legend_hides_a_front_from_chart_and_slider(page: Any) -> None:
    button = page.find_elements("css selector", ".legend button")[1]
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert page.execute_script(
        "const c = window.report.charts[0]; const s = c.spec.series[1];"
        "const found = c.nearest(c.px(s.x[3]), c.py(s.y[3]));"
        "return [c.shown[1], found?.[0] === 1, c.chosen[0]]"
    ) == [False, False, 0]


def test_csv_and_json_hold_what_the_chart_shows(page: Any, series: list[Series]) -> None:
    made = page.execute_async_script(
        "const done = arguments[0]; const kept = []; const real = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { kept.push(blob); return real(blob); };"
        "HTMLAnchorElement.prototype.click = function () { kept.push(this.download); };"
        "const tools = [...window.report.charts[0].figure.querySelectorAll('.tools button')];"
        "tools[1].click(); tools[2].click();"
        "Promise.all([kept[0].text(), kept[2].text()]).then(([a, b]) =>"
        " done([a, b, kept[1], kept[3]]));"
    )
    rows = list(csv.DictReader(io.StringIO(made[0])))
    assert len(rows) == len(series[0].front) + len(series[1].front) + 1
    first = series[0].points()[0]
    assert rows[0]["series"] == f"{HOSTILE} (predicted)"
    assert float(rows[0]["x"]) == pytest.approx(first.x, rel=1e-6)
    assert float(rows[0]["y_high"]) == pytest.approx(first.y_range[1], rel=1e-6)
    assert rows[0]["arch"] == str(first.candidate.arch)
    assert rows[-1]["name"] == f"{HOSTILE} (external, from {HOSTILE})"
    value = json.loads(made[1])
    assert (value["x"], len(value["points"])) == ("Latency (ms)", len(rows))
    assert made[2:] == ["chart-1.csv", "chart-1.json"]


def test_print_is_light_and_complete(page: Any) -> None:
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    until(page, "return window.report.charts[0].colours.paper === '#14171b'")
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    corner = page.execute_script(
        "const c = window.report.charts[0].canvas;"
        "return [c.width / c.clientWidth, ...c.getContext('2d').getImageData(2, 2, 1, 1).data];"
    )
    assert corner == [3, 255, 255, 255, 255]
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    assert page.execute_script("return window.report.charts[0].colours.paper") == "#14171b"
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
