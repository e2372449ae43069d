"""Speed and accuracy of each part of the main job, on this machine.

Prints: supernet training images/s (largest only, and a full DεpS step), table building time and
entries, prediction error on random whole networks measured in the same run, search archs/s, and
export time. Run it on an otherwise idle machine::

    python benchmarks/main_job.py [--networks 50]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from figures import Figures, spread

from ofa_deploy.cost import AdditiveModel, macs_model
from ofa_deploy.data import DataSplits, glyphs
from ofa_deploy.graph import build_onnx
from ofa_deploy.hardware import LatencyTable, load_device
from ofa_deploy.pareto import Candidate
from ofa_deploy.predict import HoldoutError, fit_accuracy, latency_model
from ofa_deploy.profiling import profile_space
from ofa_deploy.search import search
from ofa_deploy.space import SearchSpace, get_space
from ofa_deploy.supernet import Supernet, cut, folded_weights
from ofa_deploy.train import DepsConfig, Trainer
from ofa_deploy.train.threads import keep_freed_memory


def training(figures: Figures, space: SearchSpace, threads: int) -> None:
    """Images a second of the two kinds of step, interleaved."""
    images = glyphs("train", 2_000)
    data = DataSplits("glyphs", images, images, images)
    config = DepsConfig(epochs=1_000, ramp_end=500, ramp_epochs=499, threads=threads)
    torch.set_num_threads(threads)
    keep_freed_memory()
    trainer = Trainer(space, config, data)
    rates: dict[str, list[float]] = {"largest only": [], "full DεpS step": []}
    starts = {"largest only": 0, "full DεpS step": trainer.plan.first_step("ramp") + 1}
    for attempt in range(8):
        for kind, first in starts.items():
            trainer.seek(first)
            started = time.perf_counter()
            for _ in range(5):
                trainer.advance()
            if attempt:
                rates[kind].append(5 * config.batch / (time.perf_counter() - started))
    for kind, values in rates.items():
        figures.line(f"training, {kind}, {threads} threads, images/s", spread(values))


def profiling(figures: Figures, space: SearchSpace, networks: int) -> LatencyTable:
    """Build a table with extra hold-out networks; they never take part in calibration."""
    started = time.perf_counter()
    table = profile_space(space, load_device("local"), holdout=networks)
    seconds = time.perf_counter() - started
    figures.line(
        f"profile, {len(table.blocks)} blocks and {len(table.networks)} networks, s",
        f"{seconds:.1f}",
    )
    figures.line("other load meanwhile", f"{table.other_load:.1%}")
    archs, ms = table.archs("holdout")
    measured = np.array(ms)
    models = {
        "calibrated table": latency_model(space, table),
        "plain sum of blocks": AdditiveModel.from_blocks(space, table.value),
    }
    for name, model in models.items():
        figures.line(f"prediction, {name}", str(HoldoutError.of(model.predict(archs), measured)))
    return table


def searching(figures: Figures, space: SearchSpace, table: LatencyTable) -> None:
    """Networks scored a second, alone and in a whole search."""
    latency = latency_model(space, table)
    rng = np.random.default_rng(0)
    some = space.sample(rng, 40)
    # Speed does not depend on the accuracies, so a stand-in for measured ones will do.
    accuracy = fit_accuracy(space, some, 50 + 10 * np.log(macs_model(space).predict(some) / 1e6))
    many = space.sample(rng, 1_000_000)

    def rate(work: Callable[[], object], n: int) -> str:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            work()
            times.append(n / (time.perf_counter() - started))
        return spread(times)

    figures.line("latency table, archs/s", rate(lambda: latency.predict(many), len(many)))
    figures.line("accuracy model, archs/s", rate(lambda: accuracy.predict(many[:100_000]), 100_000))
    least, greatest = latency.bounds()
    budget = [f"latency <= {(least + greatest) / 2} ms"]
    scored = 402 + 50 * 400  # at most: children that repeat a parent are not scored again
    figures.line(
        "whole search, new networks scored, archs/s",
        rate(lambda: search(space, accuracy=accuracy, latency=latency, constraints=budget), scored),
    )


def exporting(figures: Figures, space: SearchSpace) -> None:
    """Milliseconds from a recalibrated subnet to an ONNX file, smallest and largest."""
    net = Supernet(space)
    calibration = glyphs("train", 1_000)
    for name, arch in (("smallest", space.smallest), ("largest", space.largest)):
        subnet = cut(net, arch, calibration)
        blocks = space.lower(Candidate(arch).arch)
        with tempfile.TemporaryDirectory() as folder:
            times = []
            for attempt in range(10):
                started = time.perf_counter()
                model = build_onnx(blocks, folded_weights(subnet))
                Path(folder, f"{attempt}.onnx").write_bytes(model.SerializeToString())
                times.append(1e3 * (time.perf_counter() - started))
        figures.line(f"export to ONNX, {name}, ms", spread(times))


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", type=int, default=50, help="hold-out networks to measure")
    parser.add_argument("--threads", type=int, default=2, help="training threads")
    parser.add_argument("--csv", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    figures = Figures()
    space = get_space("mbv3-nano-32")
    training(figures, space, arguments.threads)
    table = profiling(figures, space, arguments.networks)
    searching(figures, space, table)
    exporting(figures, space)
    figures.save(arguments.csv)


if __name__ == "__main__":
    main()
