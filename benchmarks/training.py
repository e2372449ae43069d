"""DεpS against what came before it, on glyphs, with one supernet: accuracy and cost.

Trains everything in ``methods()`` for every seed and evaluates the standard subnets, recalibrated,
on the test set. It takes hours, so it resumes: a finished run's rows are appended to the CSV, an
unfinished run goes on where it stopped. Then it prints, per method, the mean over seeds (and half
the range) of each subnet's accuracy, the mean Pareto, and the cost in MACs and CPU seconds.
``cpu_seconds`` has in it what a run does at the end of each epoch: recalibrate and evaluate the
largest and the smallest subnet; it is NaN where a run was killed and lost what it had counted.
``seconds`` in the CSV is by the clock, whatever else ran::

    OMP_WAIT_POLICY=PASSIVE python benchmarks/training.py [--minutes 60] [--summary] [--png FILE]

DεpS warms up for the paper's share of its epochs, 145 of 270, and its ramp takes one epoch, where
the paper's takes 5 of 270. A run takes one thread: start it once for every core.

A run is known by its method, seed and settings (a digest). Rows of before there was that column are
known by method, seed and epochs; rows of other settings than today's stay out of the summary.
"""

import argparse
import bisect
import contextlib
import csv
import fcntl
import io
import itertools
import math
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from figures import commit, counted_seconds

from ofa_deploy.data import DataSplits, load_data
from ofa_deploy.errors import BusyError
from ofa_deploy.files import digest, exclusive
from ofa_deploy.space import get_space
from ofa_deploy.supernet import cut, top1
from ofa_deploy.train import (
    DepsConfig,
    TrainConfig,
    forecast,
    get_recipe,
    load_supernet,
    plan_for,
    standard_archs,
    train,
)

SPACE = get_space("mbv3-nano-32")
RESULTS = Path(__file__).parent / "results" / "training.csv"
SCALE = 1.5  # with the recipes' own 19 epochs progressive shrinking's teacher is hardly trained
IMAGES = 8_000
STEPS_PER_EPOCH = IMAGES // 64


def cost(config: TrainConfig) -> float:
    """Expected multiply-accumulates of a run."""
    return forecast(config, SPACE, plan_for(config, SPACE, STEPS_PER_EPOCH)).macs


def baseline(method: str, scale: float = SCALE) -> TrainConfig:
    """A method's recipe for glyphs, longer."""
    return get_recipe(f"{method}-glyphs", scale=scale).config


def deps(
    share: float, *, warm_up: float = 145 / 270, ramp: bool = True, scale: float = SCALE
) -> DepsConfig:
    """DεpS with the whole epochs whose cost is nearest to a share of progressive shrinking's.

    Args:
        warm_up: the share of epochs before shrinking; the paper's is 145 of 270.
        scale: of progressive shrinking.
    """
    wanted = share * cost(baseline("progressive", scale))

    def config(epochs: int) -> DepsConfig:
        start = max(1, round(warm_up * epochs))
        length = int(ramp)
        return DepsConfig(epochs=epochs, ramp_end=start + length, ramp_epochs=length)

    after = bisect.bisect(range(80), wanted, lo=7, key=lambda epochs: cost(config(epochs)))
    return min(config(after - 1), config(after), key=lambda each: abs(cost(each) - wanted))


def methods() -> dict[str, TrainConfig]:
    """What is compared. Shares are of the cost of progressive shrinking."""
    return {
        "DεpS, 1/1.8": deps(1 / 1.8),
        "progressive": baseline("progressive"),
        "BigNAS": baseline("bignas"),
        "CompOFA": baseline("compofa"),
        "DεpS, 1/2.5": deps(1 / 2.5),
        "DεpS, 1": deps(1),
        "DεpS, 1/1.8, no ramp": deps(1 / 1.8, ramp=False),
        "DεpS, 1/1.8, warm-up 25 %": deps(1 / 1.8, warm_up=0.25),
        "DεpS, 1/1.8, warm-up 75 %": deps(1 / 1.8, warm_up=0.75),
    }


def other_lengths() -> dict[str, TrainConfig]:
    """Whether it is the length of training that decides: shorter and longer, one seed."""
    return {
        "DεpS, 1/1.8, x 2/3": deps(1 / 1.8, scale=SCALE * 2 / 3),
        "progressive, x 2/3": baseline("progressive", SCALE * 2 / 3),
        "DεpS, 1/1.8, x 2": deps(1 / 1.8, scale=2 * SCALE),
        "progressive, x 2": baseline("progressive", 2 * SCALE),
    }


@dataclass(frozen=True)
class Row:
    """One subnet of one run."""

    method: str
    seed: int
    subnet: str
    macs: int
    top1: float
    cost_macs: int
    seconds: float
    cpu_seconds: float
    epochs: int
    commit: str
    settings: str = ""

    @classmethod
    def parse(cls, values: list[str]) -> "Row":
        """From a line of the CSV, which may end before ``settings``."""
        made: dict[str, Any] = {
            field.name: field.type(value)  # type: ignore[operator]
            for field, value in zip(fields(cls), values, strict=False)
        }
        return cls(**made)


COLUMNS = [field.name for field in fields(Row)]


def digest_of(config: TrainConfig) -> str:
    """A name for settings, whatever the seed and the threads."""
    return digest(config.model_dump(mode="json", exclude={"seed", "threads"}))


def belongs(row: Row, method: str, config: TrainConfig) -> bool:
    """Whether a row is of a method with these settings."""
    if row.method != method:
        return False
    if row.settings:
        return row.settings == digest_of(config)
    return row.epochs == plan_for(config, SPACE, STEPS_PER_EPOCH).steps // STEPS_PER_EPOCH


