"""The report's page in headless Chromium: time to open it, time of a step, size of the file.

A front of so many networks, drawn at random from ofa-mbv3-w1.0 with latencies from the block table
that ships; their accuracies are made up, since only the page is timed. Each opening is in a browser
of its own, from the start of navigation to all charts drawn; hovering, the latency slider and the
arrow keys are timed by the page's own frames, without a GPU::

    python benchmarks/report.py [--points 10000] [--opens 7] [--csv FILE]

``--screenshot FILE --fronts FRONT...`` takes a picture of the page of real fronts instead, with one
network opened. Needs Debian's chromium and chromium-driver, and ``pip install -e .[test]``.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from figures import Figures, spread
from PIL import Image

from ofa_deploy.cli._fronts import read_fronts
from ofa_deploy.hardware import LatencyTable, table_files
from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.report import Context, Report, Series, shares, write_html
from ofa_deploy.space import get_space

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

SPACE = "ofa-mbv3-w1.0"
RESOLUTIONS = (160, 176, 192, 208, 224)  # those of the table
STEPS = 100
SLOW_MS = 50.0  # a long task, as browsers call it

# Each step is one event and the frame after it: the time from the event to the end of the frame.
STEP = """
const [kind, steps, done] = arguments;
const chart = window.report.charts[0];
const plot = chart.plot;
const box = plot.getBoundingClientRect();
const input = document.querySelector(".budget input");
const acts = {
  hover: (i) => plot.dispatchEvent(new PointerEvent("pointermove", {
    clientX: box.left + 60 + (box.width - 80) * ((i * 0.618) % 1),
    clientY: box.top + box.height * (0.75 - 0.5 * ((i * 0.618) % 1)) })),
  slider: (i) => {
    input.value = Number(input.min) + (input.max - input.min) * ((i * 0.618) % 1);
    input.dispatchEvent(new Event("input"));
  },
  key: () => plot.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" })),
  zoom: (i) => plot.dispatchEvent(new KeyboardEvent("keydown", { key: i % 2 ? "0" : "+" })),
};
const times = [];
function step(i) {
  if (i === steps) return done(times);
  requestAnimationFrame(() => {
    const began = performance.now();
    acts[kind](i);
    const channel = new MessageChannel();
    requestAnimationFrame(() => {
      channel.port1.onmessage = () => { times.push(performance.now() - began); step(i + 1); };
      channel.port2.postMessage(null);
    });
  });
}
step(0);
"""
SCRIPT = """
const [kind, steps] = arguments;
const chart = window.report.charts[0];
const began = performance.now();
for (let i = 0; i < steps; i++) chart.draw();
return (performance.now() - began) / steps;
"""


@contextmanager
def chromium(width: int = 1280, height: int = 1000) -> "Iterator[Chrome]":
    """A headless browser of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={width},{height}")
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        driver.set_script_timeout(120)
        yield driver
    finally:
        driver.quit()


def opened(driver: "Chrome", page: Path) -> float:
    """Open the page; ms from the start of navigation until it can be used."""
    driver.get(page.resolve().as_uri())
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        ready = driver.execute_script("return document.documentElement.dataset.ready")
        if ready is not None:
            return float(ready)
    raise SystemExit(f"{page}: not ready after two minutes")


def crowd(points: int) -> Report:
    """A report of that many networks."""
    space = get_space(SPACE)
    tables = [LatencyTable.load(path) for path in table_files()]
    table = next(each for each in tables if each.space == SPACE)
    space = space.with_resolutions(*RESOLUTIONS)
    table.check_for(space)
    rng = np.random.default_rng(0)
    made = []
    for arch in space.decode(space.sample(rng, points)):
        blocks = shares(space, arch, table)
        ms = sum(each.ms or 0.0 for each in blocks)
        macs = float(sum(each.block.macs for each in blocks))
        top1 = 80 - 60 / ms + float(rng.normal(0, 0.7))
        values = {"top1": top1, "latency": ms, "macs": macs}
        ends = {"latency": (0.97 * ms, 1.03 * ms), "top1": (top1 - 1, top1 + 1)}
        made.append(Candidate(arch, values, ends))
    context = Context(table.conditions, space=space, table=table, run="runs/mine")
    return Report(
        [Series("drawn", ParetoFront(tuple(made)), "predicted", context=context)], "Speed"
    )


