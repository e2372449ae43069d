"""What pays most for a subnet of glyphs, at equal training cost: quality, diversity, cost, latency.

For a small, a middle and a large subnet, and every seed: the subnet as it is inherited from the
supernet; fine-tuned; fine-tuned with the soft labels of the supernet's largest; imitating that
stage by stage, from inherited and from random weights, and beside it labels alone from random ones;
and ensembles of three: dense ones, sparse tickets trained apart (DST) and in one run (EDST). Every
run gets the multiply-accumulates of fine-tuning that subnet by its recipe (12 epochs), a parent's
forward passes counted, as this machine computes them: dense. What they would be if zeros cost
nothing stands beside it; two more rows, "zeros free", have the budget in that account, and so take
longer.

It takes hours, so it resumes: a finished run's row is appended to the CSV, an unfinished run goes
on where it stopped. A run takes one thread: start it once for every core. Supernets are those of
``training.py`` ("DεpS, 1/1.8"), trained where they are missing::

    OMP_WAIT_POLICY=PASSIVE python benchmarks/specialize.py [--minutes 60] [--summary] [--png FILE]

Rows are judged on the 2,000 test images, corrupted in 25 ways too; epochs are chosen on the 1,500
validation images. ``cpu_seconds`` is training with its evaluations, without the judging. Latency is
measured afterwards, with nothing else at work, in turns with a reference: ``--latency``.
"""

import argparse
import contextlib
import json
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from figures import commit, counted_seconds
from specialize_rows import (
    COLUMNS,
    INHERITED,
    LAST,
    LATENCIES,
    METHODS,
    Row,
    archs,
    at_budget,
    budget,
    finished,
    is_there,
    keep,
    macs_of,
    settings_of,
)
from training import SPACE, deps

from ofa_deploy.data import DataSplits, load_data
from ofa_deploy.errors import BusyError, NoisyDeviceError
from ofa_deploy.files import exclusive
from ofa_deploy.pareto import Candidate
from ofa_deploy.specialize import (
    SpecializeConfig,
    judge,
    measured_latency,
    specialize,
)
from ofa_deploy.specialize.judge import member_probabilities
from ofa_deploy.supernet import Ensemble, load_members, save_subnet
from ofa_deploy.train import Evaluator, train

SUPERNET = "D-pS--1-1-8"  # as training.py names the folder
_TRIES = 3


def source(supernets: Path, seed: int, name: str, data: DataSplits) -> Path:
    """The subnet's file, cut from the seed's supernet; both made where they are missing."""
    run = supernets / f"{SUPERNET}-{seed}"
    config = deps(1 / 1.8).model_copy(update={"seed": seed, "threads": 1})
    train(config, SPACE, data, run)
    path = run / "subnets" / f"{name}.subnet.json"
    if not path.exists():
        evaluator = Evaluator.load(run, data, threads=1)
        arch = archs()[name]
        (top1,) = evaluator.validate([arch])
        candidate = Candidate(arch, measured={"top1": top1})
        record = evaluator.subnet_record(candidate.to_dict())
        save_subnet(run / "subnets" / name, evaluator.cut(arch), record)
    return path


def run(method: str, seed: int, name: str, path: Path, data: DataSplits, folder: Path) -> Row:
    """Train (or go on), judge."""
    arch = archs()[name]
    costs, spent, result = (0, 0), 0.0, path
    if method != INHERITED:
        config = at_budget(method, arch).model_copy(update={"seed": seed})
        with counted_seconds(folder / "seconds.json") as seconds:
            record = specialize(path, config, data, folder)
        spent = seconds[1]
        assert record.result is not None
        costs, result = (record.cost_macs, record.cost_sparse_macs), folder / record.result
    ensemble = load_members(result)
    judged = judge(ensemble, data.test).row()
    return Row(
        method=method,
        seed=seed,
        subnet=name,
        **{key: value for key, value in judged.items() if key in COLUMNS},  # type: ignore[arg-type]
        training_macs=costs[0],
        training_sparse_macs=costs[1],
        **dict.fromkeys(LATENCIES, math.nan),  # until --latency
        cpu_seconds=round(spent, 1),
        commit=commit(),
        settings=settings_of(method, arch),
    )


def latencies(ensemble: Ensemble) -> dict[str, float]:
    """Measured, or NaN where the machine would not stand still."""
    for _ in range(_TRIES):
        with contextlib.suppress(NoisyDeviceError):
            return measured_latency(ensemble)
    return dict.fromkeys(LATENCIES, math.nan)


def folder_of(runs: Path, method: str, seed: int, name: str) -> Path:
    """Where a run lies."""
    plain = "".join(c if c.isalnum() and c.isascii() else "-" for c in method)
    return runs / f"{name}-{plain}-{seed}"