def finished() -> list[Row]:
    """The rows there are."""
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="") as file:
        lines = list(csv.reader(file))
    return [Row.parse(line) for line in lines[1:]]


def append(rows: list[Row]) -> None:
    """Add a finished run's rows; where the header is missing or older, write it."""
    with RESULTS.open("a+", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        file.seek(0)
        header, *lines = list(csv.reader(file)) or [[]]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if header != COLUMNS:
            file.truncate(0)
            padded = [line + [""] * (len(COLUMNS) - len(line)) for line in lines]
            writer.writerows([COLUMNS, *padded])
        writer.writerows([getattr(row, name) for name in COLUMNS] for row in rows)
        file.write(text.getvalue())


def run(method: str, config: TrainConfig, seed: int, data: DataSplits, folder: Path) -> None:
    """Train (or go on), evaluate, append."""
    config = config.model_copy(update={"seed": seed, "threads": 1})
    with counted_seconds(folder / "seconds.json") as spent:
        train(config, SPACE, data, folder)
    net, _ = load_supernet(folder)
    calibration = data.calibration(config.calibration)
    with (folder / "metrics.csv").open() as file:
        *_, last = csv.DictReader(file)
    made_with = commit()
    rows = [
        Row(
            method,
            seed,
            name,
            SPACE.cost(arch).macs,
            top1(cut(net, arch, calibration), data.test, arch.resolution),
            int(last["cost_macs"]),
            round(spent[0], 1),
            round(spent[1], 1),
            int(last["epoch"]),
            made_with,
            digest_of(config),
        )
        for name, arch in standard_archs(SPACE).items()
    ]
    append(rows)
    shown = "  ".join(f"{row.subnet} {row.top1:.2f}" for row in rows)
    print(f"{method}, seed {seed}: {shown}; {spent[0]:.0f} s", flush=True)


def mean_pareto(points: list[tuple[int, float]]) -> float:
    """Area under accuracy over MACs, divided by the range of MACs."""
    points = sorted(points)
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
    return area / (points[-1][0] - points[0][0])


def summary(rows: list[Row], png: Path | None) -> None:
    """Print means over seeds, and draw them if a file is named."""
    names = list(standard_archs(SPACE))
    known = methods() | other_lengths()
    by_run: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.method in known and belongs(row, row.method, known[row.method]):
            by_run[row.method][row.seed].append(row)
    width = max(map(len, by_run), default=6)
    print(
        f"{'method':<{width}}  seeds  " + "".join(f"{n:>16}" for n in names) + "     mean Pareto"
        "     cost MACs     CPU s"
    )
    for method, seeds in by_run.items():
        cells = []
        for name in names:
            found = [row.top1 for run_ in seeds.values() for row in run_ if row.subnet == name]
            cells.append(_spread(found))
        areas = [mean_pareto([(r.macs, r.top1) for r in run_]) for run_ in seeds.values()]
        spent = statistics.mean(run_[0].cost_macs for run_ in seeds.values())
        counted = [run_[0].cpu_seconds for run_ in seeds.values()]
        known_seconds = [value for value in counted if not math.isnan(value)]
        seconds = statistics.mean(known_seconds) if known_seconds else math.nan
        print(
            f"{method:<{width}}  {len(seeds):>5}  "
            + "".join(f"{cell:>16}" for cell in cells)
            + f"{_spread(areas):>16}{spent:>14.3g}{seconds:>10.0f}"
        )
    if png is not None:
        _draw(by_run, png)


def _spread(values: list[float]) -> str:
    half = (max(values) - min(values)) / 2
    return f"{statistics.mean(values):.2f} ± {half:.2f}"


def _draw(by_run: dict[str, dict[int, list[Row]]], png: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for method, seeds in by_run.items():
        points: dict[int, list[float]] = defaultdict(list)
        for run_ in seeds.values():
            for row in run_:
                points[row.macs].append(row.top1)
        macs = sorted(points)
        means = [statistics.mean(points[m]) for m in macs]
        errors = [
            [mean - min(points[m]) for m, mean in zip(macs, means, strict=True)],
            [max(points[m]) - mean for m, mean in zip(macs, means, strict=True)],
        ]
        axes.errorbar([m / 1e6 for m in macs], means, errors, marker="o", capsize=2, label=method)
    axes.set(xlabel="MMACs", ylabel="test top-1, %", title="glyphs, mbv3-nano-32")
    axes.legend()
    figure.savefig(png, dpi=120)


def train_missing(folder: Path, seeds: int, minutes: float) -> None:
    """Train what no row is there for; several of these may work side by side."""
    data = load_data("glyphs", size=32)
    started = time.monotonic()
    wanted = [(seed, *item) for seed in range(seeds) for item in methods().items()]
    wanted += [(0, *item) for item in other_lengths().items()]
    for seed, method, config in wanted:
        if time.monotonic() - started > 60 * minutes:
            break
        name = "".join(c if c.isalnum() and c.isascii() else "-" for c in method)
        with contextlib.suppress(BusyError), exclusive(folder / f"{name}-{seed}"):
            if not any(row.seed == seed and belongs(row, method, config) for row in finished()):
                run(method, config, seed, data, folder / f"{name}-{seed}")


def main() -> None:
    """Train what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1e9, help="start no run after so many")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark-training"))
    parser.add_argument("--summary", action="store_true", help="only summarise what is there")
    parser.add_argument("--png", type=Path, help="also draw the summary there")
    arguments = parser.parse_args()
    if not arguments.summary:
        train_missing(arguments.runs, arguments.seeds, arguments.minutes)
    summary(finished(), arguments.png)


if __name__ == "__main__":
    main()