def measure(page: Path, opens: int, figures: Figures) -> None:
    """Open it so many times, and take steps in the last one."""
    times = []
    for _ in range(opens):
        with chromium() as driver:
            times.append(opened(driver, page))
    figures.line("open, ms, median", spread(times))
    with chromium() as driver:
        opened(driver, page)
        for kind in ("hover", "slider", "key", "zoom"):
            frames = driver.execute_async_script(STEP, kind, STEPS)
            slow = sum(each > SLOW_MS for each in frames)
            ninth = statistics.quantiles(frames, n=20)[-1]
            figures.line(f"{kind} step to its frame, ms, median", spread(frames))
            figures.line(f"{kind} step, ms, 95th percentile", f"{ninth:.4g}")
            figures.line(f"{kind} steps beyond {SLOW_MS:g} ms, of {STEPS}", str(slow))
        figures.line("all points drawn anew, ms", f"{driver.execute_script(SCRIPT, '', 10):.4g}")


def screenshot(fronts: list[Path], out: Path, title: str) -> None:
    """A picture of the page of real fronts, one network opened."""
    read = [each for front in read_fronts(fronts, None, []) for each in front]
    conditions = read[0].series.context.conditions
    series = [
        replace(each.series, context=replace(each.series.context, run="runs/quickstart"))
        for each in read
    ]
    facts = {k: str(v) for k, v in conditions.model_dump().items() if v} if conditions else {}
    with tempfile.TemporaryDirectory() as folder, chromium(1280, 1400) as driver:
        page = write_html(Path(folder) / "report.html", Report(series, title, facts))
        opened(driver, page)
        driver.execute_script(
            "const plot = window.report.charts[0].plot; plot.focus();"
            "for (const key of ['End', 'ArrowDown', 'ArrowLeft', 'Enter'])"
            "  plot.dispatchEvent(new KeyboardEvent('keydown', { key }));"
            "scrollTo(0, 0);"
        )
        height = driver.execute_script(
            "return document.getElementById('detail').getBoundingClientRect().bottom + 16"
        )
        driver.set_window_size(1280, int(height) + 150)
        driver.execute_script("scrollTo(0, 0)")
        time.sleep(0.5)
        whole = Image.open(io.BytesIO(driver.get_screenshot_as_png()))
        # Few colours lose nothing of a drawing and halve the file.
        cut = whole.convert("RGB").crop((0, 0, whole.width, min(whole.height, int(height))))
        cut.quantize(128, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"wrote {out}, {out.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--opens", type=int, default=7)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--screenshot", type=Path)
    parser.add_argument("--fronts", type=Path, nargs="*", default=[])
    parser.add_argument("--title", default="Pareto fronts")
    asked = parser.parse_args()
    if asked.screenshot:
        screenshot(asked.fronts, asked.screenshot, asked.title)
        return
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        report = crowd(asked.points)
        started = time.perf_counter()
        page = write_html(Path(folder) / "report.html", report)
        figures.line("points", f"{asked.points:,}")
        figures.line("write the page, s", f"{time.perf_counter() - started:.3g}")
        figures.line("size of the page, bytes", f"{page.stat().st_size:,}")
        with chromium() as driver:
            version = driver.capabilities["browserVersion"]
        figures.line("browser", f"Chromium {version}, headless, no GPU, 1280 x 1000")
        measure(page, asked.opens, figures)
    figures.save(asked.csv)


if __name__ == "__main__":
    main()