def wanted(seeds: int) -> list[tuple[int, str, str]]:
    """Every run: seed, subnet, method."""
    first = [method for method in (INHERITED, *METHODS) if method not in LAST]
    return [
        (seed, name, method)
        for methods in (first, LAST)
        for seed in range(seeds)
        for name in archs()
        for method in methods
    ]


def train_missing(runs: Path, supernets: Path, seeds: int, minutes: float) -> None:
    """Make the rows that are missing; several of these may work side by side."""
    data = load_data("glyphs", size=32)
    started = time.monotonic()
    for seed, name, method in wanted(seeds):
        if time.monotonic() - started > 60 * minutes:
            return
        folder = folder_of(runs, method, seed, name)
        if is_there(seed, name, method):
            continue
        with contextlib.suppress(BusyError), exclusive(folder):
            if is_there(seed, name, method):
                continue
            with exclusive_wait(supernets / f"{SUPERNET}-{seed}"):
                path = source(supernets, seed, name, data)
            row = run(method, seed, name, path, data, folder)
            keep(row)
            print(
                f"seed {seed}, {name}, {method}: top-1 {row.top1:.2f}, NLL {row.nll:.3f}, ECE "
                f"{row.ece:.3f}, corrupted {row.top1_corrupted:.2f}; {row.cpu_seconds:.0f} CPU s",
                flush=True,
            )


@contextlib.contextmanager
def exclusive_wait(folder: Path) -> Any:
    """Hold a folder, waiting for whoever holds it: two processes need the same supernet."""
    while True:
        try:
            with exclusive(folder):
                yield
                return
        except BusyError:
            time.sleep(5)


def result_of(runs: Path, supernets: Path, row: Row, data: DataSplits) -> Path:
    """The file of what came out of a run."""
    if row.method == INHERITED:
        return source(supernets, row.seed, row.subnet, data)
    folder = folder_of(runs, row.method, row.seed, row.subnet)
    return folder / str(json.loads((folder / "run.json").read_text())["result"])


def measure_missing(runs: Path, supernets: Path, seeds: int) -> None:
    """Measure the latency of rows that have none; needs a machine with nothing else at work."""
    data = load_data("glyphs", size=32)
    for run_of in wanted(seeds):
        row = is_there(*run_of)
        if row is not None and math.isnan(row.latency_member):
            path = result_of(runs, supernets, row, data)
            keep(replace(row, **latencies(load_members(path))))


def confidences(runs: Path, supernets: Path, seeds: int) -> None:
    """Print how sure the networks of finished runs are on the test images, and how often right."""
    data = load_data("glyphs", size=32)
    for run_of in wanted(seeds):
        if row := is_there(*run_of):
            ensemble = load_members(result_of(runs, supernets, row, data))
            sure = member_probabilities(ensemble, data.test).mean(0).max(1).mean()
            named = f"seed {row.seed}, {row.subnet}, {row.method}"
            print(f"{named}: {100 * sure:.1f} % sure, {row.top1:.1f} % right", flush=True)


# -- what is printed and drawn --------------------------------------------------------------

SHOWN: dict[str, tuple[Callable[[Row], float], str]] = {
    "top-1 %": (lambda row: row.top1, ".2f"),
    "NLL": (lambda row: row.nll, ".3f"),
    "ECE": (lambda row: row.ece, ".3f"),
    "Brier": (lambda row: row.brier, ".3f"),
    "corrupted %": (lambda row: row.top1_corrupted, ".2f"),
    "member %": (lambda row: row.member_top1, ".2f"),
    "disagree": (lambda row: row.disagreement, ".3f"),
    "KL": (lambda row: row.kl, ".3f"),
    "train GMACs": (lambda row: row.training_macs / 1e9, ".0f"),
    "if sparse": (lambda row: row.training_sparse_macs / 1e9, ".0f"),
    "MMACs": (lambda row: row.macs / 1e6, ".2f"),
    "of living": (lambda row: row.sparse_macs / 1e6, ".2f"),
    "kB": (lambda row: row.dense_bytes / 1e3, ".0f"),
    "kB sparse": (lambda row: row.sparse_bytes / 1e3, ".0f"),
    "ms in turn": (lambda row: row.latency_in_turn, ".3f"),
    "ms stacked": (lambda row: row.latency_stacked, ".3f"),
    "CPU s": (lambda row: row.cpu_seconds, ".0f"),
}


def of_today(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Rows of today's settings: subnet to method to seeds."""
    found: dict[str, dict[str, list[Row]]] = {name: defaultdict(list) for name in archs()}
    known = {
        (name, method): settings_of(method, arch)
        for name, arch in archs().items()
        for method in (INHERITED, *METHODS)
    }
    for row in rows:
        if known.get((row.subnet, row.method)) == row.settings:
            found[row.subnet][row.method].append(row)
    return found


def summary(rows: Sequence[Row], png: Path | None) -> None:
    """Print means over seeds (and half the range), and draw them if a file is named."""
    found = of_today(rows)
    for name, arch in archs().items():
        print(f"\n{name}: {SPACE.cost(arch).macs / 1e6:.2f} MMACs, {budget(arch):.3g} to train")
        width = max(map(len, METHODS))
        print(f"{'method':<{width}}  seeds" + "".join(f"{title:>15}" for title in SHOWN))
        for method in (INHERITED, *METHODS):
            if of_method := found[name].get(method):
                cells = [
                    spread([value(row) for row in of_method], form)
                    for value, form in SHOWN.values()
                ]
                shown = "".join(f"{cell:>15}" for cell in cells)
                print(f"{method:<{width}}  {len(of_method):>5}{shown}")
    if png is not None:
        draw(found, png)


def spread(values: Sequence[float], form: str) -> str:
    """Mean and half the range."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    half = (max(known) - min(known)) / 2
    return f"{statistics.mean(known):{form}}" + (f" ± {half:{form}}" if half else "")


def draw(found: dict[str, dict[str, list[Row]]], png: Path) -> None:
    """Accuracy, likelihood, calibration and robustness by method; accuracy over latency."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 2, figsize=(13, 13), layout="constrained")
    order = [INHERITED, *METHODS]
    colours = dict(zip(archs(), ("tab:blue", "tab:orange", "tab:green"), strict=True))
    panels = ("top-1 %", "NLL", "ECE", "corrupted %")
    for axis, title in zip(axes.flat, panels, strict=False):
        value, _ = SHOWN[title]
        for shift, (name, colour) in enumerate(colours.items()):
            for place, method in enumerate(order):
                points = [value(row) for row in found[name].get(method, [])]
                if points:
                    at = place + 0.2 * (shift - 1)
                    axis.plot([at] * len(points), points, ".", color=colour, alpha=0.5)
                    label = name if place == 0 else None
                    axis.plot(at, statistics.mean(points), "_", color=colour, ms=14, label=label)
        axis.set(title=title, xticks=range(len(order)))
        axis.set_xticklabels(order, rotation=25, ha="right", fontsize=8)
        axis.legend()
    for axis, title, across in (
        (axes[2, 0], "latency, ms (the lesser way)", lambda row: row.latency),
        (axes[2, 1], "training, GMACs, if zeros were free", SHOWN["if sparse"][0]),
    ):
        for place, method in enumerate(order):
            rows = [row for name in archs() for row in found[name].get(method, [])]
            points = [(across(row), row.top1) for row in rows if not math.isnan(across(row))]
            if points:
                marker = "osv^D<*PxXp"[place]
                axis.plot(*zip(*points, strict=True), marker, label=method, alpha=0.7)
        axis.set(xlabel=title, ylabel="test top-1, %")
        axis.legend(fontsize=8)
    figure.suptitle("glyphs, mbv3-nano-32: specialised at equal training cost")
    figure.savefig(png, dpi=110)


def plan() -> None:
    """Print every run's settings and cost before a second of it is spent."""
    for name, arch in archs().items():
        for method in METHODS:
            config = at_budget(method, arch)
            lengths = {k: v for k, v in asdict_of(config).items() if k.endswith("epochs")}
            both = (macs_of(config, arch, zeros_free=free) for free in (False, True))
            shown = "{:.4g} MACs, {:.4g} if zeros were free".format(*both)
            print(f"{name}, {method}: {shown}, {lengths}")


def asdict_of(config: SpecializeConfig) -> dict[str, Any]:
    """Its settings, lengths rounded for reading."""
    return {
        key: round(value, 3) if isinstance(value, float) else value
        for key, value in config.model_dump().items()
    }


def main() -> None:
    """Make what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1e9, help="start no run after so many")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark-specialize"))
    parser.add_argument("--supernets", type=Path, default=Path("runs/benchmark-training"))
    parser.add_argument("--plan", action="store_true", help="only print lengths and costs")
    parser.add_argument("--latency", action="store_true", help="only measure what has no latency")
    parser.add_argument("--confidence", action="store_true", help="only print how sure they are")
    parser.add_argument("--summary", action="store_true", help="only summarise what is there")
    parser.add_argument("--png", type=Path, help="also draw the summary there")
    arguments = parser.parse_args()
    if arguments.plan:
        plan()
        return
    if arguments.confidence:
        confidences(arguments.runs, arguments.supernets, arguments.seeds)
        return
    if arguments.latency:
        measure_missing(arguments.runs, arguments.supernets, arguments.seeds)
    elif not arguments.summary:
        train_missing(arguments.runs, arguments.supernets, arguments.seeds, arguments.minutes)
    summary(finished(), arguments.png)


if __name__ == "__main__":
    main()
